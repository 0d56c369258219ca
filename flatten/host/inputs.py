"""Open paths, and decompress their bytes, with random access."""

import os
import stat
from collections.abc import Iterable

from ..errors import FlattenError, SourceError, quoted, shown
from ..tar.wire import BLOCK_SIZE, checksum_error
from .decompress import CHUNK, sniff
from .files import File, LayerBytes
from .spools import Pool, Spool


def open_file(path: str, pool: Pool) -> File | Spool:
    """Open a path for random access.

    Args:
        path: A path; ``-`` is standard input. A pipe, FIFO or socket is read to its
            end, into a spool.
        pool: The pool that holds the spool.

    Raises:
        SourceError: The path does not exist, is not readable, or is a directory or
            character device.
    """
    named = "standard input" if path == "-" else quoted(path)
    try:
        flags = os.O_RDONLY | os.O_CLOEXEC
        descriptor = os.dup(0) if path == "-" else os.open(path, flags)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SourceError(f"{named}: {reason}") from error
    name = "standard input" if path == "-" else shown(path)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return File(descriptor, name, os.fstat(descriptor).st_size)
    if stat.S_ISBLK(mode):
        return File(descriptor, name, os.lseek(descriptor, 0, os.SEEK_END))
    try:
        if not stat.S_ISFIFO(mode) and not stat.S_ISSOCK(mode):
            raise SourceError(f"{named}: not a file, an image directory or a pipe")
        spool = pool.spool(name)
        pool.fill(spool, _chunks(descriptor, named))
        spool.finish()
    finally:
        os.close(descriptor)
    return spool


def _chunks(descriptor: int, named: str) -> Iterable[bytes]:
    """Yield a pipe's bytes in chunks of one size, so that chunks of zeros are found."""
    buffer = bytearray()
    while True:
        try:
            data = os.read(descriptor, CHUNK - len(buffer))
        except OSError as error:
            raise FlattenError(f"{named}: cannot read: {error.strerror}") from error
        buffer += data
        if len(buffer) == CHUNK or (not data and buffer):
            yield bytes(buffer)
            buffer.clear()
        if not data:
            return


def plain(source: LayerBytes, pool: Pool, where: str) -> LayerBytes:
    """Return bytes unchanged if they are plain, or inflated if they are compressed."""
    kind = compression(source)
    return source if kind is None else pool.inflate(source, kind, where)


def compression(source: LayerBytes) -> str | None:
    """Return the compression format of bytes, or None if they are plain or a tar.

    The first name in a tar may look like the start of compressed data.
    """
    kind = sniff(source)
    block = b"" if kind is None else source.read(0, BLOCK_SIZE)
    is_tar = len(block) == BLOCK_SIZE and not checksum_error(block)
    return None if is_tar else kind
