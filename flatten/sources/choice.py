"""Choose one image of a source: by name, id, position and platform."""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from ..errors import FlattenError, FormatError, SourceError, UsageError, quoted, shown
from ..image.image import Image

CONTAINER: Final = "container:"
"""Prefix of the names of containers in references."""

USUAL_DRIVER: Final = "overlay2"
"""Docker's default driver: it is taken where several have the same image."""

_DIGEST: Final = re.compile(r"sha[0-9]+:|[0-9a-f]{64,}(:|\Z)", re.IGNORECASE)
_SHORT_ID: Final = re.compile(r"[0-9a-f]{12,63}", re.IGNORECASE)  # docker shows 12
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
        """Return True if ``other`` is this platform; a missing variant fits any."""
        return (self.os, self.architecture) == (other.os, other.architecture) and (
            "" in (self.variant, other.variant) or self.variant == other.variant
        )


def parse_platform(text: str) -> Platform:
    """Read ``os/architecture[/variant]``.

    Raises:
        UsageError: The text has another form.

    >>> str(parse_platform("linux/arm/v7"))
    'linux/arm/v7'
    """
    if not re.fullmatch(r"[^/]+/[^/]+(/[^/]+)?", text):
        raise UsageError(
            "--platform: expected OS/ARCH[/VARIANT], such as linux/arm64, got "
            f"{quoted(text)}"
        )
    return Platform(*text.lower().split("/"))


def host_platform() -> Platform:
    """Return this machine's platform; the operating system is always linux."""
    machine = os.uname().machine
    return Platform("linux", *_ARCHITECTURES.get(machine, (machine, "")))


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a user wants from a source.

    Attributes:
        name: A name with tag, an id or the start of one, or ``@N``.
        platform: The platform; None means the host's, if there is a choice.
        store: The part of the source to look in; None means all.
    """

    name: str | None = None
    platform: Platform | None = None
    store: str | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """An image, or a container, that can be chosen, and how to open it.

    Attributes:
        ids: Hex digests of its config, its manifest and the indexes that list it; the
            first one is shown. Those of SHA-512 begin with ``sha512:``.
        names: Its names, with tags.
        load: Opens it: finds its layers.
        platform: Returns its platform, or None if that is not recorded.
        store: The part of the source that it is in: one of docker's drivers or of
            containerd's namespaces; "" in an archive.
        hashed: Whether the ids are digests of bytes that were read, or an engine's
            record of them. False where they are only names in an archive (docker
            before 1.10).
        problem: Why it cannot be opened, if that is known before.
        fetched: False for an image of which only the name is there. It is chosen only
            by that name, which then says why it cannot be opened.
    """

    ids: tuple[str, ...]
    names: tuple[str, ...]
    load: Callable[[], Image]
    platform: Callable[[], Platform | None] = lambda: None
    store: str = ""
    hashed: bool = True
    problem: FlattenError | None = None
    fetched: bool = True


def container_entry(
    id_: str,
    names: Iterable[str],
    store: str,
    load: Callable[[tuple[str, ...]], Image],
) -> Entry:
    """Return the entry of a container. It ran here, so it has no platform.

    Args:
        id_: The container's id.
        names: The container's names.
        store: The part of the source that it is in, as of any entry.
        load: Opens it, given its names as they are in references.
    """
    called = tuple(f"{CONTAINER}{name}" for name in names)
    return Entry((f"{CONTAINER}{id_}",), called, lambda: load(called), store=store)


def broken_entry(
    ids: tuple[str, ...],
    names: tuple[str, ...],
    store: str,
    error: FlattenError,
    *,
    fetched: bool = True,
) -> Entry:
    """Return the entry of an image that cannot be opened, beside others that can."""

    def load() -> Image:
        raise error

    return Entry(ids, names, load, store=store, problem=error, fetched=fetched)


def choose(entries: Sequence[Entry], wanted: Wanted, where: str) -> Entry:
    """Return the one image that is wanted.

    A full name wins over one without its registry, that over an id, and an id over the
    start of one. If several are left, the platform decides.

    Raises:
        FormatError: There are no images.
        SourceError: No image matches.
        UsageError: Several images match.
    """
    if not entries:
        is_container = (wanted.name or "").startswith(CONTAINER)
        what = "container" if is_container else "image"
        raise FormatError(f"holds no {what}", where=where)
    if wanted.store is not None:
        entries = in_store(entries, wanted.store, where)
    found = _asked_for(entries, wanted.name, where)
    fits = found
    if wanted.name is not None or wanted.platform is not None or _is_one_image(found):
        fits = _on_platform(found, wanted.platform)
    if not fits and wanted.platform is not None:
        raise SourceError(
            f"{where}: no image for {wanted.platform}; it has{_listed(entries)}"
        )
    if len({entry.store for entry in fits}) > 1:
        fits = [entry for entry in fits if entry.store == USUAL_DRIVER] or fits
    if len(fits) == 1:
        return fits[0]
    several = "holds several images" if wanted.name is None else (
        f"{quoted(wanted.name)} fits several"
    )  # fmt: skip
    raise UsageError(
        f"{where}: {several}, choose one with #NAME, --image NAME or --platform"
        f"{_store_options(fits or found)}:{_listed(entries, fits or found)}"
    )


def _asked_for(entries: Sequence[Entry], name: str | None, where: str) -> list[Entry]:
    """Return the entries that a name selects; without a name, all that are there.

    Raises:
        SourceError: There are none.
    """
    if name is None:
        return [entry for entry in entries if entry.fetched] or list(entries)
    found = named(entries, name)
    if not found:
        raise SourceError(
            f"{where}: no image {quoted(name)} in it; it has{_listed(entries)}"
        )
    return found


def _is_one_image(entries: Sequence[Entry]) -> bool:
    """Return True if images differ only in their platforms.

    They share a name or an index; or none has a name, and each its own platform.
    """
    if set.intersection(*({*entry.names, *entry.ids} for entry in entries)):
        return True
    platforms = {platform_of(entry) for entry in entries}
    return not any(entry.names for entry in entries) and len(platforms) == len(entries)


def platform_of(entry: Entry) -> Platform | None:
    """Return an entry's platform; None too if it cannot be read, as ``load`` says."""
    try:
        return entry.platform()
    except FlattenError:
        return None


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
    """Return the options that also tell the images apart, for a message."""
    several = len({entry.store for entry in entries}) > 1
    return ", --driver or --namespace" if several else ""


