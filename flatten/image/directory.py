"""Convert a layer's directory to an equivalent layer tar, for the tar reader.

This is for layers that only exist as a directory: those of containers, and of images
whose tar-split record is lost. The marks of union file systems are translated to
whiteouts, and files that overlay moved (``redirect``) or left in a lower layer
(``metacopy``) are put in place.

A directory lacks some information of the layer's tar: which directories it listed, the
order, xattrs that the driver dropped. POSIX ACLs and SELinux labels on a disk belong to
the host and are left out, as docker does.
"""

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from ..errors import FlattenError, FormatError, quoted
from ..host.beneath import Beneath
from ..host.spools import Pool
from ..tar import whiteout, write_header, xattrs
from ..tar.members import (
    DIRECTORY,
    FILE,
    LINK,
    NO_EXTRA,
    SYMLINK,
    TYPEFLAGS,
    Extra,
    SparseMap,
)
from ..tar.wire import BLOCK_SIZE, sparse_map
from ..tar.write_header import RECORD_SIZE
from .assembly import Assembly
from .union import OWN_XATTRS, PLAIN, Node, Style, Union, join, sees_trusted

_LARGE_HOLE: Final = 1 << 20  # bytes; smaller holes are written as zeros
_CHUNK: Final = 1 << 20  # bytes per read when contents are compared
_CAPABILITY: Final = b"security.capability"
_KEPT: Final = (b"user.", b"trusted.", _CAPABILITY)
_ACL: Final = b"system.posix_acl_"

_Key = tuple[int, int, int]
"""Key of an inode: its layer, device and number."""

_Look = tuple[int, int]
"""Size and mtime (nanoseconds) of a file."""

_Todo = tuple[bytes, list[Node], bool]
"""A directory to write: its path, the nodes merged in it, and whether it is alone."""

Owners = Callable[[int], int]
"""Converts an id on the disk to the id in the image."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Settings for reading directories.

    Attributes:
        pool: The pool that holds the headers.
        where: The layer's name in messages.
        style: The kinds of marks that may occur.
        warnings: Receives one sentence for each kind of loss.
        trusted: Whether marks may be in xattrs that only root can see.
        sealed: Why the files of lower layers cannot be found by their paths; "" if they
            can.
        uid: Converts a uid on the disk to the image's.
        gid: Converts a gid on the disk to the image's.
    """

    pool: Pool
    where: str
    style: Style = PLAIN
    warnings: list[str] = field(default_factory=list)
    trusted: bool = True
    sealed: str = ""
    uid: Owners = int
    gid: Owners = int


def walk(trees: Sequence[Beneath], reading: Reading) -> Assembly:
    """Return the tar of a layer that is stored as a directory.

    Args:
        trees: The directory of the layer, and those of the layers below it, nearest
            first; files that overlay moved from there are put in place.
        reading: The settings.

    Raises:
        FlattenError: A file cannot be read.
        FormatError: A content that should be in a lower layer is missing, or needs a
            layer that is sealed.
    """
    if reading.style.attributes and reading.trusted and not sees_trusted():
        raise FlattenError(
            f"{reading.where}: {quoted(trees[0].name)} may have overlay's marks in "
            "trusted xattrs, which only root can see (CAP_SYS_ADMIN); without them "
            "deleted files would reappear; read it as root"
        )
    writer = _LayerWriter(trees, reading)
    return writer.layer(writer.all)


def changes(lower: Beneath, upper: Beneath, reading: Reading) -> Assembly:
    """Return a layer tar of the changes from one full tree to another.

    As in docker's drivers without marks, a file is changed if its type, mode, owner,
    device, capability, size or mtime differs. This includes the mtimes of directories.
    Unlike docker, contents are compared too if another lower file has the same size and
    mtime, and so are the names of hard-linked files.

    Reference: moby pkg/archive/changes.go.
    """
    writer = _LayerWriter([upper, lower], reading)
    return writer.layer(writer.differences)


