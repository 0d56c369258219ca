"""Output on standard output: tables and sizes for people, JSON for programs."""

import json
import os
import re
import sys
import time
from collections.abc import Iterable, Sequence
from itertools import islice

from ..errors import shown


def print_json(document: object) -> None:
    """Print one JSON document, indented."""
    print(json.dumps(document, indent=2, ensure_ascii=True))


def print_json_line(document: object) -> None:
    """Print a JSON document on one line."""
    print(json.dumps(document, ensure_ascii=True))


def json_each(texts: Iterable[str]) -> list[str]:
    r"""Return each text in JSON; in bulk, which takes a fifth of the time.

    >>> json_each(["a", "\n", 'b"'])
    ['"a"', '"\\n"', '"b\\""']
    """
    joined = json.dumps(list(texts), separators=("\n", ""))  # strings have no newline
    return joined[1:-1].split("\n")


def print_lines(lines: Iterable[str]) -> None:
    """Print lines, many at once."""
    lines = iter(lines)
    while some := list(islice(lines, 1 << 10)):
        print("\n".join(some))


def print_bytes(data: bytes) -> None:
    """Print bytes unchanged."""
    sys.stdout.buffer.write(data)


def print_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows in columns; on a terminal, cut lines that are too long for it.

    A column whose heading starts with ``>`` is aligned to the right.
    """
    table = [[head.lstrip(">") for head in heads], *map(list, rows)]
    widths = [max(len(row[at]) for row in table) for at in range(len(heads) - 1)]
    for row in table:
        cells = [
            cell.rjust(width) if head.startswith(">") else cell.ljust(width)
            for cell, width, head in zip(row, widths, heads, strict=False)
        ]
        line = "  ".join([*cells, row[-1]])
        print(line[: _line_length()].rstrip())


def _line_length() -> int | None:
    """Return the width of the terminal, or None without one or if it is unknown.

    COLUMNS takes precedence over the size that the terminal reports.
    """
    if not sys.stdout.isatty():
        return None
    columns = os.environ.get("COLUMNS", "")
    if re.fullmatch(r"[0-9]{1,9}", columns) and int(columns):
        return int(columns)
    return os.get_terminal_size(1).columns or None


def one_line(text: str) -> str:
    r"""Return text on one line, quoted if it has control characters.

    >>> one_line("a  \\\n\tb")
    'a \\ b'
    """
    return shown(" ".join(text.split())) if text.strip() else ""


def iso_time(seconds: int) -> str:
    """Return a time in UTC, or ``@seconds`` if it is outside the calendar.

    >>> iso_time(86400), iso_time(2**62)
    ('1970-01-02T00:00:00Z', '@4611686018427387904')
    """
    try:
        now = time.gmtime(seconds)
    except (OverflowError, OSError, ValueError):
        return f"@{seconds}"
    return f"{now[0]:04}{time.strftime('-%m-%dT%H:%M:%SZ', now)}"


def utc(time: str | None) -> str:
    """Return a time of an image's config in UTC to the second, or "-" without one.

    >>> utc("2024-01-31T08:15:00.123456789Z"), utc("2024-01-31T08:15:00+02:00")
    ('2024-01-31T08:15:00Z', '2024-01-31T06:15:00Z')
    >>> utc("yesterday"), utc(None)
    ('yesterday', '-')
    """
    if not time:
        return "-"
    if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}(\.[0-9]+)?Z", time):
        return f"{time[:19]}Z"
    from datetime import UTC, datetime  # 5 ms, for other zones only

    try:
        moment = datetime.fromisoformat(time).astimezone(UTC)
    except (ValueError, OverflowError):
        return one_line(time[:25])
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def human(size: float) -> str:
    """Return a number of bytes with a binary unit.

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
    r"""Return a name as GNU tar prints it: unprintable characters are escaped.

    >>> print(show_name(b"a b"), show_name(b"a\nb\\\xff"))
    a b a\nb\\\377
    """
    text = name.decode("utf-8", "surrogateescape")
    if text.isprintable() and "\\" not in text:
        return text
    return re.sub(r"[^ -\[\]-~]", _escaped, text)


def show_names(names: Sequence[bytes]) -> list[str]:
    r"""Return names as ``show_name`` does; in bulk, which takes a third of the time.

    >>> show_names([b"a", b"b c", b"d\n"])
    ['a', 'b c', 'd\\n']
    """
    text = b"\n".join(names).decode("utf-8", "surrogateescape")
    found = text.split("\n")
    if len(found) == len(names) and "".join(found).isprintable() and "\\" not in text:
        return found
    return [show_name(name) for name in names]


def _escaped(found: re.Match[str]) -> str:
    character = found[0]
    if character.isprintable() and character != "\\":
        return character
    named = "\a\b\f\n\r\t\v\\".find(character)
    if named >= 0:
        return "\\" + "abfnrtv\\"[named]
    raw = character.encode("utf-8", "surrogateescape")
    return "".join(f"\\{byte:03o}" for byte in raw)
