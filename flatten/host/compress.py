"""Compress the output in threads while it is written to a descriptor.

======  ======================  =====================================================
name    levels [default]        with
======  ======================  =====================================================
gzip    0 to 3 [2], 4 to 9      ISA-L in threads; zlib in one thread
zstd    1 to 22 [3]             libzstd's own threads
xz      0 to 9 [6]              liblzma, in one thread
bzip2   1 to 9 [9]              libbz2, in one thread
======  ======================  =====================================================

The output is split into blocks of a fixed size before it is compressed, and no header
has a name or a time, so equal tars give equal bytes on any number of processors.
"""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Protocol

from ..errors import FlattenError, UsageError, quoted
from .limits import processors

BLOCK: Final = 1 << 20
LEVELS: Final = {
    "gzip": (0, 2, 9),
    "zstd": (1, 3, 22),
    "xz": (0, 6, 9),
    "bzip2": (1, 9, 9),
}
SUFFIXES: Final = {
    ".gz": "gzip",
    ".tgz": "gzip",
    ".zst": "zstd",
    ".tzst": "zstd",
    ".xz": "xz",
    ".txz": "xz",
    ".bz2": "bzip2",
    ".tbz2": "bzip2",
}
_ISAL_LEVELS: Final = 3


class Sink(Protocol):
    """The destination of a tar's bytes."""

    def write(self, view: memoryview) -> int:
        """Write bytes; return how many were written."""

    def descriptor(self) -> int | None:
        """Return a descriptor for kernel copies, or None if bytes are compressed."""


def _write(out: int, view: memoryview, name: str) -> int:
    """Write bytes to a descriptor, ``name`` in messages; return how many were written.

    Raises:
        FlattenError: The bytes cannot be written. BrokenPipeError is passed through.
    """
    try:
        return os.write(out, view)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise FlattenError(f"{name}: cannot write: {error.strerror}") from error


class PlainSink:
    """A sink that writes uncompressed bytes to a descriptor."""

    def __init__(self, out: int, name: str) -> None:
        """Write to ``out``, which is called ``name`` in messages."""
        self._out = out
        self._name = name

    def write(self, view: memoryview) -> int:
        """Write bytes; return how many were written."""
        return _write(self._out, view, self._name)

    def descriptor(self) -> int:
        """Return the descriptor."""
        return self._out


class _Blocks:
    """A sink that splits its bytes into blocks of one size, for a compressor."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._block = bytearray()

    def write(self, view: memoryview) -> int:
        taken = view[: BLOCK - len(self._block)]
        self._block += taken
        if len(self._block) == BLOCK:
            self.flush()
        return len(taken)

    def flush(self) -> None:
        block, self._block = bytes(self._block), bytearray()
        if block:
            self._write(block)

    def descriptor(self) -> None:
        return


class _Raw:
    """A descriptor as a file object for compressors, whose writes are complete.

    Nothing is written before ``start``. isal's writer writes its header during
    construction. If that fails, Python 3.13 and later report a second failure when the
    incomplete writer is collected: it joins threads that never ran (isal 1.9.1).

    Attributes:
        abandoned: Whether further bytes are discarded.
    """

    def __init__(self, out: int, name: str) -> None:
        self.abandoned = False
        self.closed = False
        self._out = out
        self._name = name
        self._held: list[bytes] | None = []

    def start(self) -> None:
        held, self._held = self._held or [], None
        for data in held:
            self.write(data)

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        size = len(view)
        if self._held is not None:
            self._held.append(bytes(view))
            return size
        while view and not self.abandoned:
            view = view[_write(self._out, view, self._name) :]
        return size

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


def parse_spec(text: str | None, path: str) -> tuple[str, int] | None:
    """Return format and level, by ``--compress`` or else by the output's suffix.

    Args:
        text: A name of ``LEVELS``, maybe with ``:level``; ``none``; or None.
        path: The output's name.

    Raises:
        UsageError: The format or the level does not exist.

    >>> parse_spec(None, "a.tar.zst"), parse_spec("gzip:1", "-")
    (('zstd', 3), ('gzip', 1))
    >>> parse_spec("none", "a.tar.gz")
    """
    if text is None:
        text = SUFFIXES.get(Path(path).suffix.lower(), "none")
    found = re.fullmatch(r"(\w+)(?::([0-9]{1,2}))?", text)
    name = found[1] if found else text
    if found is None or name not in (*LEVELS, "none"):
        known = ", ".join((*LEVELS, "none"))
        raise UsageError(
            f"--compress: unknown method {quoted(text)} (choose from {known})"
        )
    if name == "none":
        return None
    least, default, most = LEVELS[name]
    level = default if found[2] is None else int(found[2])
    if not least <= level <= most:
        raise UsageError(
            f"--compress: {name} has levels {least} to {most}, not {level}"
        )
    return name, level


@contextmanager
def compressing(out: int, spec: tuple[str, int] | None, name: str) -> Iterator[Sink]:
    """Yield a sink for the tar's bytes that writes to ``out``, ``name`` in messages.

    Raises:
        FlattenError: The output cannot be written.
    """
    if spec is None:
        yield PlainSink(out, name)
        return
    raw = _Raw(out, name)
    compressor = _compressor(raw, *spec)
    blocks = _Blocks(compressor.write)
    try:
        raw.start()
        yield blocks
        blocks.flush()
        compressor.close()
    except BaseException:
        raw.abandoned = True
        with suppress(
            OSError, FlattenError
        ):  # this ends its threads, and raises the known error again
            compressor.close()
        raise


def _compressor(raw: Any, name: str, level: int) -> Any:
    """Return a file object that compresses the bytes written to it."""
    threads = processors()
    if name == "zstd":
        import zstandard  # 15 ms, only when asked for

        options = zstandard.ZstdCompressor(level, threads=threads, write_checksum=True)
        return options.stream_writer(raw, closefd=False)
    if name == "xz":
        import lzma  # only when asked for

        return lzma.LZMAFile(raw, "wb", preset=level)
    if name == "bzip2":
        import bz2  # only when asked for

        return bz2.BZ2File(raw, "wb", compresslevel=level)
    if level > _ISAL_LEVELS:
        import gzip  # only when asked for

        return gzip.GzipFile("", "wb", level, raw, mtime=0)
    from isal import igzip_threaded  # only when asked for

    make: Any = igzip_threaded.open  # has no types
    return make(raw, "wb", level, threads=threads, block_size=BLOCK)
