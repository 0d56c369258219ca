"""Fill an empty ext4 file system with a plan.

The blocks of directories come first, then the contents and xattrs of all inodes, in
walk order. So the contents are written as a stream, and inodes as long rows.
Directories have no index, as those of mke2fs have none.
"""

import os
import stat
import struct
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from itertools import chain, groupby
from typing import Final

from ...errors import FlattenError, quoted
from ...host.compress import PlainSink
from ...plan.plan import Piece, Plan, Span
from ...tar.members import (
    DIRECTORY,
    FIFO,
    FILE,
    FILE_TYPES,
    NO_EXTRA,
    SYMLINK,
    Members,
)
from ...tar.xattrs import from_records
from ..job import Job
from .crc32c import Crc32cRows, crc32c
from .ext4_disk import Disk
from .ext4_fs import (
    BLOCK,
    CHECKSUM,
    FIRST,
    IN_INODE,
    INODE,
    LOST_AND_FOUND,
    MAX_LINKS,
    ROOT,
    TAIL,
    Extent,
    Node,
    device_map,
    directory_blocks,
    dirent,
    extent_tree,
    inode,
    split,
    tree_blocks,
    with_checksum,
    xattr_areas,
)
from .limits import check_texts

FAST_SYMLINK: Final = 59  # bytes; longer targets take a block

_RECOVERED: Final = b"lost+found/"  # the directory that mke2fs makes
_DIRECTORIES: Final = 1024  # blocks of directories that are written together
_INODES: Final = 4096  # inodes that are written together

_Folder = tuple[bytes, int, int, int]  # map, blocks, blocks of its map, links
_Content = tuple[int, int, Piece]  # number of its run, a block of that, bytes
_Range = tuple[int, int, list[Piece]]  # first block in the file, how many, their bytes


def write_ext4(job: Job, file: int, output: str, time: int) -> None:
    """Write a plan into an empty file system.

    Args:
        job: The job.
        file: The descriptor of the file that has the file system.
        output: The output's name in messages.
        time: The ctime of all inodes.

    Raises:
        FlattenError: ext4 cannot hold the tree, or the file cannot be written.
    """
    try:
        disk = Disk(file)
        writer = _Ext4Writer(job.plan, disk, file, time)
        writer.write_directories()
        sink = PlainSink(file, output)
        for _, run in groupby(writer.contents(), key=lambda content: content[0]):
            contents = iter(run)
            _, block, first = next(contents)
            os.lseek(file, block * BLOCK, os.SEEK_SET)
            job.write_tar(sink, chain([first], (piece for *_, piece in contents)))
        writer.close()
    except OSError as error:
        raise FlattenError(f"{output}: cannot write: {error.strerror}") from error


