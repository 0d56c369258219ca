"""Which image was built on which, what two images share, what a build would reuse.

Two images can be related in three ways, from the strongest to the weakest:

===========  =====================================================================
``parent``   docker's record of local builds: each image names the one it was built on
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
class Relative:
    """An image that is related to another.

    Attributes:
        image: The related image.
        how: ``parent``, ``history`` or ``layers``.
    """

    image: Image
    how: str


@dataclass(frozen=True, slots=True)
class Common:
    """The steps and layers at the beginning of two images that are the same.

    Attributes:
        steps: The number of equal steps with equal layers.
        step_layers: The number of layers of these steps.
        layers: The number of equal layers, whatever the steps are; at least as many.
    """

    steps: int
    step_layers: int
    layers: int


@dataclass(frozen=True, slots=True)
class Match:
    """An image that a build would reuse.

    Attributes:
        image: The image that would be reused, or one that begins with it.
        how: ``parent`` or ``history``.
        step: The number of its steps that would be reused; None for all.
    """

    image: Image
    how: str
    step: int | None


def ancestors(image: Image, others: Iterable[Image]) -> list[Relative]:
    """Return the images that one was built on, the nearest first.

    Raises:
        FormatError: The parents form a cycle.
    """
    known = _by_id(others)
    chain = parents(image, known)
    found = [
        Relative(other, how)
        for other in known.values()
        if other.id != image.id and (how := _how(other, image, chain))
    ]
    return sorted(found, key=lambda relative: _age(relative.image), reverse=True)


def derived(image: Image, others: Iterable[Image]) -> list[Relative]:
    """Return the images that were built on one, the nearest first.

    Raises:
        FormatError: The parents form a cycle.
    """
    known = _by_id(others)
    found = [
        Relative(other, how)
        for other in known.values()
        if other.id != image.id and (how := _how(image, other, parents(other, known)))
    ]
    return sorted(found, key=lambda relative: _age(relative.image))


def parents(image: Image, known: dict[str, Image]) -> list[str]:
    """Return the ids of an image's parent, its parent, and so on.

    The chain ends at an image that names no parent, or at an unknown image.

    Raises:
        FormatError: The parents form a cycle.
    """
    chain: dict[str, None] = {}
    parent = image.parent
    while parent is not None:
        if parent in chain or parent == image.id:
            raise FormatError(
                f"the parents of {image.id[:12]} go in a circle, at {parent[:12]}",
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
    """Return the history entries of the config, after checking them."""
    read_history(image)
    return image.config.get("history") or []


def _how(older: Image, newer: Image, chain: Sequence[str]) -> str:
    """Return how one image is related to a newer one, or "" if it is not."""
    if older.id in chain:
        return "parent"
    if is_valid_parent(older, newer):
        return "history"
    ours, theirs = _diff_ids(older), _diff_ids(newer)
    if 0 < len(ours) < len(theirs) and theirs[: len(ours)] == ours:
        return "layers"
    return ""


def is_valid_parent(older: Image | None, newer: Image) -> bool:
    """Return True if an image's steps and layers are the first ones of another.

    None stands for scratch.
    """
    theirs = _entries(newer)
    if not theirs:
        return False
    if older is None:
        return True
    ours = _entries(older)
    layers, more = _diff_ids(older), _diff_ids(newer)
    if len(layers) < len(older.layers):
        return False  # some diff_ids are unknown
    return (
        len(ours) < len(theirs)
        and theirs[: len(ours)] == ours
        and more[: len(layers)] == layers
    )


def _diff_ids(image: Image) -> list[str]:
    """Return the diff_ids of all layers, or nothing if one is unknown."""
    found = [layer.diff_id for layer in image.layers]
    known = [diff_id for diff_id in found if diff_id is not None]
    return known if len(known) == len(found) else []


def common(one: Image, other: Image) -> Common:
    """Return how much of the beginning of two images is the same."""
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
    """Return the number of equal items at the beginning of two lists."""
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
    """Return the image that a build would reuse instead of running one more step.

    Local builds come first: the newest child of ``parent`` that was made with the same
    settings. Then the history: the first image whose steps continue those of ``parent``
    with the same command.

    Args:
        parent: The image that the step is built on; None is scratch.
        wanted: The settings of the container that would run the step.
        images: The images to search, in order of preference.
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

    Names (host, image) are ignored. A container that reads standard input is equal to
    none.
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
    """Return a key that sorts images by time of creation; docker writes UTC."""
    found = _CREATED.fullmatch(str(image.config.get("created") or ""))
    if found is None:
        return "", 0
    return found[1], int((found[2] or "").ljust(9, "0"))
