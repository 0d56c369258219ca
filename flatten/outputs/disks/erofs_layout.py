"""Compute where everything is in an EROFS image, before its first byte is written.

::

    first      the superblock
    ...        the inodes in the order of the plan, the root first; each with its
               xattrs and the last bytes of its content, within one block
    ...        the shared xattrs
    ...        the other blocks of directories
    ...        the other blocks of files and symlinks, in the same order

All metadata is together, so that reading it needs few large reads. Small files are
completely in it.
"""

from array import array
from bisect import insort
from collections import Counter
from typing import Final, NamedTuple

from ...errors import FlattenError, quoted
from ...plan.plan import Plan
from ...tar.members import DIRECTORY, FILE, NO_EXTRA, SYMLINK, Column
from .erofs_chunks import Chunks, choose_chunks
from .erofs_devices import Devices
from .erofs_directory import Entry, directory_size
from .erofs_fs import (
    ADDRESS,
    CHUNK_BASED,
    CHUNK_INDEX,
    FILE_TYPES,
    FLAT_INLINE,
    FLAT_PLAIN,
    INODE,
    MAX_XATTRS,
    SLOT,
    head_size,
)
from .erofs_xattrs import Xattrs
from .limits import check_limits

ROOT: Final = 0  # its position in a plan


class Form(NamedTuple):
    """How an inode and its content are stored.

    Attributes:
        layout: ``FLAT_PLAIN``, ``FLAT_INLINE`` or ``CHUNK_BASED``.
        size: Bytes of content.
        xattrs: Bytes of xattrs after the inode.
        inline: Bytes after the xattrs: the end of the content, or a chunk table.
        blocks: Blocks of content that are not after the inode.
    """

    layout: int
    size: int
    xattrs: int
    inline: int
    blocks: int

    def length(self) -> int:
        """Return the bytes of the inode and of all that follows it."""
        return INODE.size + self.xattrs + self.inline


