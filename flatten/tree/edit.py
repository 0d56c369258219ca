"""Edit a tree between stacking and planning: select names, move them, change owners.

Edits change names, not content, so that the remaining members still merge into spans.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ..errors import FlattenError, quoted
from ..tar import xattrs
from ..tar.members import NO_EXTRA, Members
from .owners import OwnerMap
from .tree import Names, Tree


class Addition(NamedTuple):
    """A host file or directory to add to a tree.

    Attributes:
        host: Its path on the host.
        path: The normalised path in the tree where it is added.
        mode: The permissions of a file; None keeps those that it has.
    """

    host: str
    path: bytes
    mode: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Edits:
    """The edits to make, in the order in which they are made.

    Attributes:
        include: Keep only the paths that match these patterns (``patterns``), and their
            parent directories; without patterns, keep everything.
        exclude: Leave out the paths that match these, even if they are included.
        strip_components: Number of leading components to remove from every path.
        prefix: Directory to put the whole tree under; empty for none.
        add: Host files to add to the tree; later ones replace earlier ones.
        owner_map: How to change user and group ids.
        xattrs: Keep only the extended attributes whose names match these globs, such as
            ``user.*``; None keeps all, no pattern keeps none.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    strip_components: int = 0
    prefix: bytes = b""
    add: tuple[Addition, ...] = ()
    owner_map: OwnerMap | None = None
    xattrs: tuple[str, ...] | None = None


NO_EDITS = Edits()


def change_names(tree: Tree, edits: Edits) -> None:
    """Select names, and move them.

    Raises:
        UsageError: A pattern is not valid.
        FlattenError: An include pattern matches nothing.
    """
    if edits.include or edits.exclude:
        _check_patterns(tree, edits)
        select(tree, edits.include, edits.exclude)
    strip_components(tree, edits.strip_components)
    if edits.prefix:
        add_prefix(tree, edits.prefix)


def _check_patterns(tree: Tree, edits: Edits) -> None:
    """Refuse an include pattern that matches nothing; warn of such an exclude pattern.

    As in tar: a name to archive must exist, a pattern to exclude need not.
    """
    for pattern in unmatched(tree, edits.include):
        raise FlattenError(f"--include: {quoted(pattern)} matches nothing in the image")
    tree.warnings += [
        f"--exclude: {quoted(pattern)} matches nothing in the image"
        for pattern in unmatched(tree, edits.exclude)
    ]


def unmatched(tree: Tree, patterns: Iterable[str]) -> list[str]:
    """Return the patterns that match no path of a tree; ``!pattern`` needs no match."""
    from .patterns import Patterns  # compiles expressions

    left = {text: Patterns([text]) for text in patterns if not text.startswith("!")}
    todo = [(b"", tree.root)]
    while todo and left:
        prefix, names = todo.pop()
        for name, inode in names.items():
            below = tree.children.get(inode)
            path, directory = prefix + name, below is not None
            for text in [
                t for t, pattern in left.items() if pattern.fit(path, directory)
            ]:
                del left[text]
            if below is not None:
                todo.append((path + b"/", below))
    return list(left)


def select(tree: Tree, includes: Iterable[str], excludes: Iterable[str]) -> None:
    """Keep the paths that are included and not excluded, and their parent directories.

    A pattern that matches a directory also selects everything below it. Without include
    patterns, everything is included. A hard link keeps its content even if the other
    names of its inode are removed.
    """
    from .patterns import Patterns  # compiles expressions

    include, exclude = Patterns(includes), Patterns(excludes)
    todo = [(b"", tree.root, not include)]
    doubtful: list[tuple[Names, bytes]] = []  # kept only if something in them is
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
    for names, name in reversed(doubtful):  # parents were found before their children
        if not tree.children[names[name]]:
            tree.remove(names, name)


def strip_components(tree: Tree, count: int) -> None:
    """Drop the first ``count`` components of every path, as ``tar`` does.

    Shorter paths are dropped. Directories that collide are merged, with the metadata of
    the later one in walk order; of other names that collide, the later one is kept.
    """
    met = 0
    for _ in range(count):
        old, tree.root = tree.root, {}
        for _, inode in sorted(old.items()):
            met += _merge(tree, tree.root, tree.children.pop(inode, {}))
    if met:
        tree.warnings.append(
            f"--strip-components: {met:,} name collisions; the later names were kept"
        )


def _merge(tree: Tree, names: Names, more: Names) -> int:
    """Merge names into others; return how many replaced a name."""
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
    """Move the whole tree under a directory, which gets the root's metadata."""
    ensure_root(tree)
    inode, mtime = tree.root_inode, newest(tree)
    for name in reversed(path.split(b"/")):
        place = tree.members.imply(0, *mtime) if inode is None else inode
        tree.children[place] = tree.root
        tree.root = {name: place}
        inode = None
    tree.root_inode = None


def ensure_root(tree: Tree) -> None:
    """Create a member for the root, if no layer lists it.

    It has mode 0755, owner 0:0 and the latest mtime in the tree: equal for equal trees.
    """
    if tree.root_inode is None:
        tree.root_inode = tree.members.imply(0, *newest(tree))


def newest(tree: Tree) -> tuple[int, int]:
    """Return the latest mtime in a tree: seconds and nanoseconds."""
    mtimes, extras = tree.members.mtimes, tree.members.extras
    places = (tree.root, *tree.children.values())
    latest = max((mtimes[i] for names in places for i in names.values()), default=0)
    fractions = (
        extras[i].nanoseconds
        for names in places
        for i in names.values()
        if mtimes[i] == latest and i in extras
    )
    return latest, max(fractions, default=0)


