"""Read the metadata of an ext4 file system.

Only what mke2fs writes is read: extents or short symlinks, xattrs in the inode or in
one block. Features that change this, such as ``inline_data``, are refused.

Reference: Linux, Documentation/filesystems/ext4/; e2fsprogs, lib/ext2fs/ext_attr.c.
"""

import stat
import struct
from collections.abc import Iterator
from mmap import MADV_DONTNEED, mmap
from typing import Final

from ...tar.xattrs import ACL_ACCESS, ACL_DEFAULT
from ..inode import Inode, decode_device

ROOT: Final = 2  # the inode number of the root directory
LOST_AND_FOUND: Final = b"lost+found/"

_SUPERBLOCK: Final = 1024  # bytes before it
_FREED: Final = 2048  # inodes after which memory is freed
_MAGIC: Final = 0xEF53
_KNOWN: Final = 0x2 | 0x4 | 0x40 | 0x80 | 0x200 | 0x2000
"""Incompatible features: filetype, recover, extents, 64bit, flex_bg, csum_seed."""

_HAS_EXTENTS: Final = 0x80000  # flag of an inode
_EXTENTS: Final = 0xF30A  # the magic of a node of the extent tree
_MAX_DEPTH: Final = 5  # of an extent tree
_XATTRS: Final = 0xEA020000
_PREFIXES: Final = {
    0: b"",
    1: b"user.",
    2: ACL_ACCESS,
    3: ACL_DEFAULT,
    4: b"trusted.",
    6: b"security.",
    7: b"system.",
}
_ACL_NAMED: Final = (0x02, 0x08)  # tags of ACL entries that have an id
_SHORT_TARGET: Final = 60  # bytes; shorter targets are in the inode


