"""A tree as rows of plain data, with a hash of each file's content.

=============  ====================================================================
``path``       relative to the root, which is ""; bytes that are not UTF-8 are
               surrogates (U+DC80 to U+DCFF), as from Python's ``os.fsdecode``
``type``       ``file`` ``dir`` ``symlink`` ``hardlink`` ``fifo`` ``chr`` ``blk``
``mode``       four octal digits
``uid gid``    numbers
``mtime``      seconds, floored
``size``       of a file, in bytes
``xxh3``       of a file: XXH3, 128 bits, in hex. It detects damage and changes, but
               is no protection against chosen contents
``linkname``   the target of a symlink; for a hardlink, the first path of its inode
``rdev``       of a device, ``major:minor``
``xattrs``     names, and values in base64, if there are any
``layer``      the position of the layer that it is from, from 1; null if from none
``verified``   in ``flatten ls``, false or ``toc`` as of ``reading.verified`` if not all
             layers were checked; else absent
=============  ====================================================================

Rows are in walk order: depth first, siblings bytewise by name.
"""

import os
import stat
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Literal, TypedDict

from ..errors import FlattenError, quoted
from ..host.beneath import Beneath
from ..host.files import LayerBytes
from ..plan.plan import Plan
from ..tar import xattrs
from ..tar.members import (
    BLOCK,
    CHAR,
    DIRECTORY,
    FIFO,
    FILE,
    FILE_TYPES,
    NO_EXTRA,
    SYMLINK,
    Members,
)

if TYPE_CHECKING:
    import xxhash

STEP: Final = 1 << 20  # bytes per read
_ZEROS: Final = bytes(STEP)
_KINDS: Final = {
    FILE: "file",
    DIRECTORY: "dir",
    SYMLINK: "symlink",
    FIFO: "fifo",
    CHAR: "chr",
    BLOCK: "blk",
}
_FORMATS: Final = {FILE_TYPES[kind]: word for kind, word in _KINDS.items()} | {
    stat.S_IFSOCK: "socket"
}


class Row(TypedDict, total=False):
    """A row; its fields are described above. Each type of file has only some."""

    path: str
    type: str
    mode: str
    uid: int
    gid: int
    mtime: int
    size: int
    xxh3: str
    linkname: str
    rdev: str
    xattrs: dict[str, str] | None
    layer: int | None
    verified: bool | Literal["toc"]


def plan_rows(plan: Plan, layers: Sequence[LayerBytes], own: int) -> Iterator[Row]:
    """Yield a row for each member of a plan.

    Args:
        plan: The plan of an output.
        layers: The layers' bytes, by position.
        own: The number of layers of the image; members of later ones have no layer.

    Raises:
        FormatError: A layer has fewer bytes than when it was indexed.
    """
    members = plan.members
    for position, (path, inode) in enumerate(plan):
        first, layer = plan.links.get(position), members.layers[inode]
        row = describe(members, path, inode, first)
        if first is None and members.kinds[inode] == FILE:
            row["xxh3"] = _hash_member(plan, inode, layers)
        if layer >= own:
            row["layer"] = None
        yield row


def describe(members: Members, path: bytes, inode: int, first: bytes | None) -> Row:
    """Return the row of a path of a tree, without the hash of its content.

    Args:
        members: The image's members.
        path: As in a tar: a directory ends with a slash, and the root is ``./``.
        inode: The number of the member at the path.
        first: If the inode has an earlier path, the first one, else None.
    """
    mode, uid, gid = members.owner_table[members.owners[inode]]
    extra = members.extras.get(inode, NO_EXTRA)
    kind = members.kinds[inode]
    row: Row = {
        "path": path_text(path),
        "type": _KINDS[kind] if first is None else "hardlink",
        "mode": f"{mode:04o}",
        "uid": uid,
        "gid": gid,
        "mtime": members.mtimes[inode],
        "layer": members.layers[inode] + 1,
    }
    if first is not None:
        row["linkname"] = _text(first)
    elif kind == FILE:
        row["size"] = members.sizes[inode]
    elif kind == SYMLINK:
        row["linkname"] = _text(members.targets[inode])
    elif kind in (CHAR, BLOCK):
        row["rdev"] = "{}:{}".format(*extra.device)
    if first is None and extra.records:
        _add_xattrs(row, readable_xattrs(extra.records))
    return row


