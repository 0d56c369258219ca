"""The steps of an image, with what each layer adds."""

from collections.abc import Sequence
from typing import Any

from ..image.history import History, read_history
from ..image.image import Image
from ..tar.layer import LayerIndex
from ..tar.members import Members


def list_steps(
    image: Image, members: Members, layers: Sequence[LayerIndex]
) -> tuple[History, list[dict[str, Any]]]:
    """Return a row a step, oldest first; then those layers that no step is known for.

    Keys: ``step`` and ``layer`` (from 1, or None), ``created``, ``created_by``,
    ``comment``, ``empty``, ``size`` (bytes of content), ``members``, ``stored`` (bytes
    of the blob), ``diff_id``.

    Args:
        image: An open image.
        members: Of all its layers.
        layers: Their indexes.
    """
    history = read_history(image)
    added = [
        _added(image, members, position, layer) for position, layer in enumerate(layers)
    ]
    rows = [
        {
            "step": step.number,
            "created": step.created or None,
            "created_by": step.created_by,
            "comment": step.comment or None,
            "empty": step.empty,
        }
        | (_NOTHING if step.layer is None else added[step.layer])
        for step in history.steps
    ]
    if history.problem:
        rows += [{"step": None, "created": None, "created_by": None, "comment": None,
                  "empty": False} | layer for layer in added]  # fmt: skip
    return history, rows


_NOTHING = {"layer": None, "size": 0, "members": 0, "stored": 0, "diff_id": None}


def _added(
    image: Image, members: Members, position: int, index: LayerIndex
) -> dict[str, Any]:
    """Return what a layer adds."""
    layer = image.layers[position]
    rows = slice(index.first, index.first + len(index.paths))
    return {
        "layer": position + 1,
        "size": sum(members.sizes[rows]),
        "members": len(index.paths) + len(index.removals),
        "stored": layer.blob().size(),
        "diff_id": layer.diff_id,
    }
