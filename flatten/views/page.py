"""A report as one HTML page, which needs no network and no other file.

The page contains all paths of the tree as compressed columns, about 9 bytes a path. It
inflates them with the browser's DecompressionStream. If it would be larger than
``LIMIT``, the smallest files of each directory are combined into one.

The columns follow each other; numbers are little-endian: sizes (first the low 32 bits
of all, then the high 32 bits), depths and layers (16 bits), kinds (8 bits), then the
names (UTF-8, separated by NULs).
"""

import base64
import json
import zlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Final

from ..tar.members import DIRECTORY, FILE, SYMLINK
from .report import Report, document

LIMIT: Final = 5_000_000  # maximum size of a page, in bytes
LISTED: Final = 500  # maximum number of items in each of its lists
_MORE: Final = "… {:,} smaller files"
_KINDS: Final = {FILE: 0, DIRECTORY: 1, SYMLINK: 2}
_OTHER: Final = 3
_HARD_LINK: Final = 4


@dataclass(slots=True)
class Columns:
    """The paths of a tree in walk order, without the root."""

    sizes: "array[int]" = field(default_factory=lambda: array("Q"))
    depths: "array[int]" = field(default_factory=lambda: array("H"))
    layers: "array[int]" = field(default_factory=lambda: array("H"))
    kinds: bytearray = field(default_factory=bytearray)
    names: list[str] = field(default_factory=list)

    def add(self, name: str, depth: int, kind: int, layer: int, size: int) -> None:
        """Append a path."""
        self.names.append(name)
        self.depths.append(min(depth, 0xFFFF))
        self.kinds.append(kind)
        self.layers.append(layer)
        self.sizes.append(size)

    def pack(self) -> bytes:
        """Return all columns, compressed with zlib."""
        low = array("I", [size & 0xFFFFFFFF for size in self.sizes])
        high = array("I", [size >> 32 for size in self.sizes])
        parts = [low, high, self.depths, self.layers, self.kinds]
        names = "\0".join(self.names).encode("utf-8", "replace")
        return zlib.compress(b"".join([*map(bytes, parts), names]))


def make_page(report: Report) -> str:
    """Return the page of a report."""
    columns = _columns(report)
    keep = len(columns.names)
    page = _page(report, columns)
    while len(page) > LIMIT and keep > 1000:
        keep = keep * 2 // 3
        page = _page(report, _without_small(columns, keep))
    return page


def _columns(report: Report) -> Columns:
    members = report.index.members
    columns = Columns()
    for path, inode, first in report.listing:
        if path == b"./":
            continue
        name = path.rstrip(b"/")
        kind = _KINDS.get(members.kinds[inode], _OTHER)
        columns.add(
            name.rpartition(b"/")[2].decode("utf-8", "replace"),
            name.count(b"/"),
            kind if first is None else _HARD_LINK,
            members.layers[inode] + 1,
            members.sizes[inode] if first is None else 0,
        )
    return columns


def _without_small(columns: Columns, keep: int) -> Columns:
    """Combine all but the ``keep`` largest files into one path per directory."""
    places = range(len(columns.names))
    kept = set(sorted(places, key=lambda at: -columns.sizes[at])[:keep])
    out = Columns()
    rest: dict[int, tuple[int, int]] = {}  # by depth: number of files, their size
    for at in (*places, None):
        depth = -1 if at is None else columns.depths[at]
        for deeper in sorted((d for d in rest if d > depth), reverse=True):
            count, size = rest.pop(deeper)
            out.add(_MORE.format(count), deeper, _OTHER, 0, size)
        if at is None:
            break
        if at in kept or columns.kinds[at] == _KINDS[DIRECTORY]:
            out.add(
                columns.names[at],
                depth,
                columns.kinds[at],
                columns.layers[at],
                columns.sizes[at],
            )
        else:
            count, size = rest.get(depth, (0, 0))
            rest[depth] = count + 1, size + columns.sizes[at]
    return out


def _page(report: Report, columns: Columns) -> str:
    about = document(report, LISTED) | {"count": len(columns.names)}
    name = ", ".join(report.image.names) or report.image.id[:12] or report.image.source
    parts = {
        "TITLE": escape(name),
        "STYLE": _part("page.css"),
        "SCRIPT": _part("page.js"),
        "ABOUT": _in_script(json.dumps(about)),
        "TREE": base64.b64encode(columns.pack()).decode(),
    }
    pieces: Sequence[str] = _part("page.html").split("@@")
    return "".join(
        piece if at % 2 == 0 else parts[piece] for at, piece in enumerate(pieces)
    )


def _part(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _in_script(text: str) -> str:
    """Return JSON that cannot end the script element that contains it."""
    return text.replace("<", "\\u003c")
