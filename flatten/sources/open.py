"""Open the image that a reference names; there is one module for each kind of image.

``references`` says what a reference is. Without a kind, the modules of ``KINDS`` are
tried in order. Each has ``detect(files) -> bool`` and ``entries(files)``, which lists
the images, and is imported only when it is tried.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

from ..errors import FlattenError, SourceError, quoted
from ..host.files import File, LayerBytes
from ..host.inputs import open_file, plain
from ..host.spools import Pool
from ..image.history import cut
from ..image.image import Image, Transfer
from ..options import Access, Selection
from .archive import Archive
from .choice import CONTAINER, Entry, Wanted, choose, in_store, named, parse_platform
from .documents import Files
from .folder import Folder
from .places import stores_below, usual_place
from .references import (
    DAEMONS,
    KINDS,
    REGISTRY,
    is_url,
    parse_reference,
    registry_hint,
)
from .unknown import describe

if TYPE_CHECKING:
    from .engines.survey import Survey


class Source(Protocol):
    """A module of this package that opens one kind of image."""

    def detect(self, files: Files) -> bool:
        """Return True if the files look like an image of this kind."""

    def entries(self, files: Files) -> Sequence[Entry]:
        """List the images."""


class RootSource(Source, Protocol):
    """A source that is an engine's root, which holds more than images."""

    def containers(self, files: Files) -> Sequence[Entry]:
        """List the containers; their names and ids begin with ``CONTAINER``."""

    def survey(self, files: Files) -> "Survey":
        """Return what else the root holds."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A source that is open.

    Attributes:
        entries: Its images, or those that the name selects.
        where: Its name in messages.
        by_namespace: Whether the ``store`` of entries is a namespace, not a driver.
        root: Returns what an engine's root holds besides images; None in archives.
        files: The files that it was opened from, and those that images are read from.
        transfer: Returns how much of it was fetched; None if it is on this machine.
    """

    entries: Sequence[Entry]
    where: str
    by_namespace: bool
    root: "Callable[[], Survey] | None"
    files: Sequence[File]
    transfer: Callable[[], Transfer] | None = None

    def load(self) -> tuple[list[Image], list[FlattenError]]:
        """Open the images; return them, and the errors of the others."""
        images: list[Image] = []
        broken: list[FlattenError] = []
        for entry in self.entries:
            try:
                images.append(entry.load())
            except FlattenError as error:
                broken.append(error)
        return images, broken

    def check_unchanged(self) -> None:
        """Check that no file was modified since it was opened.

        Raises:
            FlattenError: A file was modified.
        """
        for file in self.files:
            file.check_unchanged()

    def survey(self) -> "Survey":
        """Return what the source holds besides images: nothing in an archive."""
        from .engines.survey import Survey  # for those who look for waste

        return Survey() if self.root is None else self.root()


def open_image(
    reference: str,
    selection: Selection | None = None,
    *,
    verify: bool = True,
    advance: Callable[[int], object] | None = None,
) -> Image:
    """Open the image that ``reference`` names, whatever kind of source it is in.

    Args:
        reference: ``[KIND:]PATH[#NAME]``; PATH ``-`` is standard input. NAME is one
            of the image's names, its id or the start of that, or ``@N``, its
            position. It can be omitted if the source holds one image.
        selection: Which image of the source; by default, ``Selection()``.
        verify: Hash layers as they are inflated, so that checking their digests need
            not read them again.
        advance: Called with the number of bytes for each chunk that is inflated or
            comes from a pipe, in several threads.

    Raises:
        SourceError: The path does not exist or holds no image of a known kind, or no
            image has that name or platform.
        UsageError: The reference matches more than one image.
        FormatError: The source breaks its format.
    """
    selection = selection or Selection()
    text = selection.platform
    platform = None if text is None else parse_platform(text)
    with ExitStack() as resources:
        new_pool = partial(Pool, selection.limits, hashing=verify, advance=advance)
        opened, name = _open(reference, selection, resources, new_pool)
        wanted = Wanted(name, platform, selection.store)
        image = choose(opened.entries, wanted, opened.where).load()
        if not selection.with_init:
            image = _without_init(image)
        return replace(
            cut(image, selection.at),
            path=_place(reference, image),
            transfer=opened.transfer,
            check_unchanged=opened.check_unchanged,
            resources=resources.pop_all(),
        )