def readable_xattrs(records: tuple[tuple[bytes, bytes], ...]) -> dict[bytes, bytes]:
    """Return the xattrs in PAX records, without ACLs that cannot be parsed."""
    with suppress(ValueError):
        return xattrs.from_records(records)
    return xattrs.from_records(r for r in records if not r[0].startswith(b"SCHILY.acl"))


def _add_xattrs(row: Row, found: Mapping[bytes, bytes]) -> None:
    """Add the field for xattrs, if there are any."""
    values = {_text(n): b64encode(v).decode() for n, v in sorted(found.items())}
    if values:
        row["xattrs"] = values


def path_text(path: bytes) -> str:
    """Return a path of a tar as a row has it."""
    return _text(b"" if path == b"./" else path.rstrip(b"/"))


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _hash_member(plan: Plan, inode: int, layers: Sequence[LayerBytes]) -> str:
    import xxhash  # for lists only

    members = plan.members
    digest = xxhash.xxh3_128()
    layer = layers[members.layers[inode]]
    reached = 0
    for offset, length, source in members.regions(inode):
        _hash_zeros(digest, offset - reached)
        for start in range(source, source + length, STEP):
            view = memoryview(bytearray(min(STEP, source + length - start)))
            layer.readinto(start, view)
            digest.update(view)
        reached = offset + length
    _hash_zeros(digest, members.sizes[inode] - reached)
    return digest.hexdigest()


def _hash_zeros(digest: "xxhash.xxh3_128", count: int) -> None:
    for done in range(0, count, STEP):
        digest.update(_ZEROS[: count - done])


# --- a directory of the host


def directory_rows(top: str) -> Iterator[Row]:
    """Yield a row for each path below a directory, without following symlinks.

    Raises:
        FlattenError: A file or directory cannot be read.
    """
    firsts: dict[tuple[int, int], str] = {}
    todo = [b""]
    path = b""
    try:
        with Beneath(top) as tree:
            while todo:
                path = todo.pop()
                status = tree.status(path)
                yield _file_row(tree, path, status, firsts)
                if stat.S_ISDIR(status.st_mode):
                    start = path + b"/" if path else b""
                    todo += [start + name for name in reversed(tree.names(path))]
    except OSError as error:
        where = quoted(os.path.join(os.fsencode(top), path))
        raise FlattenError(f"{where}: {error.strerror}") from error


def _file_row(
    tree: Beneath,
    path: bytes,
    status: os.stat_result,
    firsts: dict[tuple[int, int], str],
) -> Row:
    kind = _FORMATS[stat.S_IFMT(status.st_mode)]
    row: Row = {
        "path": _text(path),
        "type": kind,
        "mode": f"{stat.S_IMODE(status.st_mode):04o}",
        "uid": status.st_uid,
        "gid": status.st_gid,
        "mtime": status.st_mtime_ns // 10**9,
    }
    inode = status.st_dev, status.st_ino
    if kind != "dir" and status.st_nlink > 1 and inode in firsts:
        row["type"] = "hardlink"
        row["linkname"] = firsts[inode]
        return row
    firsts[inode] = _text(path)
    if kind == "file":
        row["size"] = status.st_size
        row["xxh3"] = _hash_file(tree.open(path))
    elif kind == "symlink":
        row["linkname"] = _text(tree.link(path))
    elif kind in ("chr", "blk"):
        row["rdev"] = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    _add_xattrs(row, tree.xattrs(path))
    return row


def _hash_file(file: int) -> str:
    """Hash an open file, and close it."""
    import xxhash  # for lists only

    digest = xxhash.xxh3_128()
    try:
        while data := os.read(file, STEP):
            digest.update(data)
    finally:
        os.close(file)
    return digest.hexdigest()
