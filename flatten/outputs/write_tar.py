"""Pieces to tar bytes: into a file, a pipe, or whatever has a descriptor.

Small pieces and merged spans are gathered in one reused buffer, which stays in the
processor's L2 cache; long spans without patches go from file to file inside the
kernel. Bench: bench/README.md.
"""

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from ..host.compress import Sink
from ..host.files import LayerBytes
from ..plan.plan import MERGED, Piece, Span
from ..tar.wire import BLOCK_SIZE
from .reflink import clone

LONG: Final = 1 << 17  # spans from this length on are copied by the kernel
WORTHWHILE: Final = 1 << 14  # bytes of memory to give back
STEP: Final = 1 << 24  # bytes a system call, so that progress moves

Advance = Callable[[int], object]
_KernelCopy = Callable[[int, int, int, int], int]


def write_tar(  # noqa: PLR0913 - the rare ones by keyword
    pieces: Iterable[Piece],
    layers: Sequence[LayerBytes],
    out: Sink,
    advance: Advance | None = None,
    *,
    share: int = 0,
    spent: bool = False,
) -> int:
    """Write all pieces in order.

    Args:
        pieces: What ``plan.pieces`` yields.
        layers: The layers' bytes, by position.
        out: What takes the bytes.
        advance: Called with the number of bytes, each time some are written.
        share: Block size of the file system, to share contents instead of copying
            them where they are in place; 0 copies.
        spent: Contents are read just once: the memory that they are in is given back.

    Returns:
        The number of bytes written.

    Raises:
        FormatError: A layer has fewer bytes than when it was indexed.
        FlattenError: Writing failed; BrokenPipeError passes as it is.
    """
    writer = _Writer(out, advance, share, spent)
    for piece in pieces:
        if isinstance(piece, bytes):
            writer.put(piece)
        elif not piece.patches and (share or piece.length >= LONG):
            writer.copy(layers[piece.layer], piece)
        else:
            writer.gather(layers[piece.layer], piece)
    writer.flush()
    return writer.written


class _Writer:
    """What takes the bytes, behind a buffer."""

    def __init__(
        self, out: Sink, advance: Advance | None, share: int, spent: bool
    ) -> None:
        self.written = 0
        self._out = out
        self._advance = advance
        self._view = memoryview(bytearray(MERGED))
        self._fill = 0
        self._share = share
        self._descriptor = out.descriptor()
        self._spent = spent and _takes_copies(self._descriptor)
        self._copies: dict[int, list[_KernelCopy]] = {}  # that work, by source

    def put(self, data: bytes) -> None:
        """Write bytes that we encoded."""
        size = len(data)
        if size > MERGED:
            self.flush()
            self._write(memoryview(data))
            return
        start = self._room(size)
        self._view[start : start + size] = data

    def gather(self, layer: LayerBytes, span: Span) -> None:
        """Write a span of at most ``MERGED`` bytes, with its patches."""
        start = self._room(span.length)
        view = self._view
        layer.readinto(span.offset, view[start : start + span.length])
        for position, patch in span.patches:
            at = start + position
            view[at : at + len(patch)] = patch
        if self._spent:
            for begin, end in _own(span):
                layer.release(span.offset + begin, end - begin)

    def copy(self, layer: LayerBytes, span: Span) -> None:
        """Write a long span as it is."""
        self.flush()
        offset, stop = span.offset, span.offset + span.length
        while offset < stop:
            count = min(STEP, stop - offset)
            extent = layer.extent(offset)
            done = self._kernel_copy(*extent, count) if extent else 0
            if not done:
                done = min(count, MERGED)
                layer.readinto(offset, self._view[:done])
                self._write(self._view[:done])
            else:
                self._count(done)
            if self._spent:
                layer.release(offset, done)
            offset += done

    def flush(self) -> None:
        """Write what the buffer holds."""
        fill, self._fill = self._fill, 0
        if fill:
            self._write(self._view[:fill])

    def _room(self, size: int) -> int:
        """Make room for ``size`` bytes in the buffer; return where it starts."""
        if self._fill + size > MERGED:
            self.flush()
        start = self._fill
        self._fill += size
        return start

    def _write(self, view: memoryview) -> None:
        while view:
            done = self._out.write(view)
            self._count(done)
            view = view[done:]

    def _count(self, done: int) -> None:
        self.written += done
        if self._advance is not None:
            self._advance(done)

    def _clone(self, source: int, out: int, count: int, offset: int) -> int:
        """Share whole blocks that are in place in both files, and copy the rest."""
        block = self._share
        if (offset - os.lseek(out, 0, os.SEEK_CUR)) % block:
            return _copy_file_range(source, out, count, offset)
        before = -offset % block
        if before or count < block:
            return _copy_file_range(source, out, min(before or count, count), offset)
        return clone(source, out, count - count % block, offset)

    def _kernel_copy(self, source: int, offset: int, length: int, count: int) -> int:
        """Copy inside the kernel; 0 where it cannot, or at the end of the file.

        Where it fails, for whatever reason, reading and writing come next: they say
        which of the two it was.
        """
        copies = self._copies.get(source)
        if copies is None:
            clone = [self._clone] if self._share else []
            copies = self._copies[source] = [*clone, _copy_file_range, _sendfile]
        while copies and self._descriptor is not None:
            try:
                return copies[0](source, self._descriptor, min(length, count), offset)
            except BrokenPipeError:
                raise
            except OSError:
                copies.pop(0)
        return 0


def _own(span: Span) -> Iterator[tuple[int, int]]:
    """Yield the long stretches of a span that are surely of its own members.

    The block before a content is its header. Under what more we write there may be
    anything, contents of others too.
    """
    begin = 0
    for position, patch in span.patches:
        if len(patch) >= 2 * BLOCK_SIZE:  # more than a header, and padding before it
            if position - begin >= WORTHWHILE:
                yield begin, position
            begin = position + len(patch) - BLOCK_SIZE
    if span.length - begin >= WORTHWHILE:
        yield begin, span.length


def _takes_copies(descriptor: int | None) -> bool:
    """Say whether bytes are copied to the output at once.

    Pipes and sockets are given the pages themselves, which readers find later.

    Reference: sendfile(2), "NOTES".
    """
    return descriptor is None or stat.S_ISREG(os.fstat(descriptor).st_mode)


def _copy_file_range(source: int, out: int, count: int, offset: int) -> int:
    return os.copy_file_range(source, out, count, offset)


def _sendfile(source: int, out: int, count: int, offset: int) -> int:
    return os.sendfile(out, source, offset, count)
