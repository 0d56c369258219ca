"""A layer tar to what it does to the tree: what it removes, and what it adds."""

from dataclasses import dataclass, field
from typing import Final

from ..errors import quoted
from . import whiteout
from .members import DIRECTORY, Members, drop_items
from .read_header import HeaderBytes
from .reader import TarReader
from .wire import BLOCK_SIZE


@dataclass(frozen=True, slots=True)
class Removal:
    """What a layer hides of the layers below it.

    Attributes:
        path: What is hidden; for an opaque mark, the directory whose children are.
        opaque: The children are hidden and the directory stays.
        offset: Of the mark's header, for messages.
    """

    path: bytes
    opaque: bool
    offset: int


@dataclass(slots=True)
class LayerIndex:
    """What one layer does to the tree: remove, then add.

    Attributes:
        where: The layer's name in messages.
        first: Number of the layer's first member; ``paths[i]`` is of ``first + i``.
        paths: Normalised paths, in archive order.
        removals: In archive order.
        aside: Members that are AUFS bookkeeping: not in the tree, but hard links of
            the same layer may name them.
    """

    where: str
    first: int
    paths: list[bytes] = field(default_factory=list)
    removals: list[Removal] = field(default_factory=list)
    aside: set[int] = field(default_factory=set)


_TOC: Final = b"stargz.index.json"


_ESTARGZ: Final = frozenset((_TOC, b".prefetch.landmark", b".no.prefetch.landmark"))
"""What eStargz adds to a layer: its table of contents, which comes last, and marks.

Reference: stargz-snapshotter docs/estargz.md, "TOC" and "Prioritized Files".
"""


def read_layer(
    source: HeaderBytes, where: str, layer: int, into: Members
) -> LayerIndex:
    """Read the headers of a layer tar.

    Args:
        source: The uncompressed stream.
        where: The layer's name in messages.
        layer: The layer's position in its image.
        into: Receives a row for each member that is not a whiteout.

    Raises:
        FormatError: The stream breaks the format, or a name leaves the root.
    """
    reader = TarReader(source, where)
    index = LayerIndex(where, len(into), reader.paths)
    reader.read(into)
    _take_marks(reader, index, into)
    into.layers.extend([layer] * (len(into) - index.first))
    if b"" in index.paths:
        for row, path in enumerate(index.paths, index.first):
            if not path and into.kinds[row] != DIRECTORY:
                reader.fail("the root is not a directory", into.data[row] - BLOCK_SIZE)
    return index


def _take_marks(reader: TarReader, index: LayerIndex, into: Members) -> None:
    """Take out what is no member: whiteouts, which become removals, and eStargz's."""
    taken: set[int] = set()
    aside: set[bytes] = set()
    for row in reader.hidden:
        path, offset = index.paths[row - index.first], into.data[row] - BLOCK_SIZE
        try:
            meaning, victim = whiteout.classify(path)
        except ValueError as error:
            reader.fail(f"{error}: {quoted(path)}", offset)
        if meaning == whiteout.ASIDE:
            aside.add(path)
        elif meaning != whiteout.ORDINARY:
            opaque = meaning == whiteout.OPAQUE
            index.removals.append(Removal(victim, opaque, offset))
            taken.add(row)
    taken |= _added_by_estargz(index)
    if taken:
        gone = sorted(taken)
        into.drop(index.first, gone)
        drop_items(index.paths, 0, [row - index.first for row in gone])
    if aside:
        rows = enumerate(index.paths, index.first)
        index.aside = {row for row, path in rows if path in aside}


def _added_by_estargz(index: LayerIndex) -> set[int]:
    """Return the rows that eStargz adds; without its table, files are called so."""
    if _ESTARGZ.isdisjoint(index.paths):
        return set()
    rows = [n for n, path in enumerate(index.paths) if path in _ESTARGZ]
    if index.paths[rows[-1]] != _TOC:
        return set()
    return {index.first + row for row in rows}
