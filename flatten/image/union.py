"""Directories of the host that a union file system stacks: their marks, their lookups.

What removes and replaces is spelled in three ways. A layer of fuse-overlayfs may have
all of them at once.

=============  =====================================  ================================
of             a name is gone                         a directory hides what is below
=============  =====================================  ================================
AUFS           a file called ``.wh.NAME``             a file ``.wh..wh..opq`` in it
overlay        a character device 0:0; an empty file  the xattr ``overlay.opaque`` is
               with the xattr ``overlay.whiteout``    ``y``
               where ``overlay.opaque`` is ``x``
fuse-overlay   both                                   both; ``.wh..opq``; the xattr
                                                      ``user.fuseoverlayfs.opaque``
=============  =====================================  ================================

Overlay's xattrs are ``trusted.overlay.*``, or ``user.overlay.*`` where mounts are a
user's. Two more say that something is not in its place:

``overlay.redirect``
    The layers below have this directory, or this file's content, under another name:
    one of the same directory, or a path from the root.
``overlay.metacopy``
    This file has its attributes here and its content in a layer below.

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
"""Of the union file systems' own, which no tree has."""


def sees_trusted() -> bool:
    """Say whether this process sees xattrs called ``trusted.``."""
    with open("/proc/self/uid_map", encoding="ascii") as text:
        initial = text.read().split() == ["0", "0", str(0xFFFFFFFF)]
    with open("/proc/self/status", encoding="ascii", errors="replace") as text:
        effective = text.read().partition("CapEff:")[2].split()[0]
    return initial and bool(int(effective, 16) >> _CAP_SYS_ADMIN & 1)


@dataclass(frozen=True, slots=True)
class Style:
    """Which marks a tree may have.

    Attributes:
        names: Those of AUFS.
        attributes: Those of overlay.
    """

    names: bool = False
    attributes: bool = False


PLAIN: Final = Style()
AUFS: Final = Style(names=True)
OVERLAY: Final = Style(attributes=True)
FUSE: Final = Style(names=True, attributes=True)


@dataclass(frozen=True, slots=True)
class Node:
    """What a layer's directory has under a path.

    Attributes:
        layer: Number of the layer, 0 at the top.
        path: There.
        status: Of a symlink itself.
        xattrs: All of them.
    """

    layer: int
    path: bytes
    status: os.stat_result
    xattrs: dict[bytes, bytes]

    def is_directory(self) -> bool:
        """Say whether it is one."""
        return stat.S_ISDIR(self.status.st_mode)

    def overlay(self, name: bytes) -> bytes | None:
        """Return one of overlay's xattrs, in whichever namespace it is."""
        for prefix in _OVERLAY:
            if prefix + name in self.xattrs:
                return self.xattrs[prefix + name]
        return None


class Union:
    """Layers' directories, the top one first.

    Attributes:
        trees: The directories.
        style: Which marks they may have.
    """

    def __init__(self, trees: Sequence[Beneath], style: Style) -> None:
        """Look at some directories."""
        self.trees = trees
        self.style = style

    def node(self, layer: int, path: bytes) -> Node | None:
        """Return what a layer has under a path, marks too."""
        tree = self.trees[layer]
        try:
            return Node(layer, path, tree.status(path), tree.xattrs(path))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def root(self) -> list[Node]:
        """Return the root directories of all layers."""
        return list(self._roots(0))

    def names(self, directory: Node) -> tuple[list[bytes], list[bytes]]:
        """Return what a layer's directory has, sorted, and what AUFS's marks hide.

        Raises:
            ValueError: A mark names nothing.
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
        """Say whether what a directory has is overlay's mark that a name is gone."""
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
        """Say whether a directory hides what lower layers have of it."""
        # The kernel does not look at the root's attribute.
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
        """Return where the layers below have what is here."""
        return node.overlay(b"redirect") if self.style.attributes else None

    def is_metacopy(self, node: Node) -> bool:
        """Say whether a file's content is in a layer below."""
        return (
            self.style.attributes
            and stat.S_ISREG(node.status.st_mode)
            and node.overlay(b"metacopy") is not None
        )

    def resolve(self, path: bytes, top: int = 0) -> list[Node]:
        """Return what layers from ``top`` down have under a path, as they are stacked.

        It is one node, or the directories that are merged, or a file's metacopies and
        then what has its content. Empty where there is nothing.

        Raises:
            ValueError: A redirect that the kernel would refuse.
        """
        found = list(self._roots(top))
        for name in path.split(b"/") if path else ():
            found = self.lookup(found, name)
        return found

    def lookup(self, directories: Sequence[Node], name: bytes) -> list[Node]:
        """Return what merged directories have under a name, as ``resolve`` does."""
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
        """Return what lower layers have of a node, under another name."""
        parts = to.split(b"/")
        if to.startswith(b"/"):
            parts = parts[1:]
        elif len(parts) > 1:
            parts = []
        if not parts or {b"", b".", b".."} & {*parts}:  # as the kernel, EINVAL
            raise ValueError(f"{quoted(node.path)} is redirected to {quoted(to)}")
        if to.startswith(b"/"):
            found = self.resolve(to[1:], node.layer + 1)
        else:
            found = self.lookup(below, to)
        same = found and found[0].is_directory() == node.is_directory()
        return found if same else []

    def _hides(self, directory: Node, name: bytes) -> bool:
        """Say whether AUFS's mark for a name is in a directory."""
        mark = join(directory.path, whiteout.hiding(name))
        return self.style.names and self.trees[directory.layer].exists(mark)

    def _roots(self, top: int) -> Iterator[Node]:
        """Yield the root directories from a layer down, to the first opaque one."""
        for layer in range(top, len(self.trees)):
            node = self.node(layer, b"")
            if node is not None:
                yield node
                if self.is_opaque(node):
                    return


def join(parent: bytes, name: bytes) -> bytes:
    """Return the path of a name in a directory; that of the root is ``b""``."""
    return parent + b"/" + name if parent else name
