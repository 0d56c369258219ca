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

from collections import defaultdict
from collections.abc import Container, Iterable
from dataclasses import dataclass
from itertools import count
from typing import Final

from ..image.read import Index
from ..tar import whiteout
from ..tar.layer import LayerIndex
from ..tar.members import DIRECTORY, FILE, Members

_BOOKKEEPING: Final = whiteout.META + b"."  # opaque marks, and names of AUFS

_UNLISTED: Final = -1
"""Instead of a member: the node of a whiteout, or of a parent that is not listed."""

Nodes = dict[bytes, int]
"""The member that lists each path, or ``_UNLISTED``."""

Below = dict[bytes, list[bytes]]
"""The nodes in each directory that has any."""


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


def find_hidden(
    index: Index, paths: Iterable[bytes], shown: Container[int]
) -> list[Hidden]:
    """List the files that the image does not show, the largest first.

    Args:
        index: The image's members.
        paths: All paths of the tree, directories with a slash.
        shown: The inodes of these paths.
    """
    kinds, sizes = index.members.kinds, index.members.sizes
    found = [
        Hidden(path, position, sizes[member], False)
        for position, layer in enumerate(index.layers)
        for member, path in enumerate(layer.paths, layer.first)
        if member not in shown and sizes[member] and kinds[member] == FILE
    ]
    names = {hidden.path for hidden in found}
    names |= {name + b"/" for name in names}
    names.intersection_update(paths)
    for hidden in found:
        hidden.replaced = hidden.path in names or hidden.path + b"/" in names
    return sorted(found, key=lambda hidden: (-hidden.size, hidden.path))


def efficiency(index: Index) -> Efficiency:
    """Return dive's figures for an image."""
    members = index.members
    stack, visits = _Stack(members), _Visits()
    sums = []
    for position, listed in enumerate(index.layers):
        layer = _DiveLayer.read(listed)
        if not position:  # dive starts with a copy of the first tree
            stack.put(layer.nodes, layer.below)
        visits.add(layer, stack)
        stack.add(layer)
        sums.append(sum(members.sizes[listed.first : listed.first + len(listed.paths)]))
    noted = visits.noted.values()
    once = sum(visits.once.values())
    least = once + sum(entry.least for entry in noted)
    total = once + sum(entry.total for entry in noted)
    twice = [item for item in visits.noted.items() if item[1].count > 1]
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
        nodes: The nodes; whiteouts under their own names.
        below: Their paths by parent.
        marks: The paths of the whiteouts.
    """

    nodes: Nodes
    below: Below
    marks: set[bytes]

    @classmethod
    def read(cls, layer: LayerIndex) -> "_DiveLayer":
        """Make a layer from its members and removals."""
        nodes = dict(zip(layer.paths, count(layer.first)))
        nodes.pop(b"", None)
        _add_removed(layer, nodes)
        odd = [path for path in nodes if whiteout.MARK in path]
        for path in odd:
            if any(part.startswith(_BOOKKEEPING) for part in path.split(b"/")):
                del nodes[path]
        below = _add_parents(nodes)
        odd += [path for path in below if whiteout.MARK in path]
        marks = {
            path
            for path in odd
            if path in nodes and whiteout.is_mark(path.rpartition(b"/")[2])
        }
        return cls(nodes, below, marks)


def _add_removed(layer: LayerIndex, nodes: Nodes) -> None:
    """Add the nodes of a layer's whiteouts, and of directories with opaque marks."""
    for removal in layer.removals:
        parent, slash, name = removal.path.rpartition(b"/")
        if not removal.opaque:
            nodes[parent + slash + whiteout.MARK + name] = _UNLISTED
        elif removal.path:
            nodes.setdefault(removal.path, _UNLISTED)


def _add_parents(nodes: Nodes) -> Below:
    """Add the parents that are not listed; return all nodes by parent."""
    below: Below = defaultdict(list)
    for path in nodes:
        below[path.rpartition(b"/")[0]].append(path)
    missing = [path for path in below if path and path not in nodes]
    for path in missing:  # it grows
        parent = path.rpartition(b"/")[0]
        if parent and parent not in nodes and parent not in below:
            missing.append(parent)
        below[parent].append(path)
    nodes |= dict.fromkeys(missing, _UNLISTED)
    return below


def _unmarked(path: bytes) -> bytes:
    parent, slash, name = path.rpartition(b"/")
    return parent + slash + name.removeprefix(whiteout.MARK)