class Layout:
    """Where everything is.

    Attributes:
        plan: The plan of the tree; the root is its first member.
        block: The size of a block, in bytes.
        devices: The files that it points at, if it is an index.
        head: The number of bytes before the first inode.
        xattrs: The encoded xattrs.
        chunks: The chunks of sparse files, by inode.
        names: How many names an inode has, by inode; only those with several.
        nids: The nid of each position in the plan.
        inodes: The number of inodes.
        area: The block at which the shared xattrs start.
        directories: The block at which those of directories start.
        contents: The block at which those of files and symlinks start.
        blocks: The number of blocks.
    """

    def __init__(self, plan: Plan, block: int, devices: Devices | None = None) -> None:
        """Place everything.

        Raises:
            FlattenError: A name, a target, a device number or an xattr is too large.
        """
        check_limits(plan, names="EROFS holds")
        self.plan, self.block, self.devices = plan, block, devices
        self.head = head_size(block, 0 if devices is None else len(devices.files))
        self.xattrs = Xattrs(plan)
        self.chunks = _chunks(plan, block)
        later = Counter(plan.inodes[position] for position in plan.links)
        self.names = {inode: count + 1 for inode, count in later.items()}
        self.inodes = len(plan) - len(plan.links)
        self._children, self._parents = _family(plan)
        self._directory_sizes: dict[int, int] = {}
        for position in self._children:
            names = [name for name, _ in self._named(position)]
            self._directory_sizes[position] = directory_size(names, block)
        self.nids: Column = array("Q")
        self._place()

    def _place(self) -> None:
        plan, nids, kinds = self.plan, self.nids, self.plan.members.kinds
        firsts: dict[int, int] = {}
        block = self.block
        at, directories, contents = self.head, 0, 0
        for position, inode in enumerate(plan.inodes):
            if position in plan.links:
                nids.append(firsts[inode])
                continue
            form = self.form(position)
            if form.xattrs > MAX_XATTRS:
                raise FlattenError(
                    f"{quoted(plan.paths[position])}: its xattrs take {form.xattrs:,} "
                    f"bytes; EROFS holds at most {MAX_XATTRS:,}"
                )
            length = form.length()
            left = -at % block
            if left < length:
                at += left
            nid = at // SLOT
            nids.append(nid)
            if inode in self.names:
                firsts[inode] = nid
            at += length + -length % SLOT
            if kinds[inode] == DIRECTORY:
                directories += form.blocks
            else:
                contents += form.blocks
        self.area = self._blocks(at)
        self.directories = self.area + self._blocks(len(self.xattrs.area))
        self.contents = self.directories + directories
        self.blocks = self.contents + contents

    def form(self, position: int) -> Form:
        """Return how the inode of a first name is stored."""
        members, inode = self.plan.members, self.plan.inodes[position]
        kind, block = members.kinds[inode], self.block
        xattrs = 0
        if inode in members.extras:
            xattrs = len(self.xattrs.after(inode))
            if inode in self.chunks:
                chunks = self.chunks[inode]
                table = ADDRESS.size * chunks.count
                size = members.sizes[inode]
                return Form(CHUNK_BASED, size, xattrs, table, chunks.blocks)
        if kind == FILE:
            size = members.sizes[inode]
            if size and self.devices is not None and self.devices.find(inode):
                index = CHUNK_INDEX.size + -xattrs % CHUNK_INDEX.size
                return Form(CHUNK_BASED, size, xattrs, index, 0)
        elif kind == DIRECTORY:
            size = self._directory_sizes[position]
        elif kind == SYMLINK:
            size = len(members.targets[inode])
        else:
            size = 0
        tail = size % block
        if tail and INODE.size + xattrs + tail <= block:
            return Form(FLAT_INLINE, size, xattrs, tail, size // block)
        return Form(FLAT_PLAIN, size, xattrs, 0, self._blocks(size))

    def subdirectories(self, position: int) -> int:
        """Return the number of directories in a directory."""
        kinds, inodes = self.plan.members.kinds, self.plan.inodes
        children = self._children[position]
        return sum(kinds[inodes[child]] == DIRECTORY for child in children)

    def entries(self, position: int) -> list[Entry]:
        """Return the entries of a directory in the order of their names."""
        kinds, inodes, nids = self.plan.members.kinds, self.plan.inodes, self.nids
        return [
            (name, nids[other], FILE_TYPES[kinds[inodes[other]]])
            for name, other in self._named(position)
        ]

    def _blocks(self, size: int) -> int:
        """Return the number of blocks that ``size`` bytes take."""
        return -(-size // self.block)

    def _named(self, position: int) -> list[tuple[bytes, int]]:
        """Return the names in a directory, and the positions that they refer to."""
        paths = self.plan.paths
        start = 0 if position == ROOT else len(paths[position])
        found = [
            (paths[child][start:].rstrip(b"/"), child)
            for child in self._children[position]
        ]
        insort(found, (b".", position))
        insort(found, (b"..", self._parents[position]))
        return found


def _chunks(plan: Plan, block: int) -> dict[int, Chunks]:
    """Return the chunks of the sparse files that take less space in chunks."""
    found: dict[int, Chunks] = {}
    sizes, extras = plan.members.sizes, plan.members.extras
    for inode in plan.inodes:
        extra = extras.get(inode, NO_EXTRA)
        if extra.sparse is not None and inode not in found:
            chunks = choose_chunks(sizes[inode], extra.sparse, block)
            if chunks is not None:
                found[inode] = chunks
    return found


def _family(plan: Plan) -> tuple[dict[int, Column], dict[int, int]]:
    """Return the children and the parent of each directory, all as positions."""
    kinds, inodes = plan.members.kinds, plan.inodes
    children: dict[int, Column] = {ROOT: array("I")}
    parents: dict[int, int] = {ROOT: ROOT}
    above: list[tuple[bytes, int]] = []
    path, parent = b"", ROOT
    for position in range(1, len(plan)):
        name = plan.paths[position]
        while not name.startswith(path):
            path, parent = above.pop()
        children[parent].append(position)
        if kinds[inodes[position]] == DIRECTORY:
            children[position], parents[position] = array("I"), parent
            above.append((path, parent))
            path, parent = name, position
    return children, parents
