"""The expected tree of an image: a naive model of SEMANTICS.md, slow and obvious.

A tree is a dict from physical paths (tuples of names, ``()`` is the root) to
inodes; two paths with one inode are hard links. Layers are lists of entries, said
as the tar says them. Nothing is shared with the package: this is its judge.

Where SEMANTICS.md is silent, the model decides:

=================================================  ===================================
an entry below a file, a device, a fifo            refused
more than 40 symlinks on the way to an entry       refused
an entry below ``.wh.x``, by its name or a link    refused
whiteouts and opaque marks                         add nothing, implied parents neither
a whiteout below a symlink                         resolved in the tree below the layer
... when the layer lists a directory at the link   no effect
a whiteout below a file, nothing, 40 symlinks      no effect
a hard link to what is below 40 symlinks           to nothing
a dangling symlink as parent                       followed, what is missing on its way
                                                   is made, ``x`` in ``x/../y`` too
``..`` in a symlink's text, at the root            stays at the root
a hard link whose target comes later               holds its name, and waits: the end
                                                   of the layer says what its target is
a hard link to one that waits                      waits, too
a hard link to nothing, its name listed again      refused
a hard link to ``.wh..wh.plnk/N``                  that file, of the same layer; all
                                                   such links are one inode
a hard link among AUFS's bookkeeping to nothing    no error, if none is to that link
implied directories                                mtime of the entry that made them
symlinks                                           mode 0777
=================================================  ===================================
"""

import base64
import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

Path = tuple[bytes, ...]

MAX_LINKS = 40
WHITEOUT = b".wh."
BOOKKEEPING = b".wh..wh."
OPAQUE = b".wh..wh..opq"
PLNK = b".wh..wh.plnk"
DRIVERS_OWN = (b"trusted.overlay.", b"user.overlay.", b"user.fuseoverlayfs.")
PENDING = "pending"


@dataclass(frozen=True, repr=False)
class Entry:
    """One member of a layer.

    Attributes:
        name: As it is spelled in the tar.
        type: One of ``file dir symlink hardlink chr blk fifo``.
        content: Of a file; of a hard link, what its header's size pretends.
        mtime: Seconds; a fraction is said by a PAX record.
        target: A symlink's text, or the name that a hard link names, as spelled.
    """

    name: bytes
    type: str = "file"
    content: bytes = b""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: float = 0
    target: bytes = b""
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    device: tuple[int, int] = (0, 0)

    def __repr__(self) -> str:
        said = [
            f"{field.name}={value!r}"
            for field in fields(self)
            if (value := getattr(self, field.name)) != field.default
        ]
        return f"Entry({', '.join(said)})"


@dataclass(eq=False)
class Inode:
    """What a path names; equal to nothing but itself."""

    type: str
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    content: bytes = b""
    target: bytes = b""
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    device: tuple[int, int] = (0, 0)


Tree = dict[Path, Inode]
Waiting = dict[Inode, Entry]


class Refused(Exception):
    """The image makes no tree; ``entry`` is to blame."""

    def __init__(self, entry: Entry, why: str) -> None:
        super().__init__(f"{entry.name!r}: {why}")
        self.entry = entry


def flattened(layers: Iterable[Sequence[Entry]]) -> Tree:
    """Apply layers, oldest first; the root is in the tree if a layer lists it.

    Raises:
        Refused: An entry says what no tree can be.
    """
    tree: Tree = {}
    for layer in layers:
        for entry in layer:
            check_name(entry)
        remove_hidden(tree, layer)
        add_members(tree, layer)
    return tree


def cleaned(name: bytes, entry: Entry) -> Path:
    """Clean a name, by its text alone: what ``..`` cancels is never looked at."""
    path: list[bytes] = []
    for part in name.split(b"/"):
        if part == b".." and not path:
            raise Refused(entry, "it would leave the root")
        if part == b"..":
            path.pop()
        elif part not in (b"", b"."):
            path.append(part)
    return tuple(path)


def is_bookkeeping(path: Path) -> bool:
    """Tell AUFS's own files, and all below them, from opaque marks and the rest."""
    path = path[:-1] if path[-1:] == (OPAQUE,) else path
    return any(name.startswith(BOOKKEEPING) for name in path)


def is_whiteout(path: Path) -> bool:
    """Tell whiteouts and opaque marks from what a layer adds."""
    last = path[-1] if path else b""
    return last.startswith(WHITEOUT) and not is_bookkeeping(path)