class _Ext4Writer:
    """Writes the metadata of a plan, and says where its contents are."""

    def __init__(self, plan: Plan, disk: Disk, file: int, time: int) -> None:
        self._plan = plan
        self._disk = disk
        self._file = file
        self._time = time
        self._later = Counter(plan.inodes[position] for position in plan.links)
        self._numbers: dict[int, int] = {}  # of members with several names
        self._folders: dict[int, _Folder] = {}
        self._in_group: Counter[int] = Counter()  # directories
        self._last = FIRST - 1
        self._blocks = _Rows(file, disk.seed, BLOCK, TAIL, range(TAIL + 8, BLOCK))
        self._inodes = _Rows(file, disk.seed, INODE, INODE, CHECKSUM)
        self._run, self._end = 0, 0

    # --- directories

    def write_directories(self) -> None:
        """Number the inodes, and write the blocks of all directories."""
        stack: list[_Open] = []
        lost = _Open(b"lost+found", LOST_AND_FOUND, ROOT)
        members = self._plan.members
        for position, (path, member) in enumerate(self._plan):
            kind = members.kinds[member]
            if not stack:
                stack.append(_Open(b"", ROOT, ROOT))
                stack[0].add(LOST_AND_FOUND, stat.S_IFDIR, b"lost+found")
                continue
            _check(path, members, member)
            parent, _, name = path.rstrip(b"/").rpartition(b"/")
            while stack[-1].path != parent:
                self._leave(stack.pop())
            if path == _RECOVERED:
                stack.append(lost)
                continue
            number = self._number(position, member)
            stack[-1].add(number, FILE_TYPES[kind], name)
            if kind == DIRECTORY:
                stack.append(_Open(path.rstrip(b"/"), number, stack[-1].number))
                self._in_group[self._disk.group_of(number)] += 1
        while stack:
            self._leave(stack.pop())
        self._blocks.flush()
        if self._last > self._disk.inodes:
            raise FlattenError("the disk has too few inodes for the image")

    def _number(self, position: int, member: int) -> int:
        """Return the inode number of a path."""
        if position in self._plan.links:
            return self._numbers[member]
        self._last += 1
        if member in self._later:
            self._numbers[member] = self._last
        return self._last

    def _leave(self, folder: "_Open") -> None:
        """Write the blocks of a directory, whose entries are complete."""
        number = folder.number
        old = self._old_blocks(number) if number < FIRST else []
        data = directory_blocks(folder.entries, len(old))
        count = len(data) // BLOCK
        runs = [(block, 1) for block in old] + self._disk.take(count - len(old))
        extents, logical = [], 0
        for start, length in runs:
            extents.append((logical, start, length))
            for at in range(length):
                self._blocks.put(
                    number,
                    (start + at) * BLOCK,
                    data[(logical + at) * BLOCK : (logical + at + 1) * BLOCK],
                    full=_DIRECTORIES,
                )
            logical += length
        map_, nodes = self._map(number, extents)
        for block, node in nodes:
            os.pwrite(self._file, node, block * BLOCK)
        links = folder.links if folder.links < MAX_LINKS else 1
        self._folders[number] = map_, count, len(nodes), links

    def _old_blocks(self, number: int) -> list[int]:
        """Return the blocks of a directory that mke2fs has made, in one extent."""
        raw = os.pread(self._file, INODE, self._disk.offset(number))
        count, high, low = struct.unpack_from("<HHI", raw, 56)
        first = low | high << 32
        return list(range(first, first + count))

    # --- inodes

    def contents(self) -> Iterator[_Content]:
        """Yield what is in blocks other than directories', and write all inodes.

        Blocks that follow each other have the same number of their run.
        """
        number = FIRST - 1
        for position, (path, member) in enumerate(self._plan):
            if position in self._plan.links:
                continue
            special = {b"./": ROOT, _RECOVERED: LOST_AND_FOUND}.get(path)
            number += special is None
            try:
                yield from self._inode(member, special or number)
            except ValueError as error:
                raise FlattenError(f"{quoted(path)}: {error}") from error

    def _inode(self, member: int, number: int) -> Iterator[_Content]:
        members = self._plan.members
        kind = members.kinds[member]
        mode, uid, gid = members.owner_table[members.owners[member]]
        extra = members.extras.get(member, NO_EXTRA)
        node = Node(
            mode=FILE_TYPES[kind] | (0o777 if kind == SYMLINK else mode),
            uid=uid,
            gid=gid,
            links=self._later[member] + 1,
            mtime=members.mtimes[member],
            nanoseconds=extra.nanoseconds,
        )
        if extra.records:
            node.xattrs, block = xattr_areas(from_records(extra.records))
            if block:
                ((node.xattr_block, _),) = self._disk.take(1)
                node.blocks += 1
                sealed = with_checksum(block, node.xattr_block, self._disk.seed)
                yield self._run_at(node.xattr_block, 1), node.xattr_block, sealed
        if kind == DIRECTORY:
            node.map, blocks, more, node.links = self._folders[number]
            node.size, node.extents = blocks * BLOCK, True
            node.blocks += blocks + more
        elif kind == FILE:
            node.size = members.sizes[member]
            yield from self._fill(node, number, _ranges(members, member))
        elif kind == SYMLINK:
            target = members.targets[member]
            node.size = len(target)
            if len(target) <= FAST_SYMLINK:
                node.map = target
            else:
                padded = target.ljust(BLOCK, b"\0")
                yield from self._fill(node, number, [(0, 1, [padded])])
        elif kind != FIFO:
            node.map = device_map(*extra.device)
        row = inode(node, self._time)
        self._inodes.put(number, self._disk.offset(number), row, full=_INODES)

    def _fill(
        self, node: Node, number: int, ranges: Iterable[_Range]
    ) -> Iterator[_Content]:
        """Yield the contents of ranges of a file, and map its blocks."""
        extents: list[Extent] = []
        for first, count, pieces in ranges:
            at = first
            rest = deque(pieces)
            for start, length in self._disk.take(count):
                extents.append((at, start, length))
                run = self._run_at(start, length)
                for piece in _cut(rest, length * BLOCK):
                    yield run, start, piece
                at += length
            node.blocks += count
        node.map, nodes = self._map(number, extents)
        node.extents = True
        node.blocks += len(nodes)
        for block, data in nodes:
            yield self._run_at(block, 1), block, data

    def _run_at(self, block: int, count: int) -> int:
        """Return the number of the run that some blocks belong to."""
        self._run += block != self._end
        self._end = block + count
        return self._run

    def _map(
        self, number: int, extents: list[Extent]
    ) -> tuple[bytes, list[tuple[int, bytes]]]:
        """Return an inode's map of extents, and the blocks that it needs."""
        short = split(extents)
        if len(short) <= IN_INODE:
            return extent_tree(short, (), 0)
        runs = self._disk.take(tree_blocks(len(short)))
        blocks = [
            block for start, count in runs for block in range(start, start + count)
        ]
        seed = crc32c(struct.pack("<Q", number), self._disk.seed)
        return extent_tree(short, blocks, seed)

    def close(self) -> None:
        """Write the inodes that are left, and what is used."""
        self._inodes.flush()
        self._disk.close(self._last, self._in_group)


