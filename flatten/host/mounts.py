"""Mount an EROFS index and the files that it points at, and unmount it.

Linux 6.12 and later read them as files. Before that, each needs a loop device, which
the kernel frees when the file system is unmounted.

The kernel keeps what is mounted open, so the index may be deleted afterwards.

Reference: fsopen(2), fsconfig(2), fsmount(2), move_mount(2); loop(4); linux/mount.h.
"""

import ctypes
import errno
import fcntl
import os
import re
import struct
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

from ..errors import FlattenError, quoted

_OLDEST: Final = (6, 4)  # reads blocks that are smaller than a page

_MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT = 429, 430, 431, 432  # on all architectures
_CLOEXEC: Final = 1  # of fsopen and fsmount
_SET_FLAG, _SET_STRING, _CREATE = 0, 1, 6
_READ_ONLY: Final = 1
_EMPTY_PATH: Final = 4
_MAX_STRING: Final = 255  # bytes of a value that fsconfig takes

_GET_FREE: Final = 0x4C82
_CONFIGURE: Final = 0x4C0A
_LOOP: Final = struct.Struct("=II52xI176x64x")  # fd, block size; lo_flags
_LOOP_FLAGS: Final = 1 | 4  # read only; freed after its last use


def mount_command(index: str, devices: Sequence[str]) -> tuple[str, ...]:
    """Return the command that mounts an index, without the directory at its end.

    Args:
        index: The index.
        devices: The files that it points at, in order.
    """
    options = ["ro", *(f"device={path}" for path in devices)]
    return "mount", "-t", "erofs", "-o", ",".join(options), index


def mount(index: Path, devices: Sequence[str], folder: Path) -> None:
    """Mount an index on a directory; only root can.

    Args:
        index: The index.
        devices: The files that it points at, in order.
        folder: The directory.

    Raises:
        FlattenError: The kernel refuses; the message has its reason.
    """
    paths = [str(index), *devices]
    with ExitStack() as opened:
        try:
            try:
                mounted = _create(paths, opened)
            except OSError as error:
                if error.errno != errno.ENOTBLK:
                    raise
                mounted = _create([_loop(path, opened) for path in paths], opened)
            _call(_MOVE_MOUNT, mounted, b"", -100, os.fsencode(folder), _EMPTY_PATH)
        except OSError as error:
            raise FlattenError(
                f"{quoted(str(folder))}: cannot mount: {error.strerror}{_hint(error)}"
            ) from error


def unmount(folder: Path) -> None:
    """Unmount the EROFS that is mounted on a directory.

    Raises:
        FlattenError: There is none, or it is in use.
    """
    whole = os.fsencode(folder.resolve())
    with open("/proc/self/mountinfo", "rb") as rows:
        found = [row for row in map(bytes.split, rows) if _unescaped(row[4]) == whole]
    if not found or found[-1][found[-1].index(b"-") + 1] != b"erofs":
        raise FlattenError(f"{quoted(str(folder))}: no EROFS is mounted here")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(whole, 0):
        reason = os.strerror(ctypes.get_errno())
        raise FlattenError(f"{quoted(str(folder))}: cannot unmount: {reason}")


def _unescaped(text: bytes) -> bytes:
    r"""Return a path of /proc/self/mountinfo as it is.

    >>> _unescaped(rb"/a\040b")
    b'/a b'
    """
    return re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), text)


def _create(paths: Sequence[str], opened: ExitStack) -> int:
    """Return a descriptor of a new mount of an index, the first of some files.

    Raises:
        OSError: The kernel refuses; ``strerror`` has the lines of its log too.
    """
    context = _descriptor(_call(_FSOPEN, b"erofs", _CLOEXEC), opened)
    try:
        for key, path in zip(["source", *["device"] * len(paths)], paths, strict=False):
            value = os.fsencode(path)
            if len(value) > _MAX_STRING:
                held = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                value = b"/proc/self/fd/%d" % _descriptor(held, opened)
            _call(_FSCONFIG, context, _SET_STRING, key.encode(), value, 0)
        _call(_FSCONFIG, context, _SET_FLAG, b"ro", None, 0)
        _call(_FSCONFIG, context, _CREATE, None, None, 0)
    except OSError as error:
        said = [error.strerror or ""]
        with suppress(OSError):  # ENODATA: that was the last line
            while True:
                line = os.read(context, 4096).decode("utf-8", "replace").strip()
                said.append(line.partition(" ")[2])  # without the level
        raise OSError(error.errno, "; ".join(said)) from error
    return _descriptor(_call(_FSMOUNT, context, _CLOEXEC, _READ_ONLY), opened)


def _loop(path: str, opened: ExitStack) -> str:
    """Return the path of a loop device for a file; it is freed after its last use."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while True:
            control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
            try:
                device = f"/dev/loop{fcntl.ioctl(control, _GET_FREE)}"
            finally:
                os.close(control)
            loop = _descriptor(os.open(device, os.O_RDONLY | os.O_CLOEXEC), opened)
            try:
                fcntl.ioctl(loop, _CONFIGURE, _LOOP.pack(file, 0, _LOOP_FLAGS))
            except OSError as error:
                if error.errno != errno.EBUSY:  # another process was faster
                    raise
            else:
                return device
    finally:
        os.close(file)


def _descriptor(descriptor: int, opened: ExitStack) -> int:
    opened.callback(os.close, descriptor)
    return descriptor


def _call(number: int, *arguments: bytes | int | None) -> int:
    """Do a system call that the C library may not have.

    Raises:
        OSError: It failed.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    done: int = libc.syscall(number, *arguments)
    if done < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return done


def _hint(error: OSError) -> str:
    """Return what to do about an error, if that is known."""
    release = os.uname().release
    found = re.match(r"(\d+)\.(\d+)", release)
    version = (int(found[1]), int(found[2])) if found else _OLDEST
    if version < _OLDEST:
        return f"; an index needs Linux 6.4 or later, this is {release}"
    if error.errno == errno.ENODEV:
        return "; this kernel has no EROFS"
    return ""
