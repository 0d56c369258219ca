"""Wasted space in layers: dive's efficiency, and files that the image does not show.

dive works on names, without the rules of the tree. Its steps are repeated here, so that
the figures are the same:

- A layer is a tree of nodes, one for each name, including the parents. Whiteouts are
  nodes too (``.wh.x`` counts as ``x``); opaque marks and AUFS bookkeeping are not.
- The leaves of each layer are visited in the order of names, deepest first, and the
  size of each is added to its path. A whiteout has size 0, or the size of all below it
  if it hides a directory that a lower layer lists.
- A whiteout that hides nothing ends the visit of its layer: dive takes that for an
  error, and counts a size of -1 for the path.
- Efficiency is the sum of the least size of each path, divided by the sum of all sizes.
  Wasted is the sum of all sizes of the paths that were visited twice or more.

Reference: wagoodman/dive, dive/filetree/efficiency.go and file_tree.go, v0.12.
"""

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Final

from ..image.read import Index
from ..tar import whiteout
from ..tar.layer import LayerIndex
from ..tar.members import DIRECTORY, FILE

_BOOKKEEPING: Final = whiteout.META + b"."  # opaque marks, and names of AUFS

Node = tuple[int, bool]
"""The size of a name, and whether the layer lists it as a directory."""


@dataclass(slots=True)
class Noted:
    """The visits of a path in all layers: their number, total size and least size."""

    count: int = 0
    total: int = 0
    least: int = -1


@dataclass(frozen=True, slots=True)
class Efficiency:
    """dive's figures.

    Attributes:
        score: The efficiency, from 0 to 1.
        size: Bytes of file content in all layers.
        user_size: The same without the first layer.
        wasted: Bytes of all visits of the paths that were visited twice or more.
        paths: These paths with their visits, the most bytes first.
    """

    score: float
    size: int
    user_size: int
    wasted: int
    paths: list[tuple[bytes, Noted]]


@dataclass(slots=True)
class Hidden:
    """A file that a layer contains but the image does not show.

    Attributes:
        path: Its path in the layer.
        layer: The position of the layer, from 0.
        size: Bytes of content.
        replaced: Whether the image has something else at the path.
    """

    path: bytes
    layer: int
    size: int
    replaced: bool


def find_hidden(index: Index, paths: set[bytes], shown: set[int]) -> list[Hidden]:
    """List the files that the image does not show, the largest first.

    Args:
        index: The image's members.
        paths: All paths of the tree, without trailing slashes.
        shown: The inodes of these paths.
    """
    kinds, sizes = index.members.kinds, index.members.sizes
    found = [
        Hidden(path, position, sizes[member], path in paths)
        for position, layer in enumerate(index.layers)
        for member, path in enumerate(layer.paths, layer.first)
        if member not in shown and sizes[member] and kinds[member] == FILE
    ]
    return sorted(found, key=lambda hidden: (-hidden.size, hidden.path))


def efficiency(index: Index) -> Efficiency:
    """Return dive's figures for an image."""
    noted: dict[bytes, Noted] = {}
    stack = _Stack({})
    sums = []
    for position in range(len(index.layers)):
        layer = _DiveLayer.read(index, position)
        if not position:
            stack = _Stack(layer.nodes)  # dive starts with a copy of the first tree
        _visit(layer, stack, noted)
        stack.add(layer)
        sums.append(layer.size)
    least = sum(entry.least for entry in noted.values())
    total = sum(entry.total for entry in noted.values())
    twice = [(path, entry) for path, entry in noted.items() if entry.count > 1]
    twice.sort(key=lambda item: (-item[1].total, item[0]))
    return Efficiency(
        least / total if total else 1.0,
        sum(sums),
        sum(sums[1:]),
        sum(entry.total for _, entry in twice),
        twice,
    )


@dataclass(slots=True)
class _DiveLayer:
    """A layer as dive sees it.

    Attributes:
        nodes: The nodes by path; whiteouts under their own names.
        order: The paths, in dive's order if there are whiteouts.
        marks: The paths of the whiteouts.
        size: Bytes of file content.
    """

    nodes: dict[bytes, Node] = field(default_factory=dict)
    order: list[bytes] = field(default_factory=list)
    marks: set[bytes] = field(default_factory=set)
    size: int = 0

    @classmethod
    def read(cls, index: Index, position: int) -> "_DiveLayer":
        """Make a layer from its members and removals."""
        nodes, size = _listed(index, position)
        nodes |= _removed(index.layers[position], nodes)
        for path in [path for path in nodes if _BOOKKEEPING in path]:
            if any(part.startswith(_BOOKKEEPING) for part in path.split(b"/")):
                del nodes[path]
        _add_parents(nodes)
        marks = {
            path
            for path in nodes
            if whiteout.MARK in path and whiteout.is_mark(path.rpartition(b"/")[2])
        }
        order = sorted(nodes, key=_deepest_first) if marks else list(nodes)
        return cls(nodes, order, marks, size)

    def leaves(self) -> list[bytes]:
        """Return the paths that have nothing below them."""
        parents = {path.rpartition(b"/")[0] for path in self.nodes}
        return [path for path in self.order if path not in parents]


