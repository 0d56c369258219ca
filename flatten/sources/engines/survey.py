"""Inventory of an engine's root besides its images: layers, containers, leftovers."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from ...image.image import Place
from .drivers import Driver
from .root import TREE_ID, Root


@dataclass(frozen=True, slots=True)
class StoredLayer:
    """A layer in the engine's own lists, with or without an image.

    Attributes:
        place: Location of the layer.
        chain_id: ``sha256:<hex>``, the chain id; "" if it is unknown.
        diff_id: ``sha256:<hex>`` of the layer's tar; "" if it is unknown.
        parent: Cache-id of the layer below; "" if there is none.
    """

    place: Place
    chain_id: str
    diff_id: str
    parent: str


@dataclass(frozen=True, slots=True)
class StoredContainer:
    """A container.

    Attributes:
        names: Names of the container.
        driver: The driver that keeps its layers.
        own: Cache-ids of the layers that only this container uses.
        parent: Cache-id of the layer below those; "" if there is none.
    """

    id: str
    names: tuple[str, ...]
    driver: str
    own: tuple[str, ...]
    parent: str


@dataclass(frozen=True, slots=True)
class Leftover:
    """A file or directory that is not needed, and the reason why it exists."""

    path: str
    why: str


@dataclass(slots=True)
class Survey:
    """Inventory of a root besides its images.

    Attributes:
        layers: All layers in the engine's lists.
        containers: All containers in the engine's lists.
        directories: Directories of layers on the disk, whether in a list or not.
        leftovers: Remains of interrupted operations, and files that the engine lost.
        held: The build cache or the lease that needs a layer, by the driver and the
            layer's cache-id.
        problems: One sentence for each part that cannot be read.
    """

    layers: list[StoredLayer] = field(default_factory=list)
    containers: list[StoredContainer] = field(default_factory=list)
    directories: list[Place] = field(default_factory=list)
    leftovers: list[Leftover] = field(default_factory=list)
    held: dict[tuple[str, str], str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def add_directories(
        self, root: Root, driver: Driver, ids: re.Pattern[str] = TREE_ID
    ) -> None:
        """Add the directories of a driver's layers, and leftovers next to them."""
        base = driver.tree.partition("{}")[0].rstrip("/")
        for name in root.names(base):
            path = driver.tree.format(name)
            if ids.fullmatch(name):
                place = Place(driver.name, name, root.path(path))
                self.directories.append(place)
            elif name.endswith("-removing"):
                self.leave(root, f"{base}/{name}", "its removal was interrupted")
        for name in root.names(f"{base}/l"):
            if not root.top.is_directory(os.fsencode(f"{base}/l/{name}")):
                self.leave(root, f"{base}/l/{name}", "it does not lead to a layer")

    def leave(self, root: Root, path: str, why: str) -> None:
        """Add a leftover."""
        self.leftovers.append(Leftover(root.path(path), why))


def joined(parts: Iterable[Survey]) -> Survey:
    """Return the union of several surveys."""
    whole = Survey()
    for part in parts:
        whole.layers += part.layers
        whole.containers += part.containers
        whole.directories += part.directories
        whole.leftovers += part.leftovers
        whole.held |= part.held
        whole.problems += part.problems
    return whole
