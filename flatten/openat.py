"""Directories below an open one: no path leads out of it, and none through a symlink.

The kernel sees to that with openat2, since Linux 5.6; without it each component is
opened by itself, and a symlink refused.

Reference: openat2(2), "RESOLVE_BENEATH" and "RESOLVE_NO_SYMLINKS".
"""

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Final

MAX_PATH: Final = 4095  # bytes that the kernel takes for one path (PATH_MAX - 1)

_OPENAT2: Final = 437  # the same number on every architecture
_BENEATH_NO_SYMLINKS: Final = 0x08 | 0x04
_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NOT_HERE: Final = frozenset((errno.ENOSYS, errno.EPERM))  # seccomp says the latter

Opener = Callable[[int, bytes], int]


def open_directory(root: int, path: bytes) -> int:
    """Open the directory at ``path`` below the descriptor ``root``.

    ``path`` is relative, without ``..``; the root itself is ``b""``.

    Raises:
        OSError: It cannot be opened, or a component is a symlink (ELOOP, ENOTDIR).
    """
    return _opener()(root, path)


@cache
def _opener() -> Opener:
    """Return openat2 where the kernel has it, else the walk."""
    try:
        opener = _openat2()
        here = os.open(".", _FLAGS)
        try:
            os.close(opener(here, b""))
        finally:
            os.close(here)
    except (OSError, ImportError, AttributeError) as error:
        if isinstance(error, OSError) and error.errno not in _NOT_HERE:
            raise
        return open_each
    return opener


def _openat2() -> Opener:
    import ctypes  # noqa: PLC0415 - 10 ms, for directories only

    libc = ctypes.CDLL(None, use_errno=True)
    how = b"".join(
        number.to_bytes(8, sys.byteorder)
        for number in (_FLAGS, 0, _BENEATH_NO_SYMLINKS)
    )

    def open_beneath(root: int, path: bytes) -> int:
        descriptor: int = libc.syscall(_OPENAT2, root, path or b".", how, len(how))
        if descriptor < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), path)
        return descriptor

    return open_beneath


def open_each(root: int, path: bytes) -> int:
    """Open component after component, as kernels before 5.6 need it."""
    descriptor = os.open(".", _FLAGS, dir_fd=root)
    for part in path.split(b"/") if path else ():
        try:
            below = os.open(part, _FLAGS, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        descriptor = below
    return descriptor


def remove_tree(root: str | os.PathLike[str]) -> None:
    """Remove a directory and all below it, however deep, following no symlink.

    Raises:
        OSError: Something cannot be removed.
    """
    top = os.open(root, _FLAGS)
    try:
        found = [b""]
        for path in found:  # grows while it is gone through: parents come first
            found += _unlink_files(top, path)
        for path in reversed(found[1:]):
            parent, _, name = path.rpartition(b"/")
            with _opened(top, parent) as folder:
                os.rmdir(name, dir_fd=folder)
    finally:
        os.close(top)
    os.rmdir(root)


def _unlink_files(top: int, path: bytes) -> list[bytes]:
    """Remove what is no directory in a directory; return the directories in it."""
    left = []
    with _opened(top, path) as folder:
        os.chmod(folder, 0o700)
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    left.append(os.path.join(path, os.fsencode(entry.name)))
                else:
                    os.unlink(entry.name, dir_fd=folder)
    return left


@contextmanager
def _opened(root: int, path: bytes) -> Iterator[int]:
    descriptor = open_directory(root, path)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
