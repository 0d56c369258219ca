"""Spools: keep the bytes of one-time streams for random access; threads fill them.

The streams are inflated layers, and archives from a pipe.

**The strategy** for compressed layers is entirely in this module. Each layer is
inflated once, two or more at a time, in threads that run ahead of the indexing, into
unnamed files: in memory (memfd) up to a budget, then in $TMPDIR. So readers, and the
kernel when it copies to the output, use descriptors as of any file. Measured on 2
cores with 9 layers (0.7 GB of gzip, 2.9 GB inflated), inflated and written out without
an index: 10.6 s of CPU into memory of the process, as each page faults; 7.0 s into a
memfd; 5.7 s for ``igzip -dc`` of one after another, which keeps nothing. Inflating
twice costs 3.9 s more than that; a scratch file costs as much, and the disk's time.
Chunks of zeros take no memory, so gigabytes of them do not either.

Each chunk is hashed as it arrives, while it is in the processor's cache: reading 3 GB
again for that took 0.5 s. Bytes that have been written are freed immediately, so that
the output reuses the same pages: fresh pages cost a virtual machine 0.4 to 1 s more per
gigabyte, and no thread has to free all pages at the end.
"""

import hashlib
import os
import sys
import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import Final

from ..errors import FlattenError, FormatError
from .decompress import CHUNK, decompress
from .files import LayerBytes, fill
from .limits import Limits, check_ratio, processors
from .scratch import Scratch

_ZERO_CHUNK: Final = bytes(CHUNK)
SWITCH: Final = 0.0005  # seconds; Python's default is ten times as long


class _SwitchInterval:
    """The interpreter's switch interval, which is shortened while blocks overlap.

    The first block to begin shortens it, and the last one to end restores it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blocks = 0
        self._before = 0.0

    @contextmanager
    def shortened(self) -> Iterator[None]:
        """Let threads take shorter turns during the block."""
        with self._lock:
            if not self._blocks:
                self._before = sys.getswitchinterval()
                sys.setswitchinterval(min(self._before, SWITCH))
            self._blocks += 1
        try:
            yield
        finally:
            with self._lock:
                self._blocks -= 1
                if not self._blocks:
                    sys.setswitchinterval(self._before)


short_turns: Final = _SwitchInterval().shortened
"""Shorten the interpreter's switch interval while threads inflate and hash."""

AHEAD: Final = 1 << 22
_NOBODY: Final = 1 << 62
_ZEROS: Final = -1  # instead of a descriptor: zeros, which are not stored
_Extent = tuple[int, int, int]


