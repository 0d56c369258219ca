"""The root of podman, buildah and CRI-O (containers-storage), of root or of a user.

It is ``/var/lib/containers/storage``, ``~/.local/share/containers/storage``, or an
additional image store, which has the same structure. In a user's store the files have
other owners than in the images. The tar-split records have the owners of the image;
those of a container's own layer are converted.

Reference: containers/storage store.go, drivers/overlay/overlay.go at v1.43.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from ...errors import FlattenError, FormatError
from ...image.image import Image, Place
from ...image.union import FUSE, OVERLAY
from ..choice import Entry, Platform, broken_entry, config_platform, container_entry
from ..documents import Files, diff_ids
from ..folder import Folder
from .containers_store import Instance, PodmanContainer, PodmanImage, PodmanStore
from .drivers import DRIVERS, Driver
from .root import ID, Root
from .stores import all_containers, all_images, whole_survey
from .survey import StoredContainer, StoredLayer, Survey

_FOLDERS: Final = ("", "storage")
_LISTS: Final = ("{}-images/images.json", "{}-layers/layers.json")
_OVERLAY: Final = Driver("overlay", "overlay/{}/diff", OVERLAY)
_DRIVERS: Final = (_OVERLAY, DRIVERS["vfs"], DRIVERS["btrfs"])


def detect(files: Files) -> bool:
    """Return True if the directory is such a root."""
    return isinstance(files, Folder) and _find(files) is not None


def entries(files: Files) -> Sequence[Entry]:
    """List the images, by driver.

    Raises:
        FormatError: A list is malformed.
    """
    return all_images(stores(files))


def containers(files: Files) -> Sequence[Entry]:
    """List the containers, whose names and ids begin with ``container:``.

    Raises:
        FormatError: A list is malformed, or there are no containers.
    """
    found = all_containers(stores(files))
    if not found:
        raise FormatError(
            "holds no container; with transient_store in storage.conf the list of "
            "containers is in podman's runroot, which is lost on shutdown",
            where=files.name,
        )
    return found


def survey(files: Files) -> Survey:
    """Return the inventory of the root besides its images."""
    return whole_survey(stores(files))


def stores(files: Files) -> "list[ContainersStorage]":
    """Return a store for each driver."""
    folder = _find(files) if isinstance(files, Folder) else None
    if folder is None:
        return []
    root = Root(folder)
    mounted = root.text("overlay/.has-mount-program") not in (None, "false")
    return [
        ContainersStorage(PodmanStore(root, driver))
        for driver in (
            replace(_OVERLAY, style=FUSE) if mounted else _OVERLAY,
            *_DRIVERS[1:],
        )
        if any(path.format(driver.name).encode() in root for path in _LISTS)
    ]


def _find(folder: Folder) -> Folder | None:
    """Return the directory with the lists: this one, or ``storage`` in it.

    With ``imagestore`` in storage.conf, one root lists the images and another one the
    layers of containers.
    """
    for name in _FOLDERS:
        for driver in _DRIVERS:
            for path in _LISTS:
                if (folder.path / name / path.format(driver.name)).is_file():
                    return folder.below(name) if name else folder
    return None


@dataclass(frozen=True, slots=True)
class ContainersStorage:
    """The images and containers of one driver."""

    store: PodmanStore

    def images(self) -> Iterator[Entry]:
        """Yield the images; those in a list of platforms have the list's names too."""
        single: list[PodmanImage] = []
        lists: list[tuple[PodmanImage, list[Instance]]] = []
        for image in self.store.images():
            try:
                instances = self.store.instances(image)
            except FlattenError as error:
                yield self._broken(image, error)
                continue
            if instances is None:
                single.append(image)
            else:
                lists.append((image, instances))
        here = {digest for image in single for digest in image.digests}
        listed: dict[str, list[tuple[PodmanImage, Platform | None]]] = defaultdict(list)
        for image, instances in lists:
            for instance in instances:
                listed[instance.digest].append((image, instance.platform))
            if not any(instance.digest in here for instance in instances):
                what = "a list of images for several platforms, none of which is here"
                where = self._where(image)
                yield self._broken(image, FormatError(what, where=where))
        for image in single:
            found = [each for digest in image.digests for each in listed[digest]]
            yield self._image(image, list(dict.fromkeys(found)))

    def containers(self) -> Iterator[Entry]:
        """Yield the containers."""
        for container in self.store.containers():
            load = partial(self._load_container, container)
            name = self.store.driver.name
            yield container_entry(container.id, container.names, name, load)

    def survey(self) -> Survey:
        """Return the inventory besides the images."""
        found, store = Survey(), self.store
        root, driver = store.root, store.driver
        containers, images = store.containers(), store.images()
        own = {container.layer for container in containers}
        for layer in store.layers.values():
            path = driver.tree.format(layer.id)
            if layer.incomplete:
                found.leave(root, path, "its creation was interrupted")
            elif layer.id not in own:
                found.layers.append(
                    StoredLayer(
                        Place(driver.name, layer.id, root.path(path), layer.size),
                        store.chain_id(layer),
                        layer.diff_id or "",
                        layer.parent,
                    )
                )
        for container in containers:
            top = store.layers.get(container.layer)
            parent = "" if top is None else top.parent
            found.containers.append(
                StoredContainer(
                    container.id,
                    container.names,
                    driver.name,
                    (container.layer,),
                    parent,
                )
            )
        found.add_directories(root, driver)
        for kind, known in (
            ("images", {image.id for image in images}),
            ("containers", {container.id for container in containers}),
        ):
            for id_ in root.ids(f"{driver.name}-{kind}"):
                if id_ not in known:
                    path = f"{driver.name}-{kind}/{id_}"
                    found.leave(root, path, f"it is in no list of {kind}")
        for name in root.names(f"{driver.name}-layers"):
            id_ = name.removesuffix(".tar-split.gz")
            if ID.fullmatch(id_) and id_ != name and id_ not in store.layers:
                path = f"{driver.name}-layers/{name}"
                found.leave(root, path, "it is in no list of layers")
        return found

    def _where(self, record: PodmanImage | PodmanContainer) -> str:
        kind = "image" if isinstance(record, PodmanImage) else "container"
        name = record.id[:12] if kind == "image" else (*record.names, record.id[:12])[0]
        return f"{self.store.root.name}, {kind} {name}"

    def _broken(self, image: PodmanImage, error: FlattenError) -> Entry:
        ids = (image.id, *image.digests)
        return broken_entry(ids, image.names, self.store.driver.name, error)

    def _image(
        self, image: PodmanImage, lists: Sequence[tuple[PodmanImage, Platform | None]]
    ) -> Entry:
        """Return the selectable entry for an image.

        Args:
            image: The image.
            lists: The lists of platforms that contain it, each with its platform there.
        """
        listed = [image, *(each for each, _ in lists)]
        names = tuple(dict.fromkeys(name for each in listed for name in each.names))
        ids = [id_ for each in listed for id_ in (each.id, *each.digests)]
        platforms = [platform for _, platform in lists if platform is not None]
        return Entry(
            tuple(dict.fromkeys(ids)),
            names,
            load=lambda: self._load_image(image, names),
            platform=lambda: platforms[0] if platforms else self._platform(image),
            store=self.store.driver.name,
        )

    def _platform(self, image: PodmanImage) -> Platform | None:
        """Return the platform in the config, or None if there is none."""
        try:
            return config_platform(self.store.config(image))
        except FlattenError:
            return None  # loading the image raises the error

    def _load_image(self, image: PodmanImage, names: Sequence[str]) -> Image:
        """Find the layers.

        Raises:
            FormatError: A layer is missing, or the config has another number of layers.
        """
        where, store = self._where(image), self.store
        config = store.config(image)
        chain = store.chain(image.layer, where)
        stack = store.stack(chain, diff_ids(config, len(chain), where))
        tags = tuple(name for name in names if "@" not in name)
        layers = tuple(stack.layers())
        return Image(
            store.root.name, image.id, tags, config, layers, warnings=stack.warnings
        )

    def _load_container(
        self, container: PodmanContainer, names: tuple[str, ...]
    ) -> Image:
        """Find the layers: the image's, and the container's own.

        Raises:
            FormatError: A layer is missing, or the files are not in the store.
        """
        where, store = self._where(container), self.store
        if container.external:
            raise FormatError(
                "made with --rootfs: its files are in the directory that was given to "
                "podman, not in the store",
                where=where,
            )
        *below, own = store.chain(container.layer, where)
        diff_ids_ = [layer.diff_id for layer in below]
        chain, config = below, {}
        for image in store.images():
            if image.id == container.image:
                config = store.config(image)
                # A container with its own user namespace may be based on a copy of the
                # image's top layer with converted owners; the original has the image's.
                original = store.chain(image.layer, where)
                if [layer.diff_id for layer in original] == diff_ids_:
                    chain = original
        stack = store.stack(chain, diff_ids_)
        upper = store.stack(below, diff_ids_)
        upper.warnings = stack.warnings
        name = f"{where}, its own layer"
        layers = [*stack.layers(), upper.own(name, own.id, [], own.maps)]
        return Image(
            store.root.name,
            container.id,
            names,
            config,
            tuple(layers),
            warnings=stack.warnings,
        )
