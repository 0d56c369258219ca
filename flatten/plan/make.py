"""A tree to the ordered pieces of its tar, with the size known before the first byte.

Order: depth first, a directory before its contents, siblings bytewise by name. It
does not depend on how the tree was layered, so equal trees give equal bytes, and a
plain ``tar -x`` keeps the mtimes of directories, which it sets on leaving them.

Layers are mostly in this order too. Members that follow each other both in the
output and in their layer become one span, with our headers patched over theirs, so
that copying is a few large reads whatever the number of members.
"""

import struct
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count, islice
from typing import Final

from ..errors import FormatError, quoted
from ..tar import write_header
from ..tar.members import (
    CODED,
    DIRECTORY,
    FIFO,
    FILE,
    LINK,
    MARK,
    MAX_NAME,
    MERGED,
    NO_EXTRA,
    NO_SOURCE,
    VARIED,
    Allowance,
    Column,
    Extra,
    Members,
    Piece,
    Plan,
    Section,
    Span,
)
from ..tar.wire import BLOCK_SIZE, ZEROS, padded, remember
from ..tar.write_header import RECORD_SIZE
from ..tree.tree import Names, Tree

BODY: Final = 1 << 17  # contents from this size on are copied alone, by the kernel
SHARED: Final = 1 << 16  # and from this one on when they can be shared

_GNU_REST: Final = write_header.header(b"", FILE)[257:]  # what follows the target
_START: Final = struct.Struct("100s24s12s12s")  # all that comes before the checksum
_BUSYBOX_BLOCKS: Final = 8  # of name; its tar reads at most 4,095 bytes
_OCTAL_LIMIT: Final = 8**11  # sizes and mtimes from here on are base-256


@dataclass(frozen=True, slots=True)
class Placement:
    """Where contents must be in the output, to share the blocks of their source.

    Attributes:
        block: The file system's block size.
        origins: By layer, what says where an offset of its stream is in a file; None
            where it is in none.
    """

    block: int
    origins: Sequence[Callable[[int], int | None]]


def make_plan(
    tree: Tree,
    *,
    posix: bool = False,
    clamp_mtime: int | None = None,
    placement: Placement | None = None,
    entries: Sequence[tuple[bytes, int]] | None = None,
) -> Plan:
    """List what to write for a tree, and sum up its size.

    Args:
        tree: All layers applied.
        posix: Write POSIX headers (pax) throughout, with fractions of seconds.
        clamp_mtime: Later mtimes become this one, as ``tar --clamp-mtime`` does.
        placement: Place large contents so that blocks can be shared. A GNU ``L``
            record whose name is padded with NULs does that; every reader allows it.
        entries: What to write instead of the whole tree: output paths and inodes.

    Raises:
        FormatError: The tree cannot be said in a tar that we would read.
    """
    members = tree.members
    if clamp_mtime is not None:
        _clamp(members, clamp_mtime)
    if entries is None:
        paths, inodes = walk(tree)
    else:
        paths = [path for path, _ in entries]
        inodes = array("I", [inode for _, inode in entries])
    links = later_names(tree, paths, inodes)
    plan = Plan(members, paths, inodes, links, posix=posix, warnings=tree.warnings)
    plan.alone = BODY if placement is None else SHARED
    _measure(plan, placement)
    return plan


def walk(tree: Tree) -> tuple[list[bytes], Column]:
    """Return all paths in walk order, of directories with a slash, and their inodes.

    Raises:
        FormatError: Paths are too long, one or all together: those of directories that
            no layer lists can be longer than all that the image says.
    """
    allowance = Allowance()
    paths: list[bytes] = []
    inodes = array("I")
    if tree.root_inode is not None:
        paths.append(b"./")
        inodes.append(tree.root_inode)
    children = tree.children
    stack = [(b"", iter(sorted(tree.root.items())))]
    while stack:
        prefix, names = stack[-1]
        for name, inode in names:
            path = prefix + name
            below = children.get(inode)
            inodes.append(inode)
            if below is not None:
                path += b"/"
                paths.append(path)
                if len(path) > Allowance.FREE:
                    _check_depth(path, below, allowance)
                stack.append((path, iter(sorted(below.items()))))
                break
            paths.append(path)
        else:
            stack.pop()
    return paths, inodes


def _check_depth(path: bytes, below: Names, allowance: Allowance) -> None:
    """Count what the paths in a deep directory take."""
    longest = len(path) + max(map(len, below), default=-1)
    where = f"below {quoted(path)}"
    if longest > MAX_NAME:
        raise FormatError(
            f"a path of {longest:,} bytes, over {MAX_NAME:,}", where=where
        )
    try:
        for _ in below:
            allowance.take(len(path))
    except ValueError as error:
        raise FormatError(str(error), where=where) from error


def later_names(tree: Tree, paths: list[bytes], inodes: Column) -> dict[int, bytes]:
    """Map the position of each later name of an inode to the inode's first name."""
    linked = tree.linked
    if not linked:
        return {}
    first: dict[int, bytes] = {}
    links: dict[int, bytes] = {}
    for position, inode in enumerate(inodes):
        if inode in linked:
            name = first.setdefault(inode, paths[position])
            if name is not paths[position]:
                links[position] = name
    return links


