"""Decompress bytes; the format is detected by magic, never by name or media type.

======  =================  =======================================================
format  first bytes        allowed after the first member, frame or stream
======  =================  =======================================================
gzip    1f 8b              more members; zeros
zstd    28 b5 2f fd, or    more frames, also skippable ones; zeros. The window is at
        5x 2a 4d 18        most 128 MiB
xz      fd 37 7a 58 5a 00  more streams; zeros
bzip2   42 5a 68           more streams; zeros
======  =================  =======================================================

Any other trailing bytes are refused, as is truncated data.

Reference: RFC 1952; RFC 8878; the .xz file format 1.2; the behaviour of gzip(1),
zstd(1) and xz(1).
"""

from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

from ..errors import FormatError
from .files import LayerBytes

CHUNK: Final = 1 << 20  # bytes per plain chunk; threads take turns after each chunk
INPUT: Final = 1 << 17
MAX_WINDOW: Final = 1 << 27  # bytes, for zstd and xz: zstd(1)'s and containerd's limit

_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_SKIPPABLE: Final = b"\x2a\x4d\x18"

MAGIC: Final = {
    "gzip": (b"\x1f\x8b",),
    "zstd": (_ZSTD, *(bytes([low]) + _SKIPPABLE for low in range(0x50, 0x60))),
    "xz": (b"\xfd7zXZ\0",),
    "bzip2": (b"BZh",),
}


_Errors = tuple[type[Exception], ...]


class _Decompressor(Protocol):
    """The common interface of the bz2, lzma and isal decompressors."""

    @property
    def eof(self) -> bool:
        """Whether the end of the member or stream has been reached."""

    @property
    def needs_input(self) -> bool:
        """Whether more input is needed for more output."""

    @property
    def unused_data(self) -> bytes:
        """The input bytes after the end."""

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """Return up to ``max_length`` plain bytes."""


def sniff(source: LayerBytes) -> str | None:
    """Return the compression format of some bytes, or None if they are plain."""
    start = source.read(0, 6)
    for name, magics in MAGIC.items():
        if start.startswith(magics):
            return name
    return None


def decompress(source: LayerBytes, kind: str, where: str) -> Iterator[bytes]:
    """Yield the plain bytes in chunks of at most ``CHUNK``.

    Args:
        source: The compressed bytes.
        kind: The format, as ``sniff`` returned it.
        where: Name of the bytes in messages.

    Raises:
        FormatError: The bytes break their format or are truncated; the offset is that
            in the compressed bytes.
    """
    if kind == "zstd":
        return _zstd(source, where)
    return _members(source, kind, where)


def _members(source: LayerBytes, kind: str, where: str) -> Iterator[bytes]:
    """Decompress gzip members, or xz or bzip2 streams, one after another."""
    make, errors = _maker(kind)
    offset, size = 0, source.size()
    data = b""
    while offset < size or data:
        if not data:
            data = source.read(offset, min(INPUT, size - offset))
            offset += len(data)
        if not data.startswith(MAGIC[kind][0][:1]):
            _check_zeros(source, offset - len(data), kind, where)
            return
        decompressor = make()
        while not decompressor.eof:
            if not data and decompressor.needs_input:
                data = source.read(offset, min(INPUT, size - offset))
                offset += len(data)
                if not data:
                    raise FormatError(
                        f"truncated {kind} data", where=where, offset=offset
                    )
            try:
                plain = decompressor.decompress(data, CHUNK)
            except errors as error:
                raise FormatError(
                    f"broken {kind} data: {error}", where=where, offset=offset
                ) from error
            data = b""
            if plain:
                yield plain
        data = decompressor.unused_data


