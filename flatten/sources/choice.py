"""The choice among the images of one source: by name, id, position and platform."""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from ..errors import FlattenError, FormatError, SourceError, UsageError, quoted, shown
from ..image.image import Image

CONTAINER: Final = "container:"
"""Begins the names of containers, in references."""

USUAL_DRIVER: Final = "overlay2"
"""Docker's default: its images are meant where another driver has the same."""

_FULL_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_SHOWN: Final = 20  # images listed in a message
_NAMES_SHOWN: Final = 4  # of each
_ARCHITECTURES: Final = {
    "x86_64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i686": ("386", ""),
    "loongarch64": ("loong64", ""),
}


@dataclass(frozen=True, slots=True)
class Platform:
    """An operating system, an architecture and maybe a variant of it."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        """Return the spelling that docker and OCI tools use."""
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))

    def runs(self, other: "Platform") -> bool:
        """Say whether ``other`` is this platform; a variant left out fits any."""
        return (self.os, self.architecture) == (other.os, other.architecture) and (
            "" in (self.variant, other.variant) or self.variant == other.variant
        )


def parse_platform(text: str) -> Platform:
    """Read ``os/architecture[/variant]``.

    Raises:
        UsageError: It is none.

    >>> str(parse_platform("linux/arm/v7"))
    'linux/arm/v7'
    """
    if not re.fullmatch(r"[^/]+/[^/]+(/[^/]+)?", text):
        raise UsageError(f"--platform: {quoted(text)} is not os/architecture[/variant]")
    return Platform(*text.lower().split("/"))


def host_platform() -> Platform:
    """Return this machine's platform; images are of linux."""
    machine = os.uname().machine
    return Platform("linux", *_ARCHITECTURES.get(machine, (machine, "")))


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a user asks of a source.

    Attributes:
        name: A name with tag, an id or the start of one, or ``@N``.
        platform: None takes the host's, where there is a choice.
        store: The part of the source to look in; None takes all.
    """

    name: str | None = None
    platform: Platform | None = None
    store: str | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """An image, or a container, that can be chosen: how to open it.

    Attributes:
        ids: Hex digests it is known by, of its config, its manifest; the first one is
            shown.
        names: Its names, with tags.
        load: Opens it: finds its layers.
        platform: Returns its platform, if it says one.
        store: The part of the source that it is in: a driver of docker's, a
            namespace of containerd's; "" in an archive.
        hashed: The ids are digests of bytes that were read, or an engine's record of
            them. False where they are only names in an archive (docker before 1.10).
    """

    ids: tuple[str, ...]
    names: tuple[str, ...]
    load: Callable[[], Image]
    platform: Callable[[], Platform | None] = lambda: None
    store: str = ""
    hashed: bool = True


def container_entry(
    id_: str,
    names: Iterable[str],
    store: str,
    load: Callable[[tuple[str, ...]], Image],
) -> Entry:
    """Return what chooses a container, which ran here: it is of no platform.

    Args:
        id_: Its id.
        names: What it is called.
        store: As of any entry.
        load: Opens it, given its names as references have them.
    """
    called = tuple(f"{CONTAINER}{name}" for name in names)
    return Entry((f"{CONTAINER}{id_}",), called, lambda: load(called), store=store)


def broken_entry(
    ids: tuple[str, ...], names: tuple[str, ...], store: str, error: FlattenError
) -> Entry:
    """Return what chooses an image that cannot be opened; the others can."""

    def load() -> Image:
        raise error

    return Entry(ids, names, load, store=store)


def choose(entries: Sequence[Entry], wanted: Wanted, where: str) -> Entry:
    """Return the one image that is meant.

    A full name wins over one without its registry, that over an id, and an id over the
    start of one. Where several are left, the platform decides.

    Raises:
        FormatError: There are no images.
        SourceError: None fits.
        UsageError: Several do.
    """
    if not entries:
        raise FormatError("holds no image", where=where)
    if wanted.store is not None:
        entries = in_store(entries, wanted.store, where)
    found = list(entries) if wanted.name is None else named(entries, wanted.name)
    if not found:
        asked = quoted(wanted.name or "")
        raise SourceError(
            f"{where}: no image {asked} in it; it has{_listed(entries)}"
        )  # fmt: skip
    by_platform = wanted != Wanted(store=wanted.store) or _is_one_image(found)
    fits = _on_platform(found, wanted.platform) if by_platform else found
    if len({entry.store for entry in fits}) > 1:
        fits = [entry for entry in fits if entry.store == USUAL_DRIVER] or fits
    if not fits and wanted.platform is not None:
        raise SourceError(
            f"{where}: no image for {wanted.platform}; it has{_listed(entries)}"
        )
    if len(fits) == 1:
        return fits[0]
    asked = "holds several images" if wanted.name is None else (
        f"{quoted(wanted.name)} fits several"
    )  # fmt: skip
    raise UsageError(
        f"{where}: {asked}, choose one with #NAME, --image NAME or --platform"
        f"{_store_options(fits or found)}:{_listed(entries, fits or found)}"
    )


def _is_one_image(entries: Sequence[Entry]) -> bool:
    """Say whether images are the same but for their platforms.

    They have a name or an index in common; or no names, and a platform each.
    """
    if set.intersection(*({*entry.names, *entry.ids} for entry in entries)):
        return True
    platforms = {entry.platform() for entry in entries}
    return not any(entry.names for entry in entries) and len(platforms) == len(entries)


def in_store(entries: Sequence[Entry], store: str, where: str) -> list[Entry]:
    """Return the entries of a driver or a namespace.

    Raises:
        SourceError: There are none.
    """
    found = [entry for entry in entries if entry.store == store]
    if not found:
        stores = dict.fromkeys(quoted(entry.store) for entry in entries if entry.store)
        others = f"; there is {', '.join(stores)}" if stores else ""
        raise SourceError(f"{where}: no driver or namespace {quoted(store)}{others}")
    return found


def _store_options(entries: Sequence[Entry]) -> str:
    """Return what else can tell the images apart."""
    several = len({entry.store for entry in entries}) > 1
    return ", --driver or --namespace" if several else ""


def named(entries: Sequence[Entry], name: str) -> list[Entry]:
    """Return the entries that a name selects, by the strongest way that matches any.

    A digest selects by digests only: an archive may give any text as a name, also one
    that looks like a digest.
    """
    if re.fullmatch(r"@[0-9]{1,9}", name):
        return list(entries[int(name[1:]) :][:1])
    hexdigits = name.removeprefix("sha256:")
    repository, at, digest = name.partition("@")
    if at:
        digest = digest.removeprefix("sha256:")
        return [
            entry for entry in entries if digest and digest in _digests(entry)
            and _repository(repository) in map(_repository, entry.names)
        ]  # fmt: skip
    if hexdigits != name or _FULL_DIGEST.fullmatch(name):
        entries = [entry for entry in entries if entry.hashed]
        exact = [entry for entry in entries if hexdigits in entry.ids]
        return exact or [
            entry for entry in entries
            if hexdigits and any(known.startswith(hexdigits) for known in entry.ids)
        ]  # fmt: skip
    tagged = name if ":" in name.rpartition("/")[2] else f"{name}:latest"
    tests: tuple[Callable[[Entry], bool], ...] = (
        lambda entry: name in entry.names,
        lambda entry: tagged in entry.names,
        lambda entry: _familiar(tagged) in map(_familiar, entry.names),
        lambda entry: hexdigits in entry.ids,
        lambda entry: hexdigits != "" and any(
            known.startswith(hexdigits) for known in entry.ids
        ),
    )  # fmt: skip
    for test in tests:
        found = [entry for entry in entries if test(entry)]
        if found:
            return found
    return []


def _digests(entry: Entry) -> set[str]:
    """Return all digests of an image; an engine's root records some in names too."""
    ids = {*entry.ids} if entry.hashed else set[str]()
    recorded = entry.names if entry.store else ()
    return ids | {name.partition("@sha256:")[2] for name in recorded}


