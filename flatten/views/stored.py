"""What a source holds, and where: its images; the layers of one of them."""

from typing import Any

from ..errors import FlattenError
from ..image.chain_ids import layer_chains
from ..image.history import read_history
from ..image.image import Image, Layer
from ..sources.open import Opened


def list_images(opened: Opened) -> list[dict[str, Any]]:
    """Return a row an image, in the order of the source.

    Keys: ``id``, ``names``, ``created``, ``size`` (bytes, as stored), ``layers``,
    ``platform``, ``driver`` and ``namespace`` (None where there is none); ``error``
    says what is wrong with an image that cannot be opened, which lacks the rest.
    """
    rows = []
    for entry in opened.entries:
        row: dict[str, Any] = {
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
        try:
            image = entry.load()
            platform = entry.platform()
        except FlattenError as error:
            rows.append(row | {"error": str(error)})
            continue
        sizes = [stored_size(layer) for layer in image.layers]
        created = image.config.get("created")
        rows.append(
            row
            | {
                "id": image.id,
                "created": created if isinstance(created, str) else None,
                "size": None if None in sizes else sum(map(int, filter(None, sizes))),
                "layers": len(image.layers),
                "platform": None if platform is None else str(platform),
                "driver": row["driver"] or _driver(image),
            }
        )
    return rows


def list_layers(image: Image) -> list[dict[str, Any]]:
    """Return a row a layer, oldest first. No tree is read, and no content.

    Keys: ``position`` (from 1), ``diff_id``, ``chain_id``, ``cache_id``,
    ``directory``, ``driver`` (None where there is none), ``stored`` (bytes, as the
    engine or the archive has it), ``size`` (of the tar), ``digest`` (of a blob),
    ``step`` (from 1, None where it cannot be told), ``created_by``.
    """
    steps = {s.layer: s for s in read_history(image).steps if s.layer is not None}
    rows = []
    for position, (layer, chain_id) in enumerate(
        zip(image.layers, layer_chains(image.layers), strict=True)
    ):
        step, place = steps.get(position), layer.place
        rows.append({
            "position": position + 1,
            "diff_id": layer.diff_id,
            "chain_id": chain_id,
            "cache_id": place and place.cache_id,
            "directory": place and place.directory,
            "driver": place and place.driver,
            "stored": stored_size(layer),
            "size": layer.headers().size(),
            "digest": layer.digest,
            "step": step and step.number,
            "created_by": step and step.created_by,
        })  # fmt: skip
    return rows


def stored_size(layer: Layer) -> int | None:
    """Return the bytes of a layer as stored: of its blob, or as the engine counts."""
    if layer.place is not None and layer.digest is None:
        return layer.place.size
    return layer.blob().size()


def _driver(image: Image) -> str | None:
    drivers = [layer.place.driver for layer in image.layers if layer.place]
    return drivers[0] if drivers else None