def _maker(kind: str) -> tuple[Callable[[], _Decompressor], _Errors]:
    """Return a function that creates a decompressor, and the errors it raises."""
    if kind == "gzip":
        from isal import igzip_lib  # 2 ms, only where there is gzip

        make = igzip_lib.IgzipDecompressor
        errors: Any = (igzip_lib.IsalError, EOFError)  # a class, but not in its stub
        return lambda: make(igzip_lib.DECOMP_GZIP), errors
    if kind == "xz":
        import lzma  # only where there is xz

        limit = MAX_WINDOW + (1 << 24)
        return lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, limit), (lzma.LZMAError,)
    import bz2  # only where there is bzip2

    return bz2.BZ2Decompressor, (OSError, ValueError)


def _check_zeros(source: LayerBytes, offset: int, kind: str, where: str) -> None:
    """Check that only zeros follow the end, as in data padded to tape blocks."""
    size = source.size()
    for at in range(offset, size, INPUT):
        if source.read(at, min(INPUT, size - at)).strip(b"\0"):
            raise FormatError(
                f"trailing garbage after the {kind} data", where=where, offset=at
            )


# --- zstd


def _zstd(source: LayerBytes, where: str) -> Iterator[bytes]:
    """Decompress zstd frames, one after another."""
    import zstandard  # 15 ms, only where there is zstd

    reader = _Reader(source, _end_of_frames(source, where))
    decompressor: Any = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)
    with decompressor.stream_reader(
        reader, read_size=INPUT, read_across_frames=True, closefd=False
    ) as stream:
        while True:
            try:
                plain = stream.read(CHUNK)
            except zstandard.ZstdError as error:
                if "not enough memory" in str(error):  # not a fault of the data
                    raise MemoryError(str(error)) from error
                at = reader.offset
                what = f"broken zstd data: {error}"
                raise FormatError(what, where=where, offset=at) from error
            if not plain:
                return
            yield plain


class _Reader:
    """A file object that reads the first ``stop`` bytes of a source."""

    def __init__(self, source: LayerBytes, stop: int) -> None:
        self._source = source
        self._stop = stop
        self.offset = 0

    def read(self, count: int = -1) -> bytes:
        """Return up to ``count`` bytes."""
        left = self._stop - self.offset
        data = self._source.read(self.offset, left if count < 0 else min(count, left))
        self.offset += len(data)
        return data


def _end_of_frames(source: LayerBytes, where: str) -> int:
    """Return the end of the last frame, found by reading all block headers.

    libzstd's stream reader does not report input that ends within a frame, so the ends
    are checked here, with one small read per block of 128 KiB.
    """
    offset, size = 0, source.size()

    def fail(what: str) -> FormatError:
        return FormatError(what, where=where, offset=offset)

    while offset < size:
        magic = source.read(offset, 4)
        if magic != _ZSTD and magic[1:] != _SKIPPABLE:
            if not magic.strip(b"\0"):
                _check_zeros(source, offset, "zstd", where)
                return offset
            raise fail("trailing garbage after the zstd data")
        if magic == _ZSTD:
            end = _end_of_frame(source, offset, size)
        else:
            length = source.read(offset + 4, 4)
            end = offset + 8 + int.from_bytes(length, "little")
            end = size + 1 if len(length) < 4 else end
        if end > size:
            raise fail(f"truncated zstd data: ends at byte {size:,}, within the frame")
        offset = end
    return offset


def _end_of_frame(source: LayerBytes, offset: int, size: int) -> int:
    """Return the end of a frame; it is over ``size`` if the frame is truncated."""
    descriptor = source.read(offset + 4, 1)
    if not descriptor:
        return size + 1
    flags = descriptor[0]
    single = flags >> 5 & 1
    content_size = (single, 2, 4, 8)[flags >> 6]
    offset += 5 + (1 - single) + (0, 1, 2, 4)[flags & 3] + content_size
    last = 0
    while not last:
        block = source.read(offset, 3)
        if len(block) < 3:
            return size + 1
        number = int.from_bytes(block, "little")
        last, kind, length = number & 1, number >> 1 & 3, number >> 3
        offset += 3 + (1 if kind == 1 else length)  # 1: one byte, repeated
    return offset + (4 if flags & 4 else 0)
