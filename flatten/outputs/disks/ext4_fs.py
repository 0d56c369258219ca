"""The structures of ext4: bytes in, bytes out, without I/O.

Checksums of inodes and of directories are not in here: they are computed for many of
them together (``write_ext4``).

Reference: Linux, Documentation/filesystems/ext4/.
"""

import stat
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from ...tar.xattrs import ACL_ACCESS, ACL_DEFAULT
from ..inode import MAX_MAJOR, MAX_MINOR
from .crc32c import crc32c

BLOCK: Final = 4096
INODE: Final = 256  # bytes
MAX_NAME: Final = 255  # bytes
MAX_LINKS: Final = 65_000  # names of one file, and subdirectories that are counted
ROOT: Final = 2  # inode numbers
LOST_AND_FOUND: Final = 11
FIRST: Final = 12  # the first inode that is free in an empty file system

CHECKSUM: Final = (124, 125, 130, 131)  # in an inode: where the 4 bytes of it are
TAIL: Final = BLOCK - 12  # of a directory's block: where its checksum's entry is

IN_INODE: Final = 4  # extents that an inode has room for
_MAX_EXTENT: Final = 1 << 15  # blocks
_EXTENT_MAGIC: Final = 0xF30A
_PER_NODE: Final = (BLOCK - 12) // 12
_XATTR_MAGIC: Final = 0xEA020000
_XATTR_ROOM: Final = INODE - 160 - 4  # bytes in an inode, after their magic number
_XATTR_HEADER: Final = 32
_PREFIXES: Final = (
    (ACL_ACCESS, 2),
    (ACL_DEFAULT, 3),
    (b"user.", 1),
    (b"trusted.", 4),
    (b"security.", 6),
)
_NO_ID: Final = 0xFFFFFFFF  # of the entries of an ACL that name nobody
_EXTENTS_FLAG: Final = 0x80000
_FILE_TYPES: Final = {
    stat.S_IFREG: 1,
    stat.S_IFDIR: 2,
    stat.S_IFCHR: 3,
    stat.S_IFBLK: 4,
    stat.S_IFIFO: 5,
    stat.S_IFLNK: 7,
}

Extent = tuple[int, int, int]
"""The first block in the file, the first block on the disk, and how many."""


# --- directories


def dirent(number: int, mode: int, name: bytes, size: int | None = None) -> bytes:
    """Return a directory entry of ``size`` bytes, or of as few as it takes."""
    size = size or 8 + len(name) + 3 & -4
    kind = _FILE_TYPES[stat.S_IFMT(mode)] if number else 0
    return struct.pack("<IHBB", number, size, len(name), kind) + name.ljust(
        size - 8, b"\0"
    )


def directory_blocks(entries: Iterable[bytes], least: int) -> bytes:
    """Return the blocks of a directory, without their checksums.

    Args:
        entries: What ``dirent`` returned, in order; "." and ".." are the first.
        least: The least number of blocks.
    """
    blocks: list[list[bytes]] = [[]]
    room = TAIL
    for entry in entries:
        if len(entry) > room:
            blocks.append([])
            room = TAIL
        blocks[-1].append(entry)
        room -= len(entry)
    blocks += [[] for _ in range(least - len(blocks))]
    tail = struct.pack("<IHBBI", 0, 12, 0, 0xDE, 0)
    return b"".join(_filled(block) + tail for block in blocks)


def _filled(entries: list[bytes]) -> bytes:
    """Return a block's entries; the last one takes the room that is left."""
    if not entries:
        return struct.pack("<IHBB", 0, TAIL, 0, 0).ljust(TAIL, b"\0")
    before = b"".join(entries[:-1])
    room = TAIL - len(before)
    last = entries[-1]
    return before + (last[:4] + struct.pack("<H", room) + last[6:]).ljust(room, b"\0")


# --- extents


def split(extents: list[Extent]) -> list[Extent]:
    """Return extents that are not longer than the format allows."""
    if all(count <= _MAX_EXTENT for _, _, count in extents):
        return extents
    return [
        (logical + at, start + at, min(count - at, _MAX_EXTENT))
        for logical, start, count in extents
        for at in range(0, count, _MAX_EXTENT)
    ]


