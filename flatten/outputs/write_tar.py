"""Write the pieces of a tar to a file, a pipe, or a compressor.

Small pieces and merged spans are gathered in one reused buffer, which stays in the
processor's L2 cache; long spans without patches are copied from file to file inside the
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
from .copying import Copier

LONG: Final = 1 << 17  # bytes of a span from which the kernel copies it
FREED_FROM: Final = 1 << 14  # bytes of a range from which freeing its memory pays

Advance = Callable[[int], object]


def write_tar(  # noqa: PLR0913 - the rare ones by keyword
    pieces: Iterable[Piece],
    layers: Sequence[LayerBytes],
    out: Sink,
    advance: Advance | None = None,
    *,
    share: int = 0,
    read_once: bool = False,
) -> int:
    """Write all pieces in order.

    Args:
        pieces: The pieces, as ``plan.pieces`` yields them.
        layers: The layers' bytes, by position.
        out: Receives the bytes.
        advance: Called with the number of bytes after each write.
        share: Block size of the output's file system, to share contents with the
            layers' files instead of copying them; 0 copies.
        read_once: No content is read again, so the memory of each range of an inflated
            layer can be freed after it is written.

    Returns:
        The number of bytes written.

    Raises:
        FormatError: A layer has fewer bytes than when it was indexed.
        FlattenError: Writing failed; BrokenPipeError passes as it is.
    """
    writer = _TarWriter(out, advance, share, read_once)
    for piece in pieces:
        if isinstance(piece, bytes):
            writer.put(piece)
        elif not piece.patches and (share or piece.length >= LONG):
            writer.copy(layers[piece.layer], piece)
        else:
            writer.gather(layers[piece.layer], piece)
    writer.flush()
    return writer.written


class _TarWriter:
    """Writes pieces to a sink through a buffer."""

    def __init__(
        self, out: Sink, advance: Advance | None, share: int, read_once: bool
    ) -> None:
        self.written = 0
        self._out = out
        self._advance = advance
        self._view = memoryview(bytearray(MERGED))
        self._fill = 0
        self._descriptor = out.descriptor()
        self._frees = read_once and _takes_copies(self._descriptor)
        self._copier = Copier(share)

    def put(self, data: bytes) -> None:
        """Write bytes that are in no layer."""
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
            if isinstance(patch, bytes):
                view[at : at + len(patch)] = patch
            else:
                patch.write(view[at : at + patch.size])
        if self._frees and layer.is_scratch():
            for begin, end in _own(span):
                layer.release(span.offset + begin, end - begin)

    def copy(self, layer: LayerBytes, span: Span) -> None:
        """Write a long span without patches."""
        self.flush()
        offset, stop = span.offset, span.offset + span.length
        while offset < stop:
            done = 0
            if self._descriptor is not None:
                done = self._copier.copy(layer, offset, self._descriptor, stop - offset)
            if done:
                self._count(done)
            else:
                done = min(MERGED, stop - offset)
                layer.readinto(offset, self._view[:done])
                self._write(self._view[:done])
            if self._frees:
                layer.release(offset, done)
            offset += done

    def flush(self) -> None:
        """Write the bytes in the buffer."""
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


def _own(span: Span) -> Iterator[tuple[int, int]]:
    """Yield the long ranges of a span that only its own members can have.

    A content and the header block before it belong to its member. Bytes under a longer
    patch may belong to anything, also to contents that are written later.
    """
    begin = 0
    for position, length in span.places():
        if length > BLOCK_SIZE:
            if position - begin >= FREED_FROM:
                yield begin, position
            begin = position + length - BLOCK_SIZE
    if span.length - begin >= FREED_FROM:
        yield begin, span.length


def _takes_copies(descriptor: int | None) -> bool:
    """Return True if the output has its own copy of bytes once they are written.

    Pipes and sockets refer to the pages themselves until somebody reads them.

    Reference: sendfile(2), "NOTES".
    """
    return descriptor is None or stat.S_ISREG(os.fstat(descriptor).st_mode)