class Spool(LayerBytes):
    """Bytes that arrive once, in chunks, for random access by any thread.

    Readers wait for bytes that have not arrived yet. An error while filling is raised
    in the readers.

    Attributes:
        where: Its name in messages.
    """

    def __init__(self, scratch: Scratch, where: str, *, hashed: bool = False) -> None:
        """Create an empty spool, whose bytes are stored in ``scratch``."""
        self.where = where
        self._hash = hashlib.sha256() if hashed else None
        self._scratch = scratch
        self._memory = scratch.memory()
        self._length = 0  # updated after the extents
        self._starts: list[int] = []  # offsets of the extents in the stream
        self._places: list[tuple[int, int]] = []  # and their (descriptor, offset)
        self._done = False
        self._error: FlattenError | None = None
        self._changed = threading.Condition()
        self._wanted = _NOBODY  # the length at which waiting readers are notified

    def append(self, chunk: bytes) -> None:
        """Append a chunk."""
        if chunk[0] == 0 and chunk == _ZERO_CHUNK:
            place = _ZEROS, self._length
        else:
            place = self._scratch.keep(chunk, self._memory)
        with self._changed:
            if not self._continues(place):
                self._starts.append(self._length)
                self._places.append(place)
            self._length += len(chunk)
            if self._length >= self._wanted:
                self._wanted = _NOBODY
                self._changed.notify_all()

    def hashing(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Pass on chunks to be appended, and hash them if the spool is hashed."""
        for chunk in chunks:
            if self._hash is not None:
                self._hash.update(chunk)
            yield chunk

    def arrival_digest(self) -> Callable[[], str] | None:
        """Return ``digest`` if the spool is hashed, else None."""
        return None if self._hash is None else self.digest

    def is_scratch(self) -> bool:
        """Return True."""
        return True

    def digest(self) -> str:
        """Wait for the end, and return the SHA-256 of all bytes in hex.

        Raises:
            FlattenError: Filling the spool failed.
        """
        assert self._hash is not None, "digest is only for hashed spools"
        self.size()
        return self._hash.hexdigest()

    def _continues(self, place: tuple[int, int]) -> bool:
        """Return True if a place is the end of the last extent."""
        if not self._starts:
            return False
        descriptor, offset = self._places[-1]
        return place == (descriptor, offset + self._length - self._starts[-1])

    def finish(self, error: FlattenError | None = None) -> None:
        """Mark the spool as complete, or as failed with ``error``."""
        with self._changed:
            self._done = True
            self._error = error
            self._changed.notify_all()

    def length(self) -> int:
        """Return the number of bytes so far."""
        return self._length

    def size(self) -> int:
        """Wait for the end, and return the length."""
        self._wait(1 << 62)
        return self._length

    def read(self, offset: int, count: int) -> bytes:
        """Return ``count`` bytes; fewer only at the end."""
        self._wait(offset + count)
        count = min(count, self._length - offset)
        if count <= 0:
            return b""
        descriptor, start, length = self._extent(offset)
        if count <= length and descriptor != _ZEROS:
            try:
                got = os.pread(descriptor, count, start)
            except OSError as error:
                raise self._lost(error.strerror) from error
            if len(got) == count:
                return got
        out = bytearray(count)
        self.readinto(offset, memoryview(out))
        return bytes(out)

    def readinto(self, offset: int, view: memoryview) -> None:
        """Fill ``view``."""
        self._wait(offset + len(view))
        if offset + len(view) > self._length:
            raise FormatError("ends too soon", where=self.where, offset=self._length)
        while view:
            descriptor, start, length = self._extent(offset)
            part = view[:length]
            if descriptor == _ZEROS:
                part[:] = bytes(len(part))
            else:
                self._fill(descriptor, part, start)
            view = view[len(part) :]
            offset += len(part)

    def _fill(self, descriptor: int, view: memoryview, start: int) -> None:
        try:
            done = fill(descriptor, view, start)
        except OSError as error:
            raise self._lost(error.strerror) from error
        if done < len(view):
            raise self._lost("it was truncated")

    def _lost(self, why: str | None) -> FlattenError:
        return FlattenError(f"{self.where}: cannot read scratch space: {why}")

    def extent(self, offset: int) -> _Extent | None:
        """Return a descriptor, the offset in it, and the bytes of the stream there."""
        self._wait(offset + 1)
        if offset >= self._length:
            return None
        found = self._extent(offset)
        return None if found[0] == _ZEROS else found

    def release(self, offset: int, count: int) -> None:
        """Schedule the memory pages that lie entirely within the range to be freed.

        The output can then reuse the same pages.
        """
        while count > 0 and self._memory is not None:
            descriptor, start, length = self._extent(offset)
            length = min(length, count)
            if descriptor == self._memory.descriptor:
                self._scratch.freeing.give_back(descriptor, start, length)
            offset, count = offset + length, count - length

    def _extent(self, offset: int) -> _Extent:
        length = self._length  # read before the extents, which may grow
        at = bisect_right(self._starts, offset) - 1
        start, (descriptor, place) = self._starts[at], self._places[at]
        behind = at + 1
        stop = self._starts[behind] if behind < len(self._starts) else length
        return descriptor, place + offset - start, stop - offset

    def _wait(self, stop: int) -> None:
        """Wait until there are ``stop`` bytes, or the stream has ended.

        A reader waits for some more bytes, as each wait costs a thread switch.
        """
        if self._length < stop and not self._done:
            more = max(stop, self._length + AHEAD)
            with self._changed:
                while self._length < more and not self._done:
                    self._wanted = min(self._wanted, more)
                    self._changed.wait()
        if self._error is not None and self._length < stop:
            raise self._error


@contextmanager
def _made_ahead(chunks: Iterator[bytes]) -> Iterator[Iterator[bytes]]:
    """Yield an iterator over the same chunks, read up to 8 ahead by a thread."""
    import queue  # 1 ms, only where a layer is inflated

    made: queue.Queue[bytes | BaseException | None] = queue.Queue(8)
    stopped = threading.Event()

    def make() -> None:
        try:
            for chunk in chunks:
                made.put(chunk)
                if stopped.is_set():
                    return
            made.put(None)
        except BaseException as error:
            made.put(error)

    def take() -> Iterator[bytes]:
        while (got := made.get()) is not None:
            if isinstance(got, BaseException):
                raise got
            yield got

    thread = threading.Thread(target=make, daemon=True)
    try:
        thread.start()
    except RuntimeError:  # no more threads available
        yield chunks
        return
    try:
        yield take()
    finally:
        stopped.set()
        with suppress(queue.Empty):
            made.get_nowait()  # the thread may be waiting for space in the queue
        thread.join()


class Pool:
    """Threads that fill spools with inflated bytes, within the limits.

    Attributes:
        limits: The limits to enforce.
        scratch: Stores the spools' bytes.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        hashing: bool = True,
        advance: Callable[[int], object] | None = None,
    ) -> None:
        """Prepare the pool, without starting threads yet.

        Args:
            limits: The limits to enforce.
            hashing: Whether bytes whose digest is known are hashed as they arrive.
            advance: Called with the number of bytes for each chunk that arrives, by the
                thread that fills the spool.
        """
        self.limits = limits
        self._hashing = hashing
        self._advance = advance
        self.scratch = Scratch(limits)
        self._total = 0
        self._lock = threading.Lock()
        self._todo: deque[tuple[Spool, LayerBytes, str]] = deque()
        self._threads: list[threading.Thread] = []
        self._processors = processors()
        self._closed = False

    def spool(self, where: str) -> Spool:
        """Return an empty spool for ``fill``."""
        return Spool(self.scratch, where)

    def inflate(
        self, source: LayerBytes, kind: str, where: str, *, hashed: bool = False
    ) -> Spool:
        """Return a spool that a thread fills with the inflated bytes of ``source``.

        Args:
            source: The compressed bytes.
            kind: Their format, as ``decompress.sniff`` returned it.
            where: The spool's name in messages.
            hashed: Hash the bytes too, if the pool hashes.
        """
        spool = Spool(self.scratch, where, hashed=hashed and self._hashing)
        with self._lock:
            self._todo.append((spool, source, kind))
            if len(self._threads) < self._processors:
                thread = threading.Thread(target=self._run, daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:
                    raise FlattenError(f"{where}: cannot inflate: {error}") from error
                self._threads.append(thread)
        return spool

    def fill(self, spool: Spool, chunks: Iterable[bytes], source_size: int = 0) -> None:
        """Fill a spool, within the limits.

        Raises:
            FlattenError: A limit is passed.
        """
        limits = self.limits
        for chunk in chunks:
            if self._closed:
                return
            self._count(len(chunk), spool.where)
            spool.append(chunk)
            if self._advance is not None:
                self._advance(len(chunk))
            length = spool.length()
            check_ratio(limits, length, source_size, spool.where)

    def close(self) -> None:
        """Stop the threads, and free the spools' memory and scratch files."""
        self._closed = True
        with self._lock:
            self._todo.clear()
            threads = list(self._threads)
        for thread in threads:
            thread.join()
        self.scratch.close()

    def _count(self, count: int, where: str) -> None:
        with self._lock:
            self._total += count
            if self._total > self.limits.size:
                raise FormatError(
                    f"inflates beyond {self.limits.size:,} bytes, with the layers "
                    "before it; if that is right, allow more with --max-size",
                    where=where,
                )

    def _hashed(self, spool: Spool, chunks: Iterator[bytes]) -> Generator[bytes]:
        """Hash and pass on chunks, in more threads once a processor is idle.

        A single layer is then inflated, hashed and stored by one thread each: 7.8 s
        instead of 9.3 in total for 0.7 GB of gzip, measured with chunks of 1 MiB.
        """
        for chunk in spool.hashing(chunks):
            yield chunk
            if self._has_spare():
                with ExitStack() as threads:
                    rest = threads.enter_context(_made_ahead(chunks))
                    if spool.arrival_digest() is not None:
                        rest = threads.enter_context(_made_ahead(spool.hashing(rest)))
                    yield from rest

    def _has_spare(self) -> bool:
        """Return True if fewer layers are being inflated than there are processors."""
        with self._lock:
            return not self._todo and len(self._threads) < self._processors

    def _run(self) -> None:
        """Fill one spool after another, in the order of the requests."""
        while True:
            with self._lock:
                if not self._todo:
                    self._threads.remove(threading.current_thread())
                    return
                spool, source, kind = self._todo.popleft()
            try:
                plain = decompress(source, kind, spool.where)
                with closing(self._hashed(spool, plain)) as chunks:
                    self.fill(spool, chunks, source.size())
            except FlattenError as error:
                spool.finish(error)
            except BaseException as error:
                spool.finish(FlattenError(f"{spool.where}: cannot inflate: {error!r}"))
            else:
                closed = (
                    FlattenError(f"{spool.where}: cancelled") if self._closed else None
                )
                spool.finish(closed)