def tree_blocks(count: int) -> int:
    """Return how many blocks the tree of ``count`` extents takes."""
    blocks = 0
    while count > IN_INODE:
        count = -(-count // _PER_NODE)
        blocks += count
    return blocks


def extent_tree(
    extents: Sequence[Extent], blocks: Sequence[int], seed: int
) -> tuple[bytes, list[tuple[int, bytes]]]:
    """Return an inode's 60 bytes for its extents, and the nodes below them.

    Args:
        extents: The extents, as ``split`` returns them.
        blocks: Where to put the nodes: as many blocks as ``tree_blocks`` says.
        seed: The state of the checksum, after the inode's number.
    """
    rows = [
        struct.pack("<IHHI", at, count, start >> 32, start & 0xFFFFFFFF)
        for at, start, count in extents
    ]
    firsts = [at for at, _, _ in extents]
    free = iter(blocks)
    nodes: list[tuple[int, bytes]] = []
    depth = 0
    while len(rows) > IN_INODE:
        parts = [rows[i : i + _PER_NODE] for i in range(0, len(rows), _PER_NODE)]
        firsts = firsts[::_PER_NODE]
        rows = []
        for first, part in zip(firsts, parts, strict=True):
            number = next(free)
            node = _node(part, _PER_NODE, depth).ljust(BLOCK - 4, b"\0")
            nodes.append((number, node + struct.pack("<I", crc32c(node, seed))))
            rows.append(
                struct.pack("<IIHH", first, number & 0xFFFFFFFF, number >> 32, 0)
            )
        depth += 1
    return _node(rows, IN_INODE, depth).ljust(60, b"\0"), nodes


def _node(rows: list[bytes], most: int, depth: int) -> bytes:
    head = struct.pack("<4HI", _EXTENT_MAGIC, len(rows), most, depth, 0)
    return head + b"".join(rows)


# --- xattrs


def xattr_areas(found: dict[bytes, bytes]) -> tuple[bytes, bytes]:
    """Return xattrs as bytes for the inode and for a block; at most one is not empty.

    The block has no checksum yet.

    Raises:
        ValueError: They do not fit in a block.
    """
    rows = sorted(map(_xattr, found.items()), key=_xattr_order)
    inside = _xattr_entries(rows, _XATTR_ROOM, 0)
    if inside is not None:
        return struct.pack("<I", _XATTR_MAGIC) + inside if rows else b"", b""
    entries = _xattr_entries(rows, BLOCK - _XATTR_HEADER, _XATTR_HEADER)
    if entries is None:
        raise ValueError("more xattrs than fit in a block")
    digest = 0
    for row in rows:
        digest = (digest << 16 ^ digest >> 16 ^ _hash(*row[1:])) & 0xFFFFFFFF
    head = struct.pack("<4I16x", _XATTR_MAGIC, 1, 1, digest)
    return b"", head + entries


def with_checksum(block: bytes, number: int, seed: int) -> bytes:
    """Return a block of xattrs with its checksum, which has its number in it."""
    state = crc32c(block, crc32c(struct.pack("<Q", number), seed))
    return block[:16] + struct.pack("<I", state) + block[20:]


def _xattr(item: tuple[bytes, bytes]) -> tuple[int, bytes, bytes]:
    """Return the number of a name's prefix, the rest of the name, and the value."""
    name, value = item
    if len(name) > MAX_NAME:
        raise ValueError(
            f"an xattr with a name of {len(name):,} bytes; ext4 holds at most "
            f"{MAX_NAME}"
        )
    for prefix, index in _PREFIXES:
        if name.startswith(prefix):
            is_acl = prefix in (ACL_ACCESS, ACL_DEFAULT)
            return index, name[len(prefix) :], _acl(value) if is_acl else value
    raise ValueError(f"an xattr that ext4 cannot hold: {name!r}")


def _xattr_order(row: tuple[int, bytes, bytes]) -> tuple[int, int, bytes]:
    """Return where Linux looks for an xattr in a block."""
    return row[0], len(row[1]), row[1]


def _acl(value: bytes) -> bytes:
    """Convert an ACL from the form of xattrs into the one on the disk."""
    entries = [struct.pack("<I", 1)]
    for tag, bits, who in struct.iter_unpack("<HHI", value[4:]):
        entries.append(struct.pack("<HH", tag, bits))
        if who != _NO_ID:
            entries.append(struct.pack("<I", who))
    return b"".join(entries)


def _xattr_entries(
    rows: list[tuple[int, bytes, bytes]], room: int, before: int
) -> bytes | None:
    """Return entries from the start and values from the end, or None without room.

    Offsets of values count from ``before`` bytes before the room.
    """
    sizes = (16 + (len(n) + 3 & -4) + (len(v) + 3 & -4) for _, n, v in rows)
    gap = room - sum(sizes)
    if gap < 4:
        return None
    heads, values, end = b"", b"", room
    for index, name, value in rows:
        end -= len(value) + 3 & -4
        at = end + before if value else 0
        head = struct.pack(
            "<BBH3I", len(name), index, at, 0, len(value), _hash(name, value)
        )
        heads += head + name + bytes(-len(name) % 4)
        values = value + bytes(-len(value) % 4) + values
    return heads + bytes(gap) + values


def _hash(name: bytes, value: bytes) -> int:
    """Return the hash of an xattr that its entry has."""
    state = 0
    for byte in name:
        state = (state << 5 ^ state >> 27 ^ byte) & 0xFFFFFFFF
    padded = value + bytes(-len(value) % 4)
    for (word,) in struct.iter_unpack("<I", padded):
        state = (state << 16 ^ state >> 16 ^ word) & 0xFFFFFFFF
    return state


# --- inodes


@dataclass(slots=True)
class Node:
    """What an inode holds.

    Attributes:
        mode: The file type and the permissions.
        uid: The owner.
        gid: The group.
        links: The link count.
        mtime: Whole seconds since the epoch, floored; it is the atime too.
        nanoseconds: The fraction of the mtime.
        size: Bytes of content, of a symlink's target, or of a directory's blocks.
        blocks: Blocks that it takes, with those of its extents and xattrs.
        map: Its 60 bytes for extents, for a short symlink or for a device.
        extents: The 60 bytes are of extents.
        xattrs: Its xattrs, as ``xattr_areas`` returns them.
        xattr_block: The block of its xattrs, or 0.
    """

    mode: int
    uid: int
    gid: int
    links: int
    mtime: int
    nanoseconds: int
    size: int = 0
    blocks: int = 0
    map: bytes = b""
    extents: bool = False
    xattrs: bytes = b""
    xattr_block: int = 0


def inode(node: Node, time: int) -> bytes:
    """Return an inode without its checksum; ``time`` is its ctime and its birth."""
    low, high = _time(node.mtime, node.nanoseconds)
    born, more = _time(time, 0)
    sectors = node.blocks * (BLOCK // 512)
    return struct.pack(
        "<HHIIIIIHHIII60sIIIIHHHH4xHHIIIIIII",
        node.mode,
        node.uid & 0xFFFF,
        node.size & 0xFFFFFFFF,
        low,  # atime
        born,
        low,
        0,
        node.gid & 0xFFFF,
        node.links,
        sectors & 0xFFFFFFFF,
        _EXTENTS_FLAG if node.extents else 0,
        0,
        node.map,
        0,
        node.xattr_block & 0xFFFFFFFF,
        node.size >> 32,
        0,
        sectors >> 32,
        node.xattr_block >> 32,
        node.uid >> 16,
        node.gid >> 16,
        INODE - 128 - 96,
        0,
        more,
        high,
        high,  # atime
        born,
        more,
        0,
        0,
    ) + node.xattrs.ljust(INODE - 160, b"\0")


def _time(seconds: int, nanoseconds: int) -> tuple[int, int]:
    """Return a time as the low 32 bits of its seconds, and the rest.

    The kernel reads the low bits as a signed number.
    """
    return seconds % (1 << 32), nanoseconds << 2 | (seconds + (1 << 31) >> 32)


def device_map(major: int, minor: int) -> bytes:
    """Return the 60 bytes of a device's inode: one of two encodings of its number.

    Raises:
        ValueError: Linux has no such number.
    """
    if major > MAX_MAJOR or minor > MAX_MINOR:
        raise ValueError(
            f"a device with the number {major}:{minor}; Linux has at most "
            f"{MAX_MAJOR}:{MAX_MINOR}"
        )
    if major < 256 and minor < 256:
        return struct.pack("<I", major << 8 | minor)
    return struct.pack("<II", 0, minor & 0xFF | major << 8 | (minor & ~0xFF) << 12)
