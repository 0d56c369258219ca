"""The types of images and layers: layers are opened on demand."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self

from ..host.files import LayerBytes
from ..tar.read_header import HeaderBytes


@dataclass(frozen=True, slots=True)
class Place:
    """Location of a layer in an engine's root.

    Attributes:
        driver: The storage driver, or containerd's snapshotter.
        cache_id: The driver's name for the layer.
        directory: The layer's tree on the host; by driver, either its changes or the
            full tree.
        size: Its size in bytes according to the engine, if recorded.
    """

    driver: str
    cache_id: str
    directory: str
    size: int | None = None


class Layer(Protocol):
    """A layer of an image, which is opened on demand."""

    @property
    def name(self) -> str:
        """The layer's name in messages: file, position, name in the archive."""

    @property
    def diff_id(self) -> str | None:
        """``sha256:<hex>`` of the uncompressed stream, or None if not recorded."""

    @property
    def digest(self) -> str | None:
        """``sha256:<hex>`` of the blob as stored, or None if not recorded."""

    @property
    def place(self) -> Place | None:
        """The layer's location in an engine's root; None in an archive."""

    def blob(self) -> LayerBytes:
        """Return the layer's bytes as they are stored, possibly compressed."""

    def open(self) -> LayerBytes:
        """Return the layer's uncompressed bytes; they are opened only once."""

    def headers(self) -> HeaderBytes:
        """Return the bytes for reading headers; contents in them are arbitrary."""

    def mismatch_reason(self) -> str:
        """Return the reason for a digest mismatch, or "" if it is unknown."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """How much of an image was fetched from a registry or a web server.

    Attributes:
        fetched: Bytes received so far.
        size: Bytes there are: in a registry, the image's documents and layers as they
            are stored; otherwise, the file.
        digest: ``sha256:<hex>`` of the manifest or index that a registry has under the
            image's name; None for other sources.
    """

    fetched: int
    size: int
    digest: str | None = None


@dataclass(slots=True)
class Image:
    """An image: its layers, oldest first, and its metadata.

    It is a context manager that closes the files of the layers on exit.

    Attributes:
        source: The archive or store that contains it, as named in messages.
        path: The path of that on the host.
        check_unchanged: Raises FlattenError if its files were modified since they were
            opened.
        id: Hex digest of the config, or the image's id before docker 1.10.
        names: Its names with tags, as written in the source.
        config: The config document, as parsed.
        layers: Oldest first.
        init: Position of the "-init" layer that docker adds to a container (mount
            points, /etc/hosts and others); None in images.
        warnings: Losses, one sentence each; reading layers may add more.
        added: Layers on top that are not part of the image.
        parent: Id of the image that it was built on, if docker recorded it.
        manifest: Digest of its manifest, ``sha256:<hex>``; None if it has none.
        transfer: Returns how much of it was fetched; None if it is on this machine.
    """

    source: str
    id: str
    names: tuple[str, ...]
    config: dict[str, Any]
    layers: tuple[Layer, ...]
    init: int | None = None
    warnings: list[str] = field(default_factory=list)
    added: tuple[Layer, ...] = ()
    parent: str | None = None
    manifest: str | None = None
    path: str = ""
    transfer: Callable[[], Transfer] | None = field(default=None, repr=False)
    check_unchanged: Callable[[], object] = field(default=lambda: None, repr=False)
    resources: ExitStack = field(default_factory=ExitStack, repr=False)

    def __enter__(self) -> Self:
        """Return the image itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the files of the layers."""
        self.close()

    def close(self) -> None:
        """Close the files of the layers; a second call does nothing."""
        self.resources.close()
