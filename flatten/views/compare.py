"""Two trees: what one has and the other has not, and what differs.

Times are compared by the second unless both have a fraction, since GNU tar holds none.
Contents are compared by size, then by xxh3-128; those that two images have from one
layer are the same and are not read.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ..errors import FlattenError, quoted
from ..index import Index
from ..model import BLOCK, CHAR, FILE, NO_EXTRA, SYMLINK
from .contents import Contents
from .listing import TYPES, Row, list_rows, pattern, text, xattrs

FIELDS: Final = (
    "type", "mode", "owner", "mtime", "xattrs", "target", "device", "links", "content",
)  # fmt: skip
"""What is compared: ``target`` is what a symlink holds, ``links`` the first name of a
file that has several."""

Fields = dict[str, tuple[Any, Any]]


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two trees: what is in it, and what its files hold."""

    index: Index
    contents: Contents


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
    old, new = _rows(before, patterns), _rows(after, patterns)
    if patterns and not old and not new:
        names = ", ".join(map(quoted, patterns))
        raise FlattenError(f"nothing in either tree is {names}")
    changes = [Change(old[name].path, old[name], None, {}) for name in old.keys() - new]
    changes += [
        Change(new[name].path, None, new[name], {}) for name in new.keys() - old
    ]
    for name, hashed in _hashed(before, after, old, new, fields).items():
        found = hashed | _differing(before, after, old[name], new[name], fields)
        if found:
            ordered: Fields = {key: found[key] for key in FIELDS if key in found}
            changes.append(Change(new[name].path, old[name], new[name], ordered))
    return sorted(changes, key=lambda change: change.path.rstrip(b"/").split(b"/"))


def _rows(side: Side, patterns: Sequence[str]) -> dict[bytes, Row]:
    """Return the rows that are compared, by path without a directory's slash."""
    fits = [pattern(wanted).match for wanted in patterns]
    return {
        row.path.removeprefix(b"./").rstrip(b"/"): row
        for row in list_rows(side.index)
        if not fits or any(fit(row.path) for fit in fits)
    }


def _hashed(
    before: Side,
    after: Side,
    old: dict[bytes, Row],
    new: dict[bytes, Row],
    fields: Iterable[str],
) -> dict[bytes, Fields]:
    """Return what differs in the contents of all paths that both sides have."""
    out: dict[bytes, Fields] = {name: {} for name in old if name in new}
    if "content" not in fields:
        return out
    a, b = before.index.members, after.index.members
    pairs = {}
    for name, found in out.items():
        i, j = old[name].inode, new[name].inode
        if a.kinds[i] != FILE or b.kinds[j] != FILE:
            continue
        if a.sizes[i] != b.sizes[j]:
            found["content"] = {"size": a.sizes[i]}, {"size": b.sizes[j]}
        elif a.sizes[i] and _place(before, i) != _place(after, j):
            pairs[name] = i, j
    ours = before.contents.hashes(i for i, _ in pairs.values())
    theirs = after.contents.hashes(j for _, j in pairs.values())
    for name, (i, j) in pairs.items():
        if ours[i] != theirs[j]:
            out[name]["content"] = {"xxh3_128": ours[i]}, {"xxh3_128": theirs[j]}
    return out


def _place(side: Side, inode: int) -> tuple[object, int]:
    """Return where a content is: equal places hold equal contents."""
    members = side.index.members
    layer = side.contents.image.layers[members.layers[inode]]
    return layer.diff_id or layer, members.data[inode]


def _differing(
    before: Side, after: Side, old: Row, new: Row, fields: Iterable[str]
) -> Fields:
    """Return the fields, all but the content, that differ."""
    if _raw(before, old) == _raw(after, new):  # most are
        return {}
    ours, theirs = _facts(before, old), _facts(after, new)
    if None in (ours["mtime"][1], theirs["mtime"][1]):
        ours["mtime"], theirs["mtime"] = ours["mtime"][:1], theirs["mtime"][:1]
    return {
        name: (ours[name], theirs[name])
        for name in fields
        if name != "content" and ours[name] != theirs[name]
    }


def _raw(side: Side, row: Row) -> tuple[object, ...]:
    members, inode = side.index.members, row.inode
    return (
        members.kinds[inode],
        members.owner_table[members.owners[inode]],
        members.mtimes[inode],
        members.extras.get(inode),
        members.targets.get(inode),
        row.first,
    )


def _facts(side: Side, row: Row) -> dict[str, Any]:
    """Return all fields of a path but the content."""
    members, inode = side.index.members, row.inode
    kind = members.kinds[inode]
    mode, uid, gid = members.owner_table[members.owners[inode]]
    extra = members.extras.get(inode, NO_EXTRA)
    return {
        "type": TYPES[kind],
        "mode": f"{mode:04o}",
        "owner": f"{uid}:{gid}",
        "mtime": (members.mtimes[inode], extra.nanoseconds or None),
        "xattrs": xattrs(extra.records),
        "target": text(members.targets[inode]) if kind == SYMLINK else None,
        "device": list(extra.device) if kind in (CHAR, BLOCK) else None,
        "links": None if row.first is None else text(row.first),
    }
