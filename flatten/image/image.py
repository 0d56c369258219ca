"""An image and its layers: how to open them, not open files."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self

from ..host.files import LayerBytes
from ..tar.read_header import HeaderBytes


@dataclass(frozen=True, slots=True)
class Place:
    """Where a layer lies in an engine's root.

    Attributes:
        driver: The storage driver, or containerd's snapshotter.
        cache_id: What the driver calls the layer.
        directory: Its tree, on the host: what is new in the layer, or all, by driver.
        size: Its bytes as the engine counts them, if it does.
    """

    driver: str
    cache_id: str
    directory: str
    size: int | None = None


class Layer(Protocol):
    """A layer of an image: how to open it, not an open file."""

    @property
    def name(self) -> str:
        """The layer's name in messages: file, position, name in the archive."""

    @property
    def diff_id(self) -> str | None:
        """``sha256:<hex>`` of the uncompressed stream, when the image says it."""

    @property
    def digest(self) -> str | None:
        """``sha256:<hex>`` of the blob as it is stored, when the image says it."""

    @property
    def place(self) -> Place | None:
        """Where it lies in an engine's root; None in an archive."""

    def blob(self) -> LayerBytes:
        """Return the layer's bytes as they are stored, maybe compressed."""

    def open(self, *, hashed: bool = False) -> LayerBytes:
        """Return the layer's uncompressed bytes; opened once, however often asked.

        Args:
            hashed: If that inflates them, hash them as they come.
        """

    def headers(self) -> HeaderBytes:
        """Return the bytes for reading headers: contents may be anything in them."""

    def blame(self) -> str:
        """Say what makes a digest wrong, after it was; "" where that is unknown."""


@dataclass(slots=True)
class Image:
    """An image: its layers, oldest first, and what it says of itself.

    A context manager: on leaving it, the files behind the layers are closed.

    Attributes:
        source: The archive or store it was found in, as messages name it.
        path: Where that is on the host.
        check_unchanged: Raises FlattenError if its files are not what they were when
            they were opened.
        id: Hex digest of the config, or the image's id before docker 1.10.
        names: Its names with tags, as written in the source.
        config: The config document, as parsed.
        layers: Oldest first.
        init: Position of docker's own layer in a container, with the mount points
            and files that it makes for it; None in images.
        warnings: What is lost, a sentence each; reading layers may add to them.
        added: What goes on top of them, and is not of the image.
        parent: Id of the image that it was built on, where docker recorded that.
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
    path: str = ""
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
        """Close the files behind the layers."""
        self.close()

    def close(self) -> None:
        """Close the files behind the layers; a second time does nothing."""
        self.resources.close()