def _without_init(image: Image) -> Image:
    """Return a container without the layer that docker makes for it."""
    if image.init is None:
        return image
    layers = (*image.layers[: image.init], *image.layers[image.init + 1 :])
    return replace(image, layers=layers, init=None)


@contextmanager
def open_family(
    reference: str, selection: Selection | None = None
) -> Iterator[tuple[list[Image], list[FlattenError]]]:
    """Open all images of a source that can be opened.

    Args:
        reference: ``[KIND:]PATH``; a name in it is ignored.
        selection: The limits on resources, and the access to registries.

    Yields:
        The images, and the errors of the others.

    Raises:
        SourceError: As ``open_image``.
        FormatError: As ``open_image``.
    """
    with ExitStack() as resources:
        opened, _ = _open(reference, selection or Selection(), resources)
        yield opened.load()


@contextmanager
def open_source(reference: str, selection: Selection | None = None) -> Iterator[Opened]:
    """Open a source; some of its images may not be readable.

    Args:
        reference: ``[KIND:]PATH``; with ``#NAME``, only images that the name selects.
        selection: Which store, the limits on resources, and the access to registries.

    Raises:
        SourceError: As ``open_image``.
        FormatError: The source cannot list its images.
    """
    with ExitStack() as resources:
        selection = selection or Selection()
        opened, name = _open(reference, selection, resources)
        entries, store = opened.entries, selection.store
        if store is not None:
            entries = in_store(entries, store, opened.where)
        if name is not None:
            entries = named(entries, name)
            if not entries:
                choose(opened.entries, Wanted(name, store=store), opened.where)
        yield replace(opened, entries=entries)


def _place(reference: str, image: Image) -> str:
    """Return an image's path on the host, or "" if it has none.

    For a data directory, it is the directory that holds the image.
    """
    if os.path.isdir(image.source):
        return image.source
    kind, path, _ = parse_reference(reference)
    if kind in (REGISTRY, *DAEMONS) or is_url(path):
        return ""
    return "/dev/stdin" if path == "-" else path


def _open(
    reference: str,
    selection: Selection,
    resources: ExitStack,
    new_pool: Callable[[], Pool] | None = None,
) -> tuple[Opened, str | None]:
    """Open a source; return it and the name in the reference.

    Args:
        reference: As for ``open_image``.
        selection: As for ``open_image``.
        resources: Closes what is opened.
        new_pool: Returns a pool for compressed bytes; None enforces only the limits.
    """
    kind, path, name = parse_reference(reference)
    new_pool = new_pool or partial(Pool, selection.limits)
    return _open_path(kind, path, name, selection.access, resources, new_pool), name


def _open_path(  # noqa: PLR0913, PLR0917 - a reference in its parts
    kind: str | None,
    path: str,
    name: str | None,
    access: Access,
    resources: ExitStack,
    new_pool: Callable[[], Pool],
) -> Opened:
    """Open the source at a path.

    A directory may be of several kinds, as docker keeps its old directories when it
    moves its images. The first kind that has images counts.
    """
    pool = new_pool()
    resources.callback(pool.close)
    files, opened_files, transfer = _open_files(kind, path, pool, access, resources)
    empty: Opened | None = None
    for module in _modules(kind):
        source = cast("Source", import_module(f".{module}", __package__))
        if source.detect(files):
            entries = _entries(source, files, name)
            root = cast("RootSource", source).survey if _is_root(source) else None
            survey = root and partial(root, files)
            by_namespace = module == KINDS["containerd"]
            opened = Opened(
                entries, files.name, by_namespace, survey, opened_files, transfer
            )
            if entries:
                return opened
            empty = empty or opened
    if kind is None and empty is None and isinstance(files, Folder):
        empty = _open_below(path, name, access, resources, new_pool)
    if empty is not None:
        return empty
    raise _no_image(files, path, kind)


