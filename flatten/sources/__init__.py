"""What opens what: one module a kind of image.

A reference is ``[KIND:]PATH[#NAME]``. Without a kind, the modules of ``SOURCES`` are
asked in order. Each has ``KIND``, its name as skopeo spells it where skopeo knows it,
``detect(archive) -> bool`` and ``load(archive, name) -> Image``.
"""

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

from ..errors import SourceError, quoted
from ..model import Image
from ..streams import File
from . import docker_archive
from .archive import Archive


class Source(Protocol):
    """A module of this package that opens one kind of image."""

    @property
    def KIND(self) -> str:  # noqa: N802 - a module's constant
        """Its name in references."""

    def detect(self, archive: Archive) -> bool:
        """Say whether the archive looks like one of this kind."""

    def load(self, archive: Archive, name: str | None) -> Image:
        """Open one image of the archive."""


SOURCES: tuple[Source, ...] = (docker_archive,)
"""Asked in this order."""


def open_image(reference: str) -> Image:
    """Open the image that ``reference`` names, whatever kind of source it is in.

    Args:
        reference: ``[KIND:]PATH[#NAME]``. The name of an image in the source is one
            of its tags, its id or a prefix of that, or ``@N``, its position. It can
            be left out where the source holds one image.

    Raises:
        SourceError: The path does not exist or holds no kind of image that is known,
            or no image has that name.
        UsageError: The source holds several images and the reference fits more
            than one.
        FormatError: The source breaks its format.
    """
    kind, path, name = parse_reference(reference)
    with ExitStack() as resources:
        file = File(Path(path), path)
        resources.callback(file.close)
        archive = Archive(file)
        for source in SOURCES:
            if kind == source.KIND or (kind is None and source.detect(archive)):
                image = source.load(archive, name)
                image.resources = resources.pop_all()
                return image
    tried = ", ".join(source.KIND for source in SOURCES)
    raise SourceError(f"{quoted(path)}: no kind of image that is known (tried {tried})")


def parse_reference(reference: str) -> tuple[str | None, str, str | None]:
    """Split a reference into kind, path and image name.

    A path that exists is meant whole, with any colon or hash sign in it.

    >>> parse_reference("docker-archive:a/b.tar#alpine:3.20")
    ('docker-archive', 'a/b.tar', 'alpine:3.20')
    >>> parse_reference("b.tar")
    (None, 'b.tar', None)
    """
    if os.path.lexists(reference):
        return None, reference, None
    kind = None
    for source in SOURCES:
        if reference.startswith(source.KIND + ":"):
            kind = source.KIND
            reference = reference.removeprefix(kind + ":")
    if os.path.lexists(reference):
        return kind, reference, None
    path, mark, name = reference.partition("#")
    while mark and not os.path.lexists(path) and "#" in name:
        more, mark, name = name.partition("#")
        path += "#" + more
    if not mark:
        return kind, reference, None
    return kind, path if os.path.lexists(path) else reference.split("#", 1)[0], name