def check_name(entry: Entry) -> None:
    """Refuse malformed whiteouts, and what is below a whiteout."""
    path = cleaned(entry.name, entry)
    for depth, name in enumerate(path, 1):
        if name.startswith(BOOKKEEPING):
            return
        if name in (b".wh.", b".wh..", b".wh..."):
            raise Refused(entry, "whiteout of no name")
        if name.startswith(WHITEOUT) and depth < len(path):
            raise Refused(entry, "below a whiteout")


def directory_at(
    tree: Tree, path: Path, entry: Entry, *, make: bool, gone: Iterable[Path] = ()
) -> Path | None:
    """Follow a path, and the symlinks on it, inside the root, to a directory.

    Args:
        make: Make what is missing on the way; else the answer is None there.
        gone: Paths whose symlinks the layer replaces: None, too.
    """
    todo = list(path)
    here: Path = ()
    links = 0
    while todo:
        name = todo.pop(0)
        there = (*here, name)
        if name in (b"", b"."):
            continue
        if name == b"..":
            here = here[:-1]
            continue
        if there not in tree and make:
            if name.startswith(WHITEOUT):
                raise Refused(entry, "below a whiteout")
            tree[there] = Inode("dir", mtime=math.floor(entry.mtime))
        inode = tree.get(there)
        if inode is not None and inode.type == "dir":
            here = there
        elif inode is not None and inode.type == "symlink" and there not in gone:
            links += 1
            if links > MAX_LINKS and make:
                raise Refused(entry, "too many symlinks")
            if links > MAX_LINKS:
                return None
            here = () if inode.target.startswith(b"/") else here
            todo = inode.target.split(b"/") + todo
        elif make:
            raise Refused(entry, "below what is not a directory")
        else:
            return None
    return here


def remove_hidden(tree: Tree, layer: Sequence[Entry]) -> None:
    """Do the first step of a layer: find all that it hides, then remove that."""
    listed = listed_directories(tree, layer)
    hidden: set[Path] = set()
    for entry in layer:
        path = cleaned(entry.name, entry)
        if is_whiteout(path):
            hidden |= set(hidden_by(tree, path, entry, listed))
    for path in hidden:
        remove(tree, path)


def listed_directories(tree: Tree, layer: Sequence[Entry]) -> set[Path]:
    """Return where a layer lists directories, by the links of the tree below it."""
    last: dict[Path, str] = {}
    for entry in layer:
        path = cleaned(entry.name, entry)
        gone = {path for path in last if last[path] == "dir"}
        parent = directory_at(tree, path[:-1], entry, make=False, gone=gone)
        if parent is not None:
            last[*parent, *path[-1:]] = entry.type
    return {path for path in last if last[path] == "dir"}


def hidden_by(
    tree: Tree, path: Path, entry: Entry, listed: set[Path]
) -> Iterator[Path]:
    """Yield what one whiteout or opaque mark hides in the tree below its layer."""
    directory = directory_at(tree, path[:-1], entry, make=False, gone=listed)
    for lower in tree:
        is_child = lower and lower[:-1] == directory
        if is_child and path[-1] in (OPAQUE, WHITEOUT + lower[-1]):
            yield lower


def remove(tree: Tree, path: Path) -> None:
    """Remove a path and all below it."""
    for lower in list(tree):
        if lower[: len(path)] == path:
            del tree[lower]


def add_members(tree: Tree, layer: Sequence[Entry]) -> None:
    """Do the second step of a layer: add its members in order."""
    plnk: Tree = {}
    waiting: Waiting = {}
    for entry in layer:
        path = cleaned(entry.name, entry)
        if is_bookkeeping(path):
            plnk[path] = inode_of(tree, plnk, entry, waiting)
        elif not is_whiteout(path):
            add_member(tree, plnk, path, entry, waiting)
    bind_waiting(tree, plnk, waiting)


def add_member(
    tree: Tree, plnk: Tree, path: Path, entry: Entry, waiting: Waiting
) -> None:
    """Give a path its inode: a new one, or for a hard link one that there is."""
    if not path and entry.type != "dir":
        raise Refused(entry, "the root must be a directory")
    directory = directory_at(tree, path[:-1], entry, make=True)
    assert directory is not None
    inode = inode_of(tree, plnk, entry, waiting)
    where = (*directory, *path[-1:])
    old = tree.get(where)
    if old is not None and not old.type == inode.type == "dir":
        remove(tree, where)
    tree[where] = inode