def limit_times(tree: Tree, least: int, most: int) -> None:
    """Move mtimes outside an output's range to its nearest end, with a warning.

    They lose their fraction of a second.
    """
    mtimes = tree.members.mtimes
    found = {i for i in _inodes(tree) if not least <= mtimes[i] <= most}
    for inode in found:
        mtimes[inode] = min(max(mtimes[inode], least), most)
        _change(tree.members, inode, nanoseconds=0)
    if found:
        tree.warnings.append(
            f"{len(found):,} mtimes are outside the output's range and were moved to "
            "its nearest end"
        )


def drop_fractions(tree: Tree) -> None:
    """Reduce mtimes to whole seconds, with a warning."""
    extras = tree.members.extras
    found = [i for i in _inodes(tree, extras) if extras[i].nanoseconds]
    for inode in found:
        _change(tree.members, inode, nanoseconds=0)
    if found:
        tree.warnings.append(
            f"{len(found):,} mtimes have a fraction of a second, which the output "
            "cannot hold"
        )


def limit_xattrs(
    tree: Tree, prefixes: tuple[bytes, ...], room: int | None = None
) -> None:
    """Keep the xattrs that an output can hold, with a warning for each kind of others.

    Those that are kept, ACLs too, become records of one form (``SCHILY.xattr.NAME``).
    As in Linux, an access ACL sets the permission bits, and one that says no more than
    they do is not kept.

    Args:
        tree: The tree.
        prefixes: How the names of xattrs start that the output can hold.
        room: Bytes for the xattrs of one file, each with a header of 16 bytes, or None
            for any number; those that do not fit, in the order of their names, are left
            out.
    """
    extras = tree.members.extras
    lost: Counter[str] = Counter()
    example = b""
    for inode in _inodes(tree, extras):
        records = extras[inode].records
        if not records:
            continue
        try:
            found = xattrs.from_records(records)
        except ValueError:
            lost["invalid ACLs"] += 1
            valid = [row for row in records if not row[0].startswith(b"SCHILY.acl.")]
            found = xattrs.from_records(valid)
        kept = {
            name: found[name]
            for name in found
            if name.startswith(prefixes) and name not in prefixes
        }
        lost["ACLs of other systems"] += sum(
            xattrs.name_of(key) is None for key, _ in records
        )
        for name in sorted(found.keys() - kept):
            if name.startswith(xattrs.ACL):
                lost["POSIX ACLs"] += 1
            else:
                lost["xattrs"] += 1
                example = min(example or name, name)
        for name in _too_large(kept, room):
            del kept[name]
            lost["xattrs that are too large"] += 1
        acl = kept.get(xattrs.ACL_ACCESS)
        if acl is not None:
            _apply_acl(tree.members, inode, acl)
            if len(acl) == xattrs.MINIMAL_ACL:
                del kept[xattrs.ACL_ACCESS]
        _change(tree.members, inode, records=xattrs.to_records(kept))
    for kind, count in sorted((+lost).items()):
        such = f" (such as {quoted(example)})" if kind == "xattrs" else ""
        tree.warnings.append(
            f"{count:,} {kind}{such} are left out: the output cannot hold them"
        )


def _too_large(found: dict[bytes, bytes], room: int | None) -> list[bytes]:
    """Return the names of the xattrs that do not fit, the others being kept."""
    if room is None:
        return []
    lost, used = [], 0
    for name in sorted(found):
        size = 16 + (len(name) + 3 & -4) + (len(found[name]) + 3 & -4)
        if used + size > room:
            lost.append(name)
        else:
            used += size
    return lost


def _apply_acl(members: Members, inode: int, acl: bytes) -> None:
    """Give a member the permission bits of its access ACL."""
    mode, uid, gid = members.owner_table[members.owners[inode]]
    mode = mode & ~0o777 | xattrs.acl_mode(acl)
    members.owners[inode] = members.owner((mode, uid, gid))


def select_xattrs(members: Members, patterns: Collection[str]) -> None:
    """Keep the xattrs whose names match one of the globs, in all members."""
    from fnmatch import fnmatchcase  # seldom needed

    def chosen(key: bytes) -> bool:
        name = (xattrs.name_of(key) or key).decode("utf-8", "surrogateescape")
        return any(fnmatchcase(name, pattern) for pattern in patterns)

    for inode, extra in list(members.extras.items()):
        kept = tuple(record for record in extra.records if chosen(record[0]))
        if len(kept) < len(extra.records):
            _change(members, inode, records=kept)


def _inodes(tree: Tree, among: Collection[int] | None = None) -> Iterator[int]:
    """Yield the inodes that the tree's names refer to, each once."""
    places = (tree.root, *tree.children.values())
    found = {
        i for names in places for i in names.values() if among is None or i in among
    }
    root = tree.root_inode
    if root is not None and (among is None or root in among):
        found.add(root)
    return iter(sorted(found))


def _change(members: Members, inode: int, **fields: Any) -> None:
    """Replace fields of what a member has beside its columns."""
    extra = members.extras.get(inode)
    if extra is None:
        return
    extra = replace(extra, **fields)
    if extra == NO_EXTRA:
        del members.extras[inode]
    else:
        members.extras[inode] = extra


def map_owners(members: Members, moved: OwnerMap) -> None:
    """Apply an owner map to all members."""
    members.owner_table = [moved.apply(owner) for owner in members.owner_table]
    members.owner_index = {o: at for at, o in enumerate(members.owner_table)}
