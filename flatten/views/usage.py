"""Which images and containers use a layer, and which directories nothing uses."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, TypedDict

from ..errors import SourceError, quoted
from ..image.chain_ids import layer_chains
from ..image.image import Image
from ..sources.engines.survey import StoredContainer, Survey
from ..sources.open import Opened

_NUMBER: Final = re.compile(r"[0-9]{1,19}")  # the cache-id of a containerd snapshot
_TAIL: Final = 3  # components of containerd's SNAPSHOTTER/snapshots/NUMBER

_Key = tuple[str, str]
"""A driver and its name for a layer; in an archive, "" and a chain id or digest."""


class ImageUse(TypedDict):
    """An image that uses a layer; ``position`` is the layer's, from 1."""

    id: str
    names: list[str]
    position: int


class ContainerUse(TypedDict):
    """A container that uses a layer."""

    id: str
    names: list[str]


class LayerUse(TypedDict):
    """A layer, and the images and containers that use it; unknown ids are None.

    Attributes:
        held_by: The build cache or a lease that needs the layer, or None.
    """

    chain_id: str | None
    diff_id: str | None
    digest: str | None
    cache_id: str | None
    directory: str | None
    images: list[ImageUse]
    containers: list[ContainerUse]
    held_by: str | None


class Orphan(TypedDict):
    """A part of an engine's root that no image and no container uses.

    Attributes:
        kind: ``directory`` (not in the engine's list of layers), ``layer`` (of no image
            and no container) or ``leftover`` (of an interruption).
        path: The directory.
        why: A phrase for people.
        chain_id: Of a layer, else None.
        diff_id: Of a layer, else None.
        size: Bytes, if the engine records them.
    """

    kind: str
    path: str
    why: str
    chain_id: str | None
    diff_id: str | None
    size: int | None


@dataclass(slots=True)
class _UsedLayer:
    """A layer of a source, and the images and containers that use it.

    Attributes:
        images: Each with the layer's position in it, from 1.
    """

    chain_id: str | None = None
    diff_id: str | None = None
    digest: str | None = None
    cache_id: str | None = None
    directory: str | None = None
    images: list[tuple[Image, int]] = field(default_factory=list)
    containers: list[StoredContainer] = field(default_factory=list)
    held_by: str | None = None

    def row(self) -> LayerUse:
        """Return the layer as plain data."""
        return {
            "chain_id": self.chain_id,
            "diff_id": self.diff_id,
            "digest": self.digest,
            "cache_id": self.cache_id,
            "directory": self.directory,
            "images": [
                {"id": image.id, "names": list(image.names), "position": position}
                for image, position in self.images
            ],
            "containers": [
                {"id": container.id, "names": list(container.names)}
                for container in self.containers
            ],
            "held_by": self.held_by,
        }

    def is_called(self, name: str) -> bool:
        """Return True for an id, the start of one, or a path in the directory."""
        ids = [
            known.removeprefix("sha256:")
            for known in (self.chain_id, self.diff_id, self.digest, self.cache_id)
            if known
        ]
        if "/" in name and self.cache_id is not None:
            return self._is_below(name)
        wanted = name.removeprefix("sha256:")
        return wanted in ids or (
            re.fullmatch(r"[0-9a-z]{6,63}", wanted) is not None
            and any(known.startswith(wanted) for known in ids)
        )

    def _is_below(self, path: str) -> bool:
        """Return True if a path is the layer's directory or in it.

        The root may be mounted anywhere. Docker, BuildKit and podman give a layer's
        directory a name that nothing else has. containerd numbers them, so the
        directories above must have the same names too.
        """
        parts, own = path.split("/"), (self.directory or "").split("/")
        if self.cache_id not in own or not _NUMBER.fullmatch(self.cache_id):
            return self.cache_id in parts
        end = len(own) - own[::-1].index(self.cache_id)
        tail = own[max(end - _TAIL, 0) : end]
        starts = range(len(parts) - len(tail) + 1)
        return any(parts[start : start + len(tail)] == tail for start in starts)


def users(opened: Opened, name: str) -> list[LayerUse]:
    """Return the layers that a name matches, each with all its users.

    Args:
        opened: The source.
        name: A diff_id, chain id, cache-id or digest of a blob, at least the first six
            characters of one, or a path to a layer's directory or into it.

    Raises:
        SourceError: No layer matches.
    """
    images, _ = opened.load()
    survey = opened.survey()
    layers = _all_layers(opened, images, survey)
    found = [layer for layer in layers.values() if layer.is_called(name)]
    if not found:
        raise SourceError(
            f"{opened.where}: no layer matches {quoted(name)}; give a diff_id, chain "
            "id, cache-id or digest, or a path to the layer's directory"
        )
    return [layer.row() for layer in found]


