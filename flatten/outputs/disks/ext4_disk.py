"""An empty ext4 file system, as mke2fs makes it, and what in it is free.

Blocks are handed out in order, each once. Inodes are used in order of their numbers.
What was used is written at the end: bitmaps, group descriptors and the superblock.

Reference: Linux, Documentation/filesystems/ext4/, "Block Group Descriptors".
"""

import os
import re
import struct
from collections import Counter
from collections.abc import Iterator
from typing import Final

from ...errors import FlattenError
from .crc32c import crc32c
from .ext4_fs import BLOCK, INODE

FEATURES: Final = (
    "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,"
    "sparse_super,large_file,huge_file,dir_nlink,extra_isize,metadata_csum"
)
"""The features to ask mke2fs for: its defaults of 2017 to 2026, whatever is configured.

Linux 3.18 and later mount them for writing.
"""

_SUPERBLOCK: Final = 1024  # bytes before it, and of it
_DESCRIPTOR: Final = 64  # bytes
_INCOMPATIBLE: Final = 0x2 | 0x40 | 0x80 | 0x200  # of those: filetype to flex_bg
_COMPATIBLE: Final = 0x1 | 0x2 | 0x8 | 0x20 | 0x40 | 0x400  # for writing
_INODE_UNINIT: Final = 1  # flags of a group
_BLOCK_UNINIT: Final = 2
_FREE: Final = re.compile("0+")


