"""Resolve paths in the flattened tree, as in a chroot.

A symlink's target is inside the image, and the parent of the root is the root. Errors
are those that Linux would give, as ``OSError`` with the path in the image.
"""

import errno
import os
from typing import NamedTuple

from ..image.read import Index
from ..tar.members import MAX_LINKS, SYMLINK
from ..tree.tree import Names


class PathEntry(NamedTuple):
    """The object that a path refers to.

    Attributes:
        inode: Its inode; None for a root directory that no layer lists.
        names: The names in it, if it is a directory.
    """

    inode: int | None
    names: Names | None


def path_error(number: int, path: bytes, reason: str = "") -> OSError:
    """Return the subclass of OSError for an errno, with the path in the image."""
    name = path.decode("utf-8", "surrogateescape") or "."
    return OSError(number, reason or os.strerror(number), name)


def find(index: Index, path: bytes, *, follow: bool = True) -> PathEntry:
    """Return the entry at a path.

    Args:
        index: The index of the image.
        path: Relative to the root; leading slashes make no difference.
        follow: Follow a symlink in the last component too.

    Raises:
        FileNotFoundError: A component does not exist.
        NotADirectoryError: A component that is not the last is not a directory.
        OSError: ELOOP: the path leads through more than 40 symlinks.
    """
    members, tree = index.members, index.tree
    trail = [PathEntry(tree.root_inode, tree.root)]  # the directories on the way
    found = trail[0]
    todo = path.split(b"/")[::-1]
    followed = 0
    while todo:
        name = todo.pop()
        if found.names is None:
            raise path_error(errno.ENOTDIR, path)
        if name == b"..":
            del trail[max(len(trail) - 1, 1) :]  # the root's parent is the root
        elif name not in (b"", b"."):
            inode = found.names.get(name)
            if inode is None:
                raise path_error(errno.ENOENT, path)
            if members.kinds[inode] == SYMLINK and (follow or todo):
                followed += 1
                if followed > MAX_LINKS:
                    raise path_error(errno.ELOOP, path)
                target = members.targets[inode]
                if target.startswith(b"/"):
                    del trail[1:]
                todo.extend(reversed(target.split(b"/")))
            else:
                trail.append(PathEntry(inode, tree.children.get(inode)))
        found = trail[-1]
    return found
