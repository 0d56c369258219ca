"""Read an EROFS image whole, by its documentation; nothing is the package's.

It is strict: padding must be zeros, names in order, and no byte may belong to two
things.
"""

import base64
import hashlib
import stat
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

PREFIXES: Final = {
    1: b"user.",
    2: b"system.posix_acl_access",
    3: b"system.posix_acl_default",
    4: b"trusted.",
    6: b"security.",
}
TYPES: Final = {
    stat.S_IFREG: (1, "file"),
    stat.S_IFDIR: (2, "dir"),
    stat.S_IFCHR: (3, "chr"),
    stat.S_IFBLK: (4, "blk"),
    stat.S_IFIFO: (5, "fifo"),
    stat.S_IFLNK: (7, "symlink"),
}
HOLE: Final = 0xFFFFFFFF


@dataclass
class Node:
    """An inode and its content."""

    nid: int
    mode: int
    uid: int
    gid: int
    mtime: int
    nanoseconds: int
    links: int
    where: int
    layout: int
    content: bytes
    holes: int
    xattrs: dict[bytes, bytes]

    def type(self) -> str:
        """Return the file type in a word."""
        return TYPES[stat.S_IFMT(self.mode)][1]

    def device(self) -> tuple[int, int]:
        """Return the major and minor number of a device."""
        low, high = self.where & 0xFF, self.where >> 12 & 0xFFF00
        return self.where >> 8 & 0xFFF, low | high