def _clamp(members: Members, latest: int) -> None:
    """Make later mtimes ``latest``, without a fraction."""
    mtimes = members.mtimes
    members.mtimes = array("q", [min(mtime, latest) for mtime in mtimes])
    for member, extra in members.extras.items():
        if mtimes[member] >= latest and extra.nanoseconds:
            members.extras[member] = Extra(extra.records, extra.sparse, extra.device)


def _measure(plan: Plan, placement: Placement | None) -> None:
    """Mark the members that need more than one plain header, and sum up the tar."""
    members, links, odd = plan.members, plan.links, plan.odd
    sizes, extras, targets = members.sizes, members.extras, members.targets
    mtimes = members.mtimes
    total = 0
    for position, (path, inode) in enumerate(plan):
        if not position % MARK:
            plan.marks.append(total)
        size = sizes[inode]
        if position in links:
            size, target = 0, links[position]
        else:
            target = targets.get(inode, b"")
        if (
            plan.posix
            or len(target) > 100
            or inode in extras
            or size >= _OCTAL_LIMIT
            or not 0 <= mtimes[inode] < _OCTAL_LIMIT
        ):
            odd[position] = CODED
            total += len(_head(plan, position, path, inode))
            total += 0 if position in links else padded(members.stored(inode))
        else:
            if position in links:
                odd[position] = VARIED
            if placement is not None and size >= SHARED:
                total += _place(plan, placement, position, total)
            elif len(path) > 100:
                total += BLOCK_SIZE + (len(path) + 512 & -512)
            total += BLOCK_SIZE + (size + 511 & -512)
    total += 2 * BLOCK_SIZE
    plan.size = total + -total % RECORD_SIZE


def _place(plan: Plan, placement: Placement, position: int, at: int) -> int:
    """Return how many bytes of name to put before a member at ``at`` in the output.

    That is none where its content is in place as it is, and has a short name. Names
    that busybox could not read any more are not padded: their contents are copied.
    """
    members, inode = plan.members, plan.inodes[position]
    origin = placement.origins[members.layers[inode]](members.data[inode])
    length = len(plan.paths[position])
    least = (length + BLOCK_SIZE) // BLOCK_SIZE  # of a name with its NUL
    unpadded = BLOCK_SIZE * (1 + least) if length > 100 else 0
    if origin is None:
        return unpadded
    away = origin - at - BLOCK_SIZE  # how far, without a name
    if length <= 100 and away % placement.block == 0:
        return 0
    blocks = least + (away - BLOCK_SIZE * (1 + least)) % placement.block // BLOCK_SIZE
    if blocks > _BUSYBOX_BLOCKS:
        return unpadded
    plan.pads[position] = blocks
    plan.odd[position] = VARIED
    return BLOCK_SIZE * (1 + blocks)


def _head(plan: Plan, position: int, path: bytes, inode: int) -> bytes:
    """Encode all blocks of a member before its data."""
    members = plan.members
    first = plan.links.get(position)
    write = write_header.posix_member if plan.posix else write_header.gnu_member
    extra = members.extras.get(inode, NO_EXTRA)
    try:
        return write(
            path,
            members.kinds[inode] if first is None else LINK,
            owner=members.owner_table[members.owners[inode]],
            size=members.sizes[inode],
            mtime=members.mtimes[inode],
            target=members.targets.get(inode, b"") if first is None else first,
            extra=extra if first is None else Extra(nanoseconds=extra.nanoseconds),
        )
    except ValueError as error:
        raise FormatError(str(error), where=quoted(path)) from error


def _long_name(path: bytes, blocks: int = 0) -> bytes:
    """Write a GNU ``L`` member, of some blocks of name, or of as many as it needs."""
    size = len(path) + 1
    if blocks:
        size = max(size, blocks * BLOCK_SIZE - 1)
    return _long_header(size) + path + bytes(padded(size) - len(path))


@lru_cache
def _long_header(size: int) -> bytes:
    return write_header.header(write_header.LONG_LINK, ord("L"), size=size)


_Encode = Callable[[bytes, int, int, tuple[bytes, int]], bytes]


def _encoder(plan: Plan) -> _Encode:
    """Return what encodes a plain member's blocks: of a path, an inode, size and rest.

    The parts are the name; mode, uid and gid; size; mtime; the checksum; the rest, from
    the typeflag on. Most members share most of them. The checksum is made of the parts'
    sums; the low half of Adler-32 is 1 + the sum of so few bytes.
    """
    members = plan.members
    owners, mtimes = members.owners, members.mtimes
    owner_fields = [write_header.owner_fields(owner) for owner in members.owner_table]
    numbers: dict[int, bytes] = {}
    checksums: dict[int, bytes] = {}
    adler32, pack = zlib.adler32, _START.pack

    def number(value: int) -> bytes:
        text = b"%011o\0" % value
        remember(value, text, numbers)
        return text

    def encode(path: bytes, inode: int, size: int, rest: tuple[bytes, int]) -> bytes:
        mtime = mtimes[inode]
        start = pack(
            path,
            owner_fields[owners[inode]],
            numbers.get(size) or number(size),
            numbers.get(mtime) or number(mtime),
        )
        behind, total = rest
        total += adler32(start) & 0xFFFF
        checksum = checksums.get(total)
        if checksum is None:
            checksum = checksums[total] = b"%06o\0 " % total
        head = start + checksum + behind
        return head if len(path) <= 100 else _long_name(path) + head

    return encode


