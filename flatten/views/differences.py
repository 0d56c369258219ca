"""A tree against what it should be: rows of a listing, side by side."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from ..errors import FormatError
from .describe import Row

FIELDS: Final = (
    "type", "mode", "uid", "gid", "mtime", "size", "xxh3", "linkname", "rdev", "xattrs",
)  # fmt: skip
"""What is compared; ``layer`` says where something is from, not what it is."""

_HOST_LABEL: Final = "security.selinux"  # which a host puts on what it unpacks


@dataclass(frozen=True, slots=True)
class Difference:
    """What is not as it should be.

    Attributes:
        path: As in a row.
        field: One of ``FIELDS``, or ``missing`` or ``extra``.
        found: What there is, or None.
        expected: What should be, or None.
    """

    path: str
    field: str
    found: object = None
    expected: object = None


def differences(
    found: Iterable[Row], expected: Iterable[Row], ignored: Iterable[str] = ()
) -> Iterator[Difference]:
    """Yield what differs between two listings, both in walk order.

    The root is compared where both list it: a tar may leave it out.
    """
    fields = [field for field in FIELDS if field not in set(ignored)]
    here, there = iter(found), iter(expected)
    mine, wanted = next(here, None), next(there, None)
    while mine is not None or wanted is not None:
        order = _compare_places(mine, wanted)
        if order == 0:
            assert mine is not None, "both are there"
            assert wanted is not None, "both are there"
            yield from _compare_rows(mine, wanted, fields)
        elif order < 0:
            assert mine is not None, "it comes first"
            if mine["path"]:
                yield Difference(mine["path"], "extra")
        elif wanted is not None and wanted["path"]:
            yield Difference(wanted["path"], "missing")
        mine = next(here, None) if order <= 0 else mine
        wanted = next(there, None) if order >= 0 else wanted


def _compare_places(mine: Row | None, wanted: Row | None) -> int:
    """Say which row comes first in walk order: -1 mine, 1 the wanted one, 0 neither."""
    if mine is None or wanted is None:
        return -1 if wanted is None else 1
    one, other = _place(mine), _place(wanted)
    return (one > other) - (one < other)


def _place(row: Row) -> list[bytes]:
    return str(row["path"]).encode("utf-8", "surrogateescape").split(b"/")


def _compare_rows(mine: Row, wanted: Row, fields: list[str]) -> Iterator[Difference]:
    for field in fields:
        one, other = mine.get(field), wanted.get(field)
        if field == "xattrs":
            one, other = dict(one or {}), dict(other or {})
            if _HOST_LABEL not in other:
                one.pop(_HOST_LABEL, None)
        if one != other:
            yield Difference(mine["path"], field, one, other)


def read_list(lines: Iterable[str], where: str) -> Iterator[Row]:
    """Read a listing: JSON, a row a line.

    Raises:
        FormatError: A line is no row, or not in its place.
    """
    before: list[bytes] = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            place = _place(row)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise FormatError(
                f"line {number:,} is no row of a list", where=where
            ) from (error)
        if place <= before:
            raise FormatError(f"line {number:,} is not in walk order", where=where)
        before = place
        yield row
