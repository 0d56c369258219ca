"""What a source contains, and where: its images, and the layers of one image."""

from typing import TypedDict

from ..errors import FlattenError
from ..image.chain_ids import layer_chains
from ..image.history import read_history
from ..image.image import Image, Layer
from ..sources.open import Opened


class ImageRow(TypedDict):
    """An image of a source.

    Attributes:
        id: Hex digest of its config, or its id before docker 1.10.
        names: Its names with tags.
        created: A time as in the config (RFC 3339), or None.
        size: Bytes of its layers as stored, or None if a size is unknown.
        layers: The number of its layers.
        platform: ``os/architecture[/variant]``, or None.
        driver: The storage driver or snapshotter, or None in an archive.
        namespace: containerd's namespace, or None.
        error: Why the image cannot be opened, or None; if it cannot, the fields except
            ``id``, ``names``, ``driver`` and ``namespace`` are None.
    """

    id: str
    names: list[str]
    created: str | None
    size: int | None
    layers: int | None
    platform: str | None
    driver: str | None
    namespace: str | None
    error: str | None


class LayerRow(TypedDict):
    """A layer of an image; a field that is unknown or does not apply is None.

    Attributes:
        position: From 1.
        diff_id: As the image records it.
        chain_id: The digest of this and all layers below.
        cache_id: The storage driver's name for the layer.
        directory: The layer's directory in an engine's root.
        driver: The storage driver or snapshotter.
        stored: Bytes as stored: the size of the blob, or the engine's own figure.
        size: Bytes of the layer tar.
        digest: The digest of the blob, as the image records it.
        step: The number of the step that created the layer, from 1.
        created_by: The command of that step.
    """

    position: int
    diff_id: str | None
    chain_id: str | None
    cache_id: str | None
    directory: str | None
    driver: str | None
    stored: int | None
    size: int
    digest: str | None
    step: int | None
    created_by: str | None


class ContainerRow(TypedDict):
    """A container of an engine's root.

    Attributes:
        id: Its id.
        names: Its names.
        driver: The storage driver or snapshotter that keeps its layers.
    """

    id: str
    names: list[str]
    driver: str


def list_containers(opened: Opened) -> list[ContainerRow]:
    """Return a row for each container of an engine's root, by name."""
    rows: list[ContainerRow] = [
        {"id": each.id, "names": list(each.names), "driver": each.driver}
        for each in opened.survey().containers
    ]
    return sorted(rows, key=lambda row: (row["names"], row["id"]))


def list_images(opened: Opened) -> list[ImageRow]:
    """Return a row for each image, in the order of the source."""
    rows = []
    for entry in opened.entries:
        row: ImageRow = {
            "id": entry.ids[0] if entry.ids else "",
            "names": list(entry.names),
            "created": None,
            "size": None,
            "layers": None,
            "platform": None,
            "driver": None if opened.by_namespace else entry.store or None,
            "namespace": entry.store if opened.by_namespace else None,
            "error": None,
        }
        rows.append(row)
        try:
            image = entry.load()
            platform = entry.platform()
        except FlattenError as error:
            row["error"] = str(error)
            continue
        sizes = [stored_size(layer) for layer in image.layers]
        known = [size for size in sizes if size is not None]
        created = image.config.get("created")
        row["id"] = image.id
        row["created"] = created if isinstance(created, str) else None
        row["size"] = sum(known) if len(known) == len(sizes) else None
        row["layers"] = len(image.layers)
        row["platform"] = None if platform is None else str(platform)
        row["driver"] = row["driver"] or _driver(image)
    return rows


def list_layers(image: Image) -> list[LayerRow]:
    """Return a row for each layer, oldest first, without reading trees or contents."""
    steps = {s.layer: s for s in read_history(image).steps if s.layer is not None}
    rows: list[LayerRow] = []
    for position, (layer, chain_id) in enumerate(
        zip(image.layers, layer_chains(image.layers), strict=True)
    ):
        step, place = steps.get(position), layer.place
        rows.append(
            {
                "position": position + 1,
                "diff_id": layer.diff_id,
                "chain_id": chain_id,
                "cache_id": place.cache_id if place else None,
                "directory": place.directory if place else None,
                "driver": place.driver if place else None,
                "stored": stored_size(layer),
                "size": layer.headers().size(),
                "digest": layer.digest,
                "step": step.number if step else None,
                "created_by": step.created_by if step else None,
            }
        )
    return rows


def stored_size(layer: Layer) -> int | None:
    """Return a layer's bytes as stored: its blob's size, or the engine's own figure."""
    if layer.place is not None and layer.digest is None:
        return layer.place.size
    return layer.blob().size()


def _driver(image: Image) -> str | None:
    drivers = [layer.place.driver for layer in image.layers if layer.place]
    return drivers[0] if drivers else None
