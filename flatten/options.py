"""The options of an export, in one frozen dataclass."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal, TypedDict, get_args

from .errors import UsageError, quoted
from .host.limits import Limits
from .image.history import Point
from .tree.edit import NO_EDITS, Edits


def nothing() -> None:
    """Do nothing."""


Format = Literal["gnu", "pax"]
Reflink = Literal["auto", "always", "never"]
Ownership = Literal["keep", "current"]
ImageKind = Literal["oci", "docker"]
ProgressBar = Literal["auto", "always", "never"]
Progress = Callable[[int, int], object]

CHOICES: Final = {
    "format": get_args(Format),
    "reflink": get_args(Reflink),
    "ownership": get_args(Ownership),
    "image_kind": (None, *get_args(ImageKind)),
    "progress": get_args(ProgressBar),
}
"""Fields with a fixed set of values; ``progress`` can also be a callable."""


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
        check: Read a file system back after it is made, and compare it with the image.
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
        progress: When to show a progress bar on standard error: ``auto`` (on a
            terminal), ``always`` or ``never``. Or a function to call instead, in the
            calling thread, with the number of bytes written so far and in total. The
            first call has 0. The last one has the total, once the output is complete;
            an exception from any call before that cancels the export.
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
    format: Format = "gnu"
    compress: str | None = None
    reflink: Reflink = "never"
    image_kind: ImageKind | None = None
    tags: tuple[str, ...] = ()
    ownership: Ownership = "keep"
    check: bool = True
    size: str | None = None
    force: bool = False
    config_out: str | os.PathLike[str] | int | None = None
    list_out: str | os.PathLike[str] | int | None = None
    strict: bool = False
    allow_setuid: tuple[str, ...] = ()
    sync: bool = True
    settle: Callable[[], object] = nothing
    progress: ProgressBar | Progress = "never"

    def __post_init__(self) -> None:
        """Check the fields with a fixed set of values."""
        for name, words in CHOICES.items():
            word = getattr(self, name)
            if word not in words and not (name == "progress" and callable(word)):
                choices = ", ".join(filter(None, words))
                raise UsageError(
                    f"{quoted(str(word))} is not a valid {name}; choose from {choices}"
                )


class OptionChanges(TypedDict, total=False):
    """The fields of ``Options`` as keyword arguments, for type checkers."""

    platform: str | None
    store: str | None
    at: Point | None
    since: Point | None
    with_init: bool
    verify: bool
    limits: Limits
    edits: Edits
    mtime: int | None
    format: Format
    compress: str | None
    reflink: Reflink
    image_kind: ImageKind | None
    tags: tuple[str, ...]
    ownership: Ownership
    check: bool
    size: str | None
    force: bool
    config_out: str | os.PathLike[str] | int | None
    list_out: str | os.PathLike[str] | int | None
    strict: bool
    allow_setuid: tuple[str, ...]
    sync: bool
    settle: Callable[[], object]
    progress: ProgressBar | Progress
