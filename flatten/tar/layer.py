"""Read a layer tar into its changes to the tree: removals and added members."""

from dataclasses import dataclass, field
from typing import Final

from ..errors import quoted
from . import whiteout
from .members import DIRECTORY, FILE, LINK, Members, drop_items
from .read_header import HeaderBytes
from .reader import TarReader
from .wire import BLOCK_SIZE


@dataclass(frozen=True, slots=True)
class Removal:
    """A path, or a directory's children, that a layer hides in the layers below.

    Attributes:
        path: The hidden path; for an opaque mark, the directory whose children are.
        opaque: Whether only the children are hidden, and the directory stays.
        offset: Offset of the mark's header, for messages.
    """

    path: bytes
    opaque: bool
    offset: int


@dataclass(slots=True)
class LayerIndex:
    """One layer's changes to the tree: first its removals, then its members.

    Attributes:
        where: The layer's name in messages.
        first: Number of the layer's first member; ``paths[i]`` is for ``first + i``.
        paths: Normalised paths, in archive order.
        removals: The removals, in archive order.
        bookkeeping: AUFS's own members: not in the tree, but hard links in the same
            layer may refer to them.
    """

    where: str
    first: int
    paths: list[bytes] = field(default_factory=list)
    removals: list[Removal] = field(default_factory=list)
    bookkeeping: set[int] = field(default_factory=set)


_TOC: Final = b"stargz.index.json"
_ESTARGZ: Final = frozenset((_TOC, b".prefetch.landmark", b".no.prefetch.landmark"))


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
    links = _links_of_the_root(reader, index, into) if b"" in index.paths else set()
    _take_marks(reader, index, into, links)
    into.layers.extend([layer] * (len(into) - index.first))
    return index


def _links_of_the_root(reader: TarReader, index: LayerIndex, into: Members) -> set[int]:
    """Return the rows that are hard links of the root to itself (kaniko 0.19).

    They change nothing, as any link to itself. All else but a directory is refused.
    """
    links = set()
    for row, path in enumerate(index.paths, index.first):
        if path or into.kinds[row] == DIRECTORY:
            continue
        if into.kinds[row] != LINK or into.targets[row]:
            reader.fail("the root is not a directory", into.data[row] - BLOCK_SIZE)
        links.add(row)
    return links


def _take_marks(
    reader: TarReader, index: LayerIndex, into: Members, taken: set[int]
) -> None:
    """Drop whiteouts, which become removals, eStargz's own files, and ``taken``."""
    bookkeeping: set[bytes] = set()
    for row in reader.hidden:
        path, offset = index.paths[row - index.first], into.data[row] - BLOCK_SIZE
        try:
            meaning, victim = whiteout.classify(path)
        except ValueError as error:
            reader.fail(f"{error}: {quoted(path)}", offset)
        if meaning == whiteout.BOOKKEEPING:
            bookkeeping.add(path)
        elif meaning != whiteout.ORDINARY:
            opaque = meaning == whiteout.OPAQUE
            index.removals.append(Removal(victim, opaque, offset))
            taken.add(row)
    taken |= _added_by_estargz(index, into)
    if taken:
        gone = sorted(taken)
        into.drop(index.first, gone)
        drop_items(index.paths, 0, [row - index.first for row in gone])
    if bookkeeping:
        rows = enumerate(index.paths, index.first)
        index.bookkeeping = {row for row, path in rows if path in bookkeeping}


def _added_by_estargz(index: LayerIndex, into: Members) -> set[int]:
    """Return the rows of eStargz's own files: a table of contents, and a landmark.

    In gzip layers the table comes after the landmark. In zstd:chunked layers it is not
    in the tar, and the landmark is told by its header: a file of one byte with mode 0,
    owner 0:0 and mtime 0. Other files with these names are ordinary files.

    Reference: stargz-snapshotter docs/estargz.md, "TOC" and "Prioritized Files";
    estargz/build.go for the landmark's header.
    """
    if _ESTARGZ.isdisjoint(index.paths):
        return set()
    rows = [n for n, path in enumerate(index.paths, index.first) if path in _ESTARGZ]
    if index.paths[rows[-1] - index.first] == _TOC:
        return set(rows)
    return {row for row in rows if _has_landmark_header(into, row)}


def _has_landmark_header(members: Members, row: int) -> bool:
    owner = members.owner_table[members.owners[row]]
    return (
        members.kinds[row] == FILE
        and members.sizes[row] == 1
        and members.mtimes[row] == 0
        and owner == (0, 0, 0)
    )
