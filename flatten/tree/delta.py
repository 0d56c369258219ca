"""Compute the change between two trees as one layer, with whiteouts and opaque marks.

The trees before and after some layers are compared, so temporary files of the layers
between are not included. The result applies correctly in every engine:

- No name appears along with its own whiteout, as engines disagree about the meaning.
- All parent directories of a change are listed, with their metadata.
- A new hard link to a lower layer's file lists all names of the file, since not every
  engine can link to a file of a lower layer.
- A directory that lost all its entries is marked opaque, except the root, where
  docker's overlay2 ignores the mark.
"""

from collections.abc import Iterator

from ..tar import whiteout
from ..tar.members import FILE, Members
from .tree import Names, Tree

Entry = tuple[bytes, int]
"""An output path (with a trailing slash for a directory) and its inode."""


class Snapshot:
    """A copy of a tree's names, taken before more layers are applied to the tree.

    Attributes:
        root: The names in the root.
        root_inode: The root's own member, or None.
        children: The names in each other directory, by its inode.
    """

    def __init__(self, tree: Tree) -> None:
        """Copy the names; the members are shared."""
        self.root = dict(tree.root)
        self.root_inode = tree.root_inode
        self.children = {inode: dict(names) for inode, names in tree.children.items()}


def delta(before: Snapshot, after: Tree) -> list[Entry]:
    """Return the entries that turn one tree into the other, in walk order.

    All whiteouts share one new member of ``after.members``.
    """
    mark = _whiteout_member(after.members)
    relinked = _relinked(before, after)
    out: list[Entry] = []
    root = after.root_inode
    if root is not None:
        out.append((b"./", root))
    stack = [_Directory(b"", before.root, after.root, before.root_inode == root)]
    out += [(path, mark) for path in stack[0].marks()]
    while stack:
        now = stack[-1]
        for name, inode in now.names:
            path, was = now.prefix + name, now.old.get(name)
            children = after.children.get(inode)
            if children is not None:
                old = {} if was is None else before.children.get(was, {})
                stack.append(_Directory(path + b"/", old, children, inode == was))
                out.append((path + b"/", inode))
                out += [(path, mark) for path in stack[-1].marks()]
                break
            if inode != was or inode in relinked:
                out.append((path, inode))
        else:
            stack.pop()
            if now.same and out and out[-1][0] == (now.prefix or b"./"):
                out.pop()  # and nothing below it changed
    return out


class _Directory:
    """A directory that is being compared.

    Attributes:
        prefix: Its path with a trailing slash, or ``b""`` for the root.
        old: The names in it before.
        names: The remaining names and inodes, in walk order.
        same: Whether its own metadata is unchanged.
    """

    def __init__(self, prefix: bytes, old: Names, new: Names, same: bool) -> None:
        self.prefix = prefix
        self.old = old
        self.same = same
        self.names = iter(sorted(new.items()))
        self._gone = sorted(old.keys() - new)

    def marks(self) -> Iterator[bytes]:
        """Yield the paths of the whiteouts in the directory."""
        if self.prefix and 1 < len(self._gone) == len(self.old):
            yield self.prefix + whiteout.OPAQUE_MARK
        else:
            for name in self._gone:
                yield self.prefix + whiteout.MARK + name


def _relinked(before: Snapshot, after: Tree) -> set[int]:
    """Return the inodes of the old tree that have a new name."""
    if not after.linked:
        return set()
    old = _names(before.root, before.children, after.linked)
    new = _names(after.root, after.children, after.linked)
    return {inode for inode in old.keys() & new if new[inode] - old[inode]}


def _names(
    root: Names, children: dict[int, Names], wanted: set[int]
) -> dict[int, set[bytes]]:
    """Return all paths of some inodes."""
    found: dict[int, set[bytes]] = {}
    stack = [(b"", root)]
    while stack:
        prefix, names = stack.pop()
        for name, inode in names.items():
            if inode in children:
                stack.append((prefix + name + b"/", children[inode]))
            elif inode in wanted:
                found.setdefault(inode, set()).add(prefix + name)
    return found


def _whiteout_member(members: Members) -> int:
    """Append the row that all whiteouts share: an empty file, mode 0, mtime 0."""
    member = members.imply(0, 0)
    members.kinds[member] = FILE
    members.owners[member] = members.owner((0, 0, 0))
    return member