@dataclass
class Image:
    """An EROFS image of flatten's: extended inodes; ``devices`` are the other files."""

    data: bytes
    devices: Sequence[bytes] = ()
    owners: dict[int, str] = field(default_factory=dict)  # who has each block
    nodes: dict[int, Node] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the superblock, its checksum too."""
        (magic, checksum, self.compat, bits, _, self.root, self.inodes, self.time, _,
         blocks, meta, xattrs) = struct.unpack_from("<IIIBBHQqIIII", self.data, 1024)  # fmt: skip
        self.uuid, self.label, self.incompat, zero, extra, slot = struct.unpack_from(
            "<16s16sIHHH", self.data, 1072
        )
        self.block = 1 << bits
        assert (magic, meta, zero, extra) == (0xE0F5E1E2, 0, 0, len(self.devices))
        assert bool(self.incompat & 8) == bool(extra)
        assert len(self.data) == blocks * self.block
        assert not any(self.data[:1024]), "boot sector"
        self.tags = [self._device(slot + n) for n in range(extra)]
        end = 1152 + 128 * extra
        assert not any(self.data[end : end + -end % self.block]), "after the devices"
        if self.compat & 1:
            summed = bytearray(self.data[1024 : self.block])
            summed[4:8] = bytes(4)
            assert checksum == castagnoli(summed) ^ 0xFFFFFFFF
        else:
            assert (checksum, self.block <= 1024) == (0, True)
        self.shared = xattrs * self.block

    def _device(self, slot: int) -> bytes:
        tag, blocks, unified = struct.unpack_from("<64sII56x", self.data, slot * 128)
        assert unified == 0
        size = len(self.devices[slot - 9])
        assert blocks == size // self.block
        return tag.rstrip(b"\0")

    def node(self, nid: int) -> Node:
        """Return an inode with its content."""
        if nid not in self.nodes:
            self.nodes[nid] = self._node(nid)
        return self.nodes[nid]

    def _node(self, nid: int) -> Node:
        at = nid * 32
        (form, count, mode, zero, size, where, _, uid, gid, mtime, nanoseconds,
         links) = struct.unpack_from("<HHHHQIIIIqII", self.data, at)  # fmt: skip
        assert (form & 1, zero) == (1, 0)
        assert not any(self.data[at + 48 : at + 64])
        assert at % self.block + 64 <= self.block, "an inode in two blocks"
        layout = form >> 1
        body = at + 64
        inline = body + (12 + 4 * (count - 1) if count else 0)
        xattrs = self._xattrs(body, inline) if count else {}
        holes = 0
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)):
            content = b""
        elif layout == 4:
            content, holes = self._chunks(nid, inline, size, where)
        else:
            assert layout in (0, 2)
            whole = size // self.block if layout == 2 else -(-size // self.block)
            content = self._blocks(nid, where, whole)
            if layout == 2:
                tail = size % self.block
                assert tail, "nothing after the inode"
                assert inline // self.block == (inline + tail - 1) // self.block, (
                    "in two"
                )
                content += self.data[inline : inline + tail]
            assert not any(content[size:]), "padding"
            content = content[:size]
        return Node(nid, mode, uid, gid, mtime, nanoseconds, links, where, layout,
                    content, holes, xattrs)  # fmt: skip

    def _blocks(self, nid: int, first: int, count: int) -> bytes:
        for block in range(first, first + count):
            taken = self.owners.setdefault(block, f"nid {nid}")
            assert taken == f"nid {nid}", f"block {block} of nid {nid} is {taken}'s"
        assert (first + count) * self.block <= len(self.data) or not count
        return self.data[first * self.block : (first + count) * self.block]

    def _chunks(self, nid: int, at: int, size: int, form: int) -> tuple[bytes, int]:
        chunk = self.block << (form & 31)
        content, holes = bytearray(), 0
        if form & ~31:
            assert form & ~31 == 32, "a table of devices and addresses"
            return self._elsewhere(at, size, chunk), 0
        for number in range(-(-size // chunk)):
            (address,) = struct.unpack_from("<I", self.data, at + 4 * number)
            length = min(chunk, size - number * chunk)
            if address == HOLE:
                content += bytes(length)
                holes += length
            else:
                content += self._blocks(nid, address, -(-length // self.block))
        assert not any(content[size:]), "padding"
        return bytes(content[:size]), holes

    def _elsewhere(self, at: int, size: int, chunk: int) -> bytes:
        """Return a content that is one chunk of another file."""
        assert 0 < size <= chunk, "one chunk"
        at += -at % 8
        advice, device, address = struct.unpack_from("<HHI", self.data, at)
        assert (advice, address == HOLE) == (0, False)
        assert 1 <= device <= len(self.devices)
        start = address * self.block
        end = start + -(-size // self.block) * self.block
        assert end <= len(self.devices[device - 1]), "past the end of a device"
        return self.devices[device - 1][start : start + size]

    def _xattrs(self, at: int, stop: int) -> dict[bytes, bytes]:
        filter_, shared = struct.unpack_from("<IB", self.data, at)
        assert filter_ == 0
        assert not any(self.data[at + 5 : at + 12])
        found: dict[bytes, bytes] = {}
        at += 12
        for number in struct.unpack_from(f"<{shared}I", self.data, at):
            found |= self._xattr(self.shared + 4 * number)[0]
        at += 4 * shared
        while at < stop:
            row, at = self._xattr(at)
            assert not row.keys() & found.keys()
            found |= row
        assert at == stop
        return found

    def _xattr(self, at: int) -> tuple[dict[bytes, bytes], int]:
        length, index, size = struct.unpack_from("<BBH", self.data, at)
        middle = at + 4 + length
        key = PREFIXES[index] + self.data[at + 4 : middle]
        end = middle + size + 3 & -4
        return {key: self.data[middle : middle + size]}, end

    def entries(self, node: Node) -> list[tuple[bytes, int]]:
        """Return the names in a directory, in the order of the kernel's bisection."""
        found: list[tuple[bytes, int]] = []
        for start in range(0, len(node.content), self.block):
            block = node.content[start : start + self.block]
            (first,) = struct.unpack_from("<H", block, 8)
            rows = [
                struct.unpack_from("<QHBB", block, at) for at in range(0, first, 12)
            ]
            stops = [row[1] for row in rows[1:]] + [len(block)]
            for (nid, at, type_, zero), stop in zip(rows, stops, strict=True):
                name = block[at:stop].rstrip(b"\0")
                assert stop == len(block) or len(name) == stop - at
                file_type = TYPES[stat.S_IFMT(self.node(nid).mode)][0]
                assert (type_, zero) == (file_type, 0)
                found.append((name, nid))
        names = [name for name, _ in found]
        assert names == sorted(set(names)), "the order of names"
        return found

    def tree(self) -> dict[bytes, Node]:
        """Return all inodes by path; checks links, dots and the number of inodes."""
        found: dict[bytes, Node] = {b"": self.node(self.root)}
        names: dict[int, int] = {}
        todo = [(b"", self.root, self.root)]
        while todo:
            path, nid, parent = todo.pop()
            folders = 0
            rows = dict(self.entries(self.node(nid)))
            assert (rows.pop(b"."), rows.pop(b"..")) == (nid, parent)
            for name, other in rows.items():
                whole = path + b"/" + name if path else name
                found[whole] = self.node(other)
                names[other] = names.get(other, 0) + 1
                if self.node(other).type() == "dir":
                    folders += 1
                    todo.append((whole, other, nid))
            assert self.node(nid).links == 2 + folders
        for nid, count in names.items():
            node = self.node(nid)
            assert node.links == count or node.type() == "dir"
        assert self.inodes == len(names) + 1
        return found

    def listing(self) -> list[dict[str, Any]]:
        """List all paths in walk order, in the words of ``listing``."""
        rows: list[dict[str, Any]] = []
        firsts: dict[int, str] = {}
        tree = self.tree()
        for path in sorted(tree, key=lambda path: path.split(b"/")):
            node, name = tree[path], path.decode("utf-8", "surrogateescape")
            row: dict[str, Any] = {
                "path": name, "type": node.type(), "mode": f"{node.mode & 0o7777:04o}",
                "uid": node.uid, "gid": node.gid, "mtime": node.mtime,
            }  # fmt: skip
            if node.type() == "file":
                row["size"] = len(node.content)
                row["sha256"] = hashlib.sha256(node.content).hexdigest()
            if node.xattrs:
                row["xattrs"] = {
                    key.decode(): base64.b64encode(value).decode()
                    for key, value in node.xattrs.items()
                }
            if node.nid in firsts:
                row |= {"type": "hardlink", "linkname": firsts[node.nid]}
            elif node.type() == "symlink":
                row["linkname"] = node.content.decode("utf-8", "surrogateescape")
            elif node.type() in ("chr", "blk"):
                row["rdev"] = "{}:{}".format(*node.device())
            firsts.setdefault(node.nid, name)
            rows.append(row)
        return rows


def castagnoli(data: bytes | bytearray) -> int:
    """Return the CRC-32C of data, a bit at a time."""
    state = 0xFFFFFFFF
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = state >> 1 ^ (0x82F63B78 & -(state & 1))
    return state ^ 0xFFFFFFFF