def _deepest_first(path: bytes) -> bytes:
    """Return a key that sorts siblings by name, and a directory after its contents."""
    return path.replace(b"/", b"\0") + b"\0\xff"


class _Visits:
    """The visits of the leaves of all layers.

    Attributes:
        once: The size of each path that was visited once, as nearly all are.
        noted: The visits of the other paths.
    """

    def __init__(self) -> None:
        self.once: dict[bytes, int] = {}
        self.noted: dict[bytes, Noted] = {}

    def add(self, layer: _DiveLayer, stack: "_Stack") -> None:
        """Visit the leaves of a layer on top of a stack."""
        sizes, below = stack.members.sizes, layer.below
        leaves = {
            path: sizes[member] if member >= 0 else 0
            for path, member in layer.nodes.items()
            if path not in below
        }
        marks = {path: _unmarked(path) for path in layer.marks if path not in below}
        wrong = [path for path, hidden in marks.items() if hidden not in stack.nodes]
        last = min(wrong, key=_deepest_first, default=None)
        if last is not None:
            end = _deepest_first(last)
            leaves = {
                path: size
                for path, size in leaves.items()
                if _deepest_first(path) < end
            }
        for path in marks.keys() & leaves.keys():
            del leaves[path]
            self._visit(marks[path], stack.hidden_size(marks[path]))
        for before in self.once, self.noted:
            for path in leaves.keys() & before.keys():
                self._visit(path, leaves.pop(path))
        self.once |= leaves
        if last is not None and (path := marks[last]) not in self.once:
            self.noted.setdefault(path, Noted())  # with a least size of -1, as in dive

    def _visit(self, path: bytes, size: int) -> None:
        entry = self.noted.get(path)
        if entry is None:
            if path not in self.once:
                self.once[path] = size
                return
            before = self.once.pop(path)
            entry = self.noted[path] = Noted(1, before, before)
        entry.count += 1
        entry.total += size
        entry.least = size if entry.least < 0 else min(entry.least, size)


class _Stack:
    """The layers so far, merged.

    Attributes:
        members: The image's members.
        nodes: The nodes.
    """

    def __init__(self, members: Members) -> None:
        self.members = members
        self.nodes: Nodes = {}
        self._below = defaultdict[bytes, set[bytes]](set)  # paths in each directory

    def hidden_size(self, path: bytes) -> int:
        """Return the size of all below a path that a whiteout hides."""
        member = self.nodes[path]
        if member < 0 or self.members.kinds[member] != DIRECTORY:
            return 0
        sizes, nodes = self.members.sizes, self.nodes
        found = [nodes.get(below, _UNLISTED) for below in self._tree(path)]
        return sum(sizes[member] for member in found if member >= 0)

    def put(self, nodes: Nodes, below: Below) -> None:
        """Add nodes, or replace those at the same paths.

        Args:
            nodes: The nodes.
            below: Their paths by parent.
        """
        self.nodes |= nodes
        for parent, paths in below.items():
            self._below[parent].update(paths)

    def add(self, layer: _DiveLayer) -> None:
        """Put a layer on top, in dive's order; the layer loses its whiteouts.

        A whiteout comes after the path that it hides, and removes what its own layer
        has there, if the name sorts before the whiteout's.
        """
        hidden = {mark: _unmarked(mark) for mark in layer.marks}
        for mark, path in hidden.items():
            if mark < path:
                self._remove(path)
        below = layer.below
        leaves = hidden.keys() - below.keys()  # the rest are AUFS's own directories
        for parent in {leaf.rpartition(b"/")[0] for leaf in leaves}:
            below[parent] = [path for path in below[parent] if path not in leaves]
        for mark in hidden:
            del layer.nodes[mark]
        self.put(layer.nodes, below)
        for mark, path in hidden.items():
            if path < mark:
                self._remove(path)

    def _remove(self, path: bytes) -> None:
        """Remove a path and all below it, if it exists."""
        if path not in self.nodes:
            return
        for gone in self._tree(path):
            self.nodes.pop(gone, None)
            self._below.pop(gone, None)
        self._below[path.rpartition(b"/")[0]].remove(path)

    def _tree(self, path: bytes) -> list[bytes]:
        """List a path and all paths below it."""
        found = [path]
        for each in found:  # it grows
            found += self._below.get(each, ())
        return found
