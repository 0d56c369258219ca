"""The root of podman, buildah and CRI-O: containers-storage, of root or of a user.

It is ``/var/lib/containers/storage`` or ``~/.local/share/containers/storage``, or an
additional image store, which looks the same. A user's has other ids on its files than
its images. The records of layers have those of the image; in a container's own layer
they are turned back.

Reference: containers/storage store.go, drivers/overlay/overlay.go at v1.43.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from ...errors import FlattenError
from ...image.image import Image, Place
from ...image.union import FUSE, OVERLAY
from ..choice import Entry, Platform, config_platform, container_entry
from ..documents import Files, diff_ids
from ..folder import Folder
from .containers_store import Named, Store
from .drivers import DRIVERS, Driver
from .root import ID, Root
from .survey import StoredContainer, StoredLayer, Survey, joined

_PLACES: Final = ("", "storage")
_OVERLAY: Final = Driver("overlay", "overlay/{}/diff", OVERLAY)
_DRIVERS: Final = (_OVERLAY, DRIVERS["vfs"], DRIVERS["btrfs"])


def detect(files: Files) -> bool:
    """Say whether the directory is such a root."""
    return isinstance(files, Folder) and _find(files) is not None


def entries(files: Files) -> Sequence[Entry]:
    """List the images, by driver.

    Raises:
        FormatError: A list is not what it should be.
    """
    return [_image(place, image) for place in stores(files) for image in place.images()]


def containers(files: Files) -> Sequence[Entry]:
    """List the containers, whose names and ids begin with ``container:``.

    Raises:
        FormatError: A list is not what it should be.
    """
    return [
        _container(place, container)
        for place in stores(files)
        for container in place.containers()
    ]


def survey(files: Files) -> Survey:
    """Return what the root holds besides its images."""
    return joined(_survey(place) for place in stores(files))


def _survey(place: Store) -> Survey:
    found, root, driver = Survey(), place.root, place.driver
    containers, images = place.containers(), place.images()
    own = {container.layer for container in containers}
    for layer in place.layers.values():
        directory = root.path(driver.place.format(layer.id))
        at = Place(driver.name, layer.id, directory, layer.size)
        if layer.incomplete:
            found.leave(
                root, driver.place.format(layer.id), "its making was interrupted"
            )
        elif layer.id not in own:
            chain_id = place.chain_id(layer)
            diff_id = layer.diff_id or ""
            found.layers.append(StoredLayer(at, chain_id, diff_id, layer.parent))
    for container in containers:
        box = place.layers.get(container.layer)
        parent = "" if box is None else box.parent
        found.containers.append(
            StoredContainer(
                container.id, container.names, driver.name, (container.layer,), parent
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
                found.leave(root, path, f"no list of {kind} has it")
    for name in root.names(f"{driver.name}-layers"):
        id_ = name.removesuffix(".tar-split.gz")
        if ID.fullmatch(id_) and id_ != name and id_ not in place.layers:
            found.leave(
                root, f"{driver.name}-layers/{name}", "no list of layers has it"
            )
    return found


def stores(files: Files) -> list[Store]:
    """Return what each driver has."""
    folder = _find(files) if isinstance(files, Folder) else None
    if folder is None:
        return []
    root = Root(folder)
    mounted = root.text("overlay/.has-mount-program") not in (None, "false")
    return [
        Store(root, replace(_OVERLAY, style=FUSE))
        if driver is _OVERLAY and mounted
        else Store(root, driver)
        for driver in _DRIVERS
        if f"{driver.name}-images/images.json".encode() in root
    ]


def _find(folder: Folder) -> Folder | None:
    """Return the directory that has the lists: this one, or ``storage`` in it."""
    for place in _PLACES:
        for driver in _DRIVERS:
            if (folder.path / place / f"{driver.name}-images/images.json").is_file():
                return folder.below(place) if place else folder
    return None


def _image(place: Store, image: Named) -> Entry:
    """Return what chooses an image: by its id too, and the digests of its manifests."""
    return Entry(
        (image.id, *image.digests),
        image.names,
        load=lambda: _load_image(place, image),
        platform=lambda: _platform(place, image),
        store=place.driver.name,
    )


def _platform(place: Store, image: Named) -> Platform | None:
    """Return the platform that the config is for."""
    try:
        return config_platform(place.config(image))
    except FlattenError:
        return None  # what is wrong with it is said when it is opened


def _load_image(place: Store, image: Named) -> Image:
    """Find the layers.

    Raises:
        FormatError: One is not there, or the config has another number of them.
    """
    where = f"{place.root.name}, image {image.id[:12]}"
    config = place.config(image)
    chain = place.chain(image.layer, where)
    stack = place.stack(chain, diff_ids(config, len(chain), where))
    tags = tuple(name for name in image.names if "@" not in name)
    layers = tuple(stack.layers())
    return Image(
        place.root.name, image.id, tags, config, layers, warnings=stack.warnings
    )


def _container(place: Store, container: Named) -> Entry:
    """Return what chooses a container."""
    load = partial(_load_container, place, container)
    return container_entry(container.id, container.names, place.driver.name, load)


def _load_container(place: Store, container: Named, names: tuple[str, ...]) -> Image:
    """Find the layers: the image's, and what the container has changed.

    Raises:
        FormatError: One is not there.
    """
    shown = (*container.names, container.id[:12])[0]
    where = f"{place.root.name}, container {shown}"
    *below, own = place.chain(container.layer, where)
    diff_ids_ = [layer.diff_id for layer in below]
    chain, config = below, {}
    for image in place.images():
        if image.id == container.image:
            config = place.config(image)
            # A container with ids of its own may stand on a copy of the image's
            # top layer that was made for them; the original is as it came.
            original = place.chain(image.layer, where)
            if [layer.diff_id for layer in original] == diff_ids_:
                chain = original
    stack = place.stack(chain, diff_ids_)
    layers = stack.layers()
    upper = place.stack(below, diff_ids_, own)
    layers.append(upper.own(f"{where}, its own layer", own.id, []))
    upper.warnings = stack.warnings
    return Image(
        place.root.name, container.id, names, config, tuple(layers),
        warnings=stack.warnings,
    )  # fmt: skip
