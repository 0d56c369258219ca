"""Layers whose bytes were read and verified before, for another image."""

from collections.abc import Callable
from dataclasses import dataclass

from ..host.files import LayerBytes


class SharedBytes(LayerBytes):
    """The uncompressed bytes of a layer that several images are made from.

    They stay where they are: no image that has read them frees them.
    """

    def __init__(self, source: LayerBytes, diff_id: str) -> None:
        """Share bytes that are complete, and whose SHA-256 was found right."""
        self._source = source
        self._digest = diff_id.removeprefix("sha256:")

    def read(self, offset: int, count: int) -> bytes:
        """Return ``count`` bytes; fewer only at the end."""
        return self._source.read(offset, count)

    def readinto(self, offset: int, view: memoryview) -> None:
        """Fill ``view``."""
        self._source.readinto(offset, view)

    def size(self) -> int:
        """Return the number of bytes."""
        return self._source.size()

    def extent(self, offset: int) -> tuple[int, int, int] | None:
        """Return what the source does."""
        return self._source.extent(offset)

    def origin(self, offset: int) -> int | None:
        """Return what the source does."""
        return self._source.origin(offset)

    def sample(self) -> int | None:
        """Return what the source does."""
        return self._source.sample()

    def arrival_digest(self) -> Callable[[], str]:
        """Return the way to the SHA-256, which is known."""
        return lambda: self._digest


@dataclass(frozen=True, slots=True)
class SharedLayer:
    """A layer of an image, whose bytes were read before."""

    name: str
    diff_id: str
    shared: SharedBytes
    digest: None = None
    place: None = None

    def blob(self) -> LayerBytes:
        """Return the uncompressed bytes; those as stored are not fetched again."""
        return self.shared

    def open(self) -> LayerBytes:
        """Return the uncompressed bytes."""
        return self.shared

    def headers(self) -> LayerBytes:
        """Return the uncompressed bytes."""
        return self.shared

    def mismatch_reason(self) -> str:
        """Return "": the digest was found right."""
        return ""
