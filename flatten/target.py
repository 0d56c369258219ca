"""Where the output goes: a file that appears whole or not at all, or a stream."""

import errno
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import FlattenError, UsageError, quoted

SUFFIX = ".flatten-part"
"""Ends the temporary names, so that a leftover of a killed run is recognisable."""


@contextmanager
def create(path: Path) -> Iterator[int]:
    """Open ``path`` for writing; yield the descriptor.

    A regular file is written under a temporary name beside it and renamed when the
    body ends without an exception; else the temporary file is removed and what was
    under ``path`` before stays. A symlink is followed. A device or FIFO is written
    as it is.

    Raises:
        UsageError: ``path`` is a directory.
        FlattenError: It cannot be created.
    """
    try:
        path = path.resolve()
        mode = path.stat().st_mode if path.exists() else stat.S_IFREG
        if stat.S_ISDIR(mode):
            raise UsageError(f"{quoted(str(path))} is a directory; name a file in it")
        if not stat.S_ISREG(mode):
            with open(path, "wb", buffering=0) as stream:
                yield stream.fileno()
            return
        descriptor, name = _open_beside(path)
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise FlattenError(f"{quoted(str(path))}: cannot create: {reason}") from error
    try:
        try:
            yield descriptor
        finally:
            os.close(descriptor)
        os.rename(name, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(name)
        raise


@contextmanager
def standard_output() -> Iterator[int]:
    """Yield standard output's descriptor.

    Raises:
        UsageError: It is a terminal.
    """
    if os.isatty(1):
        raise UsageError(
            "a tar will not be written to a terminal; use -o FILE, or a pipe"
        )
    sys.stdout.flush()
    yield 1


def _open_beside(path: Path) -> tuple[int, Path]:
    """Create a file of a new name beside ``path``, with the mode the umask leaves."""
    for number in range(1000):
        start = os.fsdecode(os.fsencode(path.name)[:200])
        name = path.with_name(f".{start}.{os.getpid()}.{number}{SUFFIX}")
        with suppress(FileExistsError):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            return os.open(name, flags, 0o666), name
    raise FileExistsError(errno.EEXIST, "too many temporary files", str(path))
