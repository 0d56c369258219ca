"""Layer tars, written as docker's Go code writes them, and fast.

A layer is a dict of path to ``Entry``; paths have no slash at either end. It is
written depth first, siblings in bytewise order, as ``docker save`` walks a layer:

=====================  =====================================================
entry                  what is written
=====================  =====================================================
``DIRECTORY``          ``path/``
``WHITEOUT``           ``.wh.NAME`` beside the path, where the path would stand
``OPAQUE``, at ``d/``  ``d/.wh..wh..opq``, right after the directory ``d``
a name > 100 bytes     a PAX header with ``path`` (and ``linkpath``) before it
=====================  =====================================================

Reference: Go's src/archive/tar (writer.go, strconv.go), moby's pkg/archive.
"""

import hashlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

MTIME = 1_700_000_000
END = bytes(1024)
BLOCK = 512
NAME = 100  # the width of a header's name and target fields
ROOT = b"0000000\0"  # a user or a group
TAIL = b"ustar\x0000" + bytes(64) + ROOT * 2 + bytes(167)
UNKNOWN = -1
"""The size of content that is made only when it is written."""


class Entry(NamedTuple):
    """What a path of a layer is; ``data`` yields ``size`` bytes, when it is called."""

    kind: bytes
    mode: int
    size: int = 0
    target: str = ""
    data: Callable[[], Iterable[bytes]] = tuple


Layer = dict[str, Entry]

DIRECTORY = Entry(b"5", 0o755)
WHITEOUT = Entry(b"w", 0o600)
OPAQUE = Entry(b"o", 0o755)


def file(size: int, data: Callable[[], Iterable[bytes]], mode: int = 0o644) -> Entry:
    """Return a regular file."""
    return Entry(b"0", mode, size, "", data)


def symlink(target: str) -> Entry:
    """Return a symlink."""
    return Entry(b"2", 0o777, 0, target)


def hard_link(target: str, mode: int = 0o644) -> Entry:
    """Return a hard link; its target is in the same layer, before it in walk order."""
    return Entry(b"1", mode, 0, target)


def put(layer: Layer, path: str, entry: Entry) -> None:
    """Add an entry and the directories above it, which docker's layers repeat."""
    layer[path] = entry
    parent = path.rstrip("/").rpartition("/")[0]
    while parent and parent not in layer:
        layer[parent] = DIRECTORY
        parent = parent.rpartition("/")[0]


def walk_order(path: str) -> str:
    """Sort by components: what is in a directory follows it at once.

    >>> sorted(["a-b", "a/", "a/b", "a", "a/-"], key=walk_order)
    ['a', 'a/', 'a/-', 'a/b', 'a-b']
    """
    return path.replace("/", "\0")


def header(name: bytes, kind: bytes, mode: int, size: int, target: bytes) -> bytes:
    """Write one block; the checksum is read off Adler-32, as bench/micro shows."""
    numbers = b"%07o\0%b%b%011o\0%011o\0" % (mode, ROOT, ROOT, size, MTIME)
    head = name[:NAME].ljust(NAME, b"\0") + numbers
    rest = kind + target[:NAME].ljust(NAME, b"\0") + TAIL
    total = ((zlib.adler32(head + b" " * 8 + rest) & 0xFFFF) - 1) % 65521
    return b"%b%06o\0 %b" % (head, total, rest)


def padding(size: int) -> bytes:
    """Return what fills up the last block."""
    return bytes(-size % BLOCK)


def long_names(name: bytes, target: bytes) -> bytes:
    """Write the PAX header that Go writes for what no header holds, or nothing."""
    records = b""
    for key, value in ((b"linkpath", target), (b"path", name)):
        if len(value) > NAME or not value.isascii():
            length = len(key) + len(value) + 3
            length += len(str(length + len(str(length))))
            records += b"%d %b=%b\n" % (length, key, value)
    if not records:
        return b""
    folder, slash, base = name.rstrip(b"/").rpartition(b"/")
    about = folder + slash + b"PaxHeaders.0/" + base
    head = header(about, b"x", 0, len(records), b"")
    return head + records + padding(len(records))


def member_name(path: str, entry: Entry) -> str:
    """Spell a path as its member's name."""
    if entry.kind == b"5":
        return path + "/"
    if entry.kind == b"o":
        return path + ".wh..wh..opq"
    if entry.kind == b"w":
        folder, slash, base = path.rpartition("/")
        return f"{folder}{slash}.wh.{base}"
    return path


def blocks(layer: Mapping[str, Entry]) -> Iterator[bytes]:
    """Yield the bytes of a layer tar up to its end blocks, a member or less a time."""
    for path in sorted(layer, key=walk_order):
        entry = layer[path]
        name, target = member_name(path, entry).encode(), entry.target.encode()
        kind = b"0" if entry.kind in b"wo" else entry.kind
        data, size = entry.data(), entry.size
        if size == UNKNOWN:
            data = (b"".join(data),)
            size = len(data[0])
        head = header(name, kind, entry.mode, size, target)
        yield long_names(name, target) + head
        yield from data
        yield padding(size)


def write_layer(path: Path, layer: Mapping[str, Entry]) -> str:
    """Write a layer tar, and return the hex digest of its bytes."""
    digest = hashlib.sha256()
    with path.open("wb", buffering=1 << 20) as out:
        for data in blocks(layer):
            out.write(data)
            digest.update(data)
        out.write(END)
    digest.update(END)
    return digest.hexdigest()


def merged(layers: Iterable[Layer]) -> Layer:
    """Apply layers one after another: the tree of all as one layer.

    A hard link whose target a later layer replaced or removed becomes a file.
    """
    tree: Layer = {}
    made: dict[str, Layer] = {}  # which layer a path is of
    for layer in layers:
        for path, entry in layer.items():
            if entry.kind in b"wo":
                _remove(tree, path)
        for path, entry in layer.items():
            if entry.kind not in b"wo":
                tree[path], made[path] = entry, layer
    for path, entry in tree.items():
        of = made[path]
        if entry.kind == b"1" and tree.get(entry.target) is not of[entry.target]:
            tree[path] = of[entry.target]
    return tree


def _remove(tree: Layer, path: str) -> None:
    """Remove a path and all below it, or with a slash at its end only the latter."""
    below = path.rstrip("/") + "/"
    if path != below and tree.pop(path, DIRECTORY).kind != b"5":
        return
    for name in [name for name in tree if name.startswith(below)]:
        del tree[name]
