"""Two trees: what one has and the other has not, and what differs.

Fields are those of ``listing``. Times are compared by the second, since GNU tar holds
no fractions. Contents are compared by size, then by XXH3; those that both trees have
from the same bytes of a layer are equal and are not read.
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ..errors import FlattenError
from ..image.chain_ids import layer_chains
from ..tar.members import FILE, NO_SOURCE
from .contents import Contents
from .describe import describe
from .identity import bytes_key
from .listing import Row, list_rows
from .reading import CheckedIndex

FIELDS: Final = (
    "type", "mode", "uid", "gid", "mtime", "size", "xxh3", "linkname", "rdev", "xattrs",
)  # fmt: skip
CONTENT: Final = ("type", "size", "xxh3", "linkname")
"""What is there and what is in it, whoever owns it and since when."""

Fields = dict[str, tuple[Any, Any]]


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


@dataclass(slots=True)
class Change:
    """A path that is not the same on both sides.

    Attributes:
        path: As in the tar.
        before: The row of the first side; None where the path is not there.
        after: Of the second.
        fields: Those that differ, by name, with both values, ready for JSON.
    """

    path: bytes
    before: Row | None
    after: Row | None
    fields: Fields


def compare(
    before: Side,
    after: Side,
    fields: Iterable[str] = FIELDS,
    patterns: Sequence[str] = (),
) -> list[Change]:
    """List the paths that differ, in walk order.

    Args:
        before: One side.
        after: The other.
        fields: Which of ``FIELDS`` count.
        patterns: Compare only what they fit.

    Raises:
        FlattenError: A pattern fits nothing on either side.
    """
    old, new = _chosen(before, after, patterns)
    changes = [Change(old[name].path, old[name], None, {}) for name in old.keys() - new]
    changes += [
        Change(new[name].path, None, new[name], {}) for name in new.keys() - old
    ]
    both = {
        name: (old[name], row)
        for name, row in new.items()
        if name in old and not _are_one(before, old[name], after, row)
    }
    hashed = _hashed(before, after, both) if "xxh3" in fields else {}
    for name, rows in both.items():
        found = hashed.get(name, {}) | _differing(before, after, *rows, fields)
        if found:
            ordered: Fields = {key: found[key] for key in FIELDS if key in found}
            changes.append(Change(new[name].path, *rows, ordered))
    return sorted(changes, key=lambda change: _walk_order(change.path))


def _chosen(
    before: Side, after: Side, patterns: Sequence[str]
) -> tuple[dict[bytes, Row], dict[bytes, Row]]:
    """Return both sides' rows, by path without a directory's slash."""
    if not patterns:
        return _by_path(list_rows(before.index)), _by_path(list_rows(after.index))
    sides: tuple[dict[bytes, Row], dict[bytes, Row]] = {}, {}
    for wanted in patterns:
        misses = []
        for rows, side in zip(sides, (before, after), strict=True):
            try:
                rows.update(_by_path(list_rows(side.index, [wanted])))
            except FlattenError as error:
                misses.append(error)
        if len(misses) == len(sides):
            raise misses[0]
    return sides


def _by_path(rows: Iterable[Row]) -> dict[bytes, Row]:
    return {row.path.rstrip(b"/"): row for row in rows}


def _walk_order(path: bytes) -> bytes:
    """Return a key that sorts paths by their components: none has a NUL."""
    return path.rstrip(b"/").replace(b"/", b"\0")


def _are_one(before: Side, old: Row, after: Side, new: Row) -> bool:
    """Say whether both rows are of one member of one layer, as most are."""
    place = _place(before, old.inode)
    return (
        place == _place(after, new.inode)
        and place[1] != NO_SOURCE
        and old.first == new.first
    )


def _hashed(
    before: Side, after: Side, both: dict[bytes, tuple[Row, Row]]
) -> dict[bytes, Fields]:
    """Return the hashes that differ."""
    a, b = before.index.members, after.index.members
    pairs = {}
    for name, (old, new) in both.items():
        i, j = old.inode, new.inode
        if a.kinds[i] != FILE or b.kinds[j] != FILE:
            continue
        if a.sizes[i] == b.sizes[j] != 0 and _place(before, i) != _place(after, j):
            pairs[name] = i, j
    ours = before.contents.hashes(i for i, _ in pairs.values())
    theirs = after.contents.hashes(j for _, j in pairs.values())
    return {
        name: {"xxh3": (ours[i], theirs[j])}
        for name, (i, j) in pairs.items()
        if ours[i] != theirs[j]
    }


def _place(side: Side, inode: int) -> tuple[Hashable, int]:
    """Return where a member is: equal places hold equal members and contents."""
    members = side.index.members
    return side.keys[members.layers[inode]], members.data[inode]


def _differing(
    before: Side, after: Side, old: Row, new: Row, fields: Iterable[str]
) -> Fields:
    """Return the fields, all but the hash, that differ."""
    if _raw(before, old) == _raw(after, new):  # most are
        return {}
    ours = describe(before.index.members, *old)
    theirs = describe(after.index.members, *new)
    return {
        name: (ours.get(name), theirs.get(name))
        for name in fields
        if ours.get(name) != theirs.get(name)
    }


def _raw(side: Side, row: Row) -> tuple[object, ...]:
    members, inode = side.index.members, row.inode
    return (
        members.kinds[inode],
        members.owner_table[members.owners[inode]],
        members.mtimes[inode],
        members.sizes[inode],
        members.extras.get(inode),
        members.targets.get(inode),
        row.first,
    )
