"""The paths of the flattened tree, and the inode at a path."""

import os
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from ..errors import FlattenError, quoted
from ..image.read import Index
from ..tar.members import MAX_LINKS, Column
from ..tree.patterns import Patterns
from ..tree.walk import later_names, walk
from .paths import find

_GLOB: Final = re.compile("[*?[]")


class TreePath(NamedTuple):
    """One path of a tree.

    Attributes:
        path: As in the tar: a directory ends with a slash, and the root is ``./``.
        inode: The number of the member at the path.
        first: If the inode has an earlier path, the first one, else None.
    """

    path: bytes
    inode: int
    first: bytes | None


@dataclass(frozen=True, slots=True)
class Listing:
    """Paths of a tree in walk order, as columns; iterating yields rows.

    Attributes:
        paths: As in ``TreePath``.
        inodes: The inode of each path.
        links: As in ``Plan``: the first path of the inode, by position in ``paths`` of
            each later path.
    """

    paths: list[bytes]
    inodes: Column
    links: dict[int, bytes]

    def __len__(self) -> int:
        """Return the number of paths."""
        return len(self.paths)

    def at(self, positions: Iterable[int]) -> "Listing":
        """Return the paths at some positions, in walk order."""
        chosen = sorted(positions)
        return Listing(
            [self.paths[at] for at in chosen],
            array("I", [self.inodes[at] for at in chosen]),
            {new: self.links[at] for new, at in enumerate(chosen) if at in self.links},
        )

    def __iter__(self) -> Iterator[TreePath]:
        """Yield a row for each path."""
        firsts = map(self.links.get, range(len(self)))
        return map(TreePath, self.paths, self.inodes, firsts)


def list_rows(
    index: Index, patterns: Sequence[str] = (), *, parents: bool = False
) -> Listing:
    """Return the paths of a tree in walk order.

    Args:
        index: The image's members.
        patterns: If there are any, return only the paths that ``select`` chooses.
        parents: With patterns, return the parents of these paths too.

    Raises:
        FlattenError: A pattern matches nothing.
    """
    paths, inodes = walk(index.tree)
    listing = Listing(paths, inodes, later_names(index.tree, paths, inodes))
    if not patterns:
        return listing
    found = select(paths, patterns)
    return listing.at(found | _parents(paths, found) if parents else found)


def select(paths: Sequence[bytes], patterns: Sequence[str]) -> set[int]:
    """Return the positions of the paths that match a pattern, and of all below them.

    A pattern without ``*``, ``?`` and ``[`` is a path from the root.

    Raises:
        FlattenError: A pattern matches nothing.
    """
    found: set[int] = set()
    for wanted in patterns:
        some = set(_matching(paths, wanted))
        if not some:
            raise FlattenError(f"{quoted(wanted)}: no such path or pattern in the tree")
        found |= some
    return found


def _matching(paths: Sequence[bytes], wanted: str) -> Iterator[int]:
    """Yield the positions of the paths that match a pattern, and of all below them."""
    globs = Patterns([wanted]) if _GLOB.search(wanted) else None
    plain = b"/".join(
        part for part in os.fsencode(wanted).split(b"/") if part not in (b"", b".")
    )
    chosen = None if plain else b""  # a directory that matches: so does all below it
    for position, path in enumerate(paths):
        if chosen is None or not path.startswith(chosen):
            name = path.rstrip(b"/")
            is_directory = name != path
            matches = globs.fit(name, is_directory) if globs else name == plain
            chosen = path if matches and is_directory else None
            if not matches:
                continue
        yield position


def _parents(paths: Sequence[bytes], found: Iterable[int]) -> set[int]:
    """Return the positions of the parents of some paths."""
    positions = {path: at for at, path in enumerate(paths)}
    out: set[int] = set()
    for at in found:
        path = paths[at].rstrip(b"/").rpartition(b"/")[0]
        while path and positions[path + b"/"] not in out:
            out.add(positions[path + b"/"])
            path = path.rpartition(b"/")[0]
    return out


def lookup(index: Index, path: str) -> int:
    """Return the inode at a path, following symlinks within the root.

    Raises:
        FlattenError: The path does not exist, is a directory, or leads through too many
            symlinks.
    """
    try:
        entry = find(index, path.encode("utf-8", "surrogateescape"))
    except FileNotFoundError as error:
        raise FlattenError(f"{quoted(path)} is not in the tree") from error
    except NotADirectoryError as error:
        raise FlattenError(f"{quoted(path)}: a parent is not a directory") from error
    except OSError as error:  # ELOOP
        raise FlattenError(
            f"{quoted(path)} leads through more than {MAX_LINKS} symlinks"
        ) from error
    if entry.inode is None or entry.names is not None:
        raise FlattenError(f"{quoted(path)} is a directory")
    return entry.inode
