"""Kinship of images: which was built on which, what two share, what a build reuses.

Two images can be akin in three ways, from the surest to the weakest:

===========  =====================================================================
``parent``   docker's record of local builds: each image names the one it is built on
``history``  all steps and layers of the one are the first ones of the other, and it
             has more steps
``layers``   its layers are the first ones of the other, which has more; the
             histories differ, as after a pull of an image that was rebuilt
===========  =====================================================================

Reference: moby image/cache/cache.go (isValidParent, getLocalCachedImage) and
image/cache/compare.go.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ..errors import FormatError
from ..image.history import read_history
from ..image.image import Image

_CREATED: Final = re.compile(
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(?:Z|[+-]\d\d:\d\d)"
)


@dataclass(frozen=True, slots=True)
class Kin:
    """An image that another is akin to.

    Attributes:
        image: It.
        how: ``parent``, ``history`` or ``layers``.
    """

    image: Image
    how: str


@dataclass(frozen=True, slots=True)
class Common:
    """What two images have in common, from the beginning.

    Attributes:
        steps: Steps that are the same, with the layers that they made.
        step_layers: The layers of these steps.
        layers: Layers that are the same, whatever the steps say; at least as many.
    """

    steps: int
    step_layers: int
    layers: int


@dataclass(frozen=True, slots=True)
class Match:
    """An image that a build would reuse.

    Attributes:
        image: It, or one that begins with what would be reused.
        how: ``parent`` or ``history``.
        step: How many steps of it would be reused; None for all.
    """

    image: Image
    how: str
    step: int | None


def ancestors(image: Image, others: Iterable[Image]) -> list[Kin]:
    """Return the images that one was built on, the nearest first.

    Raises:
        FormatError: The parents go in a circle.
    """
    known = _by_id(others)
    chain = parents(image, known)
    found = [
        Kin(other, how)
        for other in known.values()
        if other.id != image.id and (how := _how(other, image, chain))
    ]
    return sorted(found, key=lambda kin: _age(kin.image), reverse=True)


def derived(image: Image, others: Iterable[Image]) -> list[Kin]:
    """Return the images that were built on one, the nearest first.

    Raises:
        FormatError: The parents go in a circle.
    """
    known = _by_id(others)
    found = [
        Kin(other, how)
        for other in known.values()
        if other.id != image.id and (how := _how(image, other, parents(other, known)))
    ]
    return sorted(found, key=lambda kin: _age(kin.image))


def parents(image: Image, known: dict[str, Image]) -> list[str]:
    """Return the ids on the way to the image that was built on nothing.

    The way ends at the first image that names no parent, or is not known.

    Raises:
        FormatError: It goes in a circle.
    """
    chain: dict[str, None] = {}
    parent = image.parent
    while parent is not None:
        if parent in chain or parent == image.id:
            raise FormatError(
                f"the parents of {image.id[:12]} go in a circle, over {parent[:12]}",
                where=image.source,
            )
        chain[parent] = None
        parent = known[parent].parent if parent in known else None
    return [*chain]


def _by_id(images: Iterable[Image]) -> dict[str, Image]:
    known: dict[str, Image] = {}
    for image in images:
        known.setdefault(image.id, image)
    return known


def _age(image: Image) -> tuple[int, int]:
    return len(image.layers), len(_entries(image))


def _entries(image: Image) -> list[Any]:
    """Return the steps as they are in the config, checked."""
    read_history(image)
    return image.config.get("history") or []


def _how(older: Image, newer: Image, chain: Sequence[str]) -> str:
    """Say how one image is akin to a newer one; "" if it is not."""
    if older.id in chain:
        return "parent"
    if is_valid_parent(older, newer):
        return "history"
    ours, theirs = _diff_ids(older), _diff_ids(newer)
    if 0 < len(ours) < len(theirs) and theirs[: len(ours)] == ours:
        return "layers"
    return ""


def is_valid_parent(older: Image | None, newer: Image) -> bool:
    """Say whether steps and layers of one image are the first of another's.

    None is what images from scratch are built on.
    """
    theirs = _entries(newer)
    if not theirs:
        return False
    if older is None:
        return True
    ours = _entries(older)
    layers, more = _diff_ids(older), _diff_ids(newer)
    if len(layers) < len(older.layers):
        return False  # which layers they are is not known
    return (
        len(ours) < len(theirs)
        and theirs[: len(ours)] == ours
        and more[: len(layers)] == layers
    )


def _diff_ids(image: Image) -> list[str]:
    """Return the diff_ids; none at all where one is not known."""
    found = [layer.diff_id for layer in image.layers]
    known = [diff_id for diff_id in found if diff_id is not None]
    return known if len(known) == len(found) else []


def common(one: Image, other: Image) -> Common:
    """Return what two images have in common, from the beginning."""
    layers = _same(_diff_ids(one), _diff_ids(other))
    first, second = read_history(one), read_history(other)
    if first.problem or second.problem:
        return Common(0, 0, layers)
    steps = made = 0
    pairs = zip(_entries(one), _entries(other), first.steps, strict=False)
    for ours, theirs, step in pairs:
        if ours != theirs or (step.layer is not None and made == layers):
            break
        steps += 1
        made += step.layer is not None
    return Common(steps, made, layers)


def _same(ours: Sequence[str], theirs: Sequence[str]) -> int:
    """Return how many items two lists begin with that are the same."""
    count = 0
    for one, other in zip(ours, theirs, strict=False):
        if one != other:
            break
        count += 1
    return count


# --- what a build would reuse


def match(
    parent: Image | None, wanted: dict[str, Any], images: Iterable[Image]
) -> Match | None:
    """Return what a build of one more step would take instead of running it.

    First among local builds: the newest child of ``parent`` that was made with the same
    settings. Then by history: the first image whose steps go on from ``parent`` with
    that command.

    Args:
        parent: What the step is built on; None is scratch.
        wanted: The settings of the container that would run the step.
        images: Those that there are, in the order of preference.
    """
    known = list(_by_id(images).values())
    parent_id = None if parent is None else parent.id
    children = [
        image
        for image in known
        if image.parent == parent_id
        and _equal_settings(image.config.get("container_config"), wanted)
    ]
    if children:
        return Match(max(children, key=_created), "parent", None)
    count = 0 if parent is None else len(_entries(parent))
    command = " ".join(map(str, wanted.get("Cmd") or ()))
    for image in known:
        if not is_valid_parent(parent, image):
            continue
        entries = _entries(image)
        if entries[count].get("created_by") == command:
            whole = len(entries) == count + 1
            return Match(image, "history", None if whole else count + 1)
    return None


_LISTS: Final = ("Cmd", "Env", "Entrypoint")
_MAPS: Final = ("Labels",)
_KEYS: Final = ("ExposedPorts", "Volumes")
_PLAIN: Final = {"AttachStdout": False, "AttachStderr": False, "User": "", "Tty": False}


def _equal_settings(one: object, other: dict[str, Any]) -> bool:
    """Compare the settings of two containers as docker's builder does.

    Names (host, image) do not count; what reads standard input is never the same.
    """
    if not isinstance(one, dict) or one.get("OpenStdin") or other.get("OpenStdin"):
        return False
    return (
        all(one.get(k, none) == other.get(k, none) for k, none in _PLAIN.items())
        and all((one.get(k) or []) == (other.get(k) or []) for k in _LISTS)
        and all((one.get(k) or {}) == (other.get(k) or {}) for k in _MAPS)
        and all(set(one.get(k) or ()) == set(other.get(k) or ()) for k in _KEYS)
    )


def _created(image: Image) -> tuple[str, int]:
    """Return when an image was made, so that later is greater; docker writes UTC."""
    found = _CREATED.fullmatch(str(image.config.get("created") or ""))
    if found is None:
        return "", 0
    return found[1], int((found[2] or "").ljust(9, "0"))
