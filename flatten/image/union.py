"""Read the stacked directories of union file systems: their marks and lookups.

Removals and replacements are marked in three ways. A fuse-overlayfs layer may use all
of them at once.

=============  =====================================  ================================
system         a name is removed                      a directory hides lower layers
=============  =====================================  ================================
AUFS           a file called ``.wh.NAME``             a file ``.wh..wh..opq`` in it
overlay        a character device 0:0; an empty file  the xattr ``overlay.opaque`` is
               with the xattr ``overlay.whiteout``    ``y``
               where ``overlay.opaque`` is ``x``
fuse-overlayfs both                                   both; ``.wh..opq``; the xattr
                                                      ``user.fuseoverlayfs.opaque``
=============  =====================================  ================================

Overlay's xattrs are ``trusted.overlay.*``, or ``user.overlay.*`` in user mounts.
Two more mean that a file or its content is elsewhere:

``overlay.redirect``
    The layers below have this directory, or this file's content, under another name: a
    name in the same directory, or a path from the root.
``overlay.metacopy``
    This file has its metadata here and its content in a layer below.

Reference: Linux Documentation/filesystems/overlayfs.rst and fs/overlayfs/namei.c, of
6.18; fuse-overlayfs 1.10 main.c; moby pkg/archive/{whiteouts,archive_linux}.go.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from ..errors import quoted
from ..host.beneath import Beneath
from ..tar import whiteout

_OVERLAY: Final = (b"trusted.overlay.", b"user.overlay.")
_FUSE_OPAQUE: Final = b"user.fuseoverlayfs.opaque"
_OPAQUE_MARKS: Final = (whiteout.OPAQUE_MARK, whiteout.FUSE_OPAQUE_MARK)
_CAP_SYS_ADMIN: Final = 21
OWN_XATTRS: Final = (*_OVERLAY, b"user.fuseoverlayfs.")
"""Names of the union file systems' own files, which are in no tree."""


def in_initial_namespace() -> bool:
    """Return True if this process is in no user namespace but the host's own."""
    with open("/proc/self/uid_map", encoding="ascii") as text:
        return text.read().split() == ["0", "0", str(0xFFFFFFFF)]


def sees_trusted() -> bool:
    """Return True if this process can see ``trusted.*`` xattrs."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as text:
        effective = text.read().partition("CapEff:")[2].split()[0]
    return in_initial_namespace() and bool(int(effective, 16) >> _CAP_SYS_ADMIN & 1)


@dataclass(frozen=True, slots=True)
class Style:
    """The kinds of marks that a tree may have.

    Attributes:
        names: Whether AUFS's marks are recognised.
        attributes: Whether overlay's marks are recognised.
    """

    names: bool = False
    attributes: bool = False


PLAIN: Final = Style()
AUFS: Final = Style(names=True)
OVERLAY: Final = Style(attributes=True)
FUSE: Final = Style(names=True, attributes=True)


@dataclass(frozen=True, slots=True)
class Node:
    """The file that one layer has at a path.

    Attributes:
        layer: Number of the layer, 0 at the top.
        path: The path in the layer.
        status: The file's status; for a symlink, its own.
        xattrs: All its xattrs.
    """

    layer: int
    path: bytes
    status: os.stat_result
    xattrs: dict[bytes, bytes]

    def is_directory(self) -> bool:
        """Return True if the node is a directory."""
        return stat.S_ISDIR(self.status.st_mode)

    def overlay(self, name: bytes) -> bytes | None:
        """Return one of overlay's xattrs, from either namespace, or None."""
        for prefix in _OVERLAY:
            if prefix + name in self.xattrs:
                return self.xattrs[prefix + name]
        return None


