"""Create outputs that are complete or not there at all.

An output is written under a temporary name beside its own, next to or in a file that is
locked with flock(2). The kernel drops the lock when the process ends, however it ends.
A later run to the same output removes leftovers: temporary names of the same user whose
lock is free.

=================================  =================================================
``.OUT.<12 hex>.flatten-part``     the output, or an empty file; locked
``.OUT.<12 hex>.flatten-made``     a directory, or a file that another program makes
=================================  =================================================
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

SUFFIX: Final = ".flatten-part"
MADE: Final = ".flatten-made"
_NEW: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL  # images read what they have written


def nothing() -> None:
    """Do nothing."""


@contextmanager
def create(
    path: Path, *, sync: bool = True, before_commit: Callable[[], object] = nothing
) -> Iterator[int]:
    """Open ``path`` for writing; yield the descriptor.

    A regular file is written under a temporary name beside it and renamed when the
    body ends normally. Otherwise the temporary file is removed, and a file that was at
    ``path`` before is unchanged. A symlink is followed. A device or FIFO is written
    directly.

    Args:
        path: The output.
        sync: Wait until a file is on the disk before it gets its name, so that after a
            power cut either the complete new file or the old one is there.
        before_commit: Called before the rename; an exception prevents the rename.

    Raises:
        UsageError: ``path`` is a directory.
        FlattenError: The file cannot be created or written.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        mode = stat.S_IFREG | 0o666 & ~_umask()
    except (OSError, ValueError) as error:
        raise _failed(path, "create", error) from error
    if stat.S_ISDIR(mode):
        raise UsageError(
            f"{quoted(str(path))} is a directory; name a file in it, or "
            f"end it with a slash: {path}/"
        )
    if stat.S_ISREG(mode):
        with _claimed(path) as (name, whole, out):
            _set_mode(path, out, mode)
            yield out
            _flush(path, out, sync=sync)
            before_commit()
            _rename(path, name, whole)
        return
    with _closing(_open(path, path, os.O_WRONLY)) as out:
        yield out
        _flush(path, out, sync=sync and stat.S_ISBLK(mode))
        before_commit()


@contextmanager
def create_by_name(
    path: Path, *, sync: bool = True, before_commit: Callable[[], object] = nothing
) -> Iterator[Path]:
    """Yield a name beside ``path``, for a program that makes a file of that name.

    The file is renamed when the body ends normally. Otherwise it is removed, and a file
    that was at ``path`` before is unchanged. A symlink is followed. The arguments are
    those of ``create``.

    Raises:
        UsageError: ``path`` exists and is not a regular file.
        FlattenError: The file cannot be created or written.
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
            before_commit()
            _rename(path, made, whole)
        finally:
            _remove(made)


@contextmanager
def scratch_directory(path: Path) -> Iterator[Path]:
    """Yield a private directory beside ``path``.

    It is removed at the end with everything in it, unless it was renamed.

    Raises:
        FlattenError: The directory cannot be created.
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
    """Raise deferred write errors: flush the file, and close a duplicate descriptor."""
    try:
        if sync:
            os.fsync(descriptor)
        os.close(os.dup(descriptor))  # NFS reports a full disk on closing
    except OSError as error:
        raise _failed(path, "write", error) from error


@contextmanager
def _claimed(path: Path) -> Iterator[tuple[Path, Path, int]]:
    """Create and lock a file beside ``path``.

    The name is chosen before the file is created, so that it can be removed even if a
    signal arrives in between.

    Yields:
        The file's name, ``path`` resolved, and the file's descriptor.
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
    """Lock a new file; return False if another run has already removed it."""
    with suppress(OSError):  # without locks, no run removes leftovers
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    return os.fstat(descriptor).st_nlink > 0


def _rename(path: Path, name: Path, whole: Path) -> None:
    try:
        os.rename(name, whole)
    except OSError as error:
        raise _failed(path, "create", error) from error


def _remove(name: Path) -> None:
    """Remove a file or directory if it exists, even if a signal arrives meanwhile."""
    try:
        _unlink(name)
    except BaseException:
        _unlink(name)
        raise


def _unlink(name: Path) -> None:
    """Remove a file, or a directory with everything in it."""
    try:
        os.unlink(name)
    except IsADirectoryError:
        from ..host.beneath import remove_tree  # for directories only

        with suppress(OSError):
            remove_tree(name)
    except OSError:
        pass  # it does not exist, or was renamed


def _sweep(folder: Path, start: str) -> None:
    """Remove the leftovers of runs to the same output that were killed."""
    ours = re.compile(
        f"({re.escape(start)}[0-9a-f]{{12}})(?:{re.escape(SUFFIX)}|{re.escape(MADE)})"
    )
    with suppress(OSError):
        for found in filter(None, map(ours.fullmatch, os.listdir(folder))):
            with suppress(OSError):
                name, locked = folder / found[0], folder / (found[1] + SUFFIX)
                if name == locked:
                    _remove_dead(name)
                elif not os.path.lexists(locked) and _is_ours(name):
                    _unlink(name)  # its program outlived the run


def _is_ours(name: Path) -> bool:
    return name.lstat().st_uid == os.geteuid()


def _remove_dead(name: Path) -> None:
    """Remove a temporary file of this user if no run holds its lock."""
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
    """Return the umask from /proc (proc(5)); os.umask would change it for all threads.

    Without /proc, new files are private.
    """
    with suppress(OSError), open("/proc/self/status", "rb") as status:
        for line in status:
            if line.startswith(b"Umask:"):
                return int(line.split()[1], 8)
    return 0o077
