"""A file that is stored as its regions of data, without its holes, read as a whole."""

from bisect import bisect_right

from ..errors import FormatError
from .files import LayerBytes


class Sparse(LayerBytes):
    """The bytes of a file with holes, which read as zeros.

    Attributes:
        where: Its name in messages.
    """

    def __init__(
        self,
        stored: LayerBytes,
        regions: tuple[tuple[int, int], ...],
        size: int,
        where: str,
    ) -> None:
        """Take the regions' bytes, one after another, and their (offset, length)."""
        self.where = where
        self._stored = stored
        self._size = size
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._places: list[int] = []  # of each region in the stored bytes
        place = 0
        for start, length in regions:
            if length:
                self._starts.append(start)
                self._ends.append(start + length)
                self._places.append(place)
                place += length

    def read(self, offset: int, count: int) -> bytes:
        """Return ``count`` bytes; fewer only at the end."""
        count = min(count, self._size - offset)
        if count <= 0:
            return b""
        out = bytearray(count)
        self.readinto(offset, memoryview(out))
        return bytes(out)

    def readinto(self, offset: int, view: memoryview) -> None:
        """Fill ``view``."""
        if offset + len(view) > self._size:
            raise FormatError("ends too soon", where=self.where, offset=self._size)
        while view:
            place, length = self._region(offset)
            part = view[:length]
            if place is None:
                part[:] = bytes(len(part))
            else:
                self._stored.readinto(place, part)
            view = view[len(part) :]
            offset += len(part)

    def size(self) -> int:
        """Return the file's size, with its holes."""
        return self._size

    def extent(self, offset: int) -> tuple[int, int, int] | None:
        """Return where the data at ``offset`` can be copied from; None in a hole."""
        place, length = self._region(offset)
        found = None if place is None else self._stored.extent(place)
        if found is None:
            return None
        descriptor, start, stored = found
        return descriptor, start, min(length, stored)

    def _region(self, offset: int) -> tuple[int | None, int]:
        """Return the stored place of an offset, or None in a hole, and the bytes left.

        Those are up to the end of the region, or of the hole.
        """
        behind = bisect_right(self._starts, offset)
        if behind and offset < self._ends[behind - 1]:
            skipped = offset - self._starts[behind - 1]
            left = self._ends[behind - 1] - offset
            return self._places[behind - 1] + skipped, left
        end = self._starts[behind] if behind < len(self._starts) else self._size
        return None, end - offset
