"""The metadata of a file system, as its readers in this package return it.

Each reader is a ``FileSystem`` that parses the bytes of an image as the format's
documentation defines them. It shares no code with the program that made the image, and
needs neither root nor a mount. It reads no contents of files.
"""

import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol

MAX_MAJOR: Final = (1 << 12) - 1  # of a device number in Linux
MAX_MINOR: Final = (1 << 20) - 1


@dataclass(slots=True)
class Inode:
    """One inode.

    Attributes:
        number: What hard links to it have in common.
        mode: The file type and the permissions, as in ``st_mode``.
        uid: The owner.
        gid: The group.
        links: The link count.
        size: Bytes of content; for a directory, whatever the format counts.
        mtime: Whole seconds since the epoch, floored.
        nanoseconds: The fraction of the mtime.
        device: Major and minor number of a device.
        target: A symlink's target.
        xattrs: Extended attributes by their full names; ACLs in the kernel's form.
    """

    number: int
    mode: int
    uid: int
    gid: int
    links: int
    size: int
    mtime: int
    nanoseconds: int = 0
    device: tuple[int, int] = (0, 0)
    target: bytes = b""
    xattrs: dict[bytes, bytes] = field(default_factory=dict)


class FileSystem(Protocol):
    """A file system whose metadata can be read.

    Attributes:
        root: The inode number of the root directory.
        own_paths: Paths that the format adds by itself.
    """

    root: int
    own_paths: frozenset[bytes]

    def inode(self, number: int) -> Inode:
        """Return an inode.

        Raises:
            ValueError: The bytes do not follow the format.
        """

    def names(self, directory: Inode) -> list[tuple[bytes, int]]:
        """Return the names in a directory and their inode numbers, in any order.

        Raises:
            ValueError: The bytes do not follow the format.
        """


def walk(files: FileSystem) -> Iterator[tuple[bytes, Inode]]:
    """Yield all paths and their inodes, in the order of a plan (``plan.make``).

    Directories end in a slash, and the root is ``./``. A directory that is met again
    below itself is not followed.

    Raises:
        ValueError: The bytes do not follow the format, or directories form a circle.
    """
    root = files.inode(files.root)
    yield b"./", root
    stack = [(b"", iter(sorted(files.names(root))))]
    seen = {files.root}
    while stack:
        prefix, names = stack[-1]
        for name, number in names:
            inode = files.inode(number)
            path = prefix + name
            if stat.S_ISDIR(inode.mode):
                if number in seen:
                    raise ValueError("a directory with two names")
                seen.add(number)
                path += b"/"
                yield path, inode
                stack.append((path, iter(sorted(files.names(inode)))))
                break
            yield path, inode
        else:
            stack.pop()


def decode_device(number: int) -> tuple[int, int]:
    """Return the major and minor number of a device number in the kernel's form.

    >>> decode_device(0x00100703)
    (7, 259)
    """
    return number >> 8 & 0xFFF, number & 0xFF | number >> 12 & 0xFFF00