def _on_platform(entries: list[Entry], platform: Platform | None) -> list[Entry]:
    """Return the entries for a platform; the host's, where none is asked for.

    What says no platform fits, but less than what does; a sole image fits unless
    another platform was asked for.
    """
    if platform is None and len(entries) == 1:
        return entries
    asked = platform or host_platform()
    known = [(entry, entry.platform()) for entry in entries]
    if platform is None and len({found for _, found in known}) == 1:
        return entries  # they do not differ in it
    fits = [entry for entry, found in known if found is not None and asked.runs(found)]
    exact = [entry for entry, found in known if found == asked]
    return exact or fits or [entry for entry, found in known if found is None]


def _familiar(name: str) -> str:
    """Strip what docker and podman put before short names."""
    for prefix in ("localhost/", "index.docker.io/", "docker.io/"):
        name = name.removeprefix(prefix)
    return name.removeprefix("library/")


def _repository(name: str) -> str:
    """Return a name without registry, tag and digest.

    >>> _repository("docker.io/library/alpine:3.20"), _repository("host:5000/a@sha256:")
    ('alpine', 'host:5000/a')
    """
    head, slash, tail = _familiar(name.partition("@")[0]).rpartition("/")
    return head + slash + tail.partition(":")[0]


def _listed(entries: Sequence[Entry], some: Sequence[Entry] | None = None) -> str:
    """List entries for a message, one per line if there are several.

    Entries without a name come last: in docker's data directory they are build steps.

    Args:
        entries: All entries, in the order that ``@N`` counts.
        some: The entries to list; None lists all.
    """
    listed = []
    several = _store_options(entries) != ""
    chosen = set(map(id, entries if some is None else some))
    found = [(at, entry) for at, entry in enumerate(entries) if id(entry) in chosen]
    found.sort(key=lambda item: not item[1].names)
    for position, entry in found[:_SHOWN]:
        names = " ".join(map(shown, entry.names[:_NAMES_SHOWN])) or "(no name)"
        names += " ..." if len(entry.names) > _NAMES_SHOWN else ""
        platform = entry.platform()
        parts = [
            f"@{position}",
            names,
            entry.ids[0].rpartition(":")[2][:12],
            str(platform or ""),
        ]
        if several:
            parts.append(f"in {entry.store}")
        listed.append(" ".join(filter(None, parts)))
    if len(found) > _SHOWN:
        listed.append(f"and {len(found) - _SHOWN:,} more: flatten images lists them")
    between = " " if len(listed) == 1 else "\n  "
    return "".join(between + line for line in listed)


def config_platform(config: dict[str, object]) -> Platform | None:
    """Return the platform that an image config is for, if it says so."""
    parts = [config.get(key) for key in ("os", "architecture", "variant")]
    os_, architecture, variant = (p if isinstance(p, str) else "" for p in parts)
    if not os_ or not architecture:
        return None
    return Platform(shown(os_), shown(architecture), variant and shown(variant))
