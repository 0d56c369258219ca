"""Compare two listings row by row: the engine of ``flatten verify`` and ``diff``."""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from ..errors import FormatError
from .describe import Row

FIELDS: Final = (
    "type", "mode", "uid", "gid", "mtime", "size", "xxh3", "linkname", "rdev", "xattrs",
)  # fmt: skip
"""The fields that are compared; ``layer`` is where a row comes from, not what it is."""

CONTENT: Final = ("type", "size", "xxh3", "linkname")
"""The fields for the content alone, without owners, modes and times."""

_HOST_LABEL: Final = "security.selinux"  # a host sets it on the files that it unpacks

Fields = dict[str, tuple[Any, Any]]
"""Fields that differ, by name, with both values."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Difference:
    """A field that is not as expected, or a path that is missing or extra.

    Attributes:
        path: As in a row.
        field: One of ``FIELDS``, or ``missing`` or ``extra``.
        found: The value that is there, or None.
        expected: The value that should be there, or None.
    """

    path: str
    field: str
    found: object = None
    expected: object = None


def path_key(path: bytes) -> bytes:
    """Return a key that sorts a path into walk order; ``./`` and "" are the root.

    Paths are sorted by their components, none of which has a NUL.
    """
    return path.removeprefix(b"./").rstrip(b"/").replace(b"/", b"\0")


def pair(
    before: Iterable[T], after: Iterable[T], key: Callable[[T], bytes]
) -> Iterator[tuple[T | None, T | None]]:
    """Yield the items of both sides that have the same path, in walk order.

    Args:
        before: One side, in walk order.
        after: The other side, in walk order.
        key: Returns the ``path_key`` of an item.
    """
    ours, theirs = ((key(item), item) for item in before), iter(after)
    mine, other = next(ours, None), next(theirs, None)
    while mine is not None or other is not None:
        place = None if other is None else key(other)
        if mine is None or (place is not None and place < mine[0]):
            yield None, other
            other = next(theirs, None)
        elif place is None or mine[0] < place:
            yield mine[1], None
            mine = next(ours, None)
        else:
            yield mine[1], other
            mine, other = next(ours, None), next(theirs, None)


def differing(
    before: Mapping[str, Any], after: Mapping[str, Any], fields: Collection[str]
) -> Fields:
    """Return the fields in which two rows differ, in the order of ``FIELDS``."""
    pairs = {
        name: (before.get(name), after.get(name)) for name in FIELDS if name in fields
    }
    return {name: values for name, values in pairs.items() if values[0] != values[1]}


def differences(
    found: Iterable[Row], expected: Iterable[Row], ignored: Iterable[str] = ()
) -> Iterator[Difference]:
    """Yield the differences of a listing from the expected one, both in walk order.

    The root is compared only if both list it, since a tar may leave it out.
    """
    fields = set(FIELDS) - set(ignored)
    for row, wanted in pair(found, expected, _row_key):
        if wanted is None:
            if row is not None and row["path"]:
                yield Difference(row["path"], "extra")
        elif row is None:
            if wanted["path"]:
                yield Difference(wanted["path"], "missing")
        else:
            unlabelled = _without_host_label(row, wanted)
            for field, values in differing(unlabelled, wanted, fields).items():
                yield Difference(row["path"], field, *values)


def _row_key(row: Row) -> bytes:
    return path_key(str(row["path"]).encode("utf-8", "surrogateescape"))


def _without_host_label(row: Row, wanted: Row) -> Row:
    """Return a row without the SELinux label, unless the expected row has one."""
    labels = row.get("xattrs") or {}
    if _HOST_LABEL not in labels or _HOST_LABEL in (wanted.get("xattrs") or {}):
        return row
    kept = {name: value for name, value in labels.items() if name != _HOST_LABEL}
    return {**row, "xattrs": kept or None}


def read_list(lines: Iterable[str], where: str) -> Iterator[Row]:
    """Read a listing in JSON, one row per line.

    Raises:
        FormatError: A line is not a row, or not in walk order.
    """
    before: bytes | None = None
    for number, line in enumerate(lines, 1):
        try:
            row: Row = json.loads(line)
            key = _row_key(row)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise FormatError(
                f"line {number:,} is not a row of a list", where=where
            ) from error
        if before is not None and key <= before:
            raise FormatError(f"line {number:,} is not in walk order", where=where)
        before = key
        yield row