class Union:
    """The directories of stacked layers, top first.

    Attributes:
        trees: The directories.
        style: The marks that they may have.
    """

    def __init__(self, trees: Sequence[Beneath], style: Style) -> None:
        """Stack directories, top first."""
        self.trees = trees
        self.style = style

    def node(self, layer: int, path: bytes) -> Node | None:
        """Return a layer's node at a path, which may be a mark, or None."""
        tree = self.trees[layer]
        try:
            return Node(layer, path, tree.status(path), tree.xattrs(path))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def root(self) -> list[Node]:
        """Return the root directories of all layers."""
        return list(self._roots(0))

    def names(self, directory: Node) -> tuple[list[bytes], list[bytes]]:
        """Return the names in a layer's directory, and those that AUFS's marks hide.

        Raises:
            ValueError: A mark has no name.
        """
        names = self.trees[directory.layer].names(directory.path)
        if not self.style.names:
            return names, []
        ordinary, hidden = [], []
        for name in names:
            try:
                meaning, shown = whiteout.classify(name)
            except ValueError as error:
                path = quoted(join(directory.path, name))
                raise ValueError(f"{error}: {path}") from error
            if meaning == whiteout.ORDINARY:
                ordinary.append(name)
            elif meaning == whiteout.HIDES and name != whiteout.FUSE_OPAQUE_MARK:
                hidden.append(shown)
        return ordinary, hidden

    def is_whiteout(self, node: Node, directory: Node) -> bool:
        """Return True if a node in a directory is an overlay whiteout."""
        if not self.style.attributes:
            return False
        if stat.S_ISCHR(node.status.st_mode):
            return node.status.st_rdev == 0
        return (
            stat.S_ISREG(node.status.st_mode)
            and not node.status.st_size
            and node.overlay(b"whiteout") is not None
            and directory.overlay(b"opaque") == b"x"
        )

    def is_opaque(self, directory: Node) -> bool:
        """Return True if a directory is opaque: it hides that of lower layers."""
        # The kernel ignores the root's attribute.
        if (
            self.style.attributes
            and directory.path
            and (
                directory.overlay(b"opaque") == b"y"
                or directory.xattrs.get(_FUSE_OPAQUE) == b"y"
            )
        ):
            return True
        tree = self.trees[directory.layer]
        marks = _OPAQUE_MARKS if self.style.names else ()
        return any(tree.exists(join(directory.path, mark)) for mark in marks)

    def redirect(self, node: Node) -> bytes | None:
        """Return the name or path of a node in the layers below, or None."""
        return node.overlay(b"redirect") if self.style.attributes else None

    def is_metacopy(self, node: Node) -> bool:
        """Return True if a file's content is in a layer below."""
        return (
            self.style.attributes
            and stat.S_ISREG(node.status.st_mode)
            and node.overlay(b"metacopy") is not None
        )

    def resolve(self, path: bytes, top: int = 0) -> list[Node]:
        """Return the nodes at a path in the stacked layers from ``top`` down.

        They are one node, or the merged directories, or a file's metacopies followed
        by the node with its content. The list is empty if the path is missing.

        Raises:
            ValueError: A redirect is one that the kernel would refuse.
        """
        found = list(self._roots(top))
        for name in path.split(b"/") if path else ():
            found = self.lookup(found, name)
        return found

    def lookup(self, directories: Sequence[Node], name: bytes) -> list[Node]:
        """Return the nodes under a name in merged directories, as ``resolve`` does."""
        found: list[Node] = []
        for at, directory in enumerate(directories):
            if not directory.is_directory():
                break
            node = self.node(directory.layer, join(directory.path, name))
            hides = self._hides(directory, name)
            if node is not None:
                if self.is_whiteout(node, directory):
                    break
                if found and found[0].is_directory() != node.is_directory():
                    break
                found.append(node)
                if node.is_directory():
                    hides = hides or self.is_opaque(node)
                else:
                    hides = hides or not self.is_metacopy(node)
                moved = self.redirect(node)
                if moved is not None and not hides:
                    return [*found, *self._moved(node, moved, directories[at + 1 :])]
            if hides:
                break
        return found

    def _moved(self, node: Node, to: bytes, below: Sequence[Node]) -> list[Node]:
        """Return the nodes of a redirected node in lower layers."""
        parts = to.split(b"/")
        if to.startswith(b"/"):
            parts = parts[1:]
        elif len(parts) > 1:
            parts = []
        if not parts or {b"", b".", b".."} & {*parts}:  # EINVAL in the kernel
            raise ValueError(f"invalid redirect of {quoted(node.path)} to {quoted(to)}")
        if to.startswith(b"/"):
            found = self.resolve(to[1:], node.layer + 1)
        else:
            found = self.lookup(below, to)
        same = found and found[0].is_directory() == node.is_directory()
        return found if same else []

    def _hides(self, directory: Node, name: bytes) -> bool:
        """Return True if a directory has AUFS's whiteout for a name."""
        mark = join(directory.path, whiteout.hiding(name))
        return self.style.names and self.trees[directory.layer].exists(mark)

    def _roots(self, top: int) -> Iterator[Node]:
        """Yield the root directories from a layer down to the first opaque one."""
        for layer in range(top, len(self.trees)):
            node = self.node(layer, b"")
            if node is not None:
                yield node
                if self.is_opaque(node):
                    return


def join(parent: bytes, name: bytes) -> bytes:
    """Return the path of a name in a directory; the root's path is ``b""``."""
    return parent + b"/" + name if parent else name
