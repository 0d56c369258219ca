"""The flattened tree as rows: what each path is, and which layer it comes from."""

import base64
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from ..errors import FlattenError, UsageError, quoted
from ..index import Index
from ..model import BLOCK, CHAR, DIRECTORY, FIFO, FILE, LINK, NO_EXTRA, SYMLINK, Members
from ..plan import later_names, walk

MAX_LINKS: Final = 40  # symlinks followed for one path, as Linux (MAXSYMLINKS)

TYPES: Final = {
    FILE: "file", DIRECTORY: "dir", SYMLINK: "symlink", LINK: "hardlink",
    CHAR: "chr", BLOCK: "blk", FIFO: "fifo",
}  # fmt: skip
XATTR: Final = b"SCHILY.xattr."


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
    """Yield the paths of a tree, in walk order; with patterns, what those fit.

    Args:
        index: What is in the image.
        patterns: As ``pattern`` reads them.
        parents: With patterns, the directories on the way too.

    Raises:
        FlattenError: A pattern fits nothing.
    """
    paths, inodes = walk(index.tree)
    links = later_names(index.tree, paths, inodes)
    chosen: Iterable[int] = range(len(paths))
    if patterns:
        found = select(paths, patterns)
        chosen = sorted(found | _parents(paths, found)) if parents else sorted(found)
    for position in chosen:
        yield Row(paths[position], inodes[position], links.get(position))


def select(paths: Sequence[bytes], patterns: Sequence[str]) -> set[int]:
    """Return the positions of the paths that patterns fit, and of all below those.

    Raises:
        FlattenError: A pattern fits nothing.
    """
    found: set[int] = set()
    for wanted in patterns:
        fits = pattern(wanted).match
        some = [at for at, path in enumerate(paths) if fits(path)]
        if not some:
            raise FlattenError(
                f"{quoted(wanted)} fits nothing in the tree; paths begin at the root, "
                "* is any part of a name, ** any path"
            )
        found.update(some)
    return found


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


def pattern(wanted: str) -> re.Pattern[bytes]:
    r"""Return what fits the paths that a pattern means, and all below them.

    ``*``, ``?`` and ``[...]`` are of one name, ``**`` is any path; a pattern without a
    slash that has one of them is a name at any depth.

    >>> fits = pattern("usr/**/*.so").fullmatch
    >>> [bool(fits(path)) for path in (b"usr/a.so", b"usr/x/y/a.so", b"usr/a.so.1")]
    [True, True, False]
    """
    parts = [part for part in wanted.split("/") if part not in ("", ".")]
    if len(parts) == 1 and re.search(r"[*?[]", wanted) and "/" not in wanted:
        parts = ["**", *parts]
    body = b"".join(map(_part, parts)).removesuffix(b"/")
    try:
        return re.compile(b"(?s:%b(?:/.*)?\\Z)" % body if parts else b"")
    except re.error as error:  # a range that ends before it begins
        raise UsageError(f"{quoted(wanted)} is no pattern: {error}") from error


def _part(part: str) -> bytes:
    """Translate one name of a pattern, with the slash behind it."""
    if part == "**":
        return b"(?:[^/]+/)*"
    out = b""
    for token in re.findall(r"\*+|\?|\[!?[^\]]+\]|.", part, re.DOTALL):
        raw = token.encode("utf-8", "surrogateescape")
        if token[0] == "*":
            out += b"[^/]*"
        elif token == "?":
            out += b"[^/]"
        elif token[0] == "[" and len(token) > 1:
            inner = re.sub(rb"([\\\[\^&|~])", rb"\\\1", raw[1:-1])
            negated = inner.startswith(b"!")
            out += b"[%b%b]" % (b"^/" if negated else b"", inner[negated:])
        else:
            out += re.escape(raw)
    return out + b"/"


def describe(
    members: Members, row: Row, hashes: Mapping[int, str] | None = None
) -> dict[str, Any]:
    """Return what is known of a path, for JSON.

    Keys: ``path`` (``path_b64`` too, when it is not UTF-8), ``type``, ``mode``,
    ``uid``, ``gid``, ``size``, ``mtime`` (``mtime_ns``, when it has a fraction),
    ``layer`` (from 1), and where there are any ``linkname``, ``rdev``, ``xattrs``
    (base64), ``xxh3_128``.
    """
    inode = row.inode
    kind = members.kinds[inode] if row.first is None else LINK
    mode, uid, gid = members.owner_table[members.owners[inode]]
    extra = members.extras.get(inode, NO_EXTRA)
    out: dict[str, Any] = name_keys("path", row.path) | {
        "type": TYPES[kind], "mode": f"{mode:04o}", "uid": uid, "gid": gid,
        "size": members.sizes[inode], "mtime": members.mtimes[inode],
        "layer": members.layers[inode] + 1,
    }  # fmt: skip
    if extra.nanoseconds:
        out["mtime_ns"] = members.mtimes[inode] * 10**9 + extra.nanoseconds
    target = members.targets.get(inode) if row.first is None else row.first
    if target is not None:
        out |= name_keys("linkname", target)
    if kind in (CHAR, BLOCK):
        out["rdev"] = "{}:{}".format(*extra.device)
    if extra.records:
        out["xattrs"] = xattrs(extra.records)
    if hashes is not None and inode in hashes:
        out["xxh3_128"] = hashes[inode]
    return out


def name_keys(key: str, name: bytes) -> dict[str, str]:
    """Return a name for JSON: as text, and in base64 too where it is not UTF-8."""
    try:
        return {key: name.decode()}
    except UnicodeDecodeError:
        return {key: text(name), f"{key}_b64": base64.b64encode(name).decode()}


def text(name: bytes) -> str:
    """Return a name as text; what is not UTF-8 in it is replaced."""
    return name.decode("utf-8", "replace")


def xattrs(records: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return PAX records for JSON; xattrs without the prefix that tars give them."""
    return {
        text(key.removeprefix(XATTR)): base64.b64encode(value).decode()
        for key, value in records
    }


def lookup(index: Index, path: str) -> int:
    """Return the inode that a path names, through symlinks, inside the root.

    Raises:
        FlattenError: It names nothing, or a directory, or is behind too many symlinks.
    """
    members, tree = index.members, index.tree
    trail = [tree.root]
    todo = path.encode("utf-8", "surrogateescape").split(b"/")[::-1]
    found: int | None = None
    followed = 0
    while todo:
        name = todo.pop()
        if name in (b"", b"."):
            continue
        if found is not None:
            raise FlattenError(f"{quoted(path)}: what is before {quoted(name)} is no "
                               "directory")  # fmt: skip
        if name == b"..":
            del trail[max(len(trail) - 1, 1) :]  # above the root is the root
            continue
        inode = trail[-1].get(name)
        if inode is None:
            raise FlattenError(f"{quoted(path)} is not in the tree")
        if members.kinds[inode] == SYMLINK:
            followed += 1
            if followed > MAX_LINKS:
                raise FlattenError(
                    f"{quoted(path)} is behind over {MAX_LINKS} symlinks"
                )
            target = members.targets[inode]
            trail = [tree.root] if target.startswith(b"/") else trail
            todo.extend(reversed(target.split(b"/")))
        elif inode in tree.children:
            trail.append(tree.children[inode])
        else:
            found = inode
    if found is None:
        raise FlattenError(f"{quoted(path)} is a directory")
    return found
