"""The steps of an image, with what each layer adds."""

from typing import Any

from ..history import History, read_history
from ..index_cache import IndexCache
from ..model import Image, Members
from ..streams import Limits
from .reading import read_layers


def list_steps(
    image: Image, limits: Limits, cache: IndexCache | None = None
) -> tuple[History, list[dict[str, Any]]]:
    """Return a row a step, oldest first; then those layers that no step is known for.

    Keys: ``step`` and ``layer`` (from 1, or None), ``created``, ``created_by``,
    ``comment``, ``empty``, ``size`` (bytes of content), ``members``, ``stored`` (bytes
    of the blob), ``diff_id``.
    """
    history = read_history(image)
    added = _added(image, limits, cache)
    rows = [
        {
            "step": step.number,
            "created": step.created or None,
            "created_by": step.created_by,
            "comment": step.comment or None,
            "empty": step.empty,
        }
        | (_nothing() if step.layer is None else added[step.layer])
        for step in history.steps
    ]
    if history.problem:
        rows += [{"step": None, "created": None, "created_by": None, "comment": None,
                  "empty": False} | layer for layer in added]  # fmt: skip
    return history, rows


def _nothing() -> dict[str, Any]:
    return {"layer": None, "size": 0, "members": 0, "stored": 0, "diff_id": None}


def _added(
    image: Image, limits: Limits, cache: IndexCache | None
) -> list[dict[str, Any]]:
    """Return what each layer adds."""
    members = Members(limit=limits.members)
    rows = []
    for position, index in enumerate(read_layers(image, members, cache)):
        layer = image.layers[position]
        rows.append({
            "layer": position + 1,
            "size": sum(members.sizes[index.first :]),
            "members": len(index.paths) + len(index.removals),
            "stored": layer.blob().size(),
            "diff_id": layer.diff_id,
        })  # fmt: skip
    return rows
