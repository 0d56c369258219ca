"""Where the output goes: a file that appears whole or not at all, or a stream."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from .errors import FlattenError, UsageError, quoted

SUFFIX = ".flatten-part"
"""Ends the temporary names, so that a leftover of a killed run is recognisable."""

_NEW: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL  # images read what they have written


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
        mode = path.stat().st_mode
    except FileNotFoundError:
        mode = stat.S_IFREG | 0o666 & ~_umask()
    except (OSError, ValueError) as error:
        raise _cannot_create(path, error) from error
    if stat.S_ISDIR(mode):
        raise UsageError(f"{quoted(str(path))} is a directory; name a file in it, or "
                         f"end it with a slash: {path}/")  # fmt: skip
    if not stat.S_ISREG(mode):
        with _open(path, path, os.O_WRONLY) as out:
            yield out
        return
    with _appearing(path) as name, _open(path, name, _NEW) as out:
        os.fchmod(out, stat.S_IMODE(mode))
        yield out


@contextmanager
def create_by_name(path: Path) -> Iterator[Path]:
    """Yield a name beside ``path``, for a program that makes a file of that name.

    The file is renamed when the body ends without an exception; else it is removed,
    and what was under ``path`` before stays. A symlink is followed.

    Raises:
        UsageError: There is something at ``path`` that is no regular file.
        FlattenError: It cannot be created.
    """
    if path.exists() and not path.is_file():
        raise UsageError(f"{quoted(str(path))} is not a regular file")
    mode = path.stat().st_mode if path.exists() else 0o666 & ~_umask()
    with _appearing(path) as name:
        yield name
        os.chmod(name, stat.S_IMODE(mode))


@contextmanager
def scratch_directory(path: Path) -> Iterator[Path]:
    """Yield a private directory beside ``path``, removed at the end with all in it.

    Raises:
        FlattenError: It cannot be made.
    """
    from .openat import remove_tree  # noqa: PLC0415 - for staging only

    folder, _ = _beside(path)
    try:
        os.mkdir(folder, 0o700)
    except OSError as error:
        raise _cannot_create(path, error) from error
    try:
        yield folder
    finally:
        with suppress(OSError):
            remove_tree(folder)


@contextmanager
def _open(path: Path, name: Path, flags: int) -> Iterator[int]:
    """Open ``name`` to write what will be ``path``; yield the descriptor."""
    try:
        descriptor = os.open(name, os.O_CLOEXEC | flags, 0o600)
    except OSError as error:
        raise _cannot_create(path, error) from error
    try:
        yield descriptor
    except BaseException:
        os.close(descriptor)
        raise
    try:
        os.close(descriptor)
    except OSError as error:  # as of a disk on the network that is full
        raise FlattenError(f"{quoted(str(path))}: {error.strerror}") from error


@contextmanager
def _appearing(path: Path) -> Iterator[Path]:
    """Yield a name beside ``path``, which is renamed at the end, or removed.

    The name is chosen before anything is created: a signal may come at any moment,
    and what is removed then is ours.
    """
    name, whole = _beside(path)
    try:
        yield name
        try:
            os.rename(name, whole)
        except OSError as error:
            raise _cannot_create(path, error) from error
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise


def _beside(path: Path) -> tuple[Path, Path]:
    """Return a new name beside ``path``, and that itself, both behind symlinks."""
    try:
        whole = path.resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise _cannot_create(path, error) from error
    start = os.fsdecode(os.fsencode(whole.name)[:180])
    return whole.with_name(f".{start}.{os.urandom(6).hex()}{SUFFIX}"), whole


def _cannot_create(path: Path, error: Exception) -> FlattenError:
    reason = getattr(error, "strerror", None) or str(error)
    return FlattenError(f"{quoted(str(path))}: cannot create: {reason}")


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
    yield 1


def _umask() -> int:
    """Return the umask, which the system tells only to whoever sets it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
