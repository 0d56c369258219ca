"""What is below one directory of the host, reached without ever leaving it.

Each component of a path is opened by itself, none through a symlink: those are read
and followed here, as in a chroot. So what lies in a foreign disk leads nowhere else.
What is written or removed is reached through no symlink at all.
"""

import errno
import os
import re
import threading
from collections import OrderedDict
from contextlib import suppress
from typing import Final, Self

from ..errors import quoted

MAX_LINKS: Final = 40  # symlinks followed for one path, as Linux (MAXSYMLINKS)
MAX_OPEN: Final = 256  # directories held open; a process may have 1,024 files

_DIRECTORY: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_IS_LINK: Final = (errno.ENOTDIR, errno.ELOOP)  # maybe; readlink tells

_ESCAPE: Final = re.compile(rb"\\([0-7]{3})")

_Key = tuple[int, bytes]  # a root, and a path below it


class _Opened:
    """Directories held open, the ones used last; a lock for all that use them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.descriptors: OrderedDict[_Key, int] = OrderedDict()
        self.roots = 0

    def keep(self, key: _Key, descriptor: int) -> int:
        """Keep a descriptor, and close the one that was not used for longest."""
        self.descriptors[key] = descriptor
        if len(self.descriptors) > MAX_OPEN:
            os.close(self.descriptors.popitem(last=False)[1])
        return descriptor

    def close(self) -> None:
        with self.lock:
            while self.descriptors:
                os.close(self.descriptors.popitem()[1])


class Beneath:
    """A directory, and what is below it.

    Paths are bytes, relative, normalised. Any thread may use it. What goes wrong is
    an OSError, for the caller to say in which layer.

    Attributes:
        name: Where it is, for messages.
    """

    def __init__(self, path: str, *, moved: bool = False) -> None:
        """Open a directory of the host.

        Args:
            path: Its path; symlinks in it are followed.
            moved: It may have been elsewhere, so an absolute target of a symlink
                counts from its longest tail that is below here; otherwise from here.
        """
        self.name = path
        self._moved = moved
        self._opened = _Opened()
        self._key = 0
        top = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._top = top, b""  # a descriptor, and the way down from there

    def below(self, path: bytes) -> "Beneath":
        """Return a directory below as a root of its own, which symlinks stay in.

        It is not opened yet; ``close`` of this one closes it too.
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
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close all that is open."""
        self.close()

    def close(self) -> None:
        """Close all that is open; a second time does nothing."""
        self._opened.close()
        if self._top[0] >= 0:
            os.close(self._top[0])
            self._top = -1, b""

    def open(self, path: bytes) -> int:
        """Open a file to be read; a FIFO too, without waiting for its writer.

        Raises:
            OSError: ELOOP where the last component is a symlink.
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
        """Say whether there is anything, be it a symlink to nothing."""
        try:
            self.status(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def is_directory(self, path: bytes) -> bool:
        """Say whether there is a directory, maybe behind symlinks."""
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
        """Return what a symlink holds."""
        parent, name = _split(path)
        with self._opened.lock:
            return os.readlink(name, dir_fd=self._directory(parent))

    def xattrs(self, path: bytes) -> dict[bytes, bytes]:
        """Return the extended attributes of a file, or of a symlink itself.

        Those called ``trusted.`` are there for root alone (CAP_SYS_ADMIN).
        """
        parent, name = _split(path)
        with self._opened.lock:
            # Only paths lead to the attributes of symlinks and devices.
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
        """Return where a file has data: (offset, length) in order, up to ``size``."""
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
        """Return the descriptor (O_PATH) of a directory, reached through no symlink.

        It is valid until anything else is asked; so only one thread may ask.

        Raises:
            OSError: ENOTDIR where a component is a symlink.
        """
        with self._opened.lock:
            return self._walk(path)

    # --- directories; the lock is held

    def _listable(self, path: bytes) -> int:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        return os.open(b".", flags, dir_fd=self._directory(path))

    def _directory(self, path: bytes) -> int:
        """Return the descriptor of a directory; it is valid while the lock is held."""
        try:
            return self._walk(path)
        except OSError as error:
            if error.errno not in _IS_LINK:
                raise
        key = self._key, b"/" + path  # apart from paths without symlinks
        found = self._opened.descriptors.get(key)
        if found is None:
            found = self._opened.keep(key, os.dup(self._walk(self._resolve(path))))
        return found

    def _walk(self, path: bytes) -> int:
        """Return a directory whose path has no symlinks, from the deepest one open."""
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
        """Return the path of a directory without the symlinks in it."""
        trail: list[bytes] = []
        todo = path.split(b"/")[::-1]
        followed = 0
        while todo:
            name = todo.pop()
            if name == b"..":
                del trail[-1:]  # above the top is the top
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
        """Return what a symlink holds, or raise why the name is no directory."""
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
    """Remove a directory and all below it, however deep, following no symlink.

    Mounts below it are not entered: what is mounted there belongs to somebody else.

    Raises:
        OSError: Something cannot be removed, or is a mount point (EBUSY).
    """
    top = os.open(root, _DIRECTORY)
    try:
        with Beneath(f"/proc/self/fd/{top}") as tree:
            mount = _mount_id(top)
            found = [b""]
            for path in found:  # grows while it is gone through: parents come first
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
    """Return the id of the mount that a file is in (proc(5), fdinfo).

    A device number would not do: a bind mount has that of its file system.
    """
    with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as info:
        return next(line for line in info if line.startswith("mnt_id:"))


def mounts_below(path: str) -> list[str]:
    """Return the mount points at or below a directory, by its resolved path.

    proc(5), mountinfo: the fifth field, where space, tab, line end and backslash are
    written as octal escapes.
    """
    with open("/proc/self/mountinfo", "rb") as file:
        fields = [line.split(b" ")[4] for line in file]
    points = [os.fsdecode(_ESCAPE.sub(_unescape, field)) for field in fields]
    inside = os.path.join(path, "")
    return [point for point in points if point == path or point.startswith(inside)]


def _unescape(match: re.Match[bytes]) -> bytes:
    return bytes([int(match[1], 8)])


def _unlink_files(tree: Beneath, path: bytes) -> list[bytes]:
    """Remove what is no directory in a directory; return the directories in it."""
    left = []
    os.chmod(f"/proc/self/fd/{tree.directory(path)}", 0o700)
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
    """Return a path's directory, and the name in it; the top is in itself."""
    parent, _, name = path.rpartition(b"/")
    _check(name)
    return parent, name or b"."


def _check(name: bytes) -> None:
    """Refuse the one name that would lead out, though no normalised path has it."""
    if name == b"..":
        raise OSError(errno.EINVAL, "a path that is not normalised")
