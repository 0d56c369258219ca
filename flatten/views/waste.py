"""What layers hold in vain: dive's efficiency, and the bytes that no path shows.

dive works on names, without the rules of the tree; what it makes of an image is done
over here step by step, so that the figures are the same:

- A layer is a tree of nodes, one a name, with the directories on the way. Marks are
  nodes too (``.wh.x`` counts as ``x``); opaque marks and their like are not.
- Of each layer the leaves are visited, in the order of names, deepest first. A path is
  noted with its size; a mark with 0, or with all that is below it where it hides a
  listed directory of the layers before.
- A mark that hides nothing ends the visit of its layer: dive takes that for an error,
  and counts a size of -1 for the path.
- Efficiency is the sum of each path's least size over the sum of all its sizes. Wasted
  is the sum of all sizes of the paths that were noted twice or more.

Reference: wagoodman/dive, dive/filetree/efficiency.go and file_tree.go, v0.12.
"""

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Final

from ..image.read import Index
from ..tar import whiteout
from ..tar.members import DIRECTORY, FILE

_DROPPED: Final = (
    whiteout.META + b"."
)  # what dive leaves out: opaque marks and their like

Node = tuple[int, bool]
"""Size, and whether it was listed as a directory."""


@dataclass(slots=True)
class Noted:
    """A path over all layers: how often it was noted, all its sizes, the least."""

    count: int = 0
    total: int = 0
    least: int = -1


@dataclass(frozen=True, slots=True)
class Efficiency:
    """dive's figures.

    Attributes:
        score: From 0 to 1.
        size: Bytes of content of all layers.
        user_size: Of all but the first.
        wasted: Bytes of the paths that were noted twice or more, all of them.
        paths: Those paths with what was noted of them, the most bytes first.
    """

    score: float
    size: int
    user_size: int
    wasted: int
    paths: list[tuple[bytes, Noted]]


@dataclass(slots=True)
class Hidden:
    """A file that a layer holds and no path shows.

    Attributes:
        path: Where it was.
        layer: Position of the layer.
        size: Bytes of content.
        replaced: Something else has its path now; else nothing has.
    """

    path: bytes
    layer: int
    size: int
    replaced: bool


def find_hidden(index: Index, paths: set[bytes], shown: set[int]) -> list[Hidden]:
    """List the files that no path shows, the largest first.

    Args:
        index: What is in the image.
        paths: All paths of the tree, without slashes at the end.
        shown: Their inodes.
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
    """Return what dive says of an image."""
    noted: dict[bytes, Noted] = {}
    stack = _Stack({})
    sums = []
    for position in range(len(index.layers)):
        layer = _Layer.read(index, position)
        if not position:
            stack = _Stack(layer.nodes)  # dive begins with a copy of the first tree
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
class _Layer:
    """A layer as dive sees it.

    Attributes:
        nodes: By path; marks under their own names.
        order: Their paths; in dive's order, where that matters.
        marks: The paths of the marks.
        size: Bytes of content, of all that is listed.
    """

    nodes: dict[bytes, Node] = field(default_factory=dict)
    order: list[bytes] = field(default_factory=list)
    marks: set[bytes] = field(default_factory=set)
    size: int = 0

    @classmethod
    def read(cls, index: Index, position: int) -> "_Layer":
        """Make one from what our reader found."""
        members, layer = index.members, index.layers[position]
        out = cls()
        nodes = out.nodes
        kinds, sizes = members.kinds, members.sizes
        for member, path in enumerate(layer.paths, layer.first):
            if path:
                nodes[path] = sizes[member], kinds[member] == DIRECTORY
                out.size += sizes[member]
        for removal in layer.removals:
            parent, slash, name = removal.path.rpartition(b"/")
            if not removal.opaque:
                nodes[parent + slash + whiteout.MARK + name] = 0, False
            elif removal.path:
                nodes.setdefault(removal.path, (0, False))
        for path in [path for path in nodes if _DROPPED in path]:  # AUFS bookkeeping
            if any(part.startswith(_DROPPED) for part in path.split(b"/")):
                del nodes[path]
        todo = {path.rpartition(b"/")[0] for path in nodes}
        while todo:
            missing = [path for path in todo if path and path not in nodes]
            nodes |= dict.fromkeys(missing, (0, False))
            todo = {path.rpartition(b"/")[0] for path in missing}
        marked = [path for path in nodes if whiteout.MARK in path]
        out.marks = {
            path for path in marked if whiteout.is_mark(path.rpartition(b"/")[2])
        }
        out.order = sorted(nodes, key=_deepest_first) if out.marks else list(nodes)
        return out

    def leaves(self) -> list[bytes]:
        """Return what has nothing below it."""
        parents = {path.rpartition(b"/")[0] for path in self.nodes}
        return [path for path in self.order if path not in parents]


def _unmarked(path: bytes) -> bytes:
    parent, slash, name = path.rpartition(b"/")
    return parent + slash + name.removeprefix(whiteout.MARK)


def _deepest_first(path: bytes) -> bytes:
    """Return a key that sorts siblings by name, and a directory behind its contents."""
    return path.replace(b"/", b"\0") + b"\0\xff"


def _visit(layer: _Layer, stack: "_Stack", noted: dict[bytes, Noted]) -> None:
    """Note the leaves of a layer."""
    for path in layer.leaves():
        size = layer.nodes[path][0]
        if path in layer.marks:
            path = _unmarked(path)  # noqa: PLW2901 - it stands for that path
            if path not in stack.nodes:
                noted.setdefault(path, Noted())  # with its least of -1, as in dive
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
    """The layers so far, one on the other.

    Attributes:
        nodes: By path.
    """

    def __init__(self, nodes: dict[bytes, Node]) -> None:
        self.nodes = dict(nodes)
        self._sorted = sorted(nodes)  # its paths; while a layer is added, of that too

    def below(self, path: bytes) -> int:
        """Sum up the sizes of a directory and all below it."""
        return sum(self.nodes[name][0] for name in self._range(path))

    def add(self, layer: _Layer) -> None:
        """Put a layer on top."""
        self._sorted += [path for path in layer.order if path not in self.nodes]
        self._sorted.sort()  # runs that are sorted: they are merged
        for path in layer.order:
            if path not in layer.marks:
                self.nodes[path] = layer.nodes[path]
                continue
            for gone in self._range(_unmarked(path)):
                del self.nodes[gone]
        if layer.marks:
            self._sorted = [path for path in self._sorted if path in self.nodes]

    def _range(self, path: bytes) -> list[bytes]:
        """List a path and all below it, as far as they are there."""
        start = bisect_left(self._sorted, path + b"/")
        stop = bisect_left(self._sorted, path + b"0")  # "0" comes after "/"
        found = [name for name in self._sorted[start:stop] if name in self.nodes]
        return [path, *found] if path in self.nodes else found
