"""What an engine's root holds besides its images, for those who look for waste."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from ...image.image import Place
from .drivers import Driver
from .root import TREE_ID, Root


@dataclass(frozen=True, slots=True)
class StoredLayer:
    """A layer that the engine's own lists have, with or without an image.

    Attributes:
        place: Where it lies.
        chain_id: ``sha256:<hex>`` of it and all below it, or "".
        diff_id: ``sha256:<hex>`` of its tar, or "".
        parent: What the driver calls the layer below, "" if there is none.
    """

    place: Place
    chain_id: str
    diff_id: str
    parent: str


@dataclass(frozen=True, slots=True)
class StoredContainer:
    """A container.

    Attributes:
        names: What it is called.
        driver: What keeps its layers.
        own: What that calls the layers that are its alone.
        parent: What it calls the layer below those, "" if there is none.
    """

    id: str
    names: tuple[str, ...]
    driver: str
    own: tuple[str, ...]
    parent: str


@dataclass(frozen=True, slots=True)
class Leftover:
    """Something that nothing needs: where it is, and why it is there."""

    path: str
    why: str


@dataclass(slots=True)
class Survey:
    """What a root holds besides its images.

    Attributes:
        layers: All that the engine's lists have.
        containers: Likewise.
        directories: Those of layers on the disk, whether a list has them or not.
        leftovers: What was being made or removed when that was interrupted, and what
            the engine lost.
        held: What needs a layer besides images and containers (the build cache, a
            lease), by the driver and the layer's cache-id.
        problems: What cannot be read, a sentence each.
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
        """Add what a driver has on the disk, under names that are ids."""
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
                self.leave(root, f"{base}/l/{name}", "it leads to no layer")

    def leave(self, root: Root, path: str, why: str) -> None:
        """Add a leftover."""
        self.leftovers.append(Leftover(root.path(path), why))


def joined(parts: Iterable[Survey]) -> Survey:
    """Return several surveys as one."""
    whole = Survey()
    for part in parts:
        whole.layers += part.layers
        whole.containers += part.containers
        whole.directories += part.directories
        whole.leftovers += part.leftovers
        whole.held |= part.held
        whole.problems += part.problems
    return whole
