"""What an export can be asked for, in one frozen record."""

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
"""Fields that take one of a few words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to read an image, and how to write it.

    Attributes:
        platform: ``os/architecture[/variant]``, where the source has several.
        store: A driver of docker's or a namespace of containerd's, likewise.
        at: Flatten the image as it stood there.
        since: Write only what is new since there, as a layer that goes on top.
        with_init: Of a container, keep docker's own layer, as ``docker export`` does.
        verify: Check layers against the image's digests.
        limits: What the image may cost.
        edits: What to leave out, move, add and own otherwise.
        mtime: Later mtimes become this one (seconds), as ``tar --clamp-mtime``.
        format: ``gnu``, or ``pax`` for POSIX headers throughout.
        compress: ``zstd[:level]``, ``gzip[:level]``, ``xz[:level]`` or ``none``; None
            goes by the suffix of the output.
        reflink: Share contents with the image's file instead of copying them:
            ``auto`` where the file system can, ``always`` or else fail, ``never``.
            It changes padding, so bytes, and never what they mean.
        image_kind: Write an image again, ``oci`` or ``docker``, of one layer; with
            ``since``, of the layers until there and one more.
        tags: Names of that image; none are those that it has.
        ownership: In a directory, ``keep`` gives names their owners, ``current``
            leaves them the caller's.
        size: Of a disk or file system, in bytes; with ``+`` in front, of the free
            space in it; None is sensible.
        force: Replace a directory that is not empty.
        config_out: Write the image's config document here.
        list_out: Write a list of what was written here (``listing``).
        strict: Refuse devices, unknown setuid files, and the like (``strict``).
        allow_setuid: Paths that may be setuid all the same.
        sync: Wait until a file is on the disk before it gets its name, so that after
            a power cut it is whole, or what was there before.
        settle: Called when all is right, before an output gets its name; what it
            raises prevents that.
        progress: A bar on standard error: ``auto``, ``always`` or ``never``.
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
    config_out: str | os.PathLike[str] | None = None
    list_out: str | os.PathLike[str] | None = None
    strict: bool = False
    allow_setuid: tuple[str, ...] = ()
    sync: bool = True
    settle: Callable[[], object] = nothing
    progress: str = "never"

    def __post_init__(self) -> None:
        """Refuse words that are none of the choices."""
        for name, words in CHOICES.items():
            word = getattr(self, name)
            if word not in words:
                raise UsageError(f"no {name} {quoted(word)}; there are "
                                 f"{', '.join(filter(None, words))}")  # fmt: skip
