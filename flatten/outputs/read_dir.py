"""Read the metadata of a directory tree on the host, to compare it with the plan."""

import errno
import os
import stat
from typing import Final

from .inode import Inode

_NO_XATTRS: Final = (errno.EOPNOTSUPP, errno.EPERM)


class HostTree:
    """The tree below a directory that nobody else can enter, as a ``FileSystem``.

    Paths are looked up by name, and no symlink is followed: only directories that the
    walk has found are entered.

    Attributes:
        root: The number of the root directory.
        own_paths: Empty: nothing is there but what was written.
    """

    root: int = 0
    own_paths: frozenset[bytes] = frozenset()

    def __init__(self, descriptor: int) -> None:
        """Read below an open directory."""
        self._top = b"/proc/self/fd/%d" % descriptor
        self._paths = {self.root: b"."}  # of inodes that are yet to be read
        self._folders: dict[int, bytes] = {}  # the directories, by inode number
        self._count = 0

    def inode(self, number: int) -> Inode:
        """Return an inode; each can be read once.

        Raises:
            OSError: The file cannot be read.
        """
        path = self._top + b"/" + self._paths.pop(number)
        found = os.lstat(path)
        if stat.S_ISDIR(found.st_mode):
            self._folders[found.st_ino] = path
        seconds, nanoseconds = divmod(found.st_mtime_ns, 10**9)
        return Inode(
            number=found.st_ino,
            mode=found.st_mode,
            uid=found.st_uid,
            gid=found.st_gid,
            links=found.st_nlink,
            size=found.st_size,
            mtime=seconds,
            nanoseconds=nanoseconds,
            device=(os.major(found.st_rdev), os.minor(found.st_rdev)),
            target=os.readlink(path) if stat.S_ISLNK(found.st_mode) else b"",
            xattrs=_xattrs(path),
        )

    def names(self, directory: Inode) -> list[tuple[bytes, int]]:
        """Return the names in a directory, each with a number to read it by.

        Raises:
            OSError: The directory cannot be read.
        """
        path = self._folders.pop(directory.number)
        below = path.removeprefix(self._top + b"/")
        found = []
        for name in os.listdir(path):
            self._count += 1
            self._paths[self._count] = below + b"/" + name
            found.append((name, self._count))
        return found


def _xattrs(path: bytes) -> dict[bytes, bytes]:
    """Return a file's xattrs; none where the file system has none."""
    try:
        names = os.listxattr(path, follow_symlinks=False)
        return {
            os.fsencode(name): os.getxattr(path, name, follow_symlinks=False)
            for name in names
        }
    except OSError as error:
        if error.errno not in _NO_XATTRS:
            raise
        return {}