class _LayerWriter:
    """Writes a directory's layer into an assembly."""

    def __init__(self, trees: Sequence[Beneath], reading: Reading) -> None:
        self._reading = reading
        self._union = Union(trees, reading.style)
        self._out = Assembly(reading.pool, reading.where)
        for tree in trees:
            self._out.add_tree(tree)
        self._first: dict[_Key, bytes] = {}  # the first name of each hard-linked inode
        self._linked: dict[_Key, set[bytes]] = {}  # its names that were written
        self._counts: dict[_Key, int] = {}  # its number of names
        self._twins: dict[_Key, _Key] = {}  # the inode that replaces a lower inode
        self._alike: set[_Look] = set()
        self._lost: dict[str, int] = {}

    def layer(self, write: Callable[[], None]) -> Assembly:
        """Call ``write``, and return the complete tar."""
        try:
            write()
        except ValueError as error:
            raise FormatError(str(error), where=self._reading.where) from error
        except OSError as error:
            hint = "; read it as root" if isinstance(error, PermissionError) else ""
            path = self._union.trees[0].name
            raise FlattenError(
                f"{self._reading.where}: cannot read {quoted(path)}: "
                f"{quoted(error.filename or '')}: {error.strerror}{hint}"
            ) from error
        self._out.add_bytes(bytes(-self._out.size() % RECORD_SIZE or RECORD_SIZE))
        self._out.finish()
        for what, count in self._lost.items():
            self._reading.warnings.append(f"{self._reading.where}: {count:,} {what}")
        return self._out

    def all(self) -> None:
        """Write the root, then the contents of one directory after another.

        A directory that is alone is only this layer's part of it; the layers below are
        merged with it later. Others are written with everything visible in them.
        """
        (root, *_) = self._union.root()
        self._member(b"./", root)
        todo = [(b"", [root], True)]
        while todo:
            path, directories, alone = todo.pop()
            list_ = self._own if alone else self._merged
            below = list_(path, directories)
            todo.extend(reversed(below))
        self._link_rest()

    def _link_rest(self) -> None:
        """Link the other names of inodes that were moved here from lower layers.

        They may be anywhere in the lower layers, and would become separate files.
        """
        apart = {
            key: names
            for key, names in self._linked.items()
            if key[0] and len(names) < self._counts[key]
        }
        todo = [(b"", self._union.root())] if apart else []
        while todo:
            path, directories = todo.pop()
            for name, found in self._listed(directories):
                here = join(path, name)
                if found[0].is_directory():
                    todo.append((here, found))
                elif here not in apart.get(_key(found[0]), (here,)):
                    self._member(here, found[0])

    def _own(self, path: bytes, directories: list[Node]) -> list[_Todo]:
        """Write this layer's part of a directory, including its marks."""
        union, (directory,) = self._union, directories
        if union.is_opaque(directory):
            self._mark(whiteout.emptying(path))
        names, hidden = self._names(directory)
        for name in hidden:
            self._mark(whiteout.hiding(join(path, name)))
        below: list[_Todo] = []
        for name in names:
            node = union.node(0, join(directory.path, name))
            if node is None:
                continue  # deleted in the meantime
            here = join(path, name)
            if union.is_whiteout(node, directory):
                self._mark(whiteout.hiding(here))
            elif union.redirect(node) is not None or union.is_metacopy(node):
                if self._reading.sealed:
                    raise FormatError(
                        f"{quoted(here)} was moved, or only its metadata was changed; "
                        f"the rest is in a layer below, but {self._reading.sealed}",
                        where=self._reading.where,
                    )
                found = union.lookup(union.resolve(directory.path), name)
                self._show(here, found, below)
                if node.is_directory():
                    self._mark(whiteout.emptying(here))
            else:
                self._member(here, node)
                if node.is_directory():
                    below.append((here, [node], True))
        return below

    def _merged(self, path: bytes, directories: list[Node]) -> list[_Todo]:
        """Write the visible entries of merged directories."""
        below: list[_Todo] = []
        for name, found in self._listed(directories):
            self._show(join(path, name), found, below)
        return below

    def _listed(self, directories: list[Node]) -> Iterator[tuple[bytes, list[Node]]]:
        """Yield the visible entries of merged directories, sorted by name."""
        names: dict[bytes, None] = {}
        for directory in directories:
            if directory.is_directory():
                names |= dict.fromkeys(self._names(directory)[0])
        for name in sorted(names):
            found = self._union.lookup(directories, name)
            if found:
                yield name, found

    def _show(self, path: bytes, found: list[Node], below: list[_Todo]) -> None:
        """Write the entry at a path: the first node, with the content of the last."""
        if found[0].is_directory():
            self._member(path, found[0])
            below.append((path, found, False))
            return
        if self._union.is_metacopy(found[-1]):
            raise FormatError(
                f"the content of {quoted(path)} should be in a layer below (metacopy), "
                "but is missing",
                where=self._reading.where,
            )
        self._member(path, found[0], found[-1])

    def differences(self) -> None:
        """Write the differences of the first tree from the second."""
        self._alike = self._lookalikes()
        todo = [b""]
        root, old = self._union.root()
        if _differ(root, old):
            self._member(b"./", root)
        while todo:
            path = todo.pop()
            below = []
            names, old_names = (self._names_in(layer, path) for layer in (0, 1))
            for name in sorted({*old_names} - {*names}):
                self._mark(whiteout.hiding(join(path, name)))
            for name in names:
                here = join(path, name)
                node = self._union.node(0, here)
                if node is not None:
                    self._compare(here, node)
                    below += [here] if node.is_directory() else []
            todo.extend(reversed(below))

    def _names_in(self, layer: int, path: bytes) -> list[bytes]:
        node = self._union.node(layer, path)
        return [] if node is None or not node.is_directory() else self._names(node)[0]

    def _compare(self, path: bytes, node: Node) -> None:
        """Write a member if it has changed."""
        old = self._union.node(1, path)
        if (
            old is None
            or _differ(node, old)
            or self._is_linked_anew(node, old)
            or self._has_other_content(node, old)
        ):
            self._member(path, node)
        elif node.status.st_nlink > 1 and not node.is_directory():
            self._first[_key(node)] = path  # its other names link to this one

    def _is_linked_anew(self, node: Node, old: Node) -> bool:
        """Return True if an unchanged file has to be written for its hard links.

        Further names of an inode are always written: the tar of a lower layer may have
        them as separate files, because it was made from such a comparison too.
        """
        if node.is_directory():
            return False
        key = _key(node)
        return key in self._first or self._twins.setdefault(_key(old), key) != key

    def _has_other_content(self, node: Node, old: Node) -> bool:
        """Return True if a file with unchanged attributes has another content.

        This is only compared for attributes that several lower files have.
        """
        if (
            not stat.S_ISREG(node.status.st_mode)
            or _look(node.status) not in self._alike
        ):
            return False
        with (
            open(self._union.trees[0].open(node.path), "rb") as upper,
            open(self._union.trees[1].open(old.path), "rb") as lower,
        ):
            while data := upper.read(_CHUNK):
                if data != lower.read(_CHUNK):
                    return True
        return False

    def _lookalikes(self) -> set[_Look]:
        """Return the sizes and mtimes that several files of the lower tree have.

        If one of these files was moved, copied or linked over another one, only the
        content has changed. All mtimes are equal in a reproducible image.
        """
        tree = self._union.trees[1]
        inodes: dict[_Look, int] = {}
        found: set[_Look] = set()
        todo = [b""]
        while todo:
            directory = todo.pop()
            for name in tree.names(directory):
                path = join(directory, name)
                status = tree.status(path)
                if stat.S_ISDIR(status.st_mode):
                    todo.append(path)
                elif stat.S_ISREG(status.st_mode) and status.st_size:
                    first = inodes.setdefault(_look(status), status.st_ino)
                    if first != status.st_ino:
                        found.add(_look(status))
        return found

    def _names(self, directory: Node) -> tuple[list[bytes], list[bytes]]:
        names, hidden = self._union.names(directory)
        ordinary = [name for name in names if not whiteout.is_mark(name)]
        if len(ordinary) < len(names):
            self._lose(
                "names that are not valid in a layer are left out",
                len(names) - len(ordinary),
            )
        return ordinary, hidden

    def _lose(self, what: str, count: int = 1) -> None:
        self._lost[what] = self._lost.get(what, 0) + count

    # --- members

    def _mark(self, path: bytes) -> None:
        """Write a whiteout or opaque mark: an empty file."""
        self._out.add_bytes(
            write_header.posix_member(path, FILE, owner=(0, 0, 0), size=0, mtime=0)
        )

    def _member(self, path: bytes, node: Node, content: Node | None = None) -> None:
        """Write a member, with the content of another node if one is given."""
        status = node.status
        kind = TYPEFLAGS.get(stat.S_IFMT(status.st_mode))
        if kind is None:
            self._lose("sockets are left out, as a tar cannot contain them")
            return
        key = _key(node)
        first = self._first.get(key)
        if kind != DIRECTORY and status.st_nlink > 1:
            self._first.setdefault(key, path)
            self._linked.setdefault(key, set()).add(path)
            self._counts[key] = status.st_nlink
        if first is not None:
            kind = LINK
        size = status.st_size if kind == FILE else 0
        source = content or node
        sparse = self._sparse(source, size)
        self._out.add_bytes(
            write_header.posix_member(
                path + b"/" if kind == DIRECTORY and path != b"./" else path,
                kind,
                owner=(
                    stat.S_IMODE(status.st_mode),
                    self._reading.uid(status.st_uid),
                    self._reading.gid(status.st_gid),
                ),
                size=size,
                mtime=status.st_mtime_ns // 10**9,
                target=first or (self._target(node) if kind == SYMLINK else b""),
                extra=self._extra(node, sparse) if first is None else NO_EXTRA,
            )
        )
        for start, length in ((0, size),) if sparse is None else sparse:
            part = None if sparse is None else (start, size)
            self._out.add_file(source.path, length, tree=source.layer, part=part)
        self._out.add_bytes(bytes(-self._out.size() % BLOCK_SIZE))

    def _sparse(self, node: Node, size: int) -> SparseMap | None:
        """Return a file's data regions if it has large holes, else None."""
        if size - 512 * node.status.st_blocks < _LARGE_HOLE:
            return None
        regions = self._union.trees[node.layer].regions(node.path, size)
        stored = sum(length for _, length in regions)
        with suppress(ValueError):  # regions that a sparse tar member cannot express
            return sparse_map(regions, size, stored)
        return None

    def _target(self, node: Node) -> bytes:
        return self._union.trees[node.layer].link(node.path)

    def _extra(self, node: Node, sparse: SparseMap | None) -> Extra:
        """Return the fields that few members have."""
        records = []
        for name, value in sorted(node.xattrs.items()):
            if name.startswith(_ACL):
                self._lose("POSIX ACLs of the disk are left out")
            elif not name.startswith(_KEPT) or name.startswith(OWN_XATTRS):
                continue
            elif b"=" in name:
                self._lose("xattrs with an equals sign in their names are left out")
            else:
                kept = _capability(value) if name == _CAPABILITY else value
                records.append((xattrs.PREFIX + name, kept))
        device = node.status.st_rdev
        return Extra(
            tuple(records),
            sparse,
            device=(os.major(device), os.minor(device)),
            nanoseconds=node.status.st_mtime_ns % 10**9,
        )


def _look(status: os.stat_result) -> _Look:
    return status.st_size, status.st_mtime_ns


def _key(node: Node) -> _Key:
    return node.layer, node.status.st_dev, node.status.st_ino


def _differ(node: Node, old: Node) -> bool:
    """Return True if a member has changed."""
    new_status, old_status = node.status, old.status
    names = ["st_mode", "st_uid", "st_gid", "st_rdev", "st_mtime_ns"]
    names += [] if node.is_directory() else ["st_size"]
    return node.xattrs.get(_CAPABILITY) != old.xattrs.get(_CAPABILITY) or any(
        getattr(new_status, name) != getattr(old_status, name) for name in names
    )


def _capability(value: bytes) -> bytes:
    """Return a file capability without the root uid of its user namespace.

    In a user namespace it ends in that uid (revision 3), which means nothing elsewhere.
    Reference: capabilities(7); moby pkg/archive/archive.go, v28.
    """
    if len(value) == 24 and value[3] == 3:
        return value[:3] + b"\x02" + value[4:20]
    return value
