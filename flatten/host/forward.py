"""Read a decompressed stream forward only, for its headers, without keeping it."""

from collections.abc import Iterable
from typing import Final

from ..errors import FormatError
from ..tar.read_header import HeaderBytes
from .decompress import decompress
from .files import LayerBytes
from .inputs import compression
from .limits import Limits, check_ratio

_BEHIND: Final = 1 << 16  # bytes at the end that are kept once the length is known


class Forward:
    """The inflated bytes of a compressed layer, for reading only its headers.

    Offsets must not decrease from one read to the next and, once the length has been
    asked for, must be close to the last read.
    """

    def __init__(
        self, chunks: Iterable[bytes], where: str, limits: Limits, stored: int = 0
    ) -> None:
        """Prepare to read ``chunks``, inflated from ``stored`` bytes; read none yet."""
        self._chunks = iter(chunks)
        self._stored = stored
        self._where = where
        self._limits = limits
        self._kept = bytearray()
        self._start = self._end = 0  # start of the kept bytes; end of the bytes read

    def read(self, offset: int, count: int) -> bytes:
        """Return ``count`` bytes; fewer only at the end."""
        assert offset >= self._start, "headers are read forward"
        if offset > self._end:
            self._kept.clear()
            self._start = offset
        while self._end < offset + count and (chunk := self._next()):
            self._kept += chunk[max(offset - self._end + len(chunk), 0) :]
        del self._kept[: offset - self._start]
        self._start = offset
        return bytes(self._kept[:count])

    def size(self) -> int:
        """Read to the end, and return the length."""
        self.read(self._start, _BEHIND)
        while self._next():
            pass
        return self._end

    def _next(self) -> bytes:
        """Return the next chunk, or ``b""`` at the end."""
        chunk = next(self._chunks, b"")
        self._end += len(chunk)
        if self._end > self._limits.size:
            raise FormatError(
                f"inflates beyond {self._limits.size:,} bytes; if that is right, allow "
                "more with --max-size",
                where=self._where,
            )
        check_ratio(self._limits, self._end, self._stored, self._where)
        return chunk


def forward(source: LayerBytes, limits: Limits, where: str) -> HeaderBytes:
    """Return plain bytes unchanged, or a forward reader of compressed ones."""
    kind = compression(source)
    if kind is None:
        return source
    return Forward(decompress(source, kind, where), where, limits, source.size())
