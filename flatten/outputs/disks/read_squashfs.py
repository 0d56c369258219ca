"""Read the metadata of a SquashFS 4.0 image.

Reference: https://dr-emann.github.io/squashfs/squashfs.html; Linux,
fs/squashfs/squashfs_fs.h; LZ4 Block Format Description.
"""

import lzma
import stat
import struct
import zlib
from collections.abc import Callable, Iterator
from mmap import mmap
from typing import Final, NamedTuple

from ..inode import Inode, decode_device

_MAGIC: Final = 0x73717368
_SUPERBLOCK: Final = struct.Struct("<IIIIIHHHHHHQQQQQQQQ")
_STORED: Final = 0x8000  # bit of a metadata block's size: it is not compressed
_BLOCK: Final = 8192  # bytes of a metadata block, at most
_NONE: Final = (1 << 32) - 1  # the index of no xattrs
_NO_TABLE: Final = (1 << 64) - 1
_ELSEWHERE: Final = (
    0x100  # bit of an xattr's type: a reference is in place of its value
)
_PREFIXES: Final = {0: b"user.", 1: b"trusted.", 2: b"security."}

_TYPES: Final = (
    stat.S_IFDIR, stat.S_IFREG, stat.S_IFLNK, stat.S_IFBLK, stat.S_IFCHR,
    stat.S_IFIFO, stat.S_IFSOCK,
)  # fmt: skip
"""By type of inode, less 1; the types of extended inodes follow in the same order."""

_HEAD: Final = struct.Struct("<4H2I")  # type, mode, uid, gid, mtime, inode number


class _Body(NamedTuple):
    """The fields of an inode after the head, and which of them have a meaning here."""

    layout: struct.Struct
    links: int | None
    size: int | None
    xattrs: int | None


_BODIES: Final = {
    1: _Body(struct.Struct("<2I2HI"), 1, 2, None),  # directory
    2: _Body(struct.Struct("<4I"), None, 3, None),  # file: it has one name
    3: _Body(struct.Struct("<2I"), 0, 1, None),  # symlink: the target follows
    4: _Body(struct.Struct("<2I"), 0, None, None),  # block device
    5: _Body(struct.Struct("<2I"), 0, None, None),  # character device
    6: _Body(struct.Struct("<I"), 0, None, None),  # FIFO
    7: _Body(struct.Struct("<I"), 0, None, None),  # socket
    8: _Body(struct.Struct("<4I2HI"), 0, 1, 6),
    9: _Body(struct.Struct("<3Q4I"), 3, 1, 6),
    10: _Body(struct.Struct("<2I"), 0, 1, None),  # the xattrs follow the target
    11: _Body(struct.Struct("<3I"), 0, None, 2),
    12: _Body(struct.Struct("<3I"), 0, None, 2),
    13: _Body(struct.Struct("<2I"), 0, None, 1),
    14: _Body(struct.Struct("<2I"), 0, None, 1),
}
"""By type of inode; from 8 on, the extended inodes of the same file types."""

_LONG_SYMLINK: Final = 10