def orphans(opened: Opened) -> tuple[list[Orphan], list[str]]:
    """Return a root's orphans, and the problems that make the list uncertain."""
    images, broken = opened.load()
    survey = opened.survey()
    layers = _all_layers(opened, images, survey)
    left = {leftover.path for leftover in survey.leftovers}
    rows = [
        _row("directory", place.directory, "not in the engine's list of layers")
        for place in survey.directories
        if (place.driver, place.cache_id) not in layers and place.directory not in left
    ]
    for stored in survey.layers:
        layer = layers[stored.place.driver, stored.place.cache_id]
        if not layer.images and not layer.containers and not layer.held_by:
            why = "no image and no container uses it"
            row = _row("layer", stored.place.directory, why)
            row["chain_id"] = stored.chain_id or None
            row["diff_id"] = stored.diff_id or None
            row["size"] = stored.place.size
            rows.append(row)
    rows += [_row("leftover", each.path, each.why) for each in survey.leftovers]
    return rows, [*map(str, broken), *survey.problems]


def _row(kind: str, path: str, why: str) -> Orphan:
    return {
        "kind": kind,
        "path": path,
        "why": why,
        "chain_id": None,
        "diff_id": None,
        "size": None,
    }


def _all_layers(
    opened: Opened, images: Sequence[Image], survey: Survey
) -> dict[_Key, _UsedLayer]:
    """Return all layers, including those of no image, each with its users."""
    found: dict[_Key, _UsedLayer] = {}
    by_chain: dict[str | None, list[tuple[Image, int]]] = {}
    for stored in survey.layers:
        place = stored.place
        found[place.driver, place.cache_id] = _UsedLayer(
            stored.chain_id or None,
            stored.diff_id or None,
            cache_id=place.cache_id,
            directory=place.directory,
        )
    for image in images:
        for position, key, layer in _layers_of(image):
            known = found.setdefault(key, layer)
            known.diff_id = known.diff_id or layer.diff_id
            known.digest = known.digest or layer.digest
            known.images.append((image, position))
            by_chain.setdefault(layer.chain_id, []).append((image, position))
    for layer in found.values():
        if opened.by_namespace and layer.chain_id and not layer.images:
            # One image may be unpacked by several snapshotters.
            layer.images += by_chain.get(layer.chain_id, [])
    _add_containers(survey, found)
    _add_holders(survey, found)
    return found


def _add_containers(survey: Survey, found: dict[_Key, _UsedLayer]) -> None:
    """Add the containers that use each layer, as their own or below it."""
    places = {(p.driver, p.cache_id): p.directory for p in survey.directories}
    parents = _parents(survey)
    for container in survey.containers:
        for own in container.own:
            key = container.driver, own
            layer = _UsedLayer(cache_id=own, directory=places.get(key))
            found.setdefault(key, layer).containers.append(container)
        below = container.parent
        while below and (key := (container.driver, below)) in found:
            if container in found[key].containers:
                break  # a circle
            found[key].containers.append(container)
            below = parents.get(key, "")


def _add_holders(survey: Survey, found: dict[_Key, _UsedLayer]) -> None:
    """Note which layers the build cache or a lease needs: its own, and all below."""
    places = {(p.driver, p.cache_id): p.directory for p in survey.directories}
    parents = _parents(survey)
    for key, holder in survey.held.items():
        below = key
        while below in found or below in places:
            layer = _UsedLayer(cache_id=below[1], directory=places.get(below))
            layer = found.setdefault(below, layer)
            if layer.held_by:
                break  # those below have it too
            layer.held_by = holder
            below = below[0], parents.get(below, "")


def _parents(survey: Survey) -> dict[_Key, str]:
    """Return the cache-id of the layer below each layer, "" if there is none."""
    return {
        (stored.place.driver, stored.place.cache_id): stored.parent
        for stored in survey.layers
    }


def _layers_of(image: Image) -> Iterator[tuple[int, _Key, _UsedLayer]]:
    chains = layer_chains(image.layers)
    for position, (layer, chain_id) in enumerate(
        zip(image.layers, chains, strict=True), 1
    ):
        place = layer.place
        if place is not None:
            key = place.driver, place.cache_id
        else:
            key = "", chain_id or layer.digest or layer.name
        yield (
            position,
            key,
            _UsedLayer(
                chain_id,
                layer.diff_id,
                layer.digest,
                None if place is None else place.cache_id,
                None if place is None else place.directory,
            ),
        )
