"""Trees: what a case expects, what a tool made of it, and how they differ.

An expected tree maps paths to words. A path that ends in ``/`` is a directory. The first
word is about the content:

==============  =====================================================
``1``           a file with that content
``->t``         a symlink to ``t``
``=a``          a hard link: the same inode as ``a``
``<fifo>``      a FIFO
``<chr:1:3>``   a character device, ``<blk:8:0>`` a block device
==============  =====================================================

The other words are attributes: ``mode=4755``, ``uid=0``, ``gid=0``, ``mtime=77``,
``size=9``, ``xattr:user.k=v`` and ``no-xattrs``. The contents of files and xattrs are
percent-encoded where they hold bytes that are not text, or spaces.
Attributes that are not named are not compared. The set of paths always is, except for
the root, which is compared if the tree names it as ``./``.
"""

import os
import stat
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote_to_bytes

KINDS = {
    tarfile.REGTYPE: "file", tarfile.AREGTYPE: "file", tarfile.CONTTYPE: "file",
    tarfile.GNUTYPE_SPARSE: "file", tarfile.SYMTYPE: "symlink",
    tarfile.DIRTYPE: "directory", tarfile.FIFOTYPE: "fifo",
    tarfile.CHRTYPE: "chr", tarfile.BLKTYPE: "blk",
}  # fmt: skip
FORMATS = {
    stat.S_IFREG: "file", stat.S_IFLNK: "symlink", stat.S_IFDIR: "directory",
    stat.S_IFIFO: "fifo", stat.S_IFCHR: "chr", stat.S_IFBLK: "blk",
    stat.S_IFSOCK: "socket",
}  # fmt: skip
MAX_SYMLINKS = 40  # on the way to one path, as the kernel has it
COMPARED_XATTRS = (b"user.", b"security.capability", b"trusted.")


@dataclass(eq=False)
class Inode:
    """What a path names; two paths with one inode are hard links."""

    kind: str
    content: bytes = b""
    target: bytes = b""
    device: tuple[int, int] = (0, 0)
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    mtime: int | None = None
    xattrs: dict[bytes, bytes] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """The number of bytes of a file."""
        return len(self.content)


Tree = dict[bytes, Inode]
Expected = Mapping[str, str]


class Unreadable(Exception):
    """The output is not a tree: it cannot be read, or says what no tree can be."""


def read_tar(path: Path) -> Tree:
    """Read a tar as it would be extracted into an empty directory.

    Raises:
        Unreadable: The tar is broken, or a hard link in it leads to nothing.
    """
    tree: Tree = {}
    try:
        with tarfile.open(
            path, "r:", encoding="utf-8", errors="surrogateescape"
        ) as opened:  # fmt: skip
            for info in opened:
                add(tree, place(tree, info.name), inode(opened, info, tree))
    except (OSError, tarfile.TarError, ValueError) as error:
        raise Unreadable(f"the output is not a readable tar: {error}") from error
    return tree


def add(tree: Tree, path: bytes, node: Inode) -> None:
    """Put an inode under a path, with the directories that lead there."""
    if node.kind != "directory":
        for below in [name for name in tree if name.startswith(path + b"/")]:
            del tree[below]
    parts = path.split(b"/")
    for depth in range(1, len(parts)):
        tree.setdefault(b"/".join(parts[:depth]), implied_directory())
    tree[path] = node


def implied_directory() -> Inode:
    """Return a directory as root's tar makes it where a tar does not list it."""
    return Inode("directory", mode=0o755, uid=0, gid=0)


def place(tree: Tree, name: str) -> bytes:
    """Return the path that a member's name leads to, through symlinks in front of it."""
    todo = os.fsencode(name).split(b"/")[::-1]
    if b".." in todo:
        raise Unreadable(f"the output has the name {name!r}")
    done: list[bytes] = []
    followed = 0
    while todo:
        part = todo.pop()
        if part == b"..":
            done = done[:-1]
        elif part not in {b"", b"."}:
            done.append(part)
        node = tree.get(b"/".join(done))
        if any(todo) and node and node.kind == "symlink" and followed < MAX_SYMLINKS:
            followed += 1
            done = [] if node.target.startswith(b"/") else done[:-1]
            todo += node.target.split(b"/")[::-1]
    return b"/".join(done)


