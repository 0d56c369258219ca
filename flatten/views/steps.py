"""The steps of an image's history, with what each layer adds."""

from collections.abc import Sequence
from typing import TypedDict

from ..image.history import History, read_history
from ..image.image import Image
from ..tar.layer import LayerIndex
from ..tar.members import Members


class _LayerFields(TypedDict):
    """The fields of a step that come from its layer."""

    layer: int | None
    size: int
    members: int
    stored: int
    diff_id: str | None


class StepRow(_LayerFields):
    """A step of the history, or a layer whose step is unknown.

    Attributes:
        step: The number of the step, from 1, or None.
        layer: The number of its layer, from 1, or None if it created none.
        created: A time as in the history (RFC 3339), or None.
        created_by: The command.
        comment: The comment, or None.
        empty: Whether the step created no layer.
        size: Bytes of file content in the layer, as unpacked.
        members: Entries of the layer, including whiteouts.
        stored: Bytes of the layer's blob.
        diff_id: The layer's, or None.
    """

    step: int | None
    created: str | None
    created_by: str | None
    comment: str | None
    empty: bool


def list_steps(
    image: Image, members: Members, layers: Sequence[LayerIndex]
) -> tuple[History, list[StepRow]]:
    """Return the history, and a row for each step, oldest first.

    If steps and layers do not match, the layers follow, each with its own row.

    Args:
        image: An open image.
        members: The members of all its layers.
        layers: The indexes of the layers.
    """
    history = read_history(image)
    added = [
        _added(image, members, position, layer) for position, layer in enumerate(layers)
    ]
    rows: list[StepRow] = [
        {
            "step": step.number,
            "created": step.created or None,
            "created_by": step.created_by,
            "comment": step.comment or None,
            "empty": step.empty,
            **(_NOTHING if step.layer is None else added[step.layer]),
        }
        for step in history.steps
    ]
    if history.problem:
        rows += [
            {
                "step": None,
                "created": None,
                "created_by": None,
                "comment": None,
                "empty": False,
                **layer,
            }
            for layer in added
        ]
    return history, rows


_NOTHING: _LayerFields = {
    "layer": None,
    "size": 0,
    "members": 0,
    "stored": 0,
    "diff_id": None,
}


def _added(
    image: Image, members: Members, position: int, index: LayerIndex
) -> _LayerFields:
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
