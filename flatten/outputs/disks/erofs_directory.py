"""Encode directories for EROFS.

A directory's content is a sequence of blocks. In each, all entries come first and their
names behind them; a name ends at the next one, at a NUL or at the end of the content.
Names are sorted by their bytes, ``.`` and ``..`` among them, within a block and over
all blocks, so that the kernel finds a name by bisection.
"""

from collections.abc import Iterator, Sequence

from .erofs_fs import DIRENT

Entry = tuple[bytes, int, int]
"""The name, the nid and the file type."""


def split(names: Sequence[bytes], block: int) -> Iterator[tuple[int, int, int]]:
    """Yield where each block's names start and stop, and how many bytes it uses."""
    start = used = 0
    for position, name in enumerate(names):
        size = DIRENT.size + len(name)
        if used + size > block:
            yield start, position, used
            start, used = position, 0
        used += size
    yield start, len(names), used


def directory_size(names: Sequence[bytes], block: int) -> int:
    """Return the size of a directory with these names; only its last block is short.

    >>> directory_size([b".", b"..", b"a"], 4096)
    40
    """
    used = DIRENT.size * len(names) + sum(map(len, names))
    if used <= block:
        return used
    blocks = list(split(names, block))
    return block * (len(blocks) - 1) + blocks[-1][2]


def encode_block(entries: Sequence[Entry]) -> bytes:
    """Return the used bytes of one block.

    >>> encode_block([(b"a", 7, 1), (b"bc", 8, 2)]).hex(" ", -12)
    '070000000000000018000100 080000000000000019000200 616263'
    """
    offset = DIRENT.size * len(entries)
    heads = bytearray()
    for name, nid, file_type in entries:
        heads += DIRENT.pack(nid, offset, file_type)
        offset += len(name)
    return bytes(heads) + b"".join([name for name, _, _ in entries])