def inode_of(tree: Tree, plnk: Tree, entry: Entry, waiting: Waiting) -> Inode:
    """Return what a member's path will name."""
    if entry.type == "hardlink":
        inode = linked(tree, plnk, entry) or Inode(PENDING)
        if inode.type == "dir":
            raise Refused(entry, "hard link to a directory")
        if inode.type == PENDING:
            waiting[inode] = entry
        return inode
    return Inode(
        entry.type,
        0o777 if entry.type == "symlink" else entry.mode & 0o7777,
        entry.uid,
        entry.gid,
        math.floor(entry.mtime),
        entry.content if entry.type == "file" else b"",
        entry.target if entry.type == "symlink" else b"",
        tuple(sorted(x for x in entry.xattrs if not x[0].startswith(DRIVERS_OWN))),
        entry.device if entry.type in ("chr", "blk") else (0, 0),
    )


def linked(tree: Tree, plnk: Tree, entry: Entry) -> Inode | None:
    """Return the inode that a hard link's target names now, None if there is none."""
    path = cleaned(entry.target, entry)
    if path[:1] == (PLNK,):
        inode = plnk.get(path)
    else:
        directory = directory_at(tree, path[:-1], entry, make=False)
        if directory is None:
            return None
        where = (*directory, *path[-1:])
        inode = tree.get(where) if where else Inode("dir")
    return None if inode and inode.type == PENDING else inode


def bind_waiting(tree: Tree, plnk: Tree, waiting: Waiting) -> None:
    """Bind the links whose targets came after them, again and again until none is."""
    while waiting:
        ready = {
            pending: inode
            for pending, entry in waiting.items()
            if (inode := linked(tree, plnk, entry))
        }
        if not ready:
            break
        pending, inode = ready.popitem()
        entry = waiting.pop(pending)
        if inode.type == "dir":
            raise Refused(entry, "hard link to a directory")
        for names in (tree, plnk):
            for path in [path for path in names if names[path] is pending]:
                names[path] = inode
    for entry in waiting.values():
        if not is_bookkeeping(cleaned(entry.name, entry)):
            raise Refused(entry, "hard link to nothing, or in a cycle")


def first_names(tree: Tree) -> dict[Inode, Path]:
    """Map each inode to its first name in walk order."""
    first: dict[Inode, Path] = {}
    for path in sorted(tree):
        first.setdefault(tree[path], path)
    return first


def squashed(tree: Tree) -> list[Entry]:
    """Say a tree as one layer."""
    first = first_names(tree)
    layer = []
    for path in sorted(tree):
        inode = tree[path]
        name = b"/".join(path) or b"./"
        if first[inode] != path:
            layer.append(Entry(name, "hardlink", target=b"/".join(first[inode])))
        else:
            layer.append(Entry(
                name, inode.type, inode.content, inode.mode, inode.uid, inode.gid,
                inode.mtime, inode.target, inode.xattrs, inode.device,
            ))  # fmt: skip
    return layer


def records(tree: Tree) -> list[dict[str, Any]]:
    """Say a tree in the words of ``listing.listing``, in walk order.

    That is a directory, then its contents; siblings bytewise by name.
    """
    first = first_names(tree)
    out = []
    for path in sorted(tree):
        line = record(tree[path]) | {"path": text(b"/".join(path))}
        if first[tree[path]] != path:
            line["type"] = "hardlink"
            line["linkname"] = text(b"/".join(first[tree[path]]))
            line.pop("rdev", None)
        out.append(line)
    return out


def record(inode: Inode) -> dict[str, Any]:
    """Say an inode in the words of ``listing.listing``."""
    line: dict[str, Any] = {
        "type": inode.type,
        "mode": f"{inode.mode:04o}",
        "uid": inode.uid,
        "gid": inode.gid,
        "mtime": inode.mtime,
    }
    if inode.type == "file":
        line["size"] = len(inode.content)
        line["sha256"] = hashlib.sha256(inode.content).hexdigest()
    if inode.type == "symlink":
        line["linkname"] = text(inode.target)
    if inode.type in ("chr", "blk"):
        line["rdev"] = "{}:{}".format(*inode.device)
    if inode.xattrs:
        line["xattrs"] = {
            text(key): base64.b64encode(value).decode() for key, value in inode.xattrs
        }
    return line


def text(name: bytes) -> str:
    """Disguise bytes as text, as the listing does."""
    return name.decode("utf-8", "surrogateescape")
