"""Apply the members of all layers to one tree of inodes, by docs/semantics.md.

Layers are applied oldest first, each in two steps: first its removals, since whiteouts
only hide *older* layers, then its members, in archive order. A path refers to an inode.
A hard link is a second name for the inode that its target path refers to at the time,
so it keeps that content if the path is replaced later.

Each directory is a dict from names to inodes; a directory's own inode is a key of
``children``. Parents are looked up once per run of siblings.

Reference: OCI image-spec layer.md. Where the spec says nothing, this follows docker's
vfs driver, podman's vfs driver and umoci, provided they agree.
"""

from collections.abc import Container, Iterator
from itertools import count
from typing import Final, NoReturn

from ..errors import FormatError, quoted
from ..tar import whiteout
from ..tar.layer import LayerIndex
from ..tar.members import DIRECTORY, LINK, MAX_LINKS, NO_EXTRA, SYMLINK, Members
from ..tar.wire import BLOCK_SIZE

MAX_FOLLOWED: Final = 1 << 24  # bytes of symlink texts followed in total: two seconds
FOLLOWED: Final = 1 << 8  # bytes allowed on top per member; real members need 20

_WAYS: Final = (DIRECTORY, SYMLINK)

Names = dict[bytes, int]
"""A directory: the inode of each name in it."""

Places = set[tuple[int, bytes]]
"""A set of directory entries: the id of the directory's dict, and the name."""


