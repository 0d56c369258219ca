"""What opens what: one module a kind of image.

A reference is ``[KIND:]PATH[#NAME]``. Without a kind, the modules of ``KINDS`` are
asked in order. Each has ``detect(files) -> bool`` and ``entries(files)``, which lists
the images, and is imported only when it is asked.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Final, Protocol, cast

from ..errors import FlattenError, SourceError, quoted
from ..host.files import File
from ..host.inputs import open_file, plain
from ..host.limits import Limits
from ..host.spools import Pool
from ..image.history import Point, cut
from ..image.image import Image
from .archive import Archive
from .choice import CONTAINER, Entry, Wanted, choose, in_store, named, parse_platform
from .documents import Files
from .folder import Folder
from .registry.settings import Access

if TYPE_CHECKING:
    from .engines.survey import Survey


class Source(Protocol):
    """A module of this package that opens one kind of image."""

    def detect(self, files: Files) -> bool:
        """Say whether the files look like an image of this kind."""

    def entries(self, files: Files) -> Sequence[Entry]:
        """List the images."""


class RootSource(Source, Protocol):
    """A source that is an engine's root: it has more than images."""

    def containers(self, files: Files) -> Sequence[Entry]:
        """List the containers; their names and ids begin with ``CONTAINER``."""

    def survey(self, files: Files) -> "Survey":
        """Return what else there is."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A source that is open.

    Attributes:
        entries: Its images, or those that were asked for.
        where: Its name in messages.
        by_namespace: Their ``store`` is a namespace, not a driver.
        root: What an engine's root has besides, to be asked for; None in archives.
        pool: What holds its files and what they inflate to.
    """

    entries: Sequence[Entry]
    where: str
    by_namespace: bool
    root: "Callable[[], Survey] | None"
    pool: Pool

    def load(self) -> tuple[list[Image], list[FlattenError]]:
        """Open the images, and say what is wrong with those that cannot be."""
        images: list[Image] = []
        broken: list[FlattenError] = []
        for entry in self.entries:
            try:
                images.append(entry.load())
            except FlattenError as error:
                broken.append(error)
        return images, broken

    def survey(self) -> "Survey":
        """Return what the source has besides its images: in an archive, nothing."""
        from .engines.survey import (  # noqa: PLC0415 - for those who look for waste
            Survey,
        )

        return Survey() if self.root is None else self.root()


REGISTRY: Final = "docker"
"""The kind of ``docker://`` references, as skopeo spells it."""

KINDS: Final = {
    REGISTRY: "registry.images",
    "docker-archive": "docker_archive",
    "oci-archive": "oci_archive",
    "oci": "oci_layout",
    "docker-root": "engines.docker_root",
    "graph": "engines.docker_graph",
    "containers-storage": "engines.containers_storage",
    "containerd": "engines.containerd",
}
"""Each kind, as skopeo spells those it knows, and its module.

They are asked in this order; archives that are docker's and OCI's are docker's.
"""


def open_image(  # noqa: PLR0913 - all by keyword
    reference: str,
    *,
    platform: str | None = None,
    limits: Limits | None = None,
    store: str | None = None,
    at: Point | None = None,
    with_init: bool = False,
) -> Image:
    """Open the image that ``reference`` names, whatever kind of source it is in.

    Args:
        reference: ``[KIND:]PATH[#NAME]``; PATH ``-`` is standard input. NAME is one
            of the image's names, its id or the start of that, or ``@N``, its
            position. It can be left out where the source holds one image.
        platform: ``os/architecture[/variant]``, where the source has several;
            None takes the host's.
        limits: What the image may cost.
        store: A driver of docker's or a namespace of containerd's, where the source
            has several; None looks in all.
        at: Open it as it stood there.
        with_init: Keep the layer that docker makes for a container itself, as
            ``docker export`` does.

    Raises:
        SourceError: The path does not exist or holds no kind of image that is known,
            or no image has that name or platform.
        UsageError: The source holds several images and the reference fits more
            than one.
        FormatError: The source breaks its format.
    """
    platform_ = None if platform is None else parse_platform(platform)
    with ExitStack() as resources:
        opened, name = _open(reference, limits, resources)
        wanted = Wanted(name, platform_, store)
        image = choose(opened.entries, wanted, opened.where).load()
        if image.init is not None and not with_init:
            layers = image.layers
            image.layers = (*layers[: image.init], *layers[image.init + 1 :])
            image.init = None
        image = cut(image, at)
        image.path = _place(reference, image)
        image.check_unchanged = opened.pool.check_unchanged
        image.resources = resources.pop_all()
        return image


@contextmanager
def open_images(
    reference: str, *, limits: Limits | None = None
) -> Iterator[list[Image]]:
    """Open all images that a source holds, for as long as the context lasts.

    Args:
        reference: ``[KIND:]PATH``; with ``#NAME``, those that the name fits.
        limits: What they may cost.

    Raises:
        SourceError: As ``open_image``.
        FormatError: As ``open_image``.
    """
    with ExitStack() as resources:
        opened, name = _open(reference, limits, resources)
        entries = opened.entries if name is None else named(opened.entries, name)
        yield [entry.load() for entry in entries]


