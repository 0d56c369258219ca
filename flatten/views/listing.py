"""The flattened tree as rows: what each path is, and which layer it comes from."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from ..errors import FlattenError, quoted
from ..image.read import Index
from ..tree.patterns import Patterns
from ..tree.walk import later_names, walk
from .paths import MAX_LINKS, find


class Row(NamedTuple):
    """One path of a tree.

    Attributes:
        path: As in the tar: of a directory with a slash at its end, the root ``./``.
        inode: The member that the path names.
        first: The first name of the same inode, if this is a later one.
    """

    path: bytes
    inode: int
    first: bytes | None


def list_rows(
    index: Index, patterns: Sequence[str] = (), *, parents: bool = False
) -> Iterator[Row]:
    """Return the paths of a tree, in walk order; with patterns, what those fit.

    Args:
        index: What is in the image.
        patterns: As ``pattern`` reads them.
        parents: With patterns, the directories on the way too.

    Raises:
        FlattenError: A pattern fits nothing.
    """
    paths, inodes = walk(index.tree)
    links = later_names(index.tree, paths, inodes)
    rows = map(Row, paths, inodes, map(links.get, range(len(paths))))
    if not patterns:
        return rows
    found = select(paths, patterns)
    chosen = found | _parents(paths, found) if parents else found
    return (row for position, row in enumerate(rows) if position in chosen)


def select(paths: Sequence[bytes], patterns: Sequence[str]) -> set[int]:
    """Return the positions of the paths that patterns fit, and of all below those.

    A pattern without ``*``, ``?`` and ``[`` is a path from the root.

    Raises:
        FlattenError: A pattern fits nothing.
    """
    found: set[int] = set()
    for wanted in patterns:
        some = set(_fitting(paths, wanted))
        if not some:
            raise FlattenError(
                f"{quoted(wanted)} fits nothing in the tree; paths begin at the root, "
                "* is any part of a name, ** any directories"
            )
        found |= some
    return found


def _fitting(paths: Sequence[bytes], wanted: str) -> Iterator[int]:
    """Yield the positions of what one pattern fits, and of all below."""
    globs = Patterns([wanted]) if re.search(r"[*?[]", wanted) else None
    plain = b"/".join(
        part for part in os.fsencode(wanted).split(b"/") if part not in (b"", b".")
    )
    chosen = None if plain else b""  # the directory whose contents are chosen
    for position, path in enumerate(paths):
        if chosen is None or not path.startswith(chosen):
            name = path.rstrip(b"/")
            is_directory = name != path
            fits = globs.fit(name, is_directory) if globs else name == plain
            chosen = path if fits and is_directory else None
            if not fits:
                continue
        yield position


def _parents(paths: Sequence[bytes], found: Iterable[int]) -> set[int]:
    """Return the positions of the directories on the way to some paths."""
    positions = {path: at for at, path in enumerate(paths)}
    out: set[int] = set()
    for at in found:
        path = paths[at].rstrip(b"/").rpartition(b"/")[0]
        while path and positions[path + b"/"] not in out:
            out.add(positions[path + b"/"])
            path = path.rpartition(b"/")[0]
    return out


def lookup(index: Index, path: str) -> int:
    """Return the inode that a path names, through symlinks, inside the root.

    Raises:
        FlattenError: It names nothing, or a directory, or is behind too many symlinks.
    """
    try:
        entry = find(index, path.encode("utf-8", "surrogateescape"))
    except FileNotFoundError as error:
        raise FlattenError(f"{quoted(path)} is not in the tree") from error
    except NotADirectoryError as error:
        raise FlattenError(f"{quoted(path)}: a parent is not a directory") from error
    except OSError as error:  # ELOOP
        raise FlattenError(
            f"{quoted(path)} is behind over {MAX_LINKS} symlinks"
        ) from error
    if entry.inode is None or entry.names is not None:
        raise FlattenError(f"{quoted(path)} is a directory")
    return entry.inode
