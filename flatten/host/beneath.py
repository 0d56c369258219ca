"""Access files below one directory of the host, without ever leaving it.

Each component of a path is opened separately and never through a symlink: symlinks are
read and followed here, as in a chroot, so a foreign disk cannot lead elsewhere.
Files are written and removed without following any symlink.
"""

import errno
import os
import re
import stat
import threading
from collections import OrderedDict
from contextlib import suppress
from typing import Final, Self

from ..errors import quoted
from ..tar.members import MAX_LINKS

MAX_OPEN: Final = 256  # directories kept open; a process may have 1,024 open files

_DIRECTORY: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_IS_LINK: Final = (errno.ENOTDIR, errno.ELOOP)  # possibly a symlink: try readlink

_ESCAPE: Final = re.compile(rb"\\([0-7]{3})")

_Key = tuple[int, bytes]  # a root, and a path below it


class _Opened:
    """The most recently used directories, kept open, and a lock for their users."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.descriptors: OrderedDict[_Key, int] = OrderedDict()
        self.roots = 0

    def keep(self, key: _Key, descriptor: int) -> int:
        """Keep a descriptor, and close the least recently used if there are many."""
        self.descriptors[key] = descriptor
        if len(self.descriptors) > MAX_OPEN:
            os.close(self.descriptors.popitem(last=False)[1])
        return descriptor

    def close(self) -> None:
        with self.lock:
            while self.descriptors:
                os.close(self.descriptors.popitem()[1])


class Beneath:
    """A directory of the host, and the files below it.

    Paths are relative, normalised bytes. All threads may use it. Failures raise
    OSError; the caller adds the layer.

    Attributes:
        name: Its path, for messages.
    """

    def __init__(self, path: str, *, moved: bool = False) -> None:
        """Open a directory of the host.

        Args:
            path: Its path; symlinks in it are followed.
            moved: Whether the directory may have been moved. If so, an absolute symlink
                target is resolved by its longest tail that exists below this directory;
                otherwise relative to this directory.
        """
        self.name = path
        self._moved = moved
        self._opened = _Opened()
        self._key = 0
        top = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._top = top, b""  # a descriptor, and the way down from there

    def below(self, path: bytes) -> "Beneath":
        """Return a subdirectory as a root of its own, which symlinks cannot leave.

        It is opened on first use; closing this object closes it too.
        """
        with self._opened.lock:
            canonical = self._resolve(path)
            self._opened.roots += 1
        view = object.__new__(type(self))
        view.name = f"{self.name}/{os.fsdecode(path)}"
        view._moved = False
        view._opened = self._opened
        view._key = self._opened.roots
        down = self._top[1] + b"/" + canonical if self._top[1] else canonical
        view._top = self._top[0], down
        return view

    def __enter__(self) -> Self:
        """Return the object itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close all open directories."""
        self.close()

    def close(self) -> None:
        """Close all open directories; a second call does nothing."""
        self._opened.close()
        if self._top[0] >= 0:
            os.close(self._top[0])
            self._top = -1, b""

    def open(self, path: bytes) -> int:
        """Open a file for reading; a FIFO is opened without waiting for a writer.

        Raises:
            OSError: With ELOOP, if the last component is a symlink.
        """
        parent, name = _split(path)
        with self._opened.lock:
            return os.open(name, _FILE, dir_fd=self._directory(parent))

    def status(self, path: bytes) -> os.stat_result:
        """Return the status of a file, or of a symlink itself."""
        parent, name = _split(path)
        with self._opened.lock:
            directory = self._directory(parent)
            return os.stat(name, dir_fd=directory, follow_symlinks=False)

    def exists(self, path: bytes) -> bool:
        """Return True if the path exists, including as a dangling symlink."""
        try:
            self.status(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def is_directory(self, path: bytes) -> bool:
        """Return True if the path is a directory or a symlink to one."""
        try:
            with self._opened.lock:
                self._directory(path)
        except OSError as error:
            if error.errno in (errno.ENOENT, *_IS_LINK):
                return False
            raise
        return True

    def names(self, path: bytes = b"") -> list[bytes]:
        """List a directory, sorted."""
        with self._opened.lock:
            descriptor = self._listable(path)
        try:
            return sorted(map(os.fsencode, os.listdir(descriptor)))
        finally:
            os.close(descriptor)

    def link(self, path: bytes) -> bytes:
        """Return the target of a symlink."""
        parent, name = _split(path)
        with self._opened.lock:
            return os.readlink(name, dir_fd=self._directory(parent))

    def xattrs(self, path: bytes) -> dict[bytes, bytes]:
        """Return the extended attributes of a file, or of a symlink itself.

        Names with the prefix ``trusted.`` are only visible to root (CAP_SYS_ADMIN).
        """
        parent, name = _split(path)
        with self._opened.lock:
            # xattrs of symlinks and devices can only be read by path.
            found = b"/proc/self/fd/%d/%b" % (self._directory(parent), name)
            try:
                names = os.listxattr(found, follow_symlinks=False)
            except OSError as error:
                if error.errno != errno.ENOTSUP:
                    raise
                names = []
            return {
                os.fsencode(key): os.getxattr(found, key, follow_symlinks=False)
                for key in names
            }

    def regions(self, path: bytes, size: int) -> list[tuple[int, int]]:
        """Return a file's data regions up to ``size``: (offset, length), in order."""
        found, end = [], 0
        descriptor = self.open(path)
        try:
            while end < size:
                start = os.lseek(descriptor, end, os.SEEK_DATA)
                end = min(os.lseek(descriptor, start, os.SEEK_HOLE), size)
                found.append((start, end - start))
        except OSError as error:
            if error.errno != errno.ENXIO:  # there is no more data
                raise
        finally:
            os.close(descriptor)
        return found

    def directory(self, path: bytes) -> int:
        """Return the O_PATH descriptor of a directory, without following symlinks.

        It is valid until the next call of any method, so only one thread may call it.

        Raises:
            OSError: With ENOTDIR, if a component is a symlink.
        """
        with self._opened.lock:
            return self._walk(path)

    # --- directories; the lock is held

    def _listable(self, path: bytes) -> int:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        return os.open(b".", flags, dir_fd=self._directory(path))

    def _directory(self, path: bytes) -> int:
        """Return a directory's descriptor, which is valid while the lock is held."""
        try:
            return self._walk(path)
        except OSError as error:
            if error.errno not in _IS_LINK:
                raise
        key = self._key, b"/" + path  # the slash: apart from symlink-free paths
        found = self._opened.descriptors.get(key)
        if found is None:
            found = self._opened.keep(key, os.dup(self._walk(self._resolve(path))))
        return found

    def _walk(self, path: bytes) -> int:
        """Open a directory by a path without symlinks, from its deepest open parent."""
        opened, key = self._opened, self._key
        known, rest = path, []
        while (found := opened.descriptors.get((key, known))) is None and known:
            known, _, name = known.rpartition(b"/")
            rest.append(name)
        if found is None:
            found = self._open_top()
        else:
            opened.descriptors.move_to_end((key, known))
        for name in reversed(rest):
            _check(name)
            found = os.open(name, _DIRECTORY, dir_fd=found)
            known = known + b"/" + name if known else name
            opened.keep((key, known), found)
        return found

    def _open_top(self) -> int:
        descriptor, down = self._top
        current = os.dup(descriptor)
        for name in down.split(b"/") if down else ():
            try:
                found = os.open(name, _DIRECTORY, dir_fd=current)
            finally:
                os.close(current)
            current = found
        return self._opened.keep((self._key, b""), current)

    def _resolve(self, path: bytes) -> bytes:
        """Return the path of a directory with all symlinks resolved."""
        trail: list[bytes] = []
        todo = path.split(b"/")[::-1]
        followed = 0
        while todo:
            name = todo.pop()
            if name == b"..":
                del trail[-1:]  # the parent of the top is the top
            elif name not in (b"", b"."):
                try:
                    self._walk(b"/".join((*trail, name)))
                    trail.append(name)
                except OSError as error:
                    if error.errno not in _IS_LINK:
                        raise
                    target = self._target(trail, name, error)
                    followed += 1
                    if followed > MAX_LINKS:
                        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP)) from error
                    if target.startswith(b"/"):
                        trail.clear()
                    todo.extend(reversed(target.split(b"/")))
        return b"/".join(trail)

    def _target(self, trail: list[bytes], name: bytes, error: OSError) -> bytes:
        """Return a symlink's target; raise ``error`` if the name is not a symlink."""
        try:
            target = os.readlink(name, dir_fd=self._walk(b"/".join(trail)))
        except OSError:
            raise error from None
        if not self._moved or not target.startswith(b"/"):
            return target
        parts = [part for part in target.split(b"/") if part]
        for start in range(len(parts)):
            with suppress(OSError):
                self._walk(b"/".join(parts[start:]))
                return b"/" + b"/".join(parts[start:])
        return target


