"""Docker's data root since 1.10, ``/var/lib/docker``, read without a daemon.

A root may have images of several drivers, because switching the driver leaves them in
place. With ``userns-remap``, the root is a subdirectory named ``UID.GID``.

Reference: moby daemon/daemon.go, ``setupRemappedRoot``, at v20.10.24.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ...errors import FlattenError
from ...image.assembly import AssembledLayer
from ...image.image import Image, Place
from ..choice import (
    CONTAINER,
    Entry,
    Platform,
    broken_entry,
    config_platform,
    container_entry,
)
from ..documents import Files
from ..folder import Folder
from .build_cache import read_build_cache
from .docker_store import DockerContainer, DockerStore
from .drivers import DRIVERS
from .root import Root, check_readable, usual_and_remapped
from .stores import all_containers, all_images, image_entries, whole_survey
from .survey import StoredContainer, StoredLayer, Survey


def detect(files: Files) -> bool:
    """Return True if the directory is a data root of docker."""
    return isinstance(files, Folder) and _find(files) is not None


def entries(files: Files) -> Sequence[Entry]:
    """List the images, by driver: those with names first.

    Raises:
        FormatError: The list of names is malformed.
    """
    return all_images(stores(files))


def containers(files: Files) -> Sequence[Entry]:
    """List the containers, whose names and ids begin with ``container:``."""
    return all_containers(stores(files))


def survey(files: Files) -> Survey:
    """Return the inventory of the root besides its images."""
    return whole_survey(stores(files))


def stores(files: Files) -> "list[DockerRoot]":
    """Return a store for each driver, the usual one first."""
    folder = _find(files) if isinstance(files, Folder) else None
    if folder is None:
        return []
    root = Root(folder)
    known = [name for name in DRIVERS if f"image/{name}/imagedb".encode() in root]
    return [DockerRoot(DockerStore(root, DRIVERS[name])) for name in known]


def _find(folder: Folder) -> Folder | None:
    """Return the directory that has ``image/``: this one, or a remapped one in it."""
    check_readable(folder, "image")
    for each in usual_and_remapped(folder):
        if any(each.path.glob("image/*/imagedb")):
            return each
    return None


@dataclass(frozen=True, slots=True)
class DockerRoot:
    """The images and containers of one driver."""

    store: DockerStore

    def images(self) -> Iterator[Entry]:
        """Yield the images, those with names first; names have tags, or digests.

        Raises:
            FormatError: The list of names is malformed.
        """
        names = self.store.names()
        driver = self.store.driver.name
        yield from image_entries(
            names, self.store.ids(), driver, self._load_image, self._platform
        )

    def containers(self) -> Iterator[Entry]:
        """Yield the containers."""
        driver = self.store.driver.name
        for id_ in self.store.container_ids():
            try:
                container = self.store.container(id_)
            except FlattenError as error:
                yield broken_entry((f"{CONTAINER}{id_}",), (), driver, error)
                continue
            load = partial(self._load_container, container)
            names = [container.name] if container.name else []
            yield container_entry(id_, names, driver, load)

    def survey(self) -> Survey:
        """Return the inventory besides the images."""
        found = Survey()
        caches = self._survey_layers(found)
        self._survey_containers(found, caches)
        self._survey_build_cache(found, caches)
        root, layerdb = self.store.root, f"{self.store.path}/layerdb"
        found.add_directories(root, self.store.driver)
        for name in root.names(f"{layerdb}/sha256"):
            if name.endswith("-removing"):
                why = "its removal was interrupted"
                found.leave(root, f"{layerdb}/sha256/{name}", why)
        for name in root.names(f"{layerdb}/tmp"):
            found.leave(root, f"{layerdb}/tmp/{name}", "its creation was interrupted")
        return found

    def _survey_layers(self, found: Survey) -> dict[str, str]:
        """Add the layers; return the cache-id of each chain id."""
        store, layers = self.store, []
        for chain_id in store.chains():
            try:
                layers.append(store.layer(chain_id))
            except FlattenError as error:
                found.problems.append(str(error))
        caches = {layer.chain_id: layer.cache_id for layer in layers}
        for layer in layers:
            directory = store.root.path(store.driver.tree.format(layer.cache_id))
            found.layers.append(
                StoredLayer(
                    Place(store.driver.name, layer.cache_id, directory, layer.size),
                    f"sha256:{layer.chain_id}",
                    layer.diff_id,
                    caches.get(layer.parent or "", ""),
                )
            )
        return caches

    def _survey_containers(self, found: Survey, caches: dict[str, str]) -> None:
        for id_ in self.store.container_ids():
            try:
                container = self.store.container(id_)
            except FlattenError as error:
                found.problems.append(str(error))
                continue
            own = [tree for tree in (container.mount_id, container.init_id) if tree]
            parent = caches.get(container.parent or "", "")
            names = (container.name,) if container.name else ()
            driver = self.store.driver.name
            found.containers.append(
                StoredContainer(id_, names, driver, tuple(own), parent)
            )

    def _survey_build_cache(self, found: Survey, caches: dict[str, str]) -> None:
        """Add the layers and directories that BuildKit needs."""
        driver = self.store.driver.name
        try:
            cache = read_build_cache(self.store.root)
            mounted = self.store.build_mounts()
        except FlattenError as error:
            found.problems.append(str(error))
            return
        chains = [chain_id.removeprefix("sha256:") for chain_id in cache.chain_ids]
        cached = cache.cache_ids | {caches[each] for each in chains if each in caches}
        found.held = {(driver, id_): "a running build" for id_ in mounted}
        found.held |= {(driver, id_): "the build cache" for id_ in cached}

    def _platform(self, id_: str) -> Platform | None:
        return config_platform(self.store.config(id_))

    def _load_image(self, id_: str, names: Sequence[str]) -> Image:
        """Find the layers.

        Raises:
            FormatError: A document or a layer is missing.
        """
        store = self.store
        config = store.config(id_)
        stack = store.stack(store.image_layers(config, id_))
        tags = tuple(name for name in names if "@" not in name)
        layers = tuple(stack.layers())
        return Image(
            store.root.name,
            id_,
            tags,
            config,
            layers,
            warnings=stack.warnings,
            parent=store.parent(id_),
        )

    def _load_container(
        self, container: DockerContainer, names: tuple[str, ...]
    ) -> Image:
        """Find the layers: the image's, docker's init layer, the container's own.

        Raises:
            FormatError: A layer is missing.
        """
        store = self.store
        stack = store.stack(store.below(container.parent))
        layers: list[AssembledLayer] = stack.layers()
        where = f"{store.root.name}, container {container.name or container.id[:12]}"
        init = None
        below: list[str] = []
        if container.init_id and not store.driver.upper:
            init, below = len(layers), [container.init_id]
            layers.append(stack.own(f"{where}, init layer", container.init_id, []))
        layers.append(stack.own(f"{where}, its own layer", container.mount_id, below))
        config: dict[str, Any] = {}
        if container.image_id in store.ids():
            config = store.config(container.image_id)
        return Image(
            store.root.name,
            container.id,
            names,
            config,
            tuple(layers),
            init,
            stack.warnings,
        )
