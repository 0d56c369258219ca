"""Walk a tree depth first, directories before their contents, names in byte order."""

from array import array

from ..errors import FormatError, quoted
from ..tar.members import MAX_NAME, Allowance, Column
from ..tree.tree import Names, Tree


def walk(tree: Tree) -> tuple[list[bytes], Column]:
    """Return all paths in walk order, directories with a slash, and their inodes.

    Raises:
        FormatError: A path is too long, or all paths in total: with directories that no
            layer lists, paths can be longer than the whole image.
    """
    allowance = Allowance()
    paths: list[bytes] = []
    inodes = array("I")
    if tree.root_inode is not None:
        paths.append(b"./")
        inodes.append(tree.root_inode)
    children = tree.children
    stack = [(b"", iter(sorted(tree.root.items())))]
    while stack:
        prefix, names = stack[-1]
        for name, inode in names:
            path = prefix + name
            below = children.get(inode)
            inodes.append(inode)
            if below is not None:
                path += b"/"
                paths.append(path)
                if len(path) > Allowance.FREE:
                    _check_depth(path, below, allowance)
                stack.append((path, iter(sorted(below.items()))))
                break
            paths.append(path)
        else:
            stack.pop()
    return paths, inodes


def _check_depth(path: bytes, below: Names, allowance: Allowance) -> None:
    """Charge the allowance for the paths in a deep directory."""
    longest = len(path) + max(map(len, below), default=-1)
    where = f"below {quoted(path)}"
    if longest > MAX_NAME:
        raise FormatError(
            f"a path of {longest:,} bytes, over {MAX_NAME:,}", where=where
        )
    try:
        for _ in below:
            allowance.take(len(path))
    except ValueError as error:
        raise FormatError(str(error), where=where) from error


def later_names(tree: Tree, paths: list[bytes], inodes: Column) -> dict[int, bytes]:
    """Return the inode's first name for the position of each of its later names."""
    linked = tree.linked
    if not linked:
        return {}
    first: dict[int, bytes] = {}
    links: dict[int, bytes] = {}
    for position, inode in enumerate(inodes):
        if inode in linked:
            name = first.setdefault(inode, paths[position])
            if name is not paths[position]:
                links[position] = name
    return links
