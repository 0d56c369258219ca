"""Where the output goes: a file that appears whole or not at all, or a stream.

A file is written under a temporary name beside its own, under a lock of flock(2), which
the kernel drops when the process ends, however it ends. A later run to the same output
removes what has such a name, belongs to the same user and is not locked: it is the
leftover of a run that was killed.

=================================  ================================================
``.OUT.<12 hex>.flatten-part``     what is written, or an empty file; locked
``.OUT.<12 hex>.flatten-made``     what another program makes, file or directory
=================================  ================================================
"""

import fcntl
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from ..errors import FlattenError, UsageError, quoted
from ..options import nothing

SUFFIX = ".flatten-part"
MADE = ".flatten-made"

_NEW: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL  # images read what they have written


@contextmanager
def create(
    path: Path, *, sync: bool = True, settle: Callable[[], object] = nothing
) -> Iterator[int]:
    """Open ``path`` for writing; yield the descriptor.

    A regular file is written under a temporary name beside it and renamed when the
    body ends without an exception; else the temporary file is removed and what was
    under ``path`` before stays. A symlink is followed. A device or FIFO is written
    as it is.

    Args:
        path: Where the output will be.
        sync: Wait until a file is on the disk before it gets its name, so that a power
            cut leaves it whole, or leaves what was there.
        settle: Called when all is right, before the rename; what it raises prevents it.

    Raises:
        UsageError: ``path`` is a directory.
        FlattenError: It cannot be created.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        mode = stat.S_IFREG | 0o666 & ~_umask()
    except (OSError, ValueError) as error:
        raise _failed(path, "create", error) from error
    if stat.S_ISDIR(mode):
        raise UsageError(f"{quoted(str(path))} is a directory; name a file in it, or "
                         f"end it with a slash: {path}/")  # fmt: skip
    if stat.S_ISREG(mode):
        with _claimed(path) as (name, whole, out):
            _set_mode(path, out, mode)
            yield out
            _flush(path, out, sync=sync)
            settle()
            _rename(path, name, whole)
        return
    with _closing(_open(path, path, os.O_WRONLY)) as out:
        yield out
        _flush(path, out, sync=sync and stat.S_ISBLK(mode))
        settle()


@contextmanager
def create_by_name(
    path: Path, *, sync: bool = True, settle: Callable[[], object] = nothing
) -> Iterator[Path]:
    """Yield a name beside ``path``, for a program that makes a file of that name.

    The file is renamed when the body ends without an exception; else it is removed,
    and what was under ``path`` before stays. A symlink is followed. The arguments are
    those of ``create``.

    Raises:
        UsageError: There is something at ``path`` that is no regular file.
        FlattenError: It cannot be created.
    """
    if path.exists() and not path.is_file():
        raise UsageError(f"{quoted(str(path))} is not a regular file")
    mode = path.stat().st_mode if path.exists() else 0o666 & ~_umask()
    with _claimed(path) as (name, whole, _):
        made = name.with_suffix(MADE)
        try:
            yield made
            _set_mode(path, made, mode)
            with _closing(_open(path, made, os.O_WRONLY)) as out:
                _flush(path, out, sync=sync)
            settle()
            _rename(path, made, whole)
        finally:
            _remove(made)


@contextmanager
def scratch_directory(path: Path) -> Iterator[Path]:
    """Yield a private directory beside ``path``, removed at the end with all in it.

    Raises:
        FlattenError: It cannot be made.
    """
    with _claimed(path) as (name, _, _):
        folder = name.with_suffix(MADE)
        try:
            os.mkdir(folder, 0o700)
        except OSError as error:
            raise _failed(path, "create", error) from error
        try:
            yield folder
        finally:
            _remove(folder)


def _open(path: Path, name: Path, flags: int) -> int:
    """Open ``name`` to write what will be ``path``."""
    try:
        return os.open(name, os.O_CLOEXEC | flags, 0o600)
    except OSError as error:
        raise _failed(path, "create", error) from error


def _set_mode(path: Path, target: int | Path, mode: int) -> None:
    try:
        os.chmod(target, stat.S_IMODE(mode))
    except OSError as error:
        raise _failed(path, "set the mode", error) from error


@contextmanager
def _closing(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        with suppress(OSError):
            os.close(descriptor)


def _flush(path: Path, descriptor: int, *, sync: bool) -> None:
    """Hear what writing has to say yet: of the disk, or as it is heard on closing."""
    try:
        if sync:
            os.fsync(descriptor)
        os.close(os.dup(descriptor))  # as of a disk on the network that is full
    except OSError as error:
        raise _failed(path, "write", error) from error


@contextmanager
def _claimed(path: Path) -> Iterator[tuple[Path, Path, int]]:
    """Make and lock a file beside ``path``; yield its name, ``path`` resolved, its fd.

    The name is chosen before anything is created: a signal may come at any moment,
    and what is removed then is ours. If it is there in the end, it is removed.
    """
    try:
        whole = path.resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise _failed(path, "create", error) from error
    start = f".{os.fsdecode(os.fsencode(whole.name)[:180])}."
    _sweep(whole.parent, start)
    locked = False
    while not locked:
        name = whole.with_name(f"{start}{os.urandom(6).hex()}{SUFFIX}")
        try:
            with _closing(_open(path, name, _NEW)) as descriptor:
                locked = _lock(descriptor)
                if locked:
                    yield name, whole, descriptor
        finally:
            _remove(name)


def _lock(descriptor: int) -> bool:
    """Lock a new file; False where another run has just taken it for a leftover."""
    with suppress(OSError):  # where there are no locks, nobody removes it
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    return os.fstat(descriptor).st_nlink > 0


def _rename(path: Path, name: Path, whole: Path) -> None:
    try:
        os.rename(name, whole)
    except OSError as error:
        raise _failed(path, "create", error) from error


def _remove(name: Path) -> None:
    """Remove what there may be, also when a signal comes now; it comes but once."""
    try:
        _unlink(name)
    except BaseException:
        _unlink(name)
        raise


def _unlink(name: Path) -> None:
    """Remove a file, or a directory with all in it."""
    try:
        os.unlink(name)
    except IsADirectoryError:
        from ..host.beneath import remove_tree  # noqa: PLC0415 - for staging only

        with suppress(OSError):
            remove_tree(name)
    except OSError:
        pass  # it is not there, or was renamed


def _sweep(folder: Path, start: str) -> None:
    """Remove what runs to the same output left when they were killed."""
    ours = re.compile(
        f"({re.escape(start)}[0-9a-f]{{12}})({re.escape(SUFFIX)}|{re.escape(MADE)})"
    )
    with suppress(OSError):
        names = os.listdir(folder)
        for found in filter(None, map(ours.fullmatch, names)):
            with suppress(OSError):
                if found[2] == SUFFIX:
                    _remove_dead(folder / found[0])
                elif found[1] + SUFFIX not in names and _is_ours(folder / found[0]):
                    _unlink(folder / found[0])  # by a program that outlived its run


def _is_ours(name: Path) -> bool:
    return name.lstat().st_uid == os.geteuid()


def _remove_dead(name: Path) -> None:
    """Remove a temporary file if nobody writes it any more."""
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _unlink(name.with_suffix(MADE))
            os.unlink(name)
    finally:
        os.close(descriptor)


def _failed(path: Path, verb: str, error: Exception) -> FlattenError:
    reason = getattr(error, "strerror", None) or str(error)
    return FlattenError(f"{quoted(str(path))}: cannot {verb}: {reason}")


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