class Disk:
    """An empty file system that is being filled.

    Attributes:
        seed: The state with which checksums start.
        inodes: The number of inodes.
    """

    def __init__(self, file: int) -> None:
        """Read the superblock and the group descriptors.

        Args:
            file: The file's descriptor.

        Raises:
            FlattenError: mke2fs made another kind of file system.
        """
        self._file = file
        self._super = bytearray(os.pread(file, _SUPERBLOCK, _SUPERBLOCK))
        head = self._super
        self.inodes = _u32(head, 0)
        self._blocks = _u32(head, 4) | _u32(head, 0x150) << 32
        self._per_group = _u32(head, 32)
        self._inodes_per_group = _u32(head, 40)
        self._reserved = _u16(head, 206)
        found = _u16(head, 254), _u32(head, 96), _u32(head, 100)
        if found != (_DESCRIPTOR, _INCOMPATIBLE, _COMPATIBLE):
            raise FlattenError("mke2fs made a file system with other features")
        self._groups = -(-self._blocks // self._per_group)
        self._table = bytearray(os.pread(file, _DESCRIPTOR * self._groups, BLOCK))
        self.seed = crc32c(head[104:120])
        self._taken = 0
        self._group = -1
        self._bitmap = 0
        self._runs: Iterator[tuple[int, int]] = iter(())
        self._next, self._left = 0, 0

    def take(self, count: int) -> list[tuple[int, int]]:
        """Return free blocks, as runs (first block, number), and mark them as used.

        Raises:
            FlattenError: There are not so many.
        """
        found: list[tuple[int, int]] = []
        while count:
            while not self._left:
                self._advance()
            step = min(count, self._left)
            start = self._next
            self._bitmap |= (1 << step) - 1 << start % self._per_group
            self._taken += step
            self._next, self._left, count = (
                start + step,
                self._left - step,
                count - step,
            )
            if found and sum(found[-1]) == start:
                start, before = found.pop()
                step += before
            found.append((start, step))
        return found

    def offset(self, inode: int) -> int:
        """Return where in the file an inode is."""
        group, row = divmod(inode - 1, self._inodes_per_group)
        return self._number(group, 8) * BLOCK + row * INODE

    def close(self, used: int, folders: Counter[int]) -> None:
        """Write the bitmaps, the group descriptors and the superblock.

        Args:
            used: The number of the last inode that is used.
            folders: The number of new directories, by the position of their group.
        """
        self._store_bitmap()
        for group in range(self._groups):
            self._store_inodes(group, used, folders[group])
        for group in range(self._groups):
            at = group * _DESCRIPTOR
            struct.pack_into("<H", self._table, at + 30, 0)
            state = crc32c(struct.pack("<I", group), self.seed)
            row = self._table[at : at + _DESCRIPTOR]
            struct.pack_into("<H", self._table, at + 30, crc32c(row, state) & 0xFFFF)
        os.pwrite(self._file, self._table, BLOCK)
        head = self._super
        free = (_u32(head, 12) | _u32(head, 0x158) << 32) - self._taken
        struct.pack_into("<II", head, 12, free & 0xFFFFFFFF, self.inodes - used)
        struct.pack_into("<I", head, 0x158, free >> 32)
        struct.pack_into("<I", head, 1020, crc32c(head[:1020]))
        os.pwrite(self._file, head, _SUPERBLOCK)

    def group_of(self, inode: int) -> int:
        """Return the position of the group that an inode is in."""
        return (inode - 1) // self._inodes_per_group

    # --- blocks

    def _advance(self) -> None:
        """Go to the next run of free blocks."""
        run = next(self._runs, None)
        while run is None:
            self._store_bitmap()
            self._group += 1
            if self._group == self._groups:
                raise FlattenError("the disk is too small for the image")
            self._bitmap = self._read_bitmap(self._group)
            bits = f"{self._bitmap:0{self._per_group}b}"[::-1]
            self._runs = iter([m.span() for m in _FREE.finditer(bits)])
            run = next(self._runs, None)
        first = self._group * self._per_group
        self._next, self._left = first + run[0], run[1] - run[0]

    def _read_bitmap(self, group: int) -> int:
        """Return a group's bitmap of blocks; mke2fs leaves some of them out."""
        if self._flags(group) & _BLOCK_UNINIT:
            return (1 << self._copies(group)) - 1
        at = self._number(group, 0) * BLOCK
        return int.from_bytes(os.pread(self._file, self._per_group // 8, at), "little")

    def _copies(self, group: int) -> int:
        """Return how many blocks a group has of copies of the superblock and so on."""
        if group > 1 and not any(_is_power(group, base) for base in (3, 5, 7)):
            return 0
        return 1 + -(-self._groups * _DESCRIPTOR // BLOCK) + self._reserved

    def _store_bitmap(self) -> None:
        """Write the bitmap of the present group."""
        if self._group < 0:
            return
        data = self._bitmap.to_bytes(self._per_group // 8, "little")
        first = self._group * self._per_group
        bits = min(self._per_group, self._blocks - first)
        mask = (1 << bits) - 1
        os.pwrite(self._file, data, self._number(self._group, 0) * BLOCK)
        self._set_count(self._group, 12, bits - (self._bitmap & mask).bit_count())
        self._set_flags(self._group, self._flags(self._group) & ~_BLOCK_UNINIT)
        self._set_sum(self._group, 24, crc32c(data, self.seed))

    # --- inodes

    def _store_inodes(self, group: int, used: int, folders: int) -> None:
        """Write a group's bitmap of inodes, if any of them is used."""
        size = self._inodes_per_group
        count = max(0, min(size, used - group * size))
        if not count:
            return
        bits = ((1 << 8 * BLOCK) - 1) ^ ((1 << size) - (1 << count))
        data = bits.to_bytes(BLOCK, "little")
        os.pwrite(self._file, data, self._number(group, 4) * BLOCK)
        before = _u16(self._table, group * _DESCRIPTOR + 16)
        self._set_count(group, 14, size - count)
        self._set_count(group, 16, before + folders)
        self._set_count(group, 28, size - count)
        self._set_flags(group, self._flags(group) & ~_INODE_UNINIT)
        self._set_sum(group, 26, crc32c(data[: size // 8], self.seed))

    # --- fields of descriptors, whose high halves are 32 bytes after the low ones

    def _number(self, group: int, at: int) -> int:
        """Return the number of a block."""
        at += group * _DESCRIPTOR
        return _u32(self._table, at) | _u32(self._table, at + 32) << 32

    def _flags(self, group: int) -> int:
        return _u16(self._table, group * _DESCRIPTOR + 18)

    def _set_flags(self, group: int, flags: int) -> None:
        struct.pack_into("<H", self._table, group * _DESCRIPTOR + 18, flags)

    def _set_count(self, group: int, at: int, count: int) -> None:
        at += group * _DESCRIPTOR
        high = {12: 44, 14: 46, 16: 48, 28: 50}[at % _DESCRIPTOR]
        struct.pack_into("<H", self._table, at, count & 0xFFFF)
        struct.pack_into("<H", self._table, group * _DESCRIPTOR + high, count >> 16)

    def _set_sum(self, group: int, at: int, value: int) -> None:
        at += group * _DESCRIPTOR
        struct.pack_into("<H", self._table, at, value & 0xFFFF)
        struct.pack_into("<H", self._table, at + 32, value >> 16)


def _u16(data: bytearray, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "little")


def _u32(data: bytearray, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")


def _is_power(number: int, base: int) -> bool:
    while number % base == 0:
        number //= base
    return number == 1
