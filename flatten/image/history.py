"""An image's history and its layers: steps, points in it, kinship. No I/O.

A *step* is an entry of the config's history, numbered from 1, oldest first; one that is
not empty made the next layer. That holds where there are as many such steps as layers:
images that were squashed, or made by other means, may say something else, and then a
step cannot be told from a layer.

Reference: OCI image-spec config.md, "history"; moby image/cache/cache.go.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from ..errors import FormatError, UsageError, quoted
from .image import Image
from .instructions import config_after

MAX_STEPS: Final = 1 << 16
_LISTED: Final = 5  # steps listed in a message
_KEPT: Final[tuple[str, ...]] = (
    "architecture", "variant", "os", "os.version", "os.features", "author",
    "docker_version",
)  # fmt: skip
"""What docker takes over from an image into the config of an earlier step."""


@dataclass(frozen=True, slots=True)
class Step:
    """An entry of the history.

    Attributes:
        number: From 1, oldest first.
        layer: Position of the layer that it made, from 0; None if it made none, or if
            steps and layers do not agree.
        empty: It says that it made none.
        created: When, as written (RFC 3339), or "".
        created_by: The command, as written, or "".
        comment: As written, or "".
    """

    number: int
    layer: int | None
    empty: bool
    created: str
    created_by: str
    comment: str


@dataclass(frozen=True, slots=True)
class History:
    """The steps of an image, and whether they tell of its layers.

    Attributes:
        steps: Oldest first.
        problem: Why steps and layers do not agree, or "".
    """

    steps: tuple[Step, ...]
    problem: str


@dataclass(frozen=True, slots=True)
class Point:
    """A moment in an image's making; one of the three is not None.

    Attributes:
        step: After that step, from 1; 0 is before all.
        layer: After the step that made that layer, from 1; 0 is before all.
        pattern: After the one step whose command has that in it; ``*`` in it is any
            text.
    """

    step: int | None = None
    layer: int | None = None
    pattern: str | None = None


def read_history(image: Image) -> History:
    """Return the steps of an image, each with its layer.

    Raises:
        FormatError: The history is no list of objects with texts.
    """
    where = f"{image.source}, config of {image.id[:12]}"
    entries = image.config.get("history")
    entries = [] if entries is None else entries
    if not isinstance(entries, list) or len(entries) > MAX_STEPS:
        raise FormatError("history is no list, or too long a one", where=where)
    empty = [_is_empty(entry, f"{where}, history") for entry in entries]
    problem = _problem(empty, len(image.layers))
    steps, layer = [], 0
    for number, entry in enumerate(entries, 1):
        has_layer = not empty[number - 1]
        steps.append(
            Step(
                number,
                layer if has_layer and not problem else None,
                not has_layer,
                *(_text(entry, key) for key in ("created", "created_by", "comment")),
            )
        )
        layer += has_layer
    return History(tuple(steps), problem)


def _is_empty(entry: object, where: str) -> bool:
    """Say whether a step made no layer; check all that is read of it."""
    if not isinstance(entry, dict):
        raise FormatError("a step that is no object", where=where)
    for key in ("created", "created_by", "comment"):
        if not isinstance(entry.get(key) or "", str):
            raise FormatError(f"{key} of a step is no text", where=where)
    return bool(entry.get("empty_layer"))


def _text(entry: dict[str, Any], key: str) -> str:
    return entry.get(key) or ""


def _problem(empty: Sequence[bool], layers: int) -> str:
    made = len(empty) - sum(empty)
    if made == layers:
        return ""
    if not empty:
        return f"the image has no history, and {layers:,} layers"
    return (
        f"the history has {made:,} steps that made a layer, the image {layers:,} layers"
    )


def cut(image: Image, point: Point | None) -> Image:
    """Return the image as it stood at a point, with the config it would have had.

    That is what docker stores for an intermediate image: history and diff_ids end
    there, and the settings are those made until then.

    Raises:
        UsageError: There is no such step or layer, or several fit the pattern.
        FormatError: Steps and layers do not agree, and the point is a step.
    """
    if point is None:
        return image
    history = read_history(image)
    if point.layer is not None:
        step, layers = _at_layer(image, history, point.layer)
    else:
        step, layers = _at_step(image, history, point)
    config = _cut_config(image.config, history, step, layers)
    init = image.init if image.init is not None and image.init < layers else None
    return replace(image, config=config, layers=image.layers[:layers], init=init)


def _at_layer(image: Image, history: History, layer: int) -> tuple[int | None, int]:
    """Return the step that made a layer, if that can be told, and the layer."""
    count = len(image.layers)
    if not 0 <= layer <= count:
        raise UsageError(f"{image.source}: no layer {layer:,}; it has {count:,}")
    if history.problem:
        return None, layer
    made = [step.number for step in history.steps if step.layer == layer - 1]
    return (made[0] if made else 0), layer


def _at_step(image: Image, history: History, point: Point) -> tuple[int, int]:
    """Return a step, and how many layers there are after it."""
    where = image.source
    if history.problem:
        raise FormatError(
            f"{history.problem}, so that a step has no known layer; name a layer, with "
            "--at-layer N",
            where=where,
        )
    number, count = point.step, len(history.steps)
    if point.pattern is not None:
        number = _find(history.steps, point.pattern, where)
    if number is None or not 0 <= number <= count:
        raise UsageError(
            f"{where}: no step {number:,}; its history has {count:,} "
            "(flatten history lists them)"
        )
    done = history.steps[:number]
    return number, sum(step.layer is not None for step in done)


def _find(steps: Sequence[Step], pattern: str, where: str) -> int:
    """Return the one step whose command a pattern fits."""
    regex = re.compile(".*".join(map(re.escape, pattern.split("*"))), re.DOTALL)
    found = [step for step in steps if regex.search(step.created_by)]
    if not found:
        raise UsageError(
            f"{where}: no step has {quoted(pattern)} in its command "
            "(flatten history lists them)"
        )
    if len(found) > 1:
        some = ", ".join(
            f"{step.number} ({quoted(step.created_by[:60])})"
            for step in found[:_LISTED]
        )
        raise UsageError(
            f"{where}: {len(found):,} steps have {quoted(pattern)} in their commands: "
            f"{some}; say more of it, or its number with --at"
        )
    return found[0].number


def _cut_config(
    config: dict[str, Any], history: History, step: int | None, layers: int
) -> dict[str, Any]:
    """Return the config of an earlier step; None is one that cannot be told."""
    if step == len(history.steps) and not history.problem:
        return config
    kept: dict[str, Any] = {key: config[key] for key in _KEPT if key in config}
    entries = config.get("history") or []
    if step is not None:
        kept["history"] = entries[:step]
        if step and history.steps[step - 1].created:
            kept["created"] = history.steps[step - 1].created
        kept["config"] = config_after(
            config.get("config") or {},
            [entry.created_by for entry in history.steps[:step]],
            [entry.created_by for entry in history.steps[step:]],
        )
    else:
        kept["config"] = config.get("config") or {}
    rootfs = config.get("rootfs")
    if isinstance(rootfs, dict):
        kept["rootfs"] = rootfs | {"diff_ids": rootfs.get("diff_ids", [])[:layers]}
    return kept