def _odd_head(plan: Plan, encode: _Encode, position: int, odd: int) -> bytes:
    """Return a member's blocks where they are not those of a plain one."""
    path, inode = plan.paths[position], plan.inodes[position]
    if odd == CODED:
        return _head(plan, position, path, inode)
    if position in plan.links:
        return encode(path, inode, 0, _rest(LINK, plan.links[position]))
    head = encode(path[:100], inode, plan.members.sizes[inode], _rest(FILE, b""))
    return _long_name(path, plan.pads[position]) + head


def _rest(kind: int, target: bytes) -> tuple[bytes, int]:
    """Return a header from its typeflag on, and the sum of that and of 8 spaces.

    Less 1, which the Adler-32 of what comes before is too high.
    """
    rest = b"%c%b%b" % (kind, target.ljust(100, b"\0"), _GNU_REST)
    return rest, (zlib.adler32(rest) & 0xFFFF) - 2 + 8 * 0x20


def sections(plan: Plan, most: int) -> list[Section]:
    """Cut a plan into at most ``most`` sections that take about equally long to write.

    A member takes as long as 16 KiB of content.
    """
    weights = [mark + (position << 14)
               for position, mark in zip(count(0, MARK), plan.marks)]  # fmt: skip
    whole = plan.size + (len(plan) << 14)
    cuts = {bisect_left(weights, whole * part // most) for part in range(1, most)}
    starts = [0, *sorted(cuts - {0, len(weights)})]
    stops = [start * MARK for start in starts[1:]] + [len(plan)]
    return [
        Section(start * MARK, stop, plan.marks[start] if start else 0)
        for start, stop in zip(starts, stops, strict=True)
    ]


def pieces(plan: Plan, section: Section | None = None) -> Iterator[Piece]:
    """Yield the pieces of the tar, in order; their sizes sum up to ``plan.size``.

    A span with patches is at most ``MERGED`` bytes long.

    Args:
        plan: All of it.
        section: Yield those of these members only. The last one ends the tar.
    """
    section = section or Section(0, len(plan), 0)
    written = section.offset
    for piece in _member_pieces(plan, section):
        written += len(piece) if isinstance(piece, bytes) else piece.length
        yield piece
    if section.stop == len(plan):
        yield bytes(plan.size - written)


def _member_pieces(plan: Plan, section: Section) -> Iterator[Piece]:
    """Yield the members' pieces.

    The stretch that is being merged goes from ``begin`` to ``end`` of ``layer``;
    ``patches`` are our headers over the layer's own. Each patch begins with the
    zeros that pad the content before it, since the layer's padding may be anything.

    A member goes on with a stretch where our headers are as long as what the layer has
    between the contents; where they are, a GNU long name is over docker's PAX path.
    """
    members = plan.members
    kinds, sizes, layers, offsets = (
        members.kinds, members.sizes, members.layers, members.data,
    )  # fmt: skip
    alone, encode = plan.alone, _encoder(plan)
    rests = {kind: _rest(kind, b"") for kind in (FILE, DIRECTORY, FIFO)}
    patches: list[tuple[int, bytes]] = []
    layer = begin = end = NO_SOURCE
    padding = b""  # owed after the content before
    rows = islice(
        zip(count(), plan.paths, plan.inodes, plan.odd), section.start, section.stop
    )
    for position, path, inode, odd in rows:
        data, size, source = offsets[inode], sizes[inode], layers[inode]
        if not odd:
            rest = rests.get(kinds[inode]) or _rest(
                kinds[inode], members.targets[inode]
            )
            head = encode(path, inode, size, rest)
        else:
            head = _odd_head(plan, encode, position, odd)
            linked = position in plan.links
            data, size = (NO_SOURCE, 0) if linked else (data, members.stored(inode))
        patch = padding + head
        padding = ZEROS[: -size % BLOCK_SIZE]
        mergeable = size < alone and len(head) <= data and len(head) + size <= MERGED
        if (
            mergeable
            and data - len(patch) == end
            and source == layer
            and data + size - begin <= MERGED
        ):
            patches.append((end - begin, patch))
            end = data + size
            continue
        if end > begin:
            yield Span(layer, begin, end - begin, patches)
        layer = source
        if mergeable:
            if len(patch) > len(head):
                yield patch[: -len(head)]
            begin, end, patches = data - len(head), data + size, [(0, head)]
        else:
            yield patch
            begin, end, patches = data, data + size, []
        if size >= alone:
            yield Span(layer, begin, size, [])
            begin = end = NO_SOURCE
    if end > begin:
        yield Span(layer, begin, end - begin, patches)
    yield padding
