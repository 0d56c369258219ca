"""Docker's data root, 1.10 and on: ``/var/lib/docker``, on any disk, without a daemon.

A root may have images of several drivers: the daemon leaves them when it is switched.
With ``userns-remap`` the root is a directory in the usual one, ``UID.GID``.

Reference: moby daemon/daemon.go, ``setupRemappedRoot``, at v20.10.24.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from ...errors import FlattenError, FormatError
from ...image.assembly import AssembledLayer
from ...image.image import Image, Place
from ..choice import Entry, config_platform, container_entry
from ..documents import Files
from ..folder import Folder
from .build_cache import read_build_cache
from .docker_store import Container, Store
from .drivers import DRIVERS
from .root import REMAPPED, Root, check_readable
from .survey import StoredContainer, StoredLayer, Survey, joined


def detect(files: Files) -> bool:
    """Say whether the directory is a data root of docker's."""
    return isinstance(files, Folder) and _find(files) is not None


def entries(files: Files) -> Sequence[Entry]:
    """List the images, by driver: those with names first.

    Raises:
        FormatError: The names cannot be read.
    """
    found: list[Entry] = []
    for place in stores(files):
        names = place.names()
        ordered = sorted(place.ids(), key=lambda id_: (id_ not in names, id_))
        found += [_image(place, id_, names.get(id_, ())) for id_ in ordered]
    return found


def containers(files: Files) -> Sequence[Entry]:
    """List the containers, whose names and ids begin with ``container:``.

    Raises:
        FormatError: What is said of one is not what it should be.
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
    caches: dict[str, str] = {}
    layers = []
    for chain_id in place.chains():
        try:
            layer = place.layer(chain_id)
        except FormatError as error:
            found.problems.append(str(error))
            continue
        caches[chain_id] = layer.cache_id
        layers.append(layer)
    for layer in layers:
        directory = root.path(driver.place.format(layer.cache_id))
        at = Place(driver.name, layer.cache_id, directory, layer.size)
        parent = caches.get(layer.parent or "", "")
        chain_id = f"sha256:{layer.chain_id}"
        found.layers.append(StoredLayer(at, chain_id, layer.diff_id, parent))
    for container in place.containers():
        own = [id_ for id_ in (container.mount_id, container.init_id) if id_]
        parent = caches.get(container.parent or "", "")
        names = (container.name,) if container.name else ()
        found.containers.append(
            StoredContainer(container.id, names, driver.name, tuple(own), parent)
        )
    found.add_directories(root, driver)
    _add_build_cache(place, caches, found)
    layerdb = f"{place.place}/layerdb"
    for name in root.names(f"{layerdb}/sha256"):
        if name.endswith("-removing"):
            why = "its removal was interrupted"
            found.leave(root, f"{layerdb}/sha256/{name}", why)
    for name in root.names(f"{layerdb}/tmp"):
        found.leave(root, f"{layerdb}/tmp/{name}", "its making was interrupted")
    return found


def _add_build_cache(place: Store, caches: dict[str, str], found: Survey) -> None:
    """Add what BuildKit needs: layers of ``layerdb``, and directories of its own.

    Args:
        place: The images of one driver.
        caches: The cache-id of each chain id in ``layerdb``.
        found: Receives it, or what is wrong with the cache's databases.
    """
    driver = place.driver.name
    try:
        cache = read_build_cache(place.root)
        mounted = place.build_mounts()
    except FlattenError as error:
        found.problems.append(str(error))
        return
    chains = [chain_id.removeprefix("sha256:") for chain_id in cache.chain_ids]
    cached = cache.cache_ids | {caches[chain] for chain in chains if chain in caches}
    found.held = {(driver, id_): "a running build" for id_ in mounted}
    found.held |= {(driver, id_): "the build cache" for id_ in cached}


def stores(files: Files) -> list[Store]:
    """Return what each driver has, the usual one first."""
    folder = _find(files) if isinstance(files, Folder) else None
    if folder is None:
        return []
    root = Root(folder)
    known = [name for name in DRIVERS if f"image/{name}/imagedb".encode() in root]
    return [Store(root, DRIVERS[name]) for name in known]


def _find(folder: Folder) -> Folder | None:
    """Return the directory that has ``image/``: this one, or a remapped one in it."""
    check_readable(folder, "image")
    if any(folder.path.glob("image/*/imagedb")):
        return folder
    found = {
        path.parents[2].name
        for path in folder.path.glob("*/image/*/imagedb")
        if REMAPPED.fullmatch(path.parents[2].name)
    }
    return folder.below(found.pop()) if len(found) == 1 else None


def _image(place: Store, id_: str, names: Sequence[str]) -> Entry:
    """Return what chooses an image; names have tags, or digests."""
    return Entry(
        (id_,),
        tuple(names),
        load=lambda: _load_image(place, id_, names),
        platform=lambda: config_platform(place.config(id_)),
        store=place.driver.name,
    )


def _load_image(place: Store, id_: str, names: Sequence[str]) -> Image:
    """Find the layers.

    Raises:
        FormatError: A document or a layer is not there.
    """
    config = place.config(id_)
    stack = place.stack(place.image_layers(config, id_))
    tags = tuple(name for name in names if "@" not in name)
    layers = tuple(stack.layers())
    return Image(
        place.root.name, id_, tags, config, layers,
        warnings=stack.warnings, parent=place.parent(id_),
    )  # fmt: skip


def _container(place: Store, container: Container) -> Entry:
    """Return what chooses a container."""
    names = [container.name] if container.name else []
    load = partial(_load_container, place, container)
    return container_entry(container.id, names, place.driver.name, load)


def _load_container(
    place: Store, container: Container, names: tuple[str, ...]
) -> Image:
    """Find the layers: the image's, docker's own for the container, what it changed.

    Raises:
        FormatError: One is not there.
    """
    stack = place.stack(place.below(container.parent))
    layers: list[AssembledLayer] = stack.layers()
    where = f"{place.root.name}, container {container.name or container.id[:12]}"
    init = None
    below: list[str] = []
    if container.init_id and not place.driver.upper:
        init, below = len(layers), [container.init_id]
        layers.append(stack.own(f"{where}, init layer", container.init_id, []))
    layers.append(stack.own(f"{where}, its own layer", container.mount_id, below))
    config: dict[str, Any] = {}
    if container.image_id in place.ids():
        config = place.config(container.image_id)
    return Image(
        place.root.name, container.id, names, config, tuple(layers),
        init, stack.warnings,
    )  # fmt: skip
