"""An image's history: its steps, their layers, and images cut at a step. No I/O.

A *step* is an entry of the config's history, numbered from 1, oldest first. Each
non-empty step created the next layer, provided there are as many such steps as layers.
In images that were squashed or built by other tools the numbers may differ, and then
steps cannot be matched to layers.

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
"""Fields that docker copies from an image's config to that of an earlier step."""


@dataclass(frozen=True, slots=True)
class Step:
    """An entry of the history.

    Attributes:
        number: From 1, oldest first.
        layer: Position of the layer that it created, from 0; None if it created none,
            or if steps and layers do not match.
        empty: Whether it is marked as having created no layer.
        created: The time, as written (RFC 3339), or "".
        created_by: The command, as written, or "".
        comment: The comment, as written, or "".
    """

    number: int
    layer: int | None
    empty: bool
    created: str
    created_by: str
    comment: str


@dataclass(frozen=True, slots=True)
class History:
    """The steps of an image, and whether they match its layers.

    Attributes:
        steps: The steps, oldest first.
        problem: Why steps and layers do not match, or "".
    """

    steps: tuple[Step, ...]
    problem: str


@dataclass(frozen=True, slots=True)
class Point:
    """A point in an image's history; exactly one attribute is not None.

    Attributes:
        step: The point after this step, from 1; 0 is before the first.
        layer: The point after the step that created this layer, from 1; 0 is before
            the first.
        pattern: The point after the only step whose command contains this text, in
            which ``*`` stands for any text.
    """

    step: int | None = None
    layer: int | None = None
    pattern: str | None = None


def read_history(image: Image) -> History:
    """Return the steps of an image, each with its layer.

    Raises:
        FormatError: The history is not a list of objects with texts.
    """
    where = f"{image.source}, config of {image.id[:12]}"
    entries = image.config.get("history")
    entries = [] if entries is None else entries
    if not isinstance(entries, list) or len(entries) > MAX_STEPS:
        raise FormatError(
            f'"history" is not a list, or has more than {MAX_STEPS:,} entries',
            where=where,
        )
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
    """Return True if a step created no layer; check the fields that are used."""
    if not isinstance(entry, dict):
        raise FormatError("a step is not an object", where=where)
    for key in ("created", "created_by", "comment"):
        if not isinstance(entry.get(key) or "", str):
            raise FormatError(f"{key} of a step is not a string", where=where)
    return bool(entry.get("empty_layer"))


def _text(entry: dict[str, Any], key: str) -> str:
    return entry.get(key) or ""


def _problem(empty: Sequence[bool], layers: int) -> str:
    made = len(empty) - sum(empty)
    if made == layers:
        return ""
    if not empty:
        return f"the image has {layers:,} layers, but no history"
    return f"the history has {made:,} layer-creating steps, the image {layers:,} layers"


def cut(image: Image, point: Point | None) -> Image:
    """Return the image as it was at a point, with the config it would have had.

    It is the same as docker stores for an intermediate image: history and diff_ids end
    at that point, and the settings are those made by then.

    Raises:
        UsageError: The step or layer does not exist, or several steps match.
        FormatError: The point is a step, but steps and layers do not match.
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
    """Return the step that created a layer, if it is known, and the layer."""
    count = len(image.layers)
    if not 0 <= layer <= count:
        raise UsageError(f"{image.source}: no layer {layer:,}; it has {count:,}")
    if history.problem:
        return None, layer
    made = [step.number for step in history.steps if step.layer == layer - 1]
    return (made[0] if made else 0), layer


def _at_step(image: Image, history: History, point: Point) -> tuple[int, int]:
    """Return a step, and the number of layers up to it."""
    where = image.source
    if history.problem:
        raise FormatError(
            f"{history.problem}; steps cannot be matched to layers; name a layer, with "
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
    """Return the only step whose command matches a pattern."""
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
            f"{some}; give a longer pattern, or the step's number with --at"
        )
    return found[0].number


def _cut_config(
    config: dict[str, Any], history: History, step: int | None, layers: int
) -> dict[str, Any]:
    """Return the config of an earlier step; the step is None if it is unknown."""
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