def inode(opened: tarfile.TarFile, info: tarfile.TarInfo, tree: Tree) -> Inode:
    """Return the inode of a member; a hard link has that of its target."""
    if info.islnk():
        target = tree.get(place(tree, info.linkname))
        if target is None:
            raise Unreadable(
                f"{info.name!r} is a hard link to {info.linkname!r}, which the output "
                "does not have before it"
            )
        return target
    prefix = "SCHILY.xattr."
    kind = KINDS.get(info.type, "file")  # so POSIX on typeflags that are unknown
    stream = opened.extractfile(info) if kind == "file" else None
    return Inode(
        kind,
        content=stream.read() if stream else b"",
        target=os.fsencode(info.linkname),
        device=(info.devmajor, info.devminor) if info.isdev() else (0, 0),
        mode=info.mode & 0o7777,
        uid=info.uid,
        gid=info.gid,
        mtime=int(info.mtime // 1),
        xattrs={
            os.fsencode(key.removeprefix(prefix)): os.fsencode(value)
            for key, value in info.pax_headers.items()
            if key.startswith(prefix)
        },
    )


def read_directory(top: Path) -> Tree:
    """Read a directory.

    Raises:
        Unreadable: The directory is missing, or cannot be listed.
    """
    tree: Tree = {}
    known: dict[tuple[int, int], Inode] = {}
    todo = [b""]
    try:
        while todo:
            path = todo.pop()
            place = os.path.join(os.fsencode(top), path)
            node = tree[path] = file_inode(place, known)
            if node.kind == "directory":
                todo += [os.path.join(path, name) for name in os.listdir(place)]
    except OSError as error:
        raise Unreadable(f"the output cannot be read: {error}") from error
    return tree


def file_inode(place: bytes, known: dict[tuple[int, int], Inode]) -> Inode:
    """Return the inode of a file of this machine; ``known`` are those seen before."""
    status = os.lstat(place)
    identity = (status.st_dev, status.st_ino)
    if identity in known:
        return known[identity]
    kind = FORMATS[stat.S_IFMT(status.st_mode)]
    special = kind in {"chr", "blk"}
    out = known[identity] = Inode(
        kind,
        content=Path(os.fsdecode(place)).read_bytes() if kind == "file" else b"",
        target=os.readlink(place) if kind == "symlink" else b"",
        device=(
            (os.major(status.st_rdev), os.minor(status.st_rdev)) if special else (0, 0)
        ),
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        mtime=status.st_mtime_ns // 10**9,
        xattrs={
            os.fsencode(name): os.getxattr(place, name, follow_symlinks=False)
            for name in os.listxattr(place, follow_symlinks=False)
            if os.fsencode(name).startswith(COMPARED_XATTRS)
        },
    )
    return out


def differences(
    tree: Tree, expected: Expected, adds: frozenset[str] = frozenset()
) -> list[str]:
    """Return how a tree differs from the expected one, a sentence a difference.

    Paths in ``adds`` may be in the tree without being expected.
    """
    wanted = {clean(path): path for path in expected}
    ignored = {b"", *map(clean, adds)}
    found = {path for path in tree if path in wanted or path not in ignored}
    out = [f"{shown(path)} should not be there" for path in sorted(found - set(wanted))]
    for path, name in wanted.items():
        if path not in tree:
            out.append(f"{shown(path)} is missing")
            continue
        for what, has, wants in compared(tree, path, name, expected[name]):
            if has != wants:
                out.append(f"{shown(path)}: {what} is {shown(has)}, not {shown(wants)}")
    return out


def clean(path: str) -> bytes:
    """Return the path that a key of an expected tree means; ``./`` is the root."""
    return b"" if path == "./" else os.fsencode(path).rstrip(b"/")


def compared(
    tree: Tree, path: bytes, name: str, words: str
) -> Iterator[tuple[str, object, object]]:
    """Yield what is compared of a path: what it is, as found, as expected."""
    node = tree[path]
    content, *attributes = words.split(" ")
    if content.startswith("="):
        other = clean(content[1:])
        linked = tree.get(other) is node
        yield "the inode", path if not linked else other, other
    else:
        yield from kind_facts(node, name, content)
    for attribute in attributes:
        yield attribute_fact(node, attribute)


def kind_facts(
    node: Inode, name: str, content: str
) -> Iterator[tuple[str, object, object]]:
    """Yield what the first word says: the type, then what that type has."""
    if name.endswith("/"):
        yield "the type", node.kind, "directory"
    elif content.startswith("->"):
        yield "the type", node.kind, "symlink"
        yield "the target", node.target, os.fsencode(content[2:])
    elif content.startswith("<"):
        kind, *numbers = content.strip("<>").split(":")
        yield "the type", node.kind, kind
        yield "the device", node.device, tuple(map(int, numbers)) or (0, 0)
    else:
        yield "the type", node.kind, "file"
        yield "the content", node.content, unquote_to_bytes(content)


def attribute_fact(node: Inode, attribute: str) -> tuple[str, object, object]:
    """Return an attribute, as found and as expected."""
    key, _, value = attribute.partition("=")
    if key == "no-xattrs":
        return "the set of xattrs", sorted(node.xattrs), []
    if key.startswith("xattr:"):
        xattr = unquote_to_bytes(key.removeprefix("xattr:"))
        return f"xattr {shown(xattr)}", node.xattrs.get(xattr), unquote_to_bytes(value)
    found = getattr(node, key)
    if key == "mode":
        return "the mode", "unknown" if found is None else f"{found:o}", value
    return f"the {key}", found, int(value)


def needs_root(expected: Expected) -> bool:
    """Return True if only root can make this tree: it has owners or devices."""
    return any(
        mark in words
        for words in expected.values()
        for mark in ("<chr", "<blk", "uid=", "gid=")
    )


def shown(value: object) -> str:
    """Return a value for a message: short, and on one line."""
    text = repr(os.fsdecode(value) if isinstance(value, bytes) else value)
    return text if len(text) <= 60 else f"{text[:50]}... ({len(text)} characters)"