class Tree:
    """The file system tree of the layers applied so far.

    Attributes:
        members: The columns that inodes are rows of.
        root: The names in the root.
        root_inode: The member with the root's metadata, if a layer lists the root.
        children: The names in each other directory, by its inode.
        linked: Inodes that may have more than one name.
        warnings: One sentence for each kind of irregularity found.
    """

    def __init__(self, members: Members) -> None:
        """Start with an empty tree."""
        self.members = members
        self.root: Names = {}
        self.root_inode: int | None = None
        self.children: dict[int, Names] = {}
        self.linked: set[int] = set()
        self.warnings: list[str] = []
        self._followed = 0  # bytes of symlink texts
        self._offset = 0  # of the header that is being applied, for messages
        self._bookkeeping: Names = {}  # AUFS's files in the layer being applied

    def copy(self) -> "Tree":
        """Return an independent copy of the tree and of its members."""
        tree = Tree(self.members.copy())
        tree.root = dict(self.root)
        tree.root_inode = self.root_inode
        tree.children = {inode: dict(names) for inode, names in self.children.items()}
        tree.linked = set(self.linked)
        tree.warnings = list(self.warnings)
        tree._followed = self._followed
        return tree

    def apply(self, index: LayerIndex) -> None:
        """Apply one layer on top of those before it.

        Raises:
            FormatError: The target of a hard link is missing or a directory, or an
                entry is below a non-directory or too many symlinks.
        """
        try:
            self._remove(index)
            self._add(index)
        except ValueError as error:
            raise FormatError(
                str(error), where=index.where, offset=self._offset
            ) from error
        repeated = len(index.paths) - len(set(index.paths))
        if repeated:
            self.warnings.append(
                f"{index.where}: {repeated:,} paths are in the layer more than once; "
                "the last entry of each is used"
            )

    def remove(self, names: Names, name: bytes) -> None:
        """Remove a name from a directory, with everything below it."""
        self._forget(names.pop(name))

    def find(self, path: bytes) -> int | None:
        """Return the inode at a path, following symlinks to its directory, or None."""
        parent, _, name = path.rpartition(b"/")
        try:
            names = self._find(parent)
        except ValueError as error:
            raise FormatError(str(error), where=quoted(path)) from error
        return None if names is None else names.get(name)

    # --- what a layer removes

    def _remove(self, index: LayerIndex) -> None:
        """Apply a layer's removals.

        All marks are looked up before any is applied: their order has no meaning, and
        one may be below a symlink that another removes.
        """
        replaced: Places | None = None
        found: list[tuple[Names, bytes | None]] = []
        for removal in index.removals:
            parent, _, name = removal.path.rpartition(b"/")
            victim = None if removal.opaque else name
            parent = removal.path if removal.opaque else parent
            if replaced is None and self._crosses_symlink(parent):
                replaced = self._replaced_symlinks(index)
            self._offset = removal.offset
            names = self._find(parent, replaced or frozenset())
            if names is not None:
                found.append((names, victim))
        for names, victim in found:
            if victim is None:
                for inode in names.values():
                    self._forget(inode)
                names.clear()  # one by one would leave empty slots to scan
            elif victim in names:
                self.remove(names, victim)

    def _replaced_symlinks(self, index: LayerIndex) -> Places:
        """Return the symlinks that a layer replaces with directories.

        Marks below such a path refer to the new directory, which has nothing from lower
        layers, and not to the symlink's target.
        """
        kinds, places = self.members.kinds, set()
        listed = dict(zip(index.paths, count(index.first)))
        for path, member in listed.items():
            if kinds[member] == DIRECTORY and path:
                parent, _, name = path.rpartition(b"/")
                self._offset = self.members.data[member] - BLOCK_SIZE
                names = self._find(parent)
                inode = None if names is None else names.get(name)
                if inode is not None and kinds[inode] == SYMLINK:
                    places.add((id(names), name))
        return places

    def _crosses_symlink(self, path: bytes) -> bool:
        """Return True if a parent of ``path`` is a symlink."""
        names = self.root
        for part in path.split(b"/") if path else ():
            inode = names.get(part)
            if inode is None:
                return False
            if self.members.kinds[inode] == SYMLINK:
                return True
            names = self.children.get(inode, {})
        return False

    def _forget(self, inode: int) -> None:
        """Forget the directories below an inode that has lost its name."""
        todo = [inode]
        while todo:
            below = self.children.pop(todo.pop(), None)
            if below:
                todo.extend(below.values())

    # --- what a layer adds

    def _add(self, index: LayerIndex) -> None:
        """Add a layer's members, in archive order."""
        kinds, children = self.members.kinds, self.children
        waiting: dict[int, tuple[Names, bytes]] = {}
        known: dict[bytes, Names] = {b"": self.root}  # directories found, by path
        parent, names = b"", self.root
        bookkeeping, self._bookkeeping = index.bookkeeping, {}
        for member, path in enumerate(index.paths, index.first):
            if bookkeeping and member in bookkeeping:
                own = self._bookkeeping
                own[path] = self._link(member, own, path, waiting)
                continue
            head, _, name = path.rpartition(b"/")
            if head != parent:
                found = known.get(head)
                if found is None:
                    found = known[head] = self._make(head, member)
                parent, names = head, found
            kind = kinds[member]
            old = names.get(name)
            inode = member
            if kind == DIRECTORY:
                if not name:
                    self.root_inode = member
                    continue
                # A directory replaces a directory: new metadata, the same children.
                kept = None if old is None else children.pop(old, None)
                children[member] = known[path] = {} if kept is None else kept
            elif kind == LINK:
                inode = self._link(member, names, name, waiting)
            names[name] = inode
            if old is None or old == inode or kinds[old] not in _WAYS:
                continue
            if kind != DIRECTORY or kinds[old] == SYMLINK:
                # Cached paths may have led through this name.
                self._forget(old)
                known = {b"": self.root}
                parent, names = b"", self.root
        self._link_waiting(waiting, bookkeeping)

    def _find(
        self, path: bytes, barred: Places | frozenset[tuple[int, bytes]] = frozenset()
    ) -> Names | None:
        """Return the directory at a path, or None if there is none.

        Args:
            path: A normalised path; its symlinks are followed within the root.
            barred: Symlinks that are not followed: a path through one has no directory.

        Raises:
            ValueError: The texts of all symlinks followed so far are over the limit.
        """
        if (plain := self._find_plain(path)) is not None:
            return plain
        kinds, children = self.members.kinds, self.children
        way = _Way(self.root, path)
        for name in way:
            inode = way.names.get(name)
            below = children.get(inode) if inode is not None else None
            if below is not None:
                way.enter(below)
                continue
            if inode is None or kinds[inode] != SYMLINK:
                return None
            if (id(way.names), name) in barred or not self._follow_symlink(way, inode):
                return None
        return way.names

    def _make(self, path: bytes, member: int) -> Names:
        """Return the directory at a path, made with its parents if it is missing.

        Directories that are made are 0755, 0:0, with the mtime of ``member``.

        Raises:
            ValueError: The path has a component that is neither a directory nor a
                symlink, or more than 40 symlinks.
        """
        if (plain := self._find_plain(path)) is not None:
            return plain
        members, children = self.members, self.children
        self._offset = members.data[member] - BLOCK_SIZE
        way = _Way(self.root, path)
        for name in way:
            inode = way.names.get(name)
            if inode is None:
                if whiteout.is_mark(name):  # reached through a symlink
                    raise ValueError(f"an entry below the whiteout {quoted(name)}")
                fraction = members.extras.get(member, NO_EXTRA).nanoseconds
                inode = members.imply(
                    members.layers[member], members.mtimes[member], fraction
                )
                way.names[name] = inode
                children[inode] = {}
            below = children.get(inode)
            if below is not None:
                way.enter(below)
            elif members.kinds[inode] != SYMLINK:
                raise ValueError(
                    f"an entry below {quoted(path)}, where {quoted(name)} is not a "
                    "directory"
                )
            elif not self._follow_symlink(way, inode):
                raise ValueError(
                    f"more than {MAX_LINKS} symlinks in the path {quoted(path)}"
                )
        return way.names

    def _find_plain(self, path: bytes) -> Names | None:
        """Return the directory at a path without symlinks, as nearly all paths are."""
        children, names = self.children, self.root
        for name in path.split(b"/"):
            below = children.get(names.get(name, -1))
            if below is None:
                return None
            names = below
        return names

    def _follow_symlink(self, way: "_Way", inode: int) -> bool:
        """Follow a symlink; False if the path has had 40 already."""
        if way.links == MAX_LINKS:
            return False
        target = self.members.targets[inode]
        self._followed += len(target)
        if self._followed > MAX_FOLLOWED + FOLLOWED * len(self.members):
            raise ValueError("symlinks too long to follow for each entry below them")
        way.follow(target)
        return True

    # --- hard links

    def _link(
        self,
        member: int,
        names: Names,
        name: bytes,
        waiting: dict[int, tuple[Names, bytes]],
    ) -> int:
        """Return a member's inode: a hard link's target if it exists, else its own."""
        if self.members.kinds[member] != LINK:
            return member
        target = self._target(member)
        if target is None or self.members.kinds[target] == LINK:
            waiting[member] = names, name
            return member
        self.linked.add(target)
        return target

    def _target(self, member: int) -> int | None:
        """Return a hard link's target: an inode, a pending link, or None."""
        path = self.members.targets[member]
        self._offset = self.members.data[member] - BLOCK_SIZE
        inode = self._bookkeeping.get(path)
        if inode is None:
            parent, _, name = path.rpartition(b"/")
            names = self._find(parent)
            inode = None if names is None else names.get(name)
        found_directory = inode is not None and self.members.kinds[inode] == DIRECTORY
        if not path or found_directory:
            raise ValueError(f"a hard link to the directory {quoted(path)}")
        return inode

    def _link_waiting(
        self, waiting: dict[int, tuple[Names, bytes]], bookkeeping: Container[int]
    ) -> None:
        """Resolve the hard links that came before their targets.

        Until then the link itself is in the tree, unless a later entry of the layer has
        replaced it. Even a replaced link must have a target, as tools that create links
        immediately fail on it. The path to a target may lead through other pending
        links, so targets that are not found are looked up again.
        """
        found: dict[int, int] = {}
        ahead: dict[int, int] = {}
        todo = list(waiting)
        for _ in range(MAX_LINKS):
            for member in todo:
                inode = self._follow(member, found, ahead)
                names, name = waiting[member]
                if inode is not None and names.get(name) == member:
                    names[name] = inode
                    self.linked.add(inode)
            left = [member for member in todo if member not in found]
            if not left:
                return
            if len(left) == len(todo):
                break
            todo = left
        for member in left:
            if member not in bookkeeping:
                self._fail_link(member, "which does not exist")

    def _follow(
        self, member: int, found: dict[int, int], ahead: dict[int, int]
    ) -> int | None:
        """Return the inode at the end of a chain of links, and store it for each link.

        If the chain has no inode at its end yet, ``ahead`` records that end, so that
        the next search of the chain continues from there.
        """
        chain: dict[int, None] = {}
        inode = member
        while self.members.kinds[inode] == LINK:
            chain[inode] = None
            target = found.get(inode, ahead.get(inode))
            if target is None:
                target = self._target(inode)
            if target is None:
                del chain[inode]
                ahead |= dict.fromkeys(chain, inode)
                return None
            if target in chain:
                self._fail_link(inode, "which leads back to itself")
            inode = target
        found |= dict.fromkeys(chain, inode)
        return inode

    def _fail_link(self, member: int, why: str) -> NoReturn:
        self._offset = self.members.data[member] - BLOCK_SIZE
        raise ValueError(
            f"a hard link to {quoted(self.members.targets[member])}, {why}"
        )


class _Way:
    """A path that is followed within the root, a component at a time.

    Iterating yields the names to look up in ``names``, one after another. After each,
    the caller enters a directory or follows a symlink; ``..`` at the root stays there,
    as in a chroot.

    Attributes:
        names: The directory reached so far.
        links: The number of symlinks followed.
    """

    __slots__ = ("_todo", "_trail", "links", "names")

    def __init__(self, root: Names, path: bytes) -> None:
        """Start at the root."""
        self._trail = [root]
        self._todo = path.split(b"/")[::-1]
        self.names = root
        self.links = 0

    def __iter__(self) -> Iterator[bytes]:
        trail, todo = self._trail, self._todo
        while todo:
            name = todo.pop()
            if name == b"..":
                if len(trail) > 1:
                    trail.pop()
                self.names = trail[-1]
            elif name not in (b"", b"."):
                yield name

    def enter(self, names: Names) -> None:
        """Go into a directory."""
        self._trail.append(names)
        self.names = names

    def follow(self, target: bytes) -> None:
        """Go where a symlink leads: the components of its text come next."""
        self.links += 1
        if target.startswith(b"/"):
            del self._trail[1:]
            self.names = self._trail[0]
        self._todo.extend(reversed(target.split(b"/")))