class Ext4:
    """An ext4 file system.

    Attributes:
        root: The inode number of the root directory.
        own_paths: Paths that the format adds by itself.
    """

    root = ROOT
    own_paths = frozenset((LOST_AND_FOUND,))

    def __init__(self, data: mmap) -> None:
        """Read the superblock and the block group descriptors.

        Raises:
            ValueError: It is not an ext4 file system, or has an unknown feature.
        """
        head = data[_SUPERBLOCK : _SUPERBLOCK + 1024]
        (magic,) = struct.unpack_from("<H", head, 56)
        (self._inodes,) = struct.unpack_from("<I", head, 0)
        first, log = struct.unpack_from("<2I", head, 20)
        (self._per_group,) = struct.unpack_from("<I", head, 40)
        (self._inode_size,) = struct.unpack_from("<H", head, 88)
        (features,) = struct.unpack_from("<I", head, 96)
        (size,) = struct.unpack_from("<H", head, 254)
        if magic != _MAGIC or features & ~_KNOWN:
            raise ValueError(f"magic {magic:#x}, features {features:#x}")
        if not self._per_group or log > 6:
            raise ValueError(
                f"{self._per_group} inodes a group, blocks of 1024 << {log}"
            )
        self._data, self._block, self._count = data, 1024 << log, 0
        self._tables = []
        size = size if features & 0x80 else 32
        for group in range(-(-self._inodes // self._per_group)):
            at = (first + 1) * self._block + group * size
            (low,) = struct.unpack_from("<I", data, at + 8)
            (high,) = struct.unpack_from("<I", data, at + 40) if size > 32 else (0,)
            self._tables.append((low | high << 32) * self._block)

    def inode(self, number: int) -> Inode:
        """Return an inode.

        Raises:
            ValueError: The bytes do not follow the format.
        """
        self._count += 1
        if not self._count % _FREED:  # the pages that were read count as our memory
            self._data.madvise(MADV_DONTNEED)
        raw = self._raw(number)
        mode, uid, size = struct.unpack_from("<HHI", raw)
        mtime, _, gid, links = struct.unpack_from("<iIHH", raw, 16)
        high, high_uid, high_gid = struct.unpack_from("<I8xHH", raw, 108)
        (extra,) = struct.unpack_from("<I", raw, 136)
        inode = Inode(
            number,
            mode,
            uid | high_uid << 16,
            gid | high_gid << 16,
            links,
            size | high << 32,
            mtime + ((extra & 3) << 32),
            extra >> 2,
        )
        if stat.S_ISLNK(mode):
            inode.target = self._target(raw, inode.size)
        elif stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            old, new = struct.unpack_from("<2I", raw, 40)
            inode.device = (old >> 8, old & 0xFF) if old else decode_device(new)
        inode.xattrs = dict(self._xattrs(raw))
        return inode

    def names(self, directory: Inode) -> list[tuple[bytes, int]]:
        """Return the names in a directory and their inode numbers.

        Raises:
            ValueError: The bytes do not follow the format.
        """
        found = []
        content = self._content(self._raw(directory.number))[: directory.size]
        at = 0
        while at < len(content):
            number, step, length = struct.unpack_from("<IHB", content, at)
            name = content[at + 8 : at + 8 + length]
            if number and name not in (b".", b".."):
                found.append((name, number))
            if step < 8:
                raise ValueError(f"a directory entry of {step} bytes")
            at += step
        return found

    def _raw(self, number: int) -> bytes:
        if not 0 < number <= self._inodes:
            raise ValueError(f"inode {number:,} of {self._inodes:,}")
        group, row = divmod(number - 1, self._per_group)
        at = self._tables[group] + row * self._inode_size
        return self._data[at : at + self._inode_size]

    def _target(self, raw: bytes, size: int) -> bytes:
        if size < _SHORT_TARGET:
            return raw[40 : 40 + size]
        return self._content(raw)[:size]

    def _content(self, raw: bytes) -> bytes:
        """Return whole blocks of a directory's or a symlink's content."""
        (flags,) = struct.unpack_from("<I", raw, 32)
        if not flags & _HAS_EXTENTS:
            raise ValueError("an inode without extents")
        return b"".join(
            self._data[start * self._block : (start + count) * self._block]
            for start, count in self._extents(raw[40:100], _MAX_DEPTH)
        )

    def _extents(self, node: bytes, most: int) -> Iterator[tuple[int, int]]:
        """Yield the first block and the number of blocks of each extent, in order.

        ``most`` is the depth that a node may have, at most.
        """
        magic, count, _, depth = struct.unpack_from("<4H", node)
        if magic != _EXTENTS or depth > most:
            raise ValueError(f"an extent tree with magic {magic:#x}, depth {depth}")
        for at in range(12, 12 + 12 * count, 12):
            if depth:
                low, high = struct.unpack_from("<IH", node, at + 4)
                start = (low | high << 32) * self._block
                below = self._data[start : start + self._block]
                yield from self._extents(below, depth - 1)
            else:
                length, high, low = struct.unpack_from("<HHI", node, at + 4)
                yield low | high << 32, length

    def _xattrs(self, raw: bytes) -> Iterator[tuple[bytes, bytes]]:
        (extra,) = struct.unpack_from("<H", raw, 128)
        inside = raw[128 + extra :]
        if len(inside) >= 4 and struct.unpack_from("<I", inside) == (_XATTRS,):
            yield from _entries(inside[4:], 0)
        (low,) = struct.unpack_from("<I", raw, 104)
        (high,) = struct.unpack_from("<H", raw, 118)
        if low or high:
            at = (low | high << 32) * self._block
            yield from _entries(self._data[at : at + self._block], 32)


def _entries(area: bytes, at: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield the xattrs of an area, whose first entry is at ``at``."""
    while at + 4 <= len(area) and area[at : at + 4] != bytes(4):
        length, index, offset, _, size = struct.unpack_from("<BBHII", area, at)
        prefix = _PREFIXES.get(index, b"%d." % index)
        value = area[offset : offset + size]
        if prefix in (ACL_ACCESS, ACL_DEFAULT):
            value = _acl(value)
        yield prefix + area[at + 16 : at + 16 + length], value
        at += 16 + (length + 3 & -4)


def _acl(value: bytes) -> bytes:
    """Convert an ACL from its form on the disk into the one of xattrs."""
    entries, at = [struct.pack("<I", 2)], 4
    while at < len(value):
        tag, bits = struct.unpack_from("<HH", value, at)
        who, at = 0xFFFFFFFF, at + 4
        if tag in _ACL_NAMED:
            (who,) = struct.unpack_from("<I", value, at)
            at += 4
        entries.append(struct.pack("<HHI", tag, bits, who))
    return b"".join(entries)
