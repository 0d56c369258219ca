"""Compare the trees of two images: the paths that only one has, and those that differ.

Fields are those of ``describe``. Times are compared in seconds, since GNU tar holds no
fractions. Contents are compared by size, then by XXH3; those that both trees have from
the same bytes of a layer are equal and are not read.
"""

from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import compress, count

from ..errors import FlattenError
from ..image.chain_ids import layer_chains
from ..tar.members import FILE, NO_SOURCE
from .contents import Contents
from .describe import describe
from .differences import FIELDS, Fields, differing, pair, path_key
from .identity import bytes_key
from .listing import Listing, TreePath, list_rows, select
from .reading import CheckedIndex


@dataclass(slots=True)
class Side:
    """One of the two trees.

    Attributes:
        index: Its members.
        contents: The contents of its files.
        keys: A key for each layer; layers of both sides that have the same key are the
            same bytes: either they have the same digest and were checked, or they are
            stored in the same place.
    """

    index: CheckedIndex
    contents: Contents
    keys: list[Hashable] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Find the keys."""
        layers = self.contents.image.layers
        self.keys = [
            layer.diff_id if done and layer.diff_id else bytes_key(layer, chain_id)
            for layer, done, chain_id in zip(
                layers, self.index.checked, layer_chains(layers), strict=True
            )
        ]

    def place(self, inode: int) -> tuple[Hashable, int]:
        """Return where a member is; equal places hold equal members and contents."""
        members = self.index.members
        return self.keys[members.layers[inode]], members.data[inode]

    def raw(self, row: TreePath) -> tuple[object, ...]:
        """Return all metadata of a row, as it is stored; quicker than describing it."""
        members, inode = self.index.members, row.inode
        return (
            members.kinds[inode],
            members.owner_table[members.owners[inode]],
            members.mtimes[inode],
            members.sizes[inode],
            members.extras.get(inode),
            members.targets.get(inode),
            row.first,
        )


@dataclass(slots=True)
class Change:
    """A path that differs between two trees.

    Attributes:
        path: As in the tar.
        before: The row of the first side, or None if the path is not there.
        after: The row of the second side, or None.
        fields: If both sides have the path, the fields that differ, ready for JSON.
    """

    path: bytes
    before: TreePath | None
    after: TreePath | None
    fields: Fields


def compare(
    before: Side,
    after: Side,
    fields: Collection[str] = FIELDS,
    patterns: Sequence[str] = (),
) -> list[Change]:
    """List the paths that differ, in walk order.

    Args:
        before: One side.
        after: The other side.
        fields: The fields of ``FIELDS`` to compare.
        patterns: Compare only the paths that match one.

    Raises:
        FlattenError: A pattern matches nothing on either side.
    """
    ours, theirs = _without_common(before, after, *_chosen(before, after, patterns))
    pairs = [*pair(ours, theirs, _row_key)]
    hashed = _hashed(before, after, pairs) if "xxh3" in fields else {}
    changes = []
    for old, new in pairs:
        if old is not None and new is not None:
            found = _differing(before, old, after, new, fields)
            found |= hashed.get(new.path, {})
            ordered: Fields = {name: found[name] for name in FIELDS if name in found}
            if ordered:
                changes.append(Change(new.path, old, new, ordered))
        elif (row := old or new) is not None:
            changes.append(Change(row.path, old, new, {}))
    return changes


def _chosen(
    before: Side, after: Side, patterns: Sequence[str]
) -> tuple[Listing, Listing]:
    """Return the paths of both sides that are compared."""
    ours, theirs = list_rows(before.index), list_rows(after.index)
    if not patterns:
        return ours, theirs
    found: tuple[set[int], set[int]] = set(), set()
    for wanted in patterns:
        misses = []
        for listing, positions in zip((ours, theirs), found, strict=True):
            try:
                positions.update(select(listing.paths, [wanted]))
            except FlattenError as error:
                misses.append(error)
        if len(misses) == len(found):
            raise misses[0]
    return ours.at(found[0]), theirs.at(found[1])


def _without_common(
    before: Side, after: Side, ours: Listing, theirs: Listing
) -> tuple[Listing, Listing]:
    """Leave out the paths that are one member of one layer on both sides, as most."""
    a, b = before.index.members, after.index.members
    positions = dict(zip(ours.paths, count()))
    kept, others = bytearray(b"\1") * len(ours), []
    for other, path in enumerate(theirs.paths):
        position = positions.get(path)
        if position is not None:
            i, j = ours.inodes[position], theirs.inodes[other]
            if (
                a.data[i] == b.data[j] != NO_SOURCE
                and before.keys[a.layers[i]] == after.keys[b.layers[j]]
                and ours.links.get(position) == theirs.links.get(other)
            ):
                kept[position] = 0
                continue
        others.append(other)
    return ours.at(compress(count(), kept)), theirs.at(others)


def _row_key(row: TreePath) -> bytes:
    return path_key(row.path)


def _hashed(
    before: Side, after: Side, both: Iterable[tuple[TreePath | None, TreePath | None]]
) -> dict[bytes, Fields]:
    """Return the hashes that differ, by path."""
    a, b = before.index.members, after.index.members
    pairs = {}
    for old, new in both:
        if old is None or new is None:
            continue
        i, j = old.inode, new.inode
        if a.kinds[i] != FILE or b.kinds[j] != FILE:
            continue
        if a.sizes[i] == b.sizes[j] != 0 and before.place(i) != after.place(j):
            pairs[new.path] = i, j
    ours = before.contents.hashes(i for i, _ in pairs.values())
    theirs = after.contents.hashes(j for _, j in pairs.values())
    return {
        path: {"xxh3": (ours[i], theirs[j])}
        for path, (i, j) in pairs.items()
        if ours[i] != theirs[j]
    }


def _differing(
    before: Side, old: TreePath, after: Side, new: TreePath, fields: Collection[str]
) -> Fields:
    """Return the fields, except the hash, in which two rows differ."""
    if before.raw(old) == after.raw(new):  # most are
        return {}
    ours = describe(before.index.members, *old)
    theirs = describe(after.index.members, *new)
    return differing(ours, theirs, fields)
