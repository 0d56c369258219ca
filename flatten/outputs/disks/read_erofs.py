"""Read the metadata of an EROFS image.

Reference: Linux, fs/erofs/erofs_fs.h; https://erofs.docs.kernel.org, "On-disk format".
"""

import stat
import struct
from collections.abc import Iterator
from mmap import MADV_DONTNEED, mmap
from typing import Final

from ...tar.xattrs import ACL_ACCESS, ACL_DEFAULT
from ..inode import Inode, decode_device

_SUPERBLOCK: Final = 1024  # bytes before it
_MAGIC: Final = 0xE0F5E1E2
_SLOT: Final = 32  # bytes; an inode's number counts slots
_COMPACT: Final = struct.Struct("<HHHHIIIIHHI")
_EXTENDED: Final = struct.Struct("<HHHHQIIIIqII16x")
_READ: Final = 1 << 13  # inodes, after which the pages read so far are given back
_PLAIN, _INLINE = 0, 2  # layouts of uncompressed data: in blocks; its tail in the inode
_PREFIXES: Final = {
    1: b"user.",
    2: ACL_ACCESS,
    3: ACL_DEFAULT,
    4: b"trusted.",
    6: b"security.",
}


class Erofs:
    """An EROFS image.

    Attributes:
        root: The inode number of the root directory.
        own_paths: Paths that the format adds by itself.
    """

    own_paths = frozenset[bytes]()

    def __init__(self, data: mmap) -> None:
        """Read the superblock.

        Raises:
            ValueError: It is not an EROFS image.
        """
        magic, _, _, bits, _, self.root, _, seconds, nanoseconds, _, meta, xattrs = (
            struct.unpack_from("<IIIBBHQqIIII", data, _SUPERBLOCK)
        )
        if magic != _MAGIC:
            raise ValueError(f"magic {magic:#x}")
        self._data, self._block = data, 1 << bits
        self._built = seconds, nanoseconds
        self._inodes = meta << bits
        self._shared = xattrs << bits
        self._count = 0

    def inode(self, number: int) -> Inode:
        """Return an inode.

        Raises:
            ValueError: The bytes do not follow the format.
        """
        self._count += 1
        if not self._count % _READ:
            self._data.madvise(MADV_DONTNEED)
        at = self._inodes + number * _SLOT
        if self._data[at] & 1:
            _, count, mode, _, size, where, _, uid, gid, mtime, fraction, links = (
                _EXTENDED.unpack_from(self._data, at)
            )
        else:
            _, count, mode, links, size, _, where, _, uid, gid, _ = (
                _COMPACT.unpack_from(self._data, at)
            )
            mtime, fraction = self._built
        inode = Inode(number, mode, uid, gid, links, size, mtime, fraction)
        if stat.S_ISLNK(mode):
            inode.target = self._content(inode)
        elif stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            inode.device = decode_device(where)
        if count:
            inode.xattrs = dict(self._xattrs(number))
        return inode

    def names(self, directory: Inode) -> list[tuple[bytes, int]]:
        """Return the names in a directory and their inode numbers.

        Raises:
            ValueError: The bytes do not follow the format.
        """
        content = self._content(directory)
        found: list[tuple[bytes, int]] = []
        for start in range(0, len(content), self._block):
            found += _names(content[start : start + self._block])
        return [entry for entry in found if entry[0] not in (b".", b"..")]

    def _content(self, inode: Inode) -> bytes:
        """Return the content of a directory or a symlink, which is not compressed."""
        at = self._inodes + inode.number * _SLOT
        (type_,) = struct.unpack_from("<H", self._data, at)
        head = _EXTENDED if type_ & 1 else _COMPACT
        (block,) = struct.unpack_from("<I", self._data, at + 16)
        start, layout = block * self._block, type_ >> 1 & 7
        if layout == _PLAIN:
            return self._data[start : start + inode.size]
        if layout != _INLINE:
            raise ValueError(f"layout {layout} of a directory or symlink")
        whole = (max(inode.size, 1) - 1) // self._block * self._block
        tail = at + head.size + self._xattr_size(at)
        return (
            self._data[start : start + whole]
            + self._data[tail : tail + inode.size - whole]
        )

    def _xattr_size(self, at: int) -> int:
        (count,) = struct.unpack_from("<H", self._data, at + 2)
        return 12 + 4 * (count - 1) if count else 0

    def _xattrs(self, number: int) -> Iterator[tuple[bytes, bytes]]:
        at = self._inodes + number * _SLOT
        size = self._xattr_size(at)
        start = at + (_EXTENDED if self._data[at] & 1 else _COMPACT).size
        stop = start + size
        shared = self._data[start + 4]
        for which in struct.unpack_from(f"<{shared}I", self._data, start + 12):
            key, value, _ = self._xattr(self._shared + 4 * which)
            yield key, value
        start += 12 + 4 * shared
        while start + 4 <= stop:
            key, value, start = self._xattr(start)
            yield key, value

    def _xattr(self, at: int) -> tuple[bytes, bytes, int]:
        """Return the name and the value of an xattr, and where the next one starts."""
        length, index, size = struct.unpack_from("<BBH", self._data, at)
        middle = at + 4 + length
        key = _PREFIXES.get(index, b"%d." % index) + self._data[at + 4 : middle]
        return key, self._data[middle : middle + size], middle + size + 3 & -4


def _names(block: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield the names in a block of a directory: all entries come before all names."""
    (first,) = struct.unpack_from("<H", block, 8)
    entries = [struct.unpack_from("<QH", block, at) for at in range(0, first, 12)]
    stops = [start for _, start in entries[1:]] + [len(block)]
    for (number, start), stop in zip(entries, stops, strict=True):
        yield block[start:stop].rstrip(b"\0"), number
