"""Encode a plan as the pieces of an EROFS image, in the order of ``erofs_layout``."""

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Final

from ...plan.plan import Piece, Span
from ...tar.members import BLOCK as BLOCK_DEVICE
from ...tar.members import CHAR, DIRECTORY, FILE_TYPES, NO_EXTRA, SYMLINK, Column
from .erofs_directory import encode_block, split
from .erofs_fs import (
    CHUNK_BASED,
    CHUNK_INDEX,
    EXTENDED,
    HOLE,
    INDEXES,
    INODE,
    SLOT,
    XATTR_HEADER,
    XATTR_UNIT,
    encode_device,
)
from .erofs_layout import Form, Layout

_STEP: Final = 1 << 18  # bytes of zeros per piece


def erofs_pieces(layout: Layout) -> Iterator[Piece]:
    """Yield the pieces of all but the head, in order."""
    return _Encoder(layout).pieces()


class _Encoder:
    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._block = layout.block
        self._plan = layout.plan
        self._members = layout.plan.members
        self._outside: tuple[Column, Column] = array("I"), array("I")

    def pieces(self) -> Iterator[Piece]:
        area = self._layout.xattrs.area
        yield from self._inodes()
        yield area
        yield bytes(-len(area) % self._block)
        for positions in self._outside:
            for position in positions:
                yield from self._blocks(position)

    def _inodes(self) -> Iterator[Piece]:
        """Yield the inodes, each with its xattrs and what else follows it.

        The positions whose content has blocks outside are collected, first those of
        directories, then the others.
        """
        layout, plan, kinds = self._layout, self._plan, self._members.kinds
        folders, others = self._outside
        directories, contents = layout.directories, layout.contents
        at = layout.head
        for position, inode in enumerate(plan.inodes):
            if position in plan.links:
                continue
            form = layout.form(position)
            block = HOLE
            if form.blocks and kinds[inode] == DIRECTORY:
                folders.append(position)
                block, directories = directories, directories + form.blocks
            elif form.blocks:
                others.append(position)
                block, contents = contents, contents + form.blocks
            start = layout.nids[position] * SLOT
            head = bytes(start - at) + self._inode(position, form, block)
            yield head + layout.xattrs.after(inode) if form.xattrs else head
            if form.layout == CHUNK_BASED:
                if inode in layout.chunks:
                    yield from layout.chunks[inode].table(block)
                else:
                    yield self._index(inode).rjust(form.inline, b"\0")
            elif form.inline:
                inside = form.blocks * self._block
                yield from self._content(position, inside, form.size)
            at = start + form.length()
        yield bytes(-at % self._block)

    def _inode(self, position: int, form: Form, block: int) -> bytes:
        """Encode an inode whose content outside of it starts at ``block``."""
        members, inode = self._members, self._plan.inodes[position]
        kind = members.kinds[inode]
        mode, uid, gid = members.owner_table[members.owners[inode]]
        extra = members.extras.get(inode, NO_EXTRA)
        links = self._layout.names.get(inode, 1)
        where = block
        if kind == DIRECTORY:
            links = 2 + self._layout.subdirectories(position)
        elif kind in (CHAR, BLOCK_DEVICE):
            where = encode_device(*extra.device)
        elif form.layout == CHUNK_BASED:
            chunks = self._layout.chunks.get(inode)
            where = self._index_format(form) if chunks is None else chunks.bits
        count = 0
        if form.xattrs:
            count = 1 + (form.xattrs - XATTR_HEADER.size) // XATTR_UNIT
        return INODE.pack(
            EXTENDED | form.layout,
            count,
            FILE_TYPES[kind] | mode,
            0,  # i_reserved
            form.size,
            where,
            position + 1,
            uid,
            gid,
            members.mtimes[inode],
            extra.nanoseconds,
            links,
        )

    def _index_format(self, form: Form) -> int:
        """Return the format of a content that is one chunk of a device."""
        return INDEXES | (-(-form.size // self._block) - 1).bit_length()

    def _index(self, inode: int) -> bytes:
        """Encode the address of a content on a device."""
        assert self._layout.devices is not None, "contents are elsewhere"
        address = self._layout.devices.find(inode)
        assert address is not None, "its form says that it is elsewhere"
        return CHUNK_INDEX.pack(0, *address)

    def _blocks(self, position: int) -> Iterator[Piece]:
        """Yield the blocks of a content that are outside of its inode."""
        form = self._layout.form(position)
        if form.layout == CHUNK_BASED:
            inode = self._plan.inodes[position]
            chunks = self._layout.chunks[inode]
            length = self._block << chunks.bits
            yield from self._sparse(
                inode,
                [
                    (first * length, min(last * length, form.size))
                    for first, last in chunks.runs
                ],
            )
            yield bytes(-min(chunks.runs[-1][1] * length, form.size) % self._block)
        else:
            stop = min(form.blocks * self._block, form.size)
            yield from self._content(position, 0, stop)
            yield bytes(-stop % self._block)

    def _content(self, position: int, start: int, stop: int) -> Iterable[Piece]:
        """Return a range of the content of a directory, a symlink or a file."""
        members, inode = self._members, self._plan.inodes[position]
        kind = members.kinds[inode]
        if kind == DIRECTORY:
            block = self._block
            return self._directory(position, start // block, -(-stop // block))
        if kind == SYMLINK:
            return (members.targets[inode][start:stop],)
        if members.extras.get(inode, NO_EXTRA).sparse is not None:
            return self._sparse(inode, [(start, stop)])
        source = members.data[inode] + start
        return (Span(members.layers[inode], source, stop - start, []),)

    def _directory(self, position: int, start: int, stop: int) -> Iterator[bytes]:
        """Yield a range of a directory's blocks; its last one is not padded."""
        entries = self._layout.entries(position)
        blocks = list(split([name for name, _, _ in entries], self._block))
        for first, last, used in blocks[start:stop]:
            yield encode_block(entries[first:last])
            if last < len(entries):
                yield bytes(self._block - used)

    def _sparse(self, inode: int, ranges: Iterable[tuple[int, int]]) -> Iterator[Piece]:
        """Yield ranges of a sparse file, in order; holes in them are zeros."""
        layer = self._members.layers[inode]
        regions = list(self._members.regions(inode))
        for start, stop in ranges:
            at = start
            before = max(bisect_right(regions, (start,)) - 1, 0)
            for region in range(before, len(regions)):
                offset, length, source = regions[region]
                if offset >= stop:
                    break
                first, last = max(offset, at), min(offset + length, stop)
                if first < last:
                    yield from _zeros(first - at)
                    yield Span(layer, source + first - offset, last - first, [])
                    at = last
            yield from _zeros(stop - at)


def _zeros(count: int) -> Iterator[bytes]:
    for at in range(0, count, _STEP):
        yield bytes(min(_STEP, count - at))