def _listed(index: Index, position: int) -> tuple[dict[bytes, Node], int]:
    """Return the nodes of a layer's members, and their bytes of content."""
    members, layer = index.members, index.layers[position]
    kinds, sizes = members.kinds, members.sizes
    nodes: dict[bytes, Node] = {}
    total = 0
    for member, path in enumerate(layer.paths, layer.first):
        if path:
            nodes[path] = sizes[member], kinds[member] == DIRECTORY
            total += sizes[member]
    return nodes, total


def _removed(layer: LayerIndex, listed: dict[bytes, Node]) -> dict[bytes, Node]:
    """Return the nodes of a layer's whiteouts, and of directories with opaque marks."""
    nodes: dict[bytes, Node] = {}
    for removal in layer.removals:
        parent, slash, name = removal.path.rpartition(b"/")
        if not removal.opaque:
            nodes[parent + slash + whiteout.MARK + name] = 0, False
        elif removal.path and removal.path not in listed:
            nodes.setdefault(removal.path, (0, False))
    return nodes


def _add_parents(nodes: dict[bytes, Node]) -> None:
    """Add the parents that are not listed."""
    todo = {path.rpartition(b"/")[0] for path in nodes}
    while todo:
        missing = [path for path in todo if path and path not in nodes]
        nodes |= dict.fromkeys(missing, (0, False))
        todo = {path.rpartition(b"/")[0] for path in missing}


def _unmarked(path: bytes) -> bytes:
    parent, slash, name = path.rpartition(b"/")
    return parent + slash + name.removeprefix(whiteout.MARK)


def _deepest_first(path: bytes) -> bytes:
    """Return a key that sorts siblings by name, and a directory after its contents."""
    return path.replace(b"/", b"\0") + b"\0\xff"


def _visit(layer: _DiveLayer, stack: "_Stack", noted: dict[bytes, Noted]) -> None:
    """Add the leaves of a layer to ``noted``."""
    for path in layer.leaves():
        size = layer.nodes[path][0]
        if path in layer.marks:
            path = _unmarked(path)  # noqa: PLW2901 - the path that it hides
            if path not in stack.nodes:
                noted.setdefault(path, Noted())  # with a least size of -1, as in dive
                return
            size = stack.below(path) if stack.nodes[path][1] else 0
        entry = noted.get(path)
        if entry is None:
            noted[path] = Noted(1, size, size)
            continue
        entry.count += 1
        entry.total += size
        entry.least = size if entry.least < 0 else min(entry.least, size)


class _Stack:
    """The layers so far, merged.

    Attributes:
        nodes: The nodes by path.
    """

    def __init__(self, nodes: dict[bytes, Node]) -> None:
        self.nodes = dict(nodes)
        self._sorted = sorted(nodes)  # paths; while a layer is added, also its own

    def below(self, path: bytes) -> int:
        """Return the size of a directory and all below it."""
        return sum(self.nodes[name][0] for name in self._range(path))

    def add(self, layer: _DiveLayer) -> None:
        """Put a layer on top."""
        self._sorted += [path for path in layer.order if path not in self.nodes]
        self._sorted.sort()  # two sorted runs, which sort() merges
        for path in layer.order:
            if path not in layer.marks:
                self.nodes[path] = layer.nodes[path]
                continue
            for gone in self._range(_unmarked(path)):
                del self.nodes[gone]
        if layer.marks:
            self._sorted = [path for path in self._sorted if path in self.nodes]

    def _range(self, path: bytes) -> list[bytes]:
        """List a path and all paths below it; nothing if the path does not exist."""
        start = bisect_left(self._sorted, path + b"/")
        stop = bisect_left(self._sorted, path + b"0")  # "0" comes after "/"
        found = [name for name in self._sorted[start:stop] if name in self.nodes]
        return [path, *found] if path in self.nodes else found
