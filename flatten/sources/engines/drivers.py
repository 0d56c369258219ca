"""Docker's storage drivers: the directory of a layer, and its contents.

===============  ===========================  =======================================
driver           directory of a layer         contents
===============  ===========================  =======================================
overlay2         overlay2/ID/diff             the layer, with overlay marks
fuse-overlayfs   fuse-overlayfs/ID/diff       the layer, with any kind of marks
aufs             aufs/diff/ID                 the layer, with AUFS marks
overlay          overlay/ID/root              full tree; containers: overlay/ID/upper
btrfs            btrfs/subvolumes/ID          full tree
vfs              vfs/dir/ID                   full tree
zfs              zfs/graph/ID                 full tree, while it is mounted
devicemapper     devicemapper/mnt/ID/rootfs   full tree, while it is mounted
===============  ===========================  =======================================

A full tree has the files of the layer and of all layers below it. A layer with a
tar-split record is rebuilt byte for byte, whatever the driver. Without the record its
directory is walked; if that is a full tree, the top layer's is the whole image.

Reference: moby daemon/graphdriver at v1.9.1, v20.10.24 and v23.0.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Final

from ...errors import FormatError, quoted
from ...host.beneath import Beneath
from ...image.assembly import AssembledLayer, Assembly, Headers
from ...image.directory import Owners, Reading, changes, walk
from ...image.image import Place
from ...image.union import AUFS, FUSE, OVERLAY, PLAIN, Style
from .root import Root
from .user_namespace import NO_MAPS, Maps, Unpacked, is_users, user_owners


@dataclass(frozen=True, slots=True)
class Driver:
    """A storage driver.

    Attributes:
        name: Docker's name of the driver.
        tree: Directory of a layer, with ``{}`` for its id.
        style: Kinds of marks in the directory.
        full: The directory is a full tree: it has the files of the layers below too.
        upper: Directory of a container, if it is another one: only the changed files,
            with overlay marks if layers have none, and including docker's init layer.
        advice: What to do if a directory is empty.
        image: EROFS file system that has a complete layer's files, if the directory is
            empty then.
    """

    name: str
    tree: str
    style: Style = PLAIN
    full: bool = False
    upper: str = ""
    advice: str = ""
    image: str = ""


_ALL: Final = (
    Driver("overlay2", "overlay2/{}/diff", OVERLAY),
    Driver("fuse-overlayfs", "fuse-overlayfs/{}/diff", FUSE),
    Driver("aufs", "aufs/diff/{}", AUFS),
    Driver("overlay", "overlay/{}/root", full=True, upper="overlay/{}/upper"),
    Driver("btrfs", "btrfs/subvolumes/{}", full=True),
    Driver("vfs", "vfs/dir/{}", full=True),
    Driver(
        "zfs",
        "zfs/graph/{}",
        full=True,
        advice="mount the layer's dataset there: mount -t zfs -o ro POOL/ID DIRECTORY",
    ),
    Driver(
        "devicemapper",
        "devicemapper/mnt/{}/rootfs",
        full=True,
        advice="activate the thin pool and mount the layer's device, read-only, "
        "above that directory",
    ),
)
DRIVERS: Final = {driver.name: driver for driver in _ALL}


@dataclass(frozen=True, slots=True)
class Stored:
    """A layer in an engine's root.

    Attributes:
        name: The layer's name in messages.
        id: Name of its directory.
        record: Path of its tar-split record in the root.
        diff_id: The diff_id in the image's config, or None to skip verification.
        size: Size in bytes according to the engine, if recorded.
        empty: The layer has no record because it is empty.
        maps: The user namespace that its directory was made for, if it has its own.
        contents: Returns where its files' contents are in the directory, by the files'
            paths, if they are not at these paths.
    """

    name: str
    id: str
    record: str
    diff_id: str | None = None
    size: int | None = None
    empty: bool = False
    maps: Maps = NO_MAPS
    contents: Callable[[], Mapping[bytes, bytes]] | None = None


class Stack:
    """The layers of an image in the directories of one driver.

    Attributes:
        warnings: Losses, one sentence each; several stacks may share the list.
    """

    def __init__(
        self,
        root: Root,
        driver: Driver,
        stored: Sequence[Stored],
        *,
        shift: tuple[int, int] | None = None,
        unpacked: Callable[[], Iterable[Unpacked]] | None = None,
    ) -> None:
        """Store the arguments; nothing is read.

        Args:
            root: The engine's root.
            driver: The driver that keeps the layers.
            stored: The layers, oldest first.
            shift: The uid and gid on the disk that root has in docker's user namespace;
                None is the root's ``owner``.
            unpacked: Returns the layers that show which ids the engine's user was
                granted; None is those of ``stored`` that have records.
        """
        self.warnings: list[str] = []
        self._root = root
        self._driver = driver
        self._stored = stored
        self._shift = root.owner if shift is None else shift
        self._unpacked = unpacked or self._recorded_layers
        self._owners = cache(self._find_owners)

    def layers(self) -> list[AssembledLayer]:
        """Return the layers, which are opened on demand.

        If a layer has no record and the driver has full trees, the top directory is
        returned as the only layer.
        """
        lost = [
            stored
            for stored in self._stored
            if not stored.empty and stored.record.encode() not in self._root
        ]
        if lost:
            self.warnings.append(
                f"{lost[0].name}: {quoted(self._root.path(lost[0].record))} is missing "
                f"({len(lost):,} of {len(self._stored):,} records are): reading the "
                "directory instead; nothing is verified, directories have the metadata "
                "of the disk, and xattrs that the driver dropped are lost"
            )
        if lost and self._driver.full:
            top = replace(self._stored[-1], diff_id=None)
            return [self._layer(top, partial(self._walk, top.name, [top.id]))]
        return [
            self._walked(position) if stored in lost else self._recorded(stored)
            for position, stored in enumerate(self._stored)
        ]

    def own(
        self, name: str, id_: str, below: Sequence[str], maps: Maps = NO_MAPS
    ) -> AssembledLayer:
        """Return a container's own layer, or docker's init layer for it.

        Args:
            name: The layer's name in messages.
            id_: Name of its directory.
            below: Directory names of the layers between it and the image's, nearest
                first.
            maps: The container's user namespace, inside the engine's.
        """
        ids = [id_, *below, *(stored.id for stored in reversed(self._stored))]
        read = self._changes if self._driver.full else self._walk
        if self._driver.upper:
            read = self._walk_upper
        return self._layer(Stored(name, id_, ""), partial(read, name, ids, maps))

    def _recorded(self, stored: Stored) -> AssembledLayer:
        if stored.empty:
            return self._layer(stored, partial(self._nothing, stored.name))
        build = partial(self._assemble, stored, self._tree_or_why(stored.id))
        return self._layer(stored, build)

    def _assemble(self, stored: Stored, tree: Beneath | str) -> Assembly:
        contents = None if stored.contents is None else stored.contents()
        return self._root.assemble(stored.record, tree, stored.name, contents)

    def _nothing(self, name: str) -> Assembly:
        assembly = Assembly(self._root.pool, name)
        assembly.finish()
        return assembly

    def _walked(self, position: int) -> AssembledLayer:
        stored = replace(self._stored[position], diff_id=None)
        ids = [s.id for s in reversed(self._stored[: position + 1])]
        return self._layer(stored, partial(self._walk, stored.name, ids))

    def _layer(self, stored: Stored, build: "partial[Assembly]") -> AssembledLayer:
        driver = self._driver
        directory = self._root.path(driver.tree.format(stored.id))
        place = Place(driver.name, stored.id, directory, stored.size)
        return AssembledLayer(
            stored.name, stored.diff_id, build, self._root.resources, place=place
        )

    def _walk(self, name: str, ids: Sequence[str], maps: Maps = NO_MAPS) -> Assembly:
        trees, sealed = [self._tree(ids[0], name)], ""
        if self._driver.style.attributes:  # overlay can move files from lower layers
            for id_ in ids[1:]:
                sealed = self._sealed(id_)
                if sealed:
                    break
                trees.append(self._tree(id_, name))
        return walk(trees, replace(self._reading(name, maps), sealed=sealed))

    def _walk_upper(self, name: str, ids: Sequence[str], maps: Maps) -> Assembly:
        upper = self._tree(ids[0], name, self._driver.upper)
        below = [self._tree(id_, name) for id_ in ids[1:2]] if self._driver.full else []
        style = OVERLAY if self._driver.full else self._driver.style
        return walk([upper, *below], replace(self._reading(name, maps), style=style))

    def _changes(self, name: str, ids: Sequence[str], maps: Maps) -> Assembly:
        if len(ids) == 1:
            return self._walk(name, ids, maps)
        upper, lower = (self._tree(id_, name) for id_ in ids[:2])
        return changes(lower, upper, self._reading(name, maps))

    def _reading(self, name: str, maps: Maps) -> Reading:
        uid, gid = self._owners(maps)
        return Reading(
            self._root.pool,
            name,
            self._driver.style,
            self.warnings,
            uid=uid,
            gid=gid,
            trusted=any(self._shift) or not is_users(self._root.status()),
        )

    def _find_owners(self, maps: Maps) -> tuple[Owners, Owners]:
        """Return the conversions of a uid and a gid on the disk to the image's."""
        if any(self._shift):
            uid, gid = self._shift
            return partial(_shifted, uid), partial(_shifted, gid)
        status = self._root.status()
        return user_owners(status, self._unpacked(), maps, self.warnings)

    def _recorded_layers(self) -> Iterator[Unpacked]:
        for stored in self._stored:
            if stored.contents is not None:
                continue  # the owners in the directory are not those of the files
            tree = self._root.tree(self._driver.tree.format(stored.id))
            if tree is not None and stored.record.encode() in self._root:
                record = self._root.assemble(stored.record, tree, stored.name)
                yield Unpacked(Headers(record), tree, stored.maps)

    def _tree(self, id_: str, where: str, path: str = "") -> Beneath:
        """Return the directory of a layer, or another one with its id.

        Raises:
            FormatError: The directory is missing.
        """
        tree = self._tree_or_why(id_, path)
        if isinstance(tree, str):
            raise FormatError(tree, where=where)
        return tree

    def _sealed(self, id_: str) -> str:
        """Return why a lower layer has no directory of files by path; "" if it has."""
        image = self._driver.image.format(id_)
        if image and image.encode() in self._root:
            return f"that is an EROFS file system, {quoted(self._root.path(image))}"
        if any(each.id == id_ and each.contents is not None for each in self._stored):
            return "composefs keeps that, with files named by digest"
        return ""

    def _tree_or_why(self, id_: str, path: str = "") -> Beneath | str:
        """Return a directory, or the reason why there is none."""
        driver = self._driver
        image = driver.image.format(id_)
        if image and image.encode() in self._root:
            path = quoted(self._root.path(image))
            return f"its files are in {path}, an EROFS file system, which is not read"
        path = (path or driver.tree).format(id_)
        tree = self._root.tree(path)
        shown = quoted(self._root.path(path))
        if tree is None:
            return f"{shown} is missing{driver.advice and '; '}{driver.advice}"
        if driver.advice and not tree.names():
            return f"{shown} is empty; {driver.advice}"
        return tree


def _shifted(start: int, number: int) -> int:
    """Return an id in the user namespace whose root is ``start`` on the disk."""
    return number - start if number >= start else number
