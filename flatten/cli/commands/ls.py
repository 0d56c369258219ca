"""``flatten ls IMAGE [PATH...]``: the flattened tree, as ``tar tv`` shows it."""

import argparse
import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import count
from operator import add
from typing import Final

from ...image.read import Index
from ...tar.members import (
    BLOCK,
    CHAR,
    DIRECTORY,
    FIFO,
    FILE,
    LINK,
    NO_EXTRA,
    SYMLINK,
    Members,
    Owner,
)
from ...views.describe import describe, path_text
from ...views.listing import Listing, list_rows
from ...views.reading import CheckedIndex
from .. import options
from ..tables import json_each, print_lines, show_name, show_names

DESCRIPTION = f"""\
List the flattened tree. Each line is the number of the layer that the entry
comes from, then the line of `tar --numeric-owner -tv`. PATH is a path from the
root and everything below it, or a pattern with *, ? or [ in it, as in a
.gitignore file: *.so matches at any depth, ** matches any directories.

{options.IMAGE}
"""

_LETTERS: Final = {
    FILE: "-",
    LINK: "h",
    SYMLINK: "l",
    CHAR: "c",
    BLOCK: "b",
    DIRECTORY: "d",
    FIFO: "p",
}
_NOT_PLAIN: Final = re.compile(b"[%c%c%c%c]" % (LINK, SYMLINK, CHAR, BLOCK))
_NO_HASH: Final = "-" * 32
_AT_ONCE: Final = 1 << 10  # lines that are made together


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments and options."""
    options.add_image_argument(parser)
    parser.add_argument(
        "paths",
        metavar="PATH",
        nargs="*",
        default=[],  # or the parser calls PATH required
        help="the paths to list [default: all]",
    )
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument(
        "--json", action="store_true", help="print JSON, one entry a line"
    )
    shape.add_argument("--tree", action="store_true", help="draw a tree")
    parser.add_argument(
        "--hash",
        action="store_true",
        help="print the XXH3 hash (128 bits) of each file's content",
    )
    options.add_tree_options(parser)


def run(args: argparse.Namespace) -> int:
    """Print the tree, and return the exit code."""
    with options.open_tree(args) as (index, contents):
        listing = list_rows(index, args.paths, parents=args.tree)
        hashes = None
        if args.hash:
            kinds = index.members.kinds
            hashes = contents.hashes(n for n in listing.inodes if kinds[n] == FILE)
        if args.json:
            print_lines(_json(index, listing, hashes))
        else:
            draw = _tree if args.tree else _long
            _print_lines(index, listing, draw(index.members, listing), hashes)
            options.say_unverified(args, contents.image, index.checked)
    return 0


def _json(
    index: CheckedIndex, listing: Listing, hashes: Mapping[int, str] | None
) -> Iterator[str]:
    """Yield the row of each path in JSON.

    Most files and directories differ from others of their layer, owner and mode in a
    few fields only: their rows are made from one template.
    """
    members, links = index.members, listing.links
    kinds, layers, owners = members.kinds, members.layers, members.owners
    mtimes, sizes, extras = members.mtimes, members.sizes, members.extras
    rest: dict[str, object] = {}
    if index.verified is not True:
        rest["verified"] = index.verified
    alike = () if hashes else (DIRECTORY, FILE)
    templates: dict[tuple[int, int, int], str] = {}
    for start in range(0, len(listing), _AT_ONCE):
        paths = listing.paths[start : start + _AT_ONCE]
        texts = json_each(map(path_text, paths))
        inodes = listing.inodes[start : start + _AT_ONCE]
        for position, path, text, inode in zip(count(start), paths, texts, inodes):
            kind = kinds[inode]
            if kind not in alike or inode in extras or position in links:
                row = describe(members, path, inode, links.get(position))
                if hashes and "size" in row:
                    row["xxh3"] = hashes[inode]
                yield json.dumps({**row, **rest})
                continue
            key = kind, layers[inode], owners[inode]
            template = templates.get(key)
            if template is None:
                row = describe(members, path, inode, None)
                template = templates[key] = _template({**row, **rest})
            varying = text, mtimes[inode], sizes[inode]
            yield template % (varying if kind == FILE else varying[:2])


def _template(row: Mapping[str, object]) -> str:
    """Return a row in JSON with ``%s`` for its path, time and size, if it has one."""
    slots = {name: "%s" for name in ("path", "mtime", "size") if name in row}
    return json.dumps({**row, **slots}).replace('"%s"', "%s")


def _print_lines(
    index: Index,
    listing: Listing,
    lines: Iterable[str],
    hashes: Mapping[int, str] | None,
) -> None:
    """Print lines, each after the number of its layer and the hash, if requested."""
    width = len(str(len(index.layers)))
    numbers = [f"{number:{width}} " for number in range(1, len(index.layers) + 1)]
    layers, inodes = index.members.layers, listing.inodes
    marks: Iterator[str] = map(numbers.__getitem__, map(layers.__getitem__, inodes))
    if hashes is not None:
        marks = (
            f"{mark}{hashes.get(inode, _NO_HASH)} "
            for mark, inode in zip(marks, inodes, strict=True)
        )
    print_lines(map(add, marks, lines))


def _long(members: Members, listing: Listing) -> Iterator[str]:
    """Yield the line of GNU tar for each path, in its columns."""
    table, links = members.owner_table, listing.links
    kinds = bytearray([members.kinds[inode] for inode in listing.inodes])
    for position in links:
        kinds[position] = LINK
    width = 19  # of owner and size; it grows, as in GNU tar
    for start in range(0, len(kinds), _AT_ONCE):
        rows = slice(start, start + _AT_ONCE)
        inodes = listing.inodes[rows]
        sizes = [str(members.sizes[inode]) for inode in inodes]
        names = show_names(listing.paths[rows])
        for found in _NOT_PLAIN.finditer(kinds, rows.start, rows.stop):
            position = found.start()
            at, inode = position - start, inodes[position - start]
            if position in links:
                sizes[at] = "0"
                names[at] += f" link to {show_name(links[position])}"
            elif kinds[position] == SYMLINK:
                names[at] += f" -> {show_name(members.targets[inode])}"
            else:
                device = members.extras.get(inode, NO_EXTRA).device
                sizes[at] = "{},{}".format(*device)
        owners = [table[members.owners[inode]] for inode in inodes]
        heads = map(_head, kinds[rows], owners)
        times = map(_when, [members.mtimes[inode] for inode in inodes])
        for (head, taken), size, when, name in zip(
            heads, sizes, times, names, strict=True
        ):
            if len(size) > width - taken:
                width = taken + len(size)
            yield f"{head}{size.rjust(width - taken)} {when} {name}"


@lru_cache(4096)
def _head(kind: int, owner: Owner) -> tuple[str, int]:
    """Return type, mode and owner, and the width of the owner."""
    mode, uid, gid = owner
    text = f"{uid}/{gid} "
    return f"{_LETTERS[kind]}{_permissions(mode)} {text}", len(text)


def _tree(members: Members, listing: Listing) -> Iterator[str]:
    """Yield each path with lines to its parent."""
    lasts = _last_siblings(listing.paths)
    above: list[str] = []  # what is drawn below each parent of the path
    for position, path in enumerate(listing.paths):
        inode, depth = listing.inodes[position], _depth(path)
        name = path.removesuffix(b"/").rpartition(b"/")[2]
        shown = show_name(name) + ("/" if path.endswith(b"/") else "")
        if position in listing.links:
            shown += f" link to {show_name(listing.links[position])}"
        elif inode in members.targets:
            shown += f" -> {show_name(members.targets[inode])}"
        branch = ""
        if depth:
            del above[depth - 1 :]
            branch = "".join(above) + ("└── " if lasts[position] else "├── ")
            above.append("    " if lasts[position] else "│   ")
        yield f"{members.sizes[inode]:>12} {branch}{shown}"


def _depth(path: bytes) -> int:
    """Return the number of components of a path; 0 for the root."""
    return 0 if path == b"./" else path.removesuffix(b"/").count(b"/") + 1


def _last_siblings(paths: Sequence[bytes]) -> bytearray:
    """Return 1 for each path that is the last one of its directory, else 0.

    Args:
        paths: In walk order, with all their parents but the root.
    """
    lasts = bytearray(b"\1") * len(paths)
    latest = [0]  # the latest path of each depth, and the root
    for position, path in enumerate(paths):
        depth = _depth(path)
        for before in latest[depth : depth + 1]:
            lasts[before] = 0
        latest[depth:] = [position]
    return lasts


def _permissions(mode: int) -> str:
    """Return a mode as ls writes it, without the type.

    >>> _permissions(0o4755), _permissions(0o1777), _permissions(0o2640)
    ('rwsr-xr-x', 'rwxrwxrwt', 'rw-r-S---')
    """
    out = [letter if mode >> 8 - at & 1 else "-" for at, letter in enumerate("rwx" * 3)]
    for at, bit, letter in ((2, 0o4000, "s"), (5, 0o2000, "s"), (8, 0o1000, "t")):
        if mode & bit:
            out[at] = letter if out[at] == "x" else letter.upper()
    return "".join(out)


@lru_cache(4096)
def _when(seconds: int) -> str:
    """Return a time in UTC to the minute, or seconds if no calendar has it.

    >>> _when(86400), _when(2**62)
    ('1970-01-02 00:00', '4611686018427387904')
    """
    try:
        year, month, day, hour, minute, *_ = time.gmtime(seconds)
    except (OverflowError, OSError, ValueError):
        return str(seconds)
    return f"{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}"
