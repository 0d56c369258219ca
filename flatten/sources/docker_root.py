"""Docker's data root, 1.10 and on: ``/var/lib/docker``, on any disk, without a daemon.

A root may have images of several drivers: the daemon leaves them when it is switched.
With ``userns-remap`` the root is a directory in the usual one, ``UID.GID``.

Reference: moby daemon/daemon.go, ``setupRemappedRoot``, at v20.10.24.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from ..assembly import AssembledLayer
from ..errors import FormatError
from ..model import Image, Place
from .choice import Entry, Platform, config_platform
from .docker_store import Container, Store
from .documents import Files
from .drivers import DRIVERS
from .folder import Folder
from .root import Root, check_readable
from .survey import StoredContainer, StoredLayer, Survey, joined

_REMAPPED: Final = re.compile(r"[0-9]{1,9}\.[0-9]{1,9}")


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
        found += [_Image(place, id_, tuple(names.get(id_, ()))) for id_ in ordered]
    return found


def containers(files: Files) -> Sequence[Entry]:
    """List the containers, whose names and ids begin with ``container:``.

    Raises:
        FormatError: What is said of one is not what it should be.
    """
    return [
        _Container(place, container)
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
    layerdb = f"{place.place}/layerdb"
    for name in root.names(f"{layerdb}/sha256"):
        if name.endswith("-removing"):
            why = "its removal was interrupted"
            found.leave(root, f"{layerdb}/sha256/{name}", why)
    for name in root.names(f"{layerdb}/tmp"):
        found.leave(root, f"{layerdb}/tmp/{name}", "its making was interrupted")
    return found


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
        if _REMAPPED.fullmatch(path.parents[2].name)
    }
    return folder.below(found.pop()) if len(found) == 1 else None


@dataclass(frozen=True, slots=True)
class _Image:
    """An image of a root.

    Attributes:
        names: With tags, and then with digests.
    """

    place: Store
    id: str
    names: tuple[str, ...]

    @property
    def ids(self) -> tuple[str, ...]:
        """Return the image's id alone."""
        return (self.id,)

    @property
    def store(self) -> str:
        """Return the driver's name."""
        return self.place.driver.name

    def platform(self) -> Platform | None:
        """Return the platform that the config is for."""
        return config_platform(self.place.config(self.id))

    def load(self) -> Image:
        """Find the layers.

        Raises:
            FormatError: A document or a layer is not there.
        """
        config = self.place.config(self.id)
        stack = self.place.stack(self.place.image_layers(config, self.id))
        tags = tuple(name for name in self.names if "@" not in name)
        layers = tuple(stack.layers())
        return Image(
            self.place.root.name, self.id, tags, config, layers,
            warnings=stack.warnings, parent=self.place.parent(self.id),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Container:
    """A container: an image, docker's own layer for it, and what it has changed."""

    place: Store
    container: Container

    @property
    def ids(self) -> tuple[str, ...]:
        """Return its id."""
        return (f"container:{self.container.id}",)

    @property
    def names(self) -> tuple[str, ...]:
        """Return its name, if it is known."""
        name = self.container.name
        return (f"container:{name}",) if name else ()

    @property
    def store(self) -> str:
        """Return the driver's name."""
        return self.place.driver.name

    def platform(self) -> Platform | None:
        """Return None: it ran here."""
        return None

    def load(self) -> Image:
        """Find the layers.

        Raises:
            FormatError: One is not there.
        """
        place, container = self.place, self.container
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
            place.root.name, container.id, self.names, config, tuple(layers),
            init, stack.warnings,
        )  # fmt: skip
