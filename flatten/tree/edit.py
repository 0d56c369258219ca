"""Changes to a tree between stacking and planning: selection, other places and owners.

They change names, not bytes, so that what is left still merges into spans.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from ..tar.members import Members
from .owners import OwnerMap
from .tree import Names, Tree

Addition = tuple[str, bytes]
"""A path of the host, and where it goes in the tree: normalised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edits:
    """What is to be changed, in the order in which it is done.

    Attributes:
        include: Keep only what these patterns choose (``patterns``), unless there are
            none, with the directories on the way to it.
        exclude: Leave out what these choose, whatever the others say.
        strip_components: Drop so many components from the front of every path.
        prefix: Put all below this directory, if it is not empty.
        add: Files of the host that go into the tree, later ones over earlier ones.
        owner_map: Where ids go.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    strip_components: int = 0
    prefix: bytes = b""
    add: tuple[Addition, ...] = ()
    owner_map: OwnerMap | None = None


NO_EDITS = Edits()


def change_names(tree: Tree, edits: Edits) -> None:
    """Choose names, and move them.

    Raises:
        UsageError: A pattern is none.
    """
    if edits.include or edits.exclude:
        select(tree, edits.include, edits.exclude)
    strip_components(tree, edits.strip_components)
    if edits.prefix:
        add_prefix(tree, edits.prefix)


def select(tree: Tree, includes: Iterable[str], excludes: Iterable[str]) -> None:
    """Keep what is included and not excluded, and the directories on the way to it.

    What a pattern chooses, it chooses with all below it. Without patterns to include,
    everything is included. A hard link keeps its content, whatever happens to the
    other names of its inode.
    """
    from .patterns import Patterns  # noqa: PLC0415 - compiles expressions

    include, exclude = Patterns(includes), Patterns(excludes)
    todo = [(b"", tree.root, not include)]
    doubtful: list[tuple[Names, bytes]] = []  # there only for what is in them
    while todo:
        prefix, names, chosen = todo.pop()
        for name, inode in list(names.items()):
            path, below = prefix + name, tree.children.get(inode)
            directory = below is not None
            taken = chosen or include.fit(path, directory)
            if exclude.fit(path, directory) or not (taken or directory):
                tree.remove(names, name)
            elif below is not None:
                todo.append((path + b"/", below, taken))
                if not taken:
                    doubtful.append((names, name))
    for names, name in reversed(doubtful):  # parents were met before their children
        if not tree.children[names[name]]:
            tree.remove(names, name)


def strip_components(tree: Tree, count: int) -> None:
    """Drop the first ``count`` components of every path, as ``tar`` does.

    Names without that many go. Directories that meet become one, with the metadata of
    the later in walk order; of anything else that meets, the later stays.
    """
    met = 0
    for _ in range(count):
        old, tree.root = tree.root, {}
        for _, inode in sorted(old.items()):
            met += _merge(tree, tree.root, tree.children.pop(inode, {}))
    if met:
        tree.warnings.append(
            f"--strip-components made {met:,} names meet others; the later stayed"
        )


def _merge(tree: Tree, names: Names, more: Names) -> int:
    """Put names to others; return how many took the place of one that is gone."""
    met = 0
    todo = [(names, more)]
    while todo:
        names, more = todo.pop()
        for name, inode in more.items():
            old = names.get(name)
            kept = None if old is None else tree.children.get(old)
            below = tree.children.get(inode)
            if old is not None and kept is not None and below is not None:
                del tree.children[old]
                tree.children[inode] = kept
                todo.append((kept, below))
            elif old is not None:
                tree.remove(names, name)
                met += 1
            names[name] = inode
    return met


def add_prefix(tree: Tree, path: bytes) -> None:
    """Put all below a directory, which has the root's metadata."""
    ensure_root(tree)
    inode, mtime = tree.root_inode, newest(tree)
    for name in reversed(path.split(b"/")):
        place = tree.members.imply(0, mtime) if inode is None else inode
        tree.children[place] = tree.root
        tree.root = {name: place}
        inode = None
    tree.root_inode = None


def ensure_root(tree: Tree) -> None:
    """Make the root a member, if no layer lists it.

    It is 0755 0:0, with the latest mtime in the tree: the same for equal trees.
    """
    if tree.root_inode is None:
        tree.root_inode = tree.members.imply(0, newest(tree))


def newest(tree: Tree) -> int:
    """Return the latest mtime in a tree."""
    mtimes = tree.members.mtimes
    places = (tree.root, *tree.children.values())
    return max((mtimes[i] for names in places for i in names.values()), default=0)


def limit_times(tree: Tree, least: int, most: int) -> None:
    """Move mtimes that an output cannot hold to the nearest that it can, and say so."""
    mtimes = tree.members.mtimes
    places = ({b"": tree.root_inode or 0}, tree.root, *tree.children.values())
    found = {i for names in places for i in names.values()
             if not least <= mtimes[i] <= most}  # fmt: skip
    for inode in found:
        mtimes[inode] = min(max(mtimes[inode], least), most)
    if found:
        tree.warnings.append(
            f"{len(found):,} mtimes are not within what the output can hold, and were "
            "moved there"
        )


def map_owners(members: Members, moved: OwnerMap) -> None:
    """Give all members other owners."""
    members.owner_table = [moved.apply(owner) for owner in members.owner_table]
    members.owner_index = {o: at for at, o in enumerate(members.owner_table)}