def named(entries: Sequence[Entry], name: str) -> list[Entry]:
    """Return the entries that a name selects.

    The first of several ways to match that matches any entry decides. A digest matches
    digests only, and a short id only ids: an archive may have any text as a name, even
    one that looks like a digest.
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
    if _DIGEST.match(name):
        entries = [entry for entry in entries if entry.hashed]
        exact = [entry for entry in entries if hexdigits in entry.ids]
        return exact or [entry for entry in entries if _begins(entry, hexdigits)]
    if _SHORT_ID.fullmatch(name):
        return [entry for entry in entries if _begins(entry, name)]
    tagged = name if ":" in name.rpartition("/")[2] else f"{name}:latest"
    on_hub = tagged != familiar(tagged)
    tests: tuple[Callable[[Entry], bool], ...] = (
        lambda entry: name in entry.names,
        lambda entry: tagged in entry.names,
        lambda entry: on_hub and familiar(tagged) in map(familiar, entry.names),
        lambda entry: local(tagged) in map(local, entry.names),
        lambda entry: hexdigits in entry.ids,
        lambda entry: _begins(entry, hexdigits),
    )
    for test in tests:
        found = [entry for entry in entries if test(entry)]
        if found:
            return found
    return []


def _begins(entry: Entry, digits: str) -> bool:
    """Return True if an id of an image begins with some digits."""
    return not "sha512:".startswith(digits) and any(
        known.startswith(digits) for known in entry.ids
    )


def _digests(entry: Entry) -> set[str]:
    """Return all digests of an image; an engine also records some in names."""
    ids = {*entry.ids} if entry.hashed else set[str]()
    recorded = entry.names if entry.store else ()
    return ids | {name.partition("@sha256:")[2] for name in recorded}


def _on_platform(entries: list[Entry], platform: Platform | None) -> list[Entry]:
    """Return the entries for a platform; the host's, if none is wanted.

    Entries without a platform are taken only if no other fits. A single image fits
    unless another platform is wanted.
    """
    if platform is None and len(entries) == 1:
        return entries
    asked = platform or host_platform()
    known = [(entry, platform_of(entry)) for entry in entries]
    if platform is None and len({found for _, found in known}) == 1:
        return entries  # the platform makes no difference
    fits = [entry for entry, found in known if found is not None and asked.runs(found)]
    exact = [entry for entry, found in known if found == asked]
    return exact or fits or [entry for entry, found in known if found is None]


def familiar(name: str) -> str:
    """Strip what docker puts before short names.

    >>> familiar("docker.io/library/alpine:3.20"), familiar("localhost/app:1")
    ('alpine:3.20', 'localhost/app:1')
    """
    for prefix in ("index.docker.io/", "docker.io/"):
        name = name.removeprefix(prefix)
    return name.removeprefix("library/")


def local(name: str) -> str:
    """Strip what docker or podman puts before short names.

    >>> local("docker.io/library/alpine:3.20"), local("localhost/app:1")
    ('alpine:3.20', 'app:1')
    """
    return familiar(name.removeprefix("localhost/"))


def _repository(name: str) -> str:
    """Return a name without registry, tag and digest.

    >>> _repository("docker.io/library/alpine:3.20"), _repository("host:5000/a@sha256:")
    ('alpine', 'host:5000/a')
    """
    head, slash, tail = local(name.partition("@")[0]).rpartition("/")
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
        parts = [
            f"@{position}",
            names,
            entry.ids[0].rpartition(":")[2][:12] if entry.ids else "",
            str(platform_of(entry) or ""),
            f"in {entry.store}" if several else "",
            "(cannot be opened)" if entry.problem is not None else "",
        ]
        listed.append(" ".join(filter(None, parts)))
    if len(found) > _SHOWN:
        listed.append(f"and {len(found) - _SHOWN:,} more: flatten images lists them")
    between = " " if len(listed) == 1 else "\n  "
    return "".join(between + line for line in listed)


def config_platform(config: dict[str, object]) -> Platform | None:
    """Return the platform that an image config is for, or None if it has none."""
    parts = [config.get(key) for key in ("os", "architecture", "variant")]
    os_, architecture, variant = (p if isinstance(p, str) else "" for p in parts)
    if not os_ or not architecture:
        return None
    return Platform(shown(os_), shown(architecture), variant and shown(variant))