def remove_tree(root: str | os.PathLike[str]) -> None:
    """Remove a directory tree of any depth, without following symlinks.

    Mounts below it are not entered: their files belong to another file system.

    Raises:
        OSError: A file cannot be removed, or a directory is a mount point (EBUSY).
    """
    top = os.open(root, _DIRECTORY)
    try:
        with Beneath(f"/proc/self/fd/{top}") as tree:
            mount = _mount_id(top)
            found = [b""]
            for path in found:  # grows during the iteration: parents come first
                if _mount_id(tree.directory(path)) != mount:
                    raise OSError(errno.EBUSY, f"{quoted(path)} is a mount point")
                found += _unlink_files(tree, path)
            for path in reversed(found[1:]):
                parent, name = _split(path)
                os.rmdir(name, dir_fd=tree.directory(parent))
    finally:
        os.close(top)
    os.rmdir(root)


def _mount_id(descriptor: int) -> str:
    """Return the id of the mount that contains a file (proc(5), fdinfo).

    A device number is not enough: a bind mount has that of its file system.
    """
    with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as info:
        return next(line for line in info if line.startswith("mnt_id:"))


def mounts_below(path: str) -> list[str]:
    """Return the mount points at or below a directory, by its resolved path.

    They are the fifth field of mountinfo in proc(5), in which space, tab, newline and
    backslash are written as octal escapes.
    """
    with open("/proc/self/mountinfo", "rb") as file:
        fields = [line.split(b" ")[4] for line in file]
    points = [os.fsdecode(_ESCAPE.sub(_unescape, field)) for field in fields]
    inside = os.path.join(path, "")
    return [point for point in points if point == path or point.startswith(inside)]


def _unescape(match: re.Match[bytes]) -> bytes:
    return bytes([int(match[1], 8)])


def _unlink_files(tree: Beneath, path: bytes) -> list[bytes]:
    """Remove the non-directories in a directory; return its subdirectories."""
    left = []
    directory = tree.directory(path)
    if os.fstat(directory).st_mode & stat.S_IRWXU != stat.S_IRWXU:
        os.chmod(f"/proc/self/fd/{directory}", stat.S_IRWXU)
    folder = os.open(b".", os.O_RDONLY | os.O_CLOEXEC, dir_fd=tree.directory(path))
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    left.append(os.path.join(path, os.fsencode(entry.name)))
                else:
                    os.unlink(entry.name, dir_fd=folder)
    finally:
        os.close(folder)
    return left


def _split(path: bytes) -> tuple[bytes, bytes]:
    """Split a path into its directory and name; the top is its own directory."""
    parent, _, name = path.rpartition(b"/")
    _check(name)
    return parent, name or b"."


def _check(name: bytes) -> None:
    """Refuse "..", which could leave the directory; normalised paths do not have it."""
    if name == b"..":
        raise OSError(errno.EINVAL, "a path that is not normalised")
