"""The request: which image to read, and how to write the output."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal, TypedDict, get_args

from .errors import UsageError, quoted
from .host.limits import Limits
from .image.history import Point
from .tree.edit import NO_EDITS, Edits

Format = Literal["gnu", "pax"]
Reflink = Literal["auto", "always", "never"]
Ownership = Literal["keep", "current"]
ImageKind = Literal["oci", "docker"]

CHOICES: Final = {
    "format": get_args(Format),
    "reflink": get_args(Reflink),
    "ownership": get_args(Ownership),
    "image_kind": (None, *get_args(ImageKind)),
}
"""Fields with a fixed set of values."""

_UUID: Final = re.compile("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach registries and web servers.

    Attributes:
        authfile: A file of credentials, which is read instead of those of podman and
            docker.
        cacert: A PEM file of certificate authorities to trust as well.
        insecure: Allow plain HTTP, and TLS certificates that cannot be verified.
        parts: Read only what is needed of layers in zstd:chunked and eStargz, by their
            tables of contents. What is read is checked against the manifest, but the
            layers' digests cannot be. An export does not use this field, but
            ``verify``.
        waiting: Called with a sentence when a server does not answer, is busy or breaks
            off, before it is asked again; in several threads.
    """

    authfile: str | None = None
    cacert: str | None = None
    insecure: bool = False
    parts: bool = False
    waiting: Callable[[str], object] | None = field(
        default=None, compare=False, repr=False
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which image to read from a source, and within which limits.

    Attributes:
        platform: ``os/architecture[/variant]``, to select one of several in the source;
            None selects the host's.
        store: A docker driver or a containerd namespace, to select one of several; None
            selects all.
        at: Read the image as it was at this point in its history.
        with_init: For a container, include docker's init layer, as ``docker export``
            does.
        limits: Limits on the resources that the image may take.
        access: How to reach registries and web servers.
    """

    platform: str | None = None
    store: str | None = None
    at: Point | None = None
    with_init: bool = False
    limits: Limits = field(default_factory=Limits)
    access: Access = field(default_factory=Access)


class SelectionFields(TypedDict, total=False):
    """The fields of ``Selection`` as keyword arguments, for type checkers."""

    platform: str | None
    store: str | None
    at: Point | None
    with_init: bool
    limits: Limits
    access: Access


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(Selection):
    """Which image to read, and how to write the output.

    Attributes:
        since: Write only the changes since this point, as a layer to put on top.
        verify: True reads all layers whole, and checks them against the image's
            digests; False does not check them. None checks them too, but reads layers
            in zstd:chunked, from a registry or a URL, in parts if less than half of
            them is needed; the parts are checked against the tables of contents.
        edits: Paths to leave out, move or add, and changes of owners.
        mtime: Reduce later mtimes to this one (seconds), as ``tar --clamp-mtime`` does.
        format: ``gnu``, or ``pax`` for POSIX headers throughout.
        sparse: Write sparse files of a tar as sparse members, which not all programs
            read, instead of zeros for their holes.
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
        block_size: Bytes of a block of an EROFS; None chooses.
        index: Write an EROFS without the contents, which stay in the image's files.
        layers: Directory to keep layers in that are compressed or in no file of their
            own; they are read from there. None keeps none.
        label: Label of a file system; None chooses.
        verity: Path to write the dm-verity hash tree of a file system to; the root hash
            goes to the same name with ``.roothash`` appended.
        uuid: UUID of a file system, as 8-4-4-4-12 hexadecimal digits; None chooses one
            that depends on the image alone.
        force: Replace a directory that is not empty.
        config_out: Path or open descriptor to write the image's config document to.
        list_out: Path or open descriptor to write a list of the output's entries to.
        statement: Path to write an in-toto statement to: what the output was made from.
        strict: Refuse devices, unknown setuid files, and the like (``strict``).
        allow_setuid: Paths that may be setuid nevertheless.
    """

    since: Point | None = None
    verify: bool | None = None
    edits: Edits = NO_EDITS
    mtime: int | None = None
    format: Format = "gnu"
    sparse: bool = False
    compress: str | None = None
    reflink: Reflink = "never"
    image_kind: ImageKind | None = None
    tags: tuple[str, ...] = ()
    ownership: Ownership = "keep"
    check: bool = True
    size: str | None = None
    block_size: int | None = None
    index: bool = False
    layers: str | os.PathLike[str] | None = None
    verity: str | os.PathLike[str] | None = None
    label: str | None = None
    uuid: str | None = None
    force: bool = False
    config_out: str | os.PathLike[str] | int | None = None
    list_out: str | os.PathLike[str] | int | None = None
    statement: str | os.PathLike[str] | None = None
    strict: bool = False
    allow_setuid: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the fields with a fixed set of values, and the UUID."""
        for name, words in CHOICES.items():
            word = getattr(self, name)
            if word not in words:
                choices = ", ".join(filter(None, words))
                raise UsageError(
                    f"{quoted(str(word))} is not a valid {name}; choose from {choices}"
                )
        if self.uuid is not None and not _UUID.fullmatch(self.uuid):
            raise UsageError(
                f"{quoted(self.uuid)} is not a valid uuid; write it as "
                "01234567-89ab-cdef-0123-456789abcdef"
            )


class OptionFields(SelectionFields, total=False):
    """The fields of ``Options`` as keyword arguments, for type checkers."""

    since: Point | None
    verify: bool | None
    edits: Edits
    mtime: int | None
    format: Format
    sparse: bool
    compress: str | None
    reflink: Reflink
    image_kind: ImageKind | None
    tags: tuple[str, ...]
    ownership: Ownership
    check: bool
    size: str | None
    block_size: int | None
    index: bool
    layers: str | os.PathLike[str] | None
    verity: str | os.PathLike[str] | None
    label: str | None
    uuid: str | None
    force: bool
    config_out: str | os.PathLike[str] | int | None
    list_out: str | os.PathLike[str] | int | None
    statement: str | os.PathLike[str] | None
    strict: bool
    allow_setuid: tuple[str, ...]