@contextmanager
def open_family(
    reference: str, *, limits: Limits | None = None
) -> Iterator[tuple[list[Image], list[FlattenError]]]:
    """Open all images of a source, but for those that cannot be opened.

    Args:
        reference: ``[KIND:]PATH``; a name is left out.
        limits: What they may cost.

    Yields:
        The images, and what is wrong with the others.

    Raises:
        SourceError: As ``open_image``.
        FormatError: As ``open_image``.
    """
    with ExitStack() as resources:
        opened, _ = _open(reference, limits, resources)
        yield opened.load()


@contextmanager
def open_source(
    reference: str, *, limits: Limits | None = None, store: str | None = None
) -> Iterator[Opened]:
    """Open a source, whose images may be broken, for as long as the context lasts.

    Args:
        reference: ``[KIND:]PATH``; with ``#NAME``, images that the name fits.
        limits: What they may cost.
        store: A driver of docker's or a namespace of containerd's; None is all.

    Raises:
        SourceError: As ``open_image``.
        FormatError: The source cannot list its images.
    """
    with ExitStack() as resources:
        opened, name = _open(reference, limits, resources)
        entries = opened.entries
        if store is not None:
            entries = in_store(entries, store, opened.where)
        if name is not None:
            entries = named(entries, name)
            if not entries:
                choose(opened.entries, Wanted(name, store=store), opened.where)
        yield replace(opened, entries=entries)


def _place(reference: str, image: Image) -> str:
    """Return where an image is on the host: of a store, the directory that it is in."""
    if os.path.isdir(image.source):
        return image.source
    path = parse_reference(reference)[1]
    return "/dev/stdin" if path == "-" else path


def _open(
    reference: str,
    limits: Limits | None,
    resources: ExitStack,
    access: Access | None = None,
) -> tuple[Opened, str | None]:
    """Open a source, and return the name that is asked for too.

    A directory may be of several kinds: docker keeps one for each place that it has had
    its images in. The first that has any counts.
    """
    kind, path, name = parse_reference(reference)
    pool = Pool(limits or Limits())
    resources.callback(pool.close)
    if kind == REGISTRY:
        files = _open_repository(path, access or Access(), pool, resources)
    else:
        files = _open_files(path, pool, resources)
    empty: Opened | None = None
    for module in KINDS.values() if kind is None else [KINDS[kind]]:
        source = cast("Source", import_module(f".{module}", __package__))
        if source.detect(files):
            entries = _entries(source, files, name)
            root = cast("RootSource", source).survey if _is_root(source) else None
            survey = root and partial(root, files)
            by_namespace = module == KINDS["containerd"]
            opened = Opened(entries, files.name, by_namespace, survey, pool)
            if entries:
                return opened, name
            empty = empty or opened
    if empty is not None:
        return empty, name
    tried = kind or ", ".join(KINDS)
    what = quoted(path) if path != "-" else "standard input"
    raise SourceError(f"{what}: no kind of image that is known (tried {tried})")


def _entries(source: Source, files: Files, name: str | None) -> Sequence[Entry]:
    """Return the images of a source, or its containers where one is asked for."""
    if name is None or not name.startswith(CONTAINER):
        return source.entries(files)
    if not _is_root(source):
        raise SourceError(f"{files.name}: only engines' roots have containers")
    return cast("RootSource", source).containers(files)


def _is_root(source: Source) -> bool:
    return hasattr(source, "containers")


def _open_files(path: str, pool: Pool, resources: ExitStack) -> Files:
    """Open what a path names: a directory, or an archive that may be compressed."""
    if os.path.isdir(path):
        folder = Folder(path, pool)
        resources.callback(folder.resources.close)
        return folder
    file = open_file(path, pool)
    if isinstance(file, File):
        resources.callback(file.close)
        pool.files.append(file)
    archive = plain(file, pool, file.where)
    if archive is not file:
        archive.size()  # what is wrong with the compressed data comes first
    return Archive(archive, file.where, pool)


def _open_repository(
    name: str, access: Access, pool: Pool, resources: ExitStack
) -> Files:
    from .registry.repository import (  # noqa: PLC0415 - urllib3, 60 ms
        Repository,
    )

    repository = Repository(name, pool, access)
    resources.callback(repository.close)
    return repository


def parse_reference(reference: str) -> tuple[str | None, str, str | None]:
    """Split a reference into kind, path and image name.

    A path that exists is meant whole, with any colon or hash sign in it.

    >>> parse_reference("docker-archive:a/b.tar#alpine:3.20")
    ('docker-archive', 'a/b.tar', 'alpine:3.20')
    >>> parse_reference("-#app:1")
    (None, '-', 'app:1')
    """
    if reference.startswith(f"{REGISTRY}://"):
        return REGISTRY, reference.removeprefix(f"{REGISTRY}://"), None
    if os.path.lexists(reference):
        return None, reference, None
    kind: str | None
    kind, colon, rest = reference.partition(":")
    if not colon or kind not in KINDS:
        kind, rest = None, reference
    marks = [at for at, character in enumerate(rest) if character == "#"]
    for stop in (len(rest), *marks):
        if os.path.lexists(rest[:stop]):
            return kind, rest[:stop], rest[stop + 1 :] if stop < len(rest) else None
    path, mark, name = rest.partition("#")
    return kind, path, name if mark else None
