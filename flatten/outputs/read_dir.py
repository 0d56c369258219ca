"""Read the metadata of a directory tree on the host, to compare it with the plan."""

import errno
import os
import stat
from typing import Final, Self

from ..host.beneath import Beneath
from .inode import Inode

_NO_XATTRS: Final = (errno.EOPNOTSUPP, errno.EPERM)
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class HostTree:
    """The tree below a directory that nobody else can enter, as a ``FileSystem``.

    No symlink is followed, and no file but regular ones is opened: to open a device
    may do something. The status and the xattrs of an open file take half the time of
    those of a name.

    Attributes:
        root: The number of the root directory.
        own_paths: Empty: nothing is there but what was written.
    """

    root: int = 0
    own_paths: frozenset[bytes] = frozenset()

    def __init__(self, descriptor: int) -> None:
        """Read below an open directory."""
        self._tree = Beneath(f"/proc/self/fd/{descriptor}")
        # Of inodes that are yet to be read: directory, name, and if it is a file.
        self._found = {self.root: (b"", b".", False)}
        self._paths: dict[int, bytes] = {}  # of directories, by inode number
        self._count = 0
        self._last: bytes | None = None  # the path of the directory ``_folder``
        self._folder = -1

    def __enter__(self) -> Self:
        """Return the object itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close all open directories."""
        self._tree.close()

    def inode(self, number: int) -> Inode:
        """Return an inode; each can be read once.

        Raises:
            OSError: The file cannot be read.
        """
        parent, name, is_file = self._found.pop(number)
        folder = self._directory(parent)
        file = _opened(name, folder) if is_file else None
        if file is not None:
            try:
                return _inode(os.fstat(file), file)
            finally:
                os.close(file)
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            self._paths[status.st_ino] = _joined(parent, name)
        inode = _inode(status, b"/proc/self/fd/%d/%b" % (folder, name))
        if stat.S_ISLNK(status.st_mode):
            inode.target = os.readlink(name, dir_fd=folder)
        return inode

    def names(self, directory: Inode) -> list[tuple[bytes, int]]:
        """Return the names in a directory, each with a number to read it by.

        Raises:
            OSError: The directory cannot be read.
        """
        path = self._paths.pop(directory.number)
        found = []
        with os.scandir(b"/proc/self/fd/%d" % self._directory(path)) as entries:
            for entry in entries:
                self._count += 1
                is_file = entry.is_file(follow_symlinks=False)
                self._found[self._count] = path, entry.name, is_file
                found.append((entry.name, self._count))
        return found

    def _directory(self, path: bytes) -> int:
        """Return the descriptor of a directory; it is valid until the next call."""
        if path != self._last:
            self._folder, self._last = self._tree.directory(path), path
        return self._folder


def _joined(parent: bytes, name: bytes) -> bytes:
    """Return the path of a directory; that of the root is empty."""
    if name == b".":
        return parent
    return parent + b"/" + name if parent else name


def _opened(name: bytes, folder: int) -> int | None:
    """Open a regular file; return None if the calling user may not read it."""
    try:
        return os.open(name, _FILE, dir_fd=folder)
    except PermissionError:
        return None


def _inode(status: os.stat_result, file: int | bytes) -> Inode:
    """Return the inode of a file that is open, or at a path; without a target."""
    seconds, nanoseconds = divmod(status.st_mtime_ns, 10**9)
    return Inode(
        number=status.st_ino,
        mode=status.st_mode,
        uid=status.st_uid,
        gid=status.st_gid,
        links=status.st_nlink,
        size=status.st_size,
        mtime=seconds,
        nanoseconds=nanoseconds,
        device=(os.major(status.st_rdev), os.minor(status.st_rdev)),
        xattrs=_xattrs(file),
    )


def _xattrs(file: int | bytes) -> dict[bytes, bytes]:
    """Return a file's xattrs; none where the file system has none."""
    follow = isinstance(file, int)
    try:
        names = os.listxattr(file, follow_symlinks=follow)
        return {
            os.fsencode(name): os.getxattr(file, name, follow_symlinks=follow)
            for name in names
        }
    except OSError as error:
        if error.errno not in _NO_XATTRS:
            raise
        return {}
