"""Layers that are stored as blobs: read whole, compressed or not, or in parts."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..errors import FlattenError
from ..host.files import LayerBytes
from ..host.forward import forward
from ..host.inputs import compression
from ..host.spools import Pool
from ..tar.read_header import HeaderBytes
from .image import Place

if TYPE_CHECKING:
    from .chunked import Chunked


@dataclass(slots=True)
class BlobLayer:
    """A layer that is stored as a blob, compressed or not.

    Attributes:
        opener: Opens the blob when it is needed: a source may have more layers than a
            process may have open files.
        place: Location of the unpacked layer, if any.
        same: An earlier layer with the same blob.
    """

    name: str
    diff_id: str | None
    digest: str | None
    opener: Callable[[], LayerBytes]
    pool: Pool
    place: Place | None = None
    same: "BlobLayer | None" = field(default=None, repr=False)
    _blob: LayerBytes | None = field(default=None, repr=False)
    _opened: LayerBytes | None = field(default=None, repr=False)

    def blob(self) -> LayerBytes:
        """Return the blob, which is opened at the first call."""
        if self.same is not None:
            return self.same.blob()
        if self._blob is None:
            self._blob = self.opener()
        return self._blob

    def open(self) -> LayerBytes:
        """Return the uncompressed bytes; inflating begins at the first call.

        They are hashed as they are inflated, if their SHA-256 is recorded.
        """
        if self.same is not None:
            return self.same.open()
        if self._opened is None:
            blob = self.blob()
            kind = compression(blob)
            hashed = (self.diff_id or "").startswith("sha256:")
            self._opened = (
                blob
                if kind is None
                else self.pool.inflate(blob, kind, self.name, hashed=hashed)
            )
        return self._opened

    def headers(self) -> HeaderBytes:
        """Return the uncompressed bytes; unless they are kept, read forward only."""
        if self._opened is not None:
            return self._opened
        return forward(self.blob(), self.pool.limits, self.name)

    def fetches_parts(self) -> bool:
        """Return True if reading its headers fetches only those."""
        blob = self.blob()
        return blob.fetches_parts() and compression(blob) is None

    def mismatch_reason(self) -> str:
        """Return "": a blob cannot tell which of its bytes is wrong."""
        return ""


class WholeLayerNeededError(FlattenError):
    """A layer cannot be read in parts, although nothing is wrong with it."""


@dataclass(slots=True)
class ChunkedLayer:
    """A layer of which only the parts that are read are fetched.

    Attributes:
        whole: The same layer, read whole.
        table: The digest of its table of contents; layers with the same table are the
            same bytes.
        content: The layer's tar.
        stored: The layer as it is stored.
    """

    whole: BlobLayer
    table: str
    content: "Chunked"
    stored: LayerBytes
    place: None = None

    @property
    def name(self) -> str:
        """The layer's name in messages."""
        return self.whole.name

    @property
    def diff_id(self) -> str | None:
        """The digest of the uncompressed layer, if recorded; it is not checked."""
        return self.whole.diff_id

    @property
    def digest(self) -> str | None:
        """The digest of the layer as it is stored, which is not checked."""
        return self.whole.digest

    def blob(self) -> LayerBytes:
        """Return the layer as it is stored; what is read of it is fetched."""
        return self.stored

    def open(self) -> "Chunked":
        """Return the layer's tar."""
        return self.content

    def headers(self) -> HeaderBytes:
        """Return the bytes for reading headers, which fetch no contents."""
        return self.content.headers()

    def mismatch_reason(self) -> str:
        """Return "": the bytes have no digest but those of their chunks."""
        return ""
