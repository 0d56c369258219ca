"""Turn a plan into the pieces of its tar: encoded bytes, and spans of layers."""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from itertools import count

from ..tar import kernel
from ..tar.members import DIRECTORY, FIFO, FILE, NO_SOURCE
from ..tar.wire import BLOCK_SIZE, ZEROS
from .encode import columns, encode_special, header_rest, plain_encoder
from .plan import (
    CHECKPOINT,
    MERGED,
    Headers,
    Piece,
    Plan,
    Section,
    Span,
    header_length,
)


def sections(plan: Plan, most: int) -> list[Section]:
    """Split a plan into at most ``most`` sections of about equal writing time.

    A member is assumed to take as long as 16 KiB of content.
    """
    weights = [
        offset + (position << 14)
        for position, offset in zip(count(0, CHECKPOINT), plan.checkpoints)
    ]
    whole = plan.size + (len(plan) << 14)
    cuts = {bisect_left(weights, whole * part // most) for part in range(1, most)}
    starts = [0, *sorted(cuts - {0, len(weights)})]
    stops = [start * CHECKPOINT for start in starts[1:]] + [len(plan)]
    return [
        Section(start * CHECKPOINT, stop, plan.checkpoints[start] if start else 0)
        for start, stop in zip(starts, stops, strict=True)
    ]


def pieces(plan: Plan, section: Section | None = None) -> Iterator[Piece]:
    """Yield the pieces of the tar in order; their sizes sum up to ``plan.size``.

    A span with patches is at most ``MERGED`` bytes long.

    Args:
        plan: The whole plan.
        section: Only yield these members' pieces. The last section includes the end.
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

    The span being merged goes from ``begin`` to ``end`` of ``layer``; ``patches`` are
    the new headers over the layer's own, and the zeros that pad the content before
    them, since the layer's padding may have any value.

    Members extend the span if their new headers are as long as the bytes between the
    contents in the layer; a GNU long name has the length of docker's PAX path.
    """
    patches: list[tuple[int, bytes | Headers]] = []
    layer = begin = end = NO_SOURCE
    padding = b""  # still to be written after the previous content
    for headers, length, source, data, size, parts in _units(plan, section):
        start, stop = data - length, data + size  # of its headers and contents
        large = isinstance(headers, bytes) and size >= plan.separate_from
        alone = large or parts is not None
        mergeable = not alone and start >= 0 and stop - start <= MERGED
        if (
            mergeable
            and source == layer
            and start == end + len(padding)
            and stop - begin <= MERGED
        ):
            if padding:
                patches.append((end - begin, padding))
            patches.append((start - begin, headers))
            end = stop
        else:
            if end > begin:
                yield Span(layer, begin, end - begin, patches)
            if padding:
                yield padding
            layer, begin, end, patches = source, start, stop, [(0, headers)]
            if not mergeable:
                assert isinstance(headers, bytes), "the kernel's are mergeable"
                yield headers
                begin, patches = data, []
            if alone:
                yield from [Span(layer, begin, size, [])] if parts is None else parts
                layer = begin = end = NO_SOURCE
        padding = ZEROS[: -size % BLOCK_SIZE]
    if end > begin:
        yield Span(layer, begin, end - begin, patches)
    if padding:
        yield padding


_Unit = tuple[bytes | Headers, int, int, int, int, Iterator[Piece] | None]
"""Headers, the length of the first, layer, offset of the first content in it, the bytes
from there to the end of the last content, and the pieces of a content with holes."""


def _units(plan: Plan, section: Section) -> Iterator[_Unit]:
    """Yield the section's members: many at once if they are plain, else one by one."""
    members, inodes = plan.members, plan.inodes
    layers, offsets = members.layers, members.data
    one = _member_encoder(plan)
    if kernel.encode is None:
        yield from map(one, range(section.start, section.stop))
        return
    find, plain = kernel.encode, columns(plan)
    position = section.start
    while position < section.stop:
        stop, size = find(
            plain, position, section.stop, plan.separate_from, MERGED, None
        )
        if stop == position:
            yield one(position)
            position += 1
            continue
        inode, length = inodes[position], header_length(plan.paths[position])
        headers = Headers(plain, position, stop, size)
        yield headers, length, layers[inode], offsets[inode], size - length, None
        position = stop


def _member_encoder(plan: Plan) -> Callable[[int], _Unit]:
    """Return a function that encodes the member at a position as a unit."""
    members, paths, inodes = plan.members, plan.paths, plan.inodes
    kinds, sizes, layers, offsets = (
        members.kinds,
        members.sizes,
        members.layers,
        members.data,
    )
    encode = plain_encoder(plan)
    rests = {kind: header_rest(kind, b"") for kind in (FILE, DIRECTORY, FIFO)}

    def one(position: int) -> _Unit:
        inode, special = inodes[position], plan.special[position]
        data, size, parts = offsets[inode], sizes[inode], None
        if not special:
            rest = rests.get(kinds[inode]) or header_rest(
                kinds[inode], members.targets[inode]
            )
            head = encode(paths[position], inode, size, rest)
        else:
            head = encode_special(plan, encode, position, special)
            if position in plan.links:
                data, size = NO_SOURCE, 0
            elif plan.sparse or members.stored(inode) == size:
                size = members.stored(inode)
            else:
                data, parts = NO_SOURCE, content(plan, inode)
        return head, len(head), layers[inode], data, size, parts

    return one


def content(plan: Plan, inode: int) -> Iterator[Piece]:
    """Yield the pieces of a file's content, with zeros for its holes."""
    members = plan.members
    end = 0
    for start, length, source in members.regions(inode):
        yield from _zeros(start - end)
        for at in range(0, length, MERGED):
            count = min(MERGED, length - at)
            yield Span(members.layers[inode], source + at, count, [])
        end = start + length
    yield from _zeros(members.sizes[inode] - end)


def _zeros(count: int) -> Iterator[bytes]:
    for at in range(0, count, MERGED):
        yield bytes(min(MERGED, count - at))
