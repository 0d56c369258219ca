"""Plain text for people: tables, sizes, and JSON for programs."""

import json
import os
import re
import sys
import time
from collections.abc import Iterable, Sequence

from ..errors import FlattenError, shown


def print_json(document: object) -> None:
    """Print one JSON document, readable too."""
    print(json.dumps(document, indent=2, ensure_ascii=True))


def print_json_line(document: object) -> None:
    """Print a JSON document on one line."""
    print(json.dumps(document, ensure_ascii=True))


def print_bytes(data: bytes) -> None:
    """Print bytes as they are.

    Raises:
        FlattenError: Standard output is closed.
    """
    if sys.stdout is None:
        raise FlattenError("standard output: cannot write: Bad file descriptor")
    sys.stdout.buffer.write(data)


def print_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows in columns, the last one as wide as the terminal lets it be.

    A heading that starts with ``>`` is of a column of numbers, set to the right.
    """
    table = [[head.lstrip(">") for head in heads], *map(list, rows)]
    widths = [max(len(row[at]) for row in table) for at in range(len(heads) - 1)]
    for row in table:
        cells = [
            cell.rjust(width) if head.startswith(">") else cell.ljust(width)
            for cell, width, head in zip(row, widths, heads, strict=False)
        ]
        line = "  ".join([*cells, row[-1]]).rstrip()
        print(line[: _line_length()])


def _line_length() -> int | None:
    """Return the width of the terminal that standard output is; None if it is none."""
    return os.get_terminal_size(1).columns if sys.stdout.isatty() else None


def one_line(text: str) -> str:
    r"""Return text with its white space squeezed, and nothing that moves a cursor.

    >>> one_line("a  \\\n\tb")
    'a \\ b'
    """
    return shown(" ".join(text.split())) if text.strip() else ""


def iso_time(seconds: int) -> str:
    """Return a time in UTC; seconds, where no calendar reaches.

    >>> iso_time(86400), iso_time(2**62)
    ('1970-01-02T00:00:00Z', '@4611686018427387904')
    """
    try:
        now = time.gmtime(seconds)
    except (OverflowError, OSError, ValueError):
        return f"@{seconds}"
    return f"{now[0]:04}{time.strftime('-%m-%dT%H:%M:%SZ', now)}"


def human(size: float) -> str:
    """Return a number of bytes for people.

    >>> human(0), human(1536), human(1 << 30), human(123_456_789)
    ('0 B', '1.5 KiB', '1.0 GiB', '118 MiB')
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1000 or unit == "GiB":
            break
        size /= 1024
    plain = unit == "B" or size >= 100
    return f"{size:,.0f} {unit}" if plain else f"{size:.1f} {unit}"


def show_name(name: bytes) -> str:
    r"""Return a name as GNU tar prints it: what is not printable is escaped.

    >>> print(show_name(b"a b"), show_name(b"a\nb\\\xff"))
    a b a\nb\\\377
    """
    text = name.decode("utf-8", "surrogateescape")
    if text.isprintable() and "\\" not in text:
        return text
    return re.sub(r"[^ -\[\]-~]", _escaped, text)


def _escaped(found: re.Match[str]) -> str:
    character = found[0]
    if character.isprintable() and character != "\\":
        return character
    named = "\a\b\f\n\r\t\v\\".find(character)
    if named >= 0:
        return "\\" + "abfnrtv\\"[named]
    raw = character.encode("utf-8", "surrogateescape")
    return "".join(f"\\{byte:03o}" for byte in raw)