def _modules(kind: str | None) -> list[str]:
    """Return the modules to try for a kind, in order."""
    if kind == REGISTRY:
        return ["registry.images"]
    if kind in DAEMONS:
        return [KINDS["docker-archive"]]
    return [*KINDS.values()] if kind is None else [KINDS[kind]]


def _open_below(
    path: str,
    name: str | None,
    access: Access,
    resources: ExitStack,
    new_pool: Callable[[], Pool],
) -> Opened | None:
    """Open the engine's directory in a root file system that has the image."""
    found: Opened | None = None
    for place in stores_below(path):
        try:
            opened = _open_path(None, place, name, access, resources, new_pool)
        except SourceError:  # the engine was installed, but has no data
            continue
        if name is None or name.startswith(CONTAINER):
            has = bool(opened.entries)
        else:
            has = bool(named(opened.entries, name))
        if has:
            return opened
        found = found or opened
    return found


def _no_image(files: Files, path: str, kind: str | None) -> SourceError:
    """Return the error that says what is there instead of an image."""
    named = "standard input" if path == "-" else quoted(path)
    if is_url(path):
        named = files.name  # without what a signed URL has in its query
    if kind is not None:
        return SourceError(f"{named}: not an image of the kind {kind}")
    found = describe(files)
    if found is not None:
        return SourceError(f"{named}: not a container image, but {found}")
    tried = ", ".join(KINDS)
    return SourceError(
        f"{named}: not a container image of a known kind (tried {tried})"
    )


def _entries(source: Source, files: Files, name: str | None) -> Sequence[Entry]:
    """Return the images of a source, or its containers if the name is a container's."""
    if name is None or not name.startswith(CONTAINER):
        return source.entries(files)
    if not _is_root(source):
        raise SourceError(f"{files.name}: only engines' roots have containers")
    return cast("RootSource", source).containers(files)


def _is_root(source: Source) -> bool:
    return hasattr(source, "containers")


def _open_files(
    kind: str | None, path: str, pool: Pool, access: Access, resources: ExitStack
) -> tuple[Files, Sequence[File], Callable[[], Transfer] | None]:
    """Open a repository, an engine's stream, a URL, a directory or an archive.

    Returns:
        Its files by name; the files of this machine that were opened, to which a
        directory adds later; and what returns how much was fetched, if anything was.
    """
    if kind == REGISTRY:
        from .registry.repository import (  # urllib3, 60 ms
            Repository,
        )

        repository = Repository(path, pool, access)
        resources.callback(repository.close)
        return repository, (), repository.transfer
    if kind in DAEMONS:
        from .daemon import open_daemon  # http.client, 20 ms

        stream = open_daemon(kind, path, pool)
        return _archive(stream, stream.where, pool), (), None
    if is_url(path):
        from .remote import open_url  # urllib3, for URLs only

        remote, where, transfer = open_url(path, pool, access, resources)
        archive = _archive(remote, where, pool, parts=access.parts)
        return archive, (), transfer
    if kind is not None and not path:
        path = usual_place(kind) or path
    if os.path.isdir(path):
        folder = Folder(path, pool)
        resources.callback(folder.resources.close)
        return folder, folder.opened, None
    if kind is None and not os.path.lexists(path) and (hint := registry_hint(path)):
        raise SourceError(f"{quoted(path)}: No such file or directory{hint}")
    file = open_file(path, pool)
    opened = []
    if isinstance(file, File):
        resources.callback(file.close)
        opened.append(file)
    return _archive(file, file.where, pool), opened, None


def _archive(
    file: LayerBytes, name: str, pool: Pool, *, parts: bool = False
) -> Archive:
    """Return the archive in a file, which may be compressed."""
    archive = plain(file, pool, name)
    if archive is not file:
        archive.size()  # errors in the compressed data come first
    return Archive(archive, name, pool, parts=parts)