class _Open:
    """A directory whose entries are not complete.

    Attributes:
        path: Its path, without a slash at the end.
        number: Its inode.
        entries: Its entries so far.
        links: Its own names, and those of its subdirectories for it.
    """

    def __init__(self, path: bytes, number: int, parent: int) -> None:
        self.path = path
        self.number = number
        self.entries = [
            dirent(number, stat.S_IFDIR, b"."),
            dirent(parent, stat.S_IFDIR, b".."),
        ]
        self.links = 2

    def add(self, number: int, mode: int, name: bytes) -> None:
        """Add an entry."""
        self.entries.append(dirent(number, mode, name))
        self.links += stat.S_ISDIR(mode)


class _Rows:
    """Inodes, or blocks of directories, that are written with checksums, many together.

    The checksum of each starts with the number of its inode and a generation, 0.
    """

    def __init__(
        self, file: int, seed: int, width: int, end: int, checksum: Iterable[int]
    ) -> None:
        """Write to a file.

        Args:
            file: Its descriptor.
            seed: The state of all checksums at their start.
            width: Bytes of a row.
            end: How many of them are in the checksum.
            checksum: Where its 4 bytes are, the lowest first.
        """
        self._file = file
        self._seed = seed
        self._width = width
        self._end = end
        self._checksum = tuple(checksum)
        self._numbers: list[int] = []
        self._rows: list[bytes] = []
        self._offset = 0

    def put(self, number: int, offset: int, row: bytes, *, full: int) -> None:
        """Add a row; write those that are there first if it does not follow them."""
        if offset != self._offset + len(self._rows) * self._width:
            self.flush()
            self._offset = offset
        self._numbers.append(number)
        self._rows.append(row)
        if len(self._rows) == full:
            self.flush()
            self._offset = offset + self._width

    def flush(self) -> None:
        """Write the rows."""
        count = len(self._rows)
        if not count:
            return
        rows = bytearray().join(self._rows)
        heads = struct.pack(f"<{count}Q", *self._numbers)
        states = Crc32cRows(count, self._seed)
        states.add(heads, 8)
        states.add(rows, self._width, self._end)
        for at, plane in zip(self._checksum, states.planes(), strict=True):
            rows[at :: self._width] = plane
        os.pwrite(self._file, rows, self._offset)
        self._numbers.clear()
        self._rows.clear()


def _check(path: bytes, members: Members, member: int) -> None:
    """Refuse what ext4 cannot hold.

    Raises:
        FlattenError: A name or a symlink's target is too long, or a file has the name
            of a directory that every file system has.
    """
    check_texts(path, members, member, names="ext4 holds", targets="ext4 holds")
    if path + b"/" == _RECOVERED:
        raise FlattenError("lost+found is a directory in ext4; leave it out")


def _ranges(members: Members, member: int) -> Iterator[_Range]:
    """Yield the ranges of blocks that a file has data in, in order.

    Parts of a sparse file may start anywhere, also in the block where another ends.
    """
    layer, end = members.layers[member], -1
    first, pieces = 0, list[Piece]()
    for start, length, source in members.regions(member):
        if not length:
            continue
        if start // BLOCK > -(-end // BLOCK) or not pieces:
            if pieces:
                yield _range(first, end, pieces)
            first, end, pieces = start // BLOCK, start - start % BLOCK, []
        pieces += [bytes(start - end)] if start > end else []
        pieces.append(Span(layer, source, length, []))
        end = start + length
    if pieces:
        yield _range(first, end, pieces)


def _range(first: int, end: int, pieces: list[Piece]) -> _Range:
    """Return a range that is filled up with zeros."""
    if end % BLOCK:
        pieces.append(bytes(-end % BLOCK))
    return first, -(-end // BLOCK) - first, pieces


def _cut(pieces: deque[Piece], size: int) -> Iterator[Piece]:
    """Take pieces of ``size`` bytes together from the start of some."""
    while size:
        piece = pieces.popleft()
        length = len(piece) if isinstance(piece, bytes) else piece.length
        if length > size:
            if isinstance(piece, bytes):
                pieces.appendleft(piece[size:])
                piece = piece[:size]
            else:
                rest = Span(piece.layer, piece.offset + size, length - size, [])
                pieces.appendleft(rest)
                piece = Span(piece.layer, piece.offset, size, [])
            length = size
        yield piece
        size -= length
