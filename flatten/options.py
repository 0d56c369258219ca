"""The options of an export, in one frozen dataclass."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from .errors import UsageError, quoted
from .host.limits import Limits
from .image.history import Point
from .tree.edit import NO_EDITS, Edits


def nothing() -> None:
    """Do nothing."""


CHOICES: Final = {
    "format": ("gnu", "pax"),
    "reflink": ("auto", "always", "never"),
    "ownership": ("keep", "current"),
    "image_kind": (None, "oci", "docker"),
}
"""Fields with a fixed set of values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to read an image and write the output.

    Attributes:
        platform: ``os/architecture[/variant]``, to select one of several in the source.
        store: A docker driver or a containerd namespace, to select one of several.
        at: Flatten the image as it was at this point in its history.
        since: Write only the changes since this point, as a layer to put on top.
        with_init: For a container, include docker's init layer, as ``docker export``
            does.
        verify: Check the layers against the image's digests.
        limits: Limits on the resources that the image may take.
        edits: Paths to leave out, move or add, and changes of owners.
        mtime: Reduce later mtimes to this one (seconds), as ``tar --clamp-mtime`` does.
        format: ``gnu``, or ``pax`` for POSIX headers throughout.
        compress: ``zstd[:level]``, ``gzip[:level]``, ``xz[:level]`` or ``none``; None
            selects by the suffix of the output.
        reflink: Share contents with the image's file instead of copying them: ``auto``
            if the file system supports it, ``always`` to fail if not, or ``never``.
            Sharing changes the padding in the tar, but not its meaning.
        image_kind: Write an image, ``oci`` or ``docker``, with one layer; with
            ``since``, with the layers up to that point and one more.
        tags: Names of the written image; by default, the source image's names.
        ownership: For a directory output, ``keep`` sets the image's owners, ``current``
            leaves everything to the calling user.
        size: Size of a disk or file system in bytes or, with a leading ``+``, of its
            free space; None chooses a default.
        force: Replace a directory that is not empty.
        config_out: Path or open descriptor to write the image's config document to.
        list_out: Path or open descriptor to write a list of the output's entries to.
        strict: Refuse devices, unknown setuid files, and the like (``strict``).
        allow_setuid: Paths that may be setuid nevertheless.
        sync: Flush a file to disk before it gets its name, so that after a power cut
            either the complete new file or the old one is there.
        settle: Called when all checks have passed, before an output gets its name; an
            exception prevents that.
        progress: When to show a progress bar on standard error: ``auto``, ``always`` or
            ``never``.
    """

    platform: str | None = None
    store: str | None = None
    at: Point | None = None
    since: Point | None = None
    with_init: bool = False
    verify: bool = True
    limits: Limits = field(default_factory=Limits)
    edits: Edits = NO_EDITS
    mtime: int | None = None
    format: str = "gnu"
    compress: str | None = None
    reflink: str = "never"
    image_kind: str | None = None
    tags: tuple[str, ...] = ()
    ownership: str = "keep"
    size: str | None = None
    force: bool = False
    config_out: str | os.PathLike[str] | int | None = None
    list_out: str | os.PathLike[str] | int | None = None
    strict: bool = False
    allow_setuid: tuple[str, ...] = ()
    sync: bool = True
    settle: Callable[[], object] = nothing
    progress: str = "never"

    def __post_init__(self) -> None:
        """Check the fields with a fixed set of values."""
        for name, words in CHOICES.items():
            word = getattr(self, name)
            if word not in words:
                raise UsageError(f"{quoted(word)} is not a valid {name}; choose from "
                                 f"{', '.join(filter(None, words))}")  # fmt: skip
