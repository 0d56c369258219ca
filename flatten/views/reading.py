"""Read an image for a view, from cached indexes where that is safe.

The index of a layer depends only on the layer's bytes, so it is cached by diff_id. An
image may claim any diff_id: a cached index is used only for a layer whose bytes have
that digest. They are hashed, or they are at a place of the host whose bytes were hashed
before and have not changed since (``identity.Location``).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from ..host.limits import Limits
from ..image import read
from ..image.blob import BlobLayer, ChunkedLayer
from ..image.columns import Rows
from ..image.image import Image, Layer
from ..image.read import Index
from ..image.verify import checking
from ..tar.layer import LayerIndex, read_layer
from ..tar.members import Members
from .identity import Location, has_file, location
from .index_cache import IndexCache, pack

Verified = bool | Literal["toc"]


class Verify(Enum):
    """Which layers a view checks against the digests that the image records."""

    NONE = "none"
    BLOBS = "blobs"
    """Layers that are stored as one blob. An engine's layer directories would have to
    be read whole; a view only needs their records. Nor those of which it only needs to
    fetch the headers."""
    ALL = "all"
    """All layers, even those that were hashed before."""


@dataclass(frozen=True, slots=True)
class CheckedIndex(Index):
    """An index, and which of its layers were checked.

    Attributes:
        checked: By position, whether the layer's bytes have the recorded digests.
        verified: As of ``verified``.
    """

    checked: tuple[bool, ...]
    verified: Verified


def read_index(
    image: Image,
    limits: Limits | None = None,
    cache: IndexCache | None = None,
    verify: Verify = Verify.BLOBS,
) -> CheckedIndex:
    """Read the headers of all layers, and apply them.

    Args:
        image: An open image.
        limits: Limits on the resources that it may take.
        cache: Indexes of layers that were hashed before.
        verify: Which layers are checked.

    Raises:
        FormatError: A layer breaks its format or cannot be applied to the tree, or a
            limit is exceeded.
        IntegrityError: A layer that is checked does not have its digest.
    """
    reader = LayerReader(cache, verify)
    index = read.read_index(image, limits, reader.read)
    checked = tuple(reader.checked)
    return CheckedIndex(
        index.members,
        index.layers,
        index.tree,
        checked,
        verified(image.layers, checked),
    )


@dataclass(slots=True)
class _Known:
    """What is known of a layer before it is read.

    Attributes:
        location: Where its bytes are, if in one file.
        settled: That file was not written just now.
        hashed: The bytes there were hashed before, and have the recorded digests.
        rows: Its cached index, if there is one.
    """

    location: Location | None
    settled: bool = False
    hashed: bool = False
    rows: Rows | None = None


class LayerReader:
    """Reads the headers of an image's layers.

    Attributes:
        checked: By position, whether the layer's bytes have the recorded digests;
            complete when all layers have been read.
    """

    def __init__(self, cache: IndexCache | None, verify: Verify) -> None:
        """Read nothing yet; the arguments are those of ``read_index``."""
        self._cache = cache
        self._verify = verify
        self.checked: list[bool] = []

    def read(self, image: Image, into: Members) -> Iterator[LayerIndex]:
        """Read the headers of one layer after another, oldest first.

        Raises:
            FormatError: A layer breaks its format, or a limit is exceeded.
            IntegrityError: A layer that is checked does not have its digest.
        """
        layers = image.layers
        known = [self._look_up(layer) for layer in layers]
        wanted = [
            not before.hashed and self._is_wanted(layer)
            for layer, before in zip(layers, known, strict=True)
        ]
        self.checked = [
            before.hashed or want for before, want in zip(known, wanted, strict=True)
        ]
        packed: dict[int, bytes] = {}
        to_check = [layer for layer, want in zip(layers, wanted, strict=True) if want]
        with checking(to_check) as check:
            for layer, before, sure in zip(layers, known, self.checked, strict=True):
                if before.rows is None or not sure:
                    layer.open()  # all begin to inflate
            for at, (layer, before) in enumerate(zip(layers, known, strict=True)):
                rows = before.rows if self.checked[at] else None
                if rows is not None and len(into) + len(rows.paths) <= into.limit:
                    yield rows.append(layer.name, at, into)
                    continue
                index = read_layer(layer.headers(), layer.name, at, into)
                if self._cache and self.checked[at] and layer.diff_id is not None:
                    packed[at] = pack(layer.diff_id, Rows.of(index, into))
                yield index
            check.start_rest()
            check.finish()
        self._keep(layers, known, wanted, packed)

    def _look_up(self, layer: Layer) -> _Known:
        if self._cache is None:
            return _Known(None)
        where = location(layer)
        settled = where is not None and where.is_settled()
        hashed = (
            where is not None
            and settled
            and has_digest(layer)
            and self._verify is not Verify.ALL
            and self._cache.was_hashed(where, layer.diff_id, layer.digest)
        )
        return _Known(where, settled, hashed, self._cache.find(layer.diff_id))

    def _is_wanted(self, layer: Layer) -> bool:
        """Return True if a layer is to be checked."""
        if self._verify is Verify.ALL:
            return has_digest(layer)
        return (
            self._verify is Verify.BLOBS
            and isinstance(layer, BlobLayer)
            and has_digest(layer)
            and not fetches_parts(layer)
        )

    def _keep(
        self,
        layers: tuple[Layer, ...],
        known: list[_Known],
        wanted: list[bool],
        packed: dict[int, bytes],
    ) -> None:
        """Cache the indexes of checked layers, and where their bytes are.

        Headers and hash are read one after the other: if the file has changed, they may
        be of different bytes.
        """
        if self._cache is None:
            return
        for at, (layer, before) in enumerate(zip(layers, known, strict=True)):
            if not wanted[at] and at not in packed:
                continue
            where = location(layer)
            if where != before.location or (where is None and has_file(layer)):
                continue
            if at in packed and layer.diff_id is not None:
                self._cache.keep(layer.diff_id, packed[at])
            if wanted[at] and where is not None and before.settled:
                self._cache.keep_hashed(where, layer.diff_id, layer.digest)
        if any(wanted):
            self._cache.trim()


def verified(layers: Sequence[Layer], checked: Sequence[bool]) -> Verified:
    """Return whether layers were checked, given for which their digests were.

    ``toc`` means that some were checked against their tables of contents only.
    """
    rest = [layer for layer, done in zip(layers, checked, strict=True) if not done]
    if not rest:
        return True
    return "toc" if all(map(has_table, rest)) else False


def has_table(layer: Layer) -> bool:
    """Return True if a layer is read by its table of contents."""
    return isinstance(layer, ChunkedLayer)


def has_digest(layer: Layer) -> bool:
    """Return True if the image records a digest of the layer."""
    return layer.diff_id is not None or layer.digest is not None


def fetches_parts(layer: Layer) -> bool:
    """Return True if reading a layer's headers fetches only those, from elsewhere."""
    return has_table(layer) or (isinstance(layer, BlobLayer) and layer.fetches_parts())
