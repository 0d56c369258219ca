"""The contents of files, and their hashes."""

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Final

from ..errors import FormatError
from ..host.files import LayerBytes
from ..image.image import Image
from ..tar.members import Members

AHEAD: Final = 1 << 20  # bytes per read: most files are small and follow each other
_ZEROS: Final = bytes(AHEAD)


class Contents:
    """The contents of an image's files.

    Attributes:
        image: The image, which is open.
        members: Its members.
    """

    def __init__(self, image: Image, members: Members, limit: int) -> None:
        """Read nothing yet; files larger than ``limit`` bytes are refused."""
        self.image = image
        self.members = members
        self._limit = limit
        self._windows: dict[int, _Window] = {}

    def read(self, inode: int) -> Iterator[bytes]:
        """Yield a file's bytes, with zeros for holes.

        Raises:
            FormatError: The file is too large, or the layer ends within it.
        """
        members = self.members
        size = members.sizes[inode]
        if size > self._limit:
            raise FormatError(
                f"a file of {size:,} bytes, over {self._limit:,}; if that is right, "
                "allow more with --max-size",
                where=self.image.layers[members.layers[inode]].name,
                offset=members.data[inode],
            )
        window = self._window(members.layers[inode])
        reached = 0
        for start, length, offset in members.regions(inode):
            yield from _zeros(start - reached)
            yield from window.read(offset, length)
            reached = start + length
        yield from _zeros(size - reached)

    def hashes(self, inodes: Iterable[int]) -> dict[int, str]:
        """Return the XXH3 (128 bits) of files, in hex as ``xxhsum -H2`` prints it."""
        from xxhash import xxh3_128, xxh3_128_hexdigest  # 1 ms, only for contents

        members, extras = self.members, self.members.extras
        sizes, offsets = members.sizes, members.data
        found = {}
        ordered = sorted(set(inodes))  # as they are in the layers
        for layer, some in groupby(ordered, members.layers.__getitem__):
            window = self._window(layer)
            for inode in some:
                size = sizes[inode]
                if size <= AHEAD and inode not in extras:  # most files
                    data = window.whole(offsets[inode], size)
                    found[inode] = xxh3_128_hexdigest(data)
                    continue
                digest = xxh3_128()
                for data in self.read(inode):
                    digest.update(data)
                found[inode] = digest.hexdigest()
        return found

    def _window(self, layer: int) -> "_Window":
        window = self._windows.get(layer)
        if window is None:
            opened = self.image.layers[layer].open()
            window = self._windows[layer] = _Window(opened)
        return window


def _zeros(count: int) -> Iterator[bytes]:
    """Yield zeros for a hole, in pieces."""
    for done in range(0, count, AHEAD):
        yield _ZEROS[: count - done]


class _Window:
    """The bytes of a layer that were read last; the next file is often in them.

    Of a layer that is fetched in parts, no more than the file is read.
    """

    def __init__(self, source: LayerBytes) -> None:
        self._source = source
        self._ahead = 0 if source.fetches_parts() else AHEAD
        self._start = 0
        self._data = b""

    def whole(self, offset: int, size: int) -> bytes:
        """Return a range of at most ``AHEAD`` bytes."""
        skip = offset - self._start
        if not 0 <= skip <= len(self._data) - size:
            self._data = self._source.read(offset, max(size, self._ahead))
            self._start, skip = offset, 0
            if len(self._data) < size:
                raise FormatError("ends too soon", where="a layer", offset=offset)
        return self._data[skip : skip + size]

    def read(self, offset: int, size: int) -> Iterator[bytes]:
        """Yield a range in pieces."""
        stop = offset + size
        while offset < stop:
            skip = offset - self._start
            if not 0 <= skip < len(self._data):
                count = max(min(stop - offset, AHEAD), self._ahead)
                self._data = self._source.read(offset, count)
                self._start, skip = offset, 0
                if not self._data:
                    raise FormatError("ends too soon", where="a layer", offset=offset)
            piece = self._data[skip : skip + stop - offset]
            offset += len(piece)
            yield piece