class Squashfs:
    """A SquashFS image. An inode's number here is its reference: block and offset.

    Attributes:
        root: The inode number of the root directory.
        own_paths: Paths that the format adds by itself.
    """

    own_paths = frozenset[bytes]()

    def __init__(self, data: mmap) -> None:
        """Read the superblock and the tables.

        Raises:
            ValueError: It is not a SquashFS image of version 4.0.
        """
        magic, _, _, _, _, method, _, _, count, major, minor, self.root, _, *tables = (
            _SUPERBLOCK.unpack_from(data)
        )
        if (magic, major, minor) != (_MAGIC, 4, 0):
            raise ValueError(f"magic {magic:#x}, version {major}.{minor}")
        ids, xattrs, inodes, directories, _, _ = tables
        self._data, self._inflate = data, _decompressor(method)
        self._inodes = self._table(inodes, directories)
        end = min(at for at in (*tables, len(data)) if at > directories)
        self._directories = self._table(directories, end)
        blocks = -(-4 * count // _BLOCK)
        first = struct.unpack_from(f"<{blocks}Q", data, ids)
        packed = b"".join(self._metadata(at)[0] for at in first)
        self._ids = struct.unpack_from(f"<{count}I", packed)
        self._sets: list[tuple[int, int]] = []
        self._pairs = _Table()
        if xattrs != _NO_TABLE:
            self._read_xattrs(xattrs)

    def inode(self, number: int) -> Inode:
        """Return an inode.

        Raises:
            ValueError: The bytes do not follow the format.
        """
        table, at = self._inodes.data, self._inodes.at(number >> 16, number & 0xFFFF)
        kind, mode, uid, gid, mtime, _ = _HEAD.unpack_from(table, at)
        body = _BODIES[kind]
        at += _HEAD.size
        fields = body.layout.unpack_from(table, at)
        file_type = _TYPES[(kind - 1) % 7]
        found = Inode(
            number,
            file_type | mode & 0o7777,
            self._ids[uid],
            self._ids[gid],
            1 if body.links is None else fields[body.links],
            0 if body.size is None else fields[body.size],
            mtime,
        )
        xattrs = _NONE if body.xattrs is None else fields[body.xattrs]
        if file_type == stat.S_IFLNK:
            end = at + body.layout.size + found.size
            found.target = table[at + body.layout.size : end]
            if kind == _LONG_SYMLINK:
                (xattrs,) = struct.unpack_from("<I", table, end)
        elif file_type in (stat.S_IFCHR, stat.S_IFBLK):
            found.device = decode_device(fields[1])
        if xattrs != _NONE:
            found.xattrs = dict(self._xattrs(xattrs))
        return found

    def names(self, directory: Inode) -> list[tuple[bytes, int]]:
        """Return the names in a directory and their inode numbers.

        Raises:
            ValueError: The bytes do not follow the format.
        """
        number = directory.number
        at = self._inodes.at(number >> 16, number & 0xFFFF)
        (type_,) = struct.unpack_from("<H", self._inodes.data, at)
        if type_ > 7:
            block, _, _, offset = struct.unpack_from(
                "<2I2H", self._inodes.data, at + 24
            )
        else:
            block, _, _, offset = struct.unpack_from(
                "<2I2H", self._inodes.data, at + 16
            )
        return list(self._entries(block, offset, directory.size - 3))

    def _entries(
        self, block: int, offset: int, size: int
    ) -> Iterator[tuple[bytes, int]]:
        table = self._directories.data
        at = self._directories.at(block, offset) if size > 0 else 0
        stop = at + size
        while at < stop:
            count, start, _ = struct.unpack_from("<3I", table, at)
            at += 12
            for _ in range(count + 1):
                inode, _, _, length = struct.unpack_from("<HhHH", table, at)
                at += 8 + length + 1
                yield table[at - length - 1 : at], start << 16 | inode

    def _metadata(self, at: int) -> tuple[bytes, int]:
        """Return a metadata block, and where the next one starts."""
        (size,) = struct.unpack_from("<H", self._data, at)
        end = at + 2 + (size & ~_STORED)
        raw = self._data[at + 2 : end]
        return raw if size & _STORED else self._inflate(raw), end

    def _table(self, at: int, end: int) -> "_Table":
        table, start = _Table(), at
        while at < end:
            block, after = self._metadata(at)
            table.add(at - start, block)
            at = after
        table.data = b"".join(table.blocks)
        return table

    def _read_xattrs(self, at: int) -> None:
        first, count = struct.unpack_from("<QI", self._data, at)
        blocks = struct.unpack_from(
            f"<{-(-16 * count // _BLOCK)}Q", self._data, at + 16
        )
        packed = b"".join(self._metadata(block)[0] for block in blocks)
        self._sets = [
            (reference, pairs)
            for reference, pairs, _ in struct.iter_unpack("<QII", packed[: 16 * count])
        ]
        self._pairs = self._table(first, min((*blocks, at)))

    def _xattrs(self, which: int) -> Iterator[tuple[bytes, bytes]]:
        reference, count = self._sets[which]
        table, at = (
            self._pairs.data,
            self._pairs.at(reference >> 16, reference & 0xFFFF),
        )
        for _ in range(count):
            type_, length = struct.unpack_from("<2H", table, at)
            prefix = _PREFIXES.get(type_ & 0xFF, b"%d." % (type_ & 0xFF))
            key = prefix + table[at + 4 : at + 4 + length]
            value, at = self._value(at + 4 + length)
            if type_ & _ELSEWHERE:
                (other,) = struct.unpack("<Q", value)
                value, _ = self._value(self._pairs.at(other >> 16, other & 0xFFFF))
            yield key, value

    def _value(self, at: int) -> tuple[bytes, int]:
        """Return the value of an xattr, and where what follows it starts."""
        (size,) = struct.unpack_from("<I", self._pairs.data, at)
        return self._pairs.data[at + 4 : at + 4 + size], at + 4 + size


class _Table:
    """Metadata blocks, one after another.

    References to what is in them give the position of a block's compressed bytes,
    counted from the start of the table, and an offset in the block's plain bytes.
    """

    def __init__(self) -> None:
        self.data = b""
        self.blocks: list[bytes] = []
        self._starts: dict[int, int] = {}
        self._size = 0

    def add(self, position: int, block: bytes) -> None:
        """Append a block, whose compressed bytes are at ``position``."""
        self._starts[position] = self._size
        self._size += len(block)
        self.blocks.append(block)

    def at(self, position: int, offset: int) -> int:
        """Return the position in ``data`` of what a reference refers to."""
        try:
            return self._starts[position] + offset
        except KeyError:
            raise ValueError(f"no metadata block at {position:,}") from None


def _decompressor(method: int) -> Callable[[bytes], bytes]:
    """Return what inflates a metadata block.

    Raises:
        ValueError: The method is not one that flatten writes.
    """
    if method == 1:
        return zlib.decompress
    if method == 4:
        return lzma.decompress
    if method == 5:
        return _lz4
    if method == 6:
        import zstandard  # 15 ms, only where there is zstd

        inflate = zstandard.ZstdDecompressor().decompress

        def zstd(block: bytes) -> bytes:
            try:
                return inflate(block, max_output_size=_BLOCK)
            except zstandard.ZstdError as error:
                raise ValueError(str(error)) from error

        return zstd
    raise ValueError(f"compression method {method}")


def _lz4(block: bytes) -> bytes:
    r"""Inflate an LZ4 block.

    >>> _lz4(b"\x33abc\x03\x00\x10d")
    b'abcabcabcad'
    """
    out = bytearray()
    at = 0
    while at < len(block):
        token = block[at]
        length, at = _length(block, at + 1, token >> 4)
        out += block[at : at + length]
        at += length
        if at >= len(block):
            break
        distance = block[at] | block[at + 1] << 8
        length, at = _length(block, at + 2, token & 15)
        length += 4
        start = len(out) - distance
        if start < 0 or not distance:
            raise ValueError("an LZ4 match before the start")
        while length:  # a match may overlap what it makes
            part = out[start : start + length]
            out += part
            length -= len(part)
    return bytes(out)


def _length(block: bytes, at: int, length: int) -> tuple[int, int]:
    """Return a length that starts with four bits of a token, and where it ends."""
    if length == 15:
        more = 255
        while more == 255:
            more, at = block[at], at + 1
            length += more
    return length, at
