"""Choose the chunks of a sparse file in EROFS.

A file in chunks has a table with the address of each chunk; a hole has none. A chunk is
a power of two blocks. Small chunks store fewer zeros, large ones need a smaller table:
a file of 1 TiB with one byte has a table of 1 GiB with chunks of one block, and of
2 MiB with chunks of 2 MiB.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from .erofs_fs import ADDRESS, HOLE, MAX_CHUNK_BITS

_PIECE: Final = 1 << 14  # entries of a table that are encoded at once

Regions = Iterable[tuple[int, int]]
"""Where a file has data: (offset, length) in order, without overlap."""


@dataclass(frozen=True, slots=True)
class Chunks:
    """A file in chunks.

    Attributes:
        block: The size of a block, in bytes.
        bits: A chunk has ``block << bits`` bytes.
        count: The number of chunks.
        runs: The chunks that have data: (first, after the last) in order; there is a
            hole between two runs.
        blocks: The number of blocks that are stored.
    """

    block: int
    bits: int
    count: int
    runs: tuple[tuple[int, int], ...]
    blocks: int

    def cost(self) -> int:
        """Return the bytes that the blocks and the table take."""
        return self.blocks * self.block + self.count * ADDRESS.size

    def table(self, address: int) -> Iterator[bytes]:
        """Yield the table of a file whose chunks are stored from a block on."""
        end = 0
        for first, stop in self.runs:
            yield from _entries(HOLE, 0, first - end)
            yield from _entries(address, 1 << self.bits, stop - first)
            address += stop - first << self.bits
            end = stop
        yield from _entries(HOLE, 0, self.count - end)


def _entries(address: int, step: int, count: int) -> Iterator[bytes]:
    """Yield the addresses of ``count`` chunks, ``step`` blocks apart."""
    for at in range(0, count, _PIECE):
        some = range(at, min(at + _PIECE, count))
        yield b"".join(ADDRESS.pack(address + step * chunk) for chunk in some)


def choose_chunks(size: int, regions: Regions, block: int) -> Chunks | None:
    """Return the chunks that take the least space, or None if none saves any.

    The last chunk is always stored, as ``fsck.erofs --extract`` cuts files that end in
    a hole.

    Args:
        size: The size of the file.
        regions: Where it has data.
        block: The size of a block, in bytes.
    """
    if not size:
        return None
    regions = *regions, (size - 1, 1)
    whole = -(-size // block)
    least = Chunks(block, 0, 0, (), whole)
    for bits in range(MAX_CHUNK_BITS + 1):
        chunks = _chunks(size, regions, block, bits)
        if chunks.cost() < least.cost():
            least = chunks
        if chunks.count <= 1:
            break
    return least if least.count else None


def _chunks(size: int, regions: Regions, block: int, bits: int) -> Chunks:
    length = block << bits
    runs: list[tuple[int, int]] = []
    for start, count in regions:
        if count:
            first, stop = start // length, -(-(start + count) // length)
            if runs and first <= runs[-1][1]:
                first, stop = runs.pop()[0], max(stop, first)
            runs.append((first, stop))
    stored = sum(min(stop * length, size) - first * length for first, stop in runs)
    return Chunks(block, bits, -(-size // length), tuple(runs), -(-stored // block))
