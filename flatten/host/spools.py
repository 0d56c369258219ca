"""Spools: what comes once and is needed again, kept while threads fill it.

A compressed layer, inflated, or an archive from a pipe.

**The strategy** for compressed layers, all of it here: each is inflated once, two or
more at a time, in threads ahead of the indexing, into files without a name: in memory
(memfd) up to a budget, in $TMPDIR from there on. So readers, and the kernel that copies
from them to the output, have descriptors as of any file. Measured on 2 cores, 0.7 GB of
gzip to 2.9 GB in 9 layers, inflated and written out again, without any index: into
memory of the process 10.6 s of CPU, as each page of it faults; into a memfd 7.0 s;
``igzip -dc`` of them in turn, which keeps nothing, 5.7 s. Inflating twice costs 3.9 s
more than that, a scratch file on a disk as much, and the disk's time. Chunks of zeros
take no memory, so gigabytes of them do not either.

Each chunk is hashed as it comes, while the processor's cache holds it: reading all of
it again for that took 0.5 s for 3 GB. And what has been written is given back at once,
so that the output takes the same pages: untouched ones cost a virtual machine 0.4 to
1 s a gigabyte more, and no thread need free them all at the end.
"""

import hashlib
import os
import sys
import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import Final

from ..errors import FlattenError, FormatError
from .decompress import CHUNK, decompress
from .files import File, LayerBytes, fill
from .limits import Limits, free_memory
from .space import Freeing

_ZERO_CHUNK: Final = bytes(CHUNK)
RATIO_COUNTS_FROM: Final = 1 << 30
SWITCH: Final = 0.0005  # seconds; Python's own default is ten times as long


@contextmanager
def taking_turns() -> Iterator[None]:
    """Let threads switch often, as those that inflate and hash wait for it often."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(min(before, SWITCH))
    try:
        yield
    finally:
        sys.setswitchinterval(before)


class _Store:
    """A file without a name, that bytes are appended to: a memfd, or on a disk."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._end = 0
        self._lock = threading.Lock()

    def append(self, chunk: bytes) -> int:
        """Write a chunk to the end; return where it begins."""
        with self._lock:
            start = self._end
            self._end += len(chunk)
        done = 0
        while done < len(chunk):
            rest = memoryview(chunk)[done:]
            done += os.pwrite(self.descriptor, rest, start + done)
        return start


AHEAD: Final = 1 << 22
_NOBODY: Final = 1 << 62
_ZEROS: Final = -1  # in place of a descriptor: bytes that are kept nowhere
_Extent = tuple[int, int, int]


class Spool:
    """Bytes that come once, in chunks, and are then read at offsets, by any thread.

    Readers wait for what is not there yet. What went wrong while filling is raised
    to them.

    Attributes:
        where: Its name in messages.
    """

    def __init__(self, pool: "Pool", where: str, *, hashed: bool = False) -> None:
        """Make an empty spool, filled by ``pool``."""
        self.where = where
        self._hash = hashlib.sha256() if hashed else None
        self._pool = pool
        self._memory = pool.memory()
        self._length = 0  # grows after the extents do
        self._starts: list[int] = []  # of extents: where they begin,
        self._places: list[tuple[int, int]] = []  # and the descriptor and offset
        self._done = False
        self._error: FlattenError | None = None
        self._changed = threading.Condition()
        self._wanted = _NOBODY  # the length that a waiting reader is told of

    def append(self, chunk: bytes) -> None:
        """Add a chunk to the end."""
        if chunk[0] == 0 and chunk == _ZERO_CHUNK:
            place = _ZEROS, self._length
        else:
            place = self._pool.keep(chunk, self._memory)
        with self._changed:
            if not self._continues(place):
                self._starts.append(self._length)
                self._places.append(place)
            self._length += len(chunk)
            if self._length >= self._wanted:
                self._wanted = _NOBODY
                self._changed.notify_all()

    @property
    def hashed(self) -> bool:
        """Whether all that comes is hashed."""
        return self._hash is not None

    def hashing(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Pass on what will be appended, and hash it where that is wanted."""
        for chunk in chunks:
            if self._hash is not None:
                self._hash.update(chunk)
            yield chunk

    def digest(self) -> str:
        """Wait for the end, and return the SHA-256 of all, in hex.

        Raises:
            FlattenError: It ended too soon.
        """
        assert self._hash is not None, "only asked where it is hashed"
        self.size()
        return self._hash.hexdigest()

    def _continues(self, place: tuple[int, int]) -> bool:
        """Say whether a place is where the last extent ends."""
        if not self._starts:
            return False
        descriptor, offset = self._places[-1]
        return place == (descriptor, offset + self._length - self._starts[-1])

    def finish(self, error: FlattenError | None = None) -> None:
        """Say that nothing more comes, and why, if it is not the end."""
        with self._changed:
            self._done = True
            self._error = error
            self._changed.notify_all()

    def length(self) -> int:
        """Return how many bytes there are so far."""
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
            raise self._lost("it was cut off")

    def _lost(self, why: str | None) -> FlattenError:
        return FlattenError(f"{self.where}: cannot read scratch space: {why}")

    def extent(self, offset: int) -> _Extent | None:
        """Return a descriptor and its offset, and how much of the stream is there."""
        self._wait(offset + 1)
        if offset >= self._length:
            return None
        found = self._extent(offset)
        return None if found[0] == _ZEROS else found

    def origin(self, offset: int) -> None:  # noqa: ARG002 - of LayerBytes
        """Return None: what holds the bytes does not last."""
        return

    def sample(self) -> None:
        """Return None."""
        return

    def release(self, offset: int, count: int) -> None:
        """Give back the pages of memory that lie within the bytes, soon.

        The pages that come next, of the output, are then the same ones.
        """
        while count > 0 and self._memory is not None:
            descriptor, start, length = self._extent(offset)
            length = min(length, count)
            if descriptor == self._memory.descriptor:
                self._pool.freeing.give_back(descriptor, start, length)
            offset, count = offset + length, count - length

    def _extent(self, offset: int) -> _Extent:
        length = self._length  # before the rest, which may grow
        at = bisect_right(self._starts, offset) - 1
        start, (descriptor, place) = self._starts[at], self._places[at]
        behind = at + 1
        stop = self._starts[behind] if behind < len(self._starts) else length
        return descriptor, place + offset - start, stop - offset

    def _wait(self, stop: int) -> None:
        """Wait until there are ``stop`` bytes, or all.

        Who waits does so for some more, as each time costs a switch of threads.
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
    """Yield an iterator over the same, made by a thread, up to 8 chunks ahead."""
    import queue  # noqa: PLC0415 - 1 ms, only where a layer is inflated

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
    except RuntimeError:  # there can be no more threads
        yield chunks
        return
    try:
        yield take()
    finally:
        stopped.set()
        with suppress(queue.Empty):
            made.get_nowait()  # it may wait for room
        thread.join()


class Pool:
    """Threads that fill spools, and the memory and scratch file that hold them.

    Attributes:
        limits: What may not be passed.
        files: The open files of the source.
        freeing: Frees memory that is needed no more.
    """

    def __init__(self, limits: Limits) -> None:
        """Start no thread yet."""
        self.limits = limits
        self.files: list[File] = []
        self.freeing = Freeing()
        self._budget = free_memory() // 4 if limits.memory is None else limits.memory
        self._total = 0
        self._memories: list[_Store] = []
        self._spools = 0
        self._scratch: _Store | None = None
        self._lock = threading.Lock()
        self._todo: deque[tuple[Spool, LayerBytes, str]] = deque()
        self._threads: list[threading.Thread] = []
        self._processors = len(os.sched_getaffinity(0))
        self._closed = False

    def inflate(
        self, source: LayerBytes, kind: str, where: str, *, hashed: bool = False
    ) -> Spool:
        """Return a spool that a thread fills with what ``source`` inflates to."""
        spool = Spool(self, where, hashed=hashed)
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
            length = spool.length()
            if (
                length > RATIO_COUNTS_FROM
                and source_size
                and length > limits.ratio * source_size
            ):
                raise FormatError(
                    f"inflates to more than {limits.ratio:,} times its size; "
                    "if that is right, allow more with --max-ratio",
                    where=spool.where,
                )

    def memory(self) -> _Store | None:
        """Return what keeps a spool's bytes in memory, as long as there is budget.

        There is one a thread: those that fill spools at the same time would wait for
        each other where they wrote to the same.
        """
        with self._lock, suppress(OSError):  # no memfd, as under some seccomp rules
            at = self._spools % self._processors
            self._spools += 1
            if at == len(self._memories):
                self._memories.append(_Store(os.memfd_create("flatten")))
            return self._memories[at]
        return None

    def keep(self, chunk: bytes, memory: _Store | None) -> tuple[int, int]:
        """Keep a chunk; return the descriptor and offset where it is."""
        with self._lock:
            fits = memory is not None and len(chunk) <= self._budget
            self._budget -= len(chunk) if fits else 0
        store = memory if fits and memory is not None else self._scratch_store()
        try:
            return store.descriptor, store.append(chunk)
        except OSError as error:
            if store is memory:
                why = f"{error.strerror}; --memory says how much may be kept there"
                raise FlattenError(f"cannot keep data in memory: {why}") from error
            raise self._no_scratch(error) from error

    def _scratch_store(self) -> _Store:
        """Return what keeps what memory does not."""
        import tempfile  # noqa: PLC0415 - 10 ms, only when memory is short

        with self._lock:
            try:
                if self._scratch is None:
                    with tempfile.TemporaryFile() as scratch:
                        self._scratch = _Store(os.dup(scratch.fileno()))
            except OSError as error:
                raise self._no_scratch(error) from error
            return self._scratch

    @staticmethod
    def _no_scratch(error: OSError) -> FlattenError:
        import tempfile  # noqa: PLC0415 - as above

        folder = tempfile.tempdir or "any folder"
        return FlattenError(
            f"cannot write scratch space in {folder}: {error.strerror}; "
            "TMPDIR says where, --memory how much goes there"
        )

    def check_unchanged(self) -> None:
        """Check that nobody has written to the files since they were opened.

        Raises:
            FlattenError: Somebody has.
        """
        for file in self.files:
            file.check_unchanged()

    def close(self) -> None:
        """Stop the threads and give back what they filled."""
        self._closed = True
        with self._lock:
            self._todo.clear()
            threads = list(self._threads)
        for thread in threads:
            thread.join()
        self.freeing.stop()
        for store in (*self._memories, *filter(None, [self._scratch])):
            os.close(store.descriptor)
        self._memories, self._scratch = [], None

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
        """Hash and pass on chunks; in more threads from when a processor is idle.

        A sole layer is then inflated by one, hashed by one and kept by one: measured
        with chunks of 1 MiB, 7.8 s instead of 9.3 for 0.7 GB of gzip, all in all.
        """
        for chunk in spool.hashing(chunks):
            yield chunk
            if self._has_spare():
                with ExitStack() as threads:
                    rest = threads.enter_context(_made_ahead(chunks))
                    if spool.hashed:
                        rest = threads.enter_context(_made_ahead(spool.hashing(rest)))
                    yield from rest

    def _has_spare(self) -> bool:
        """Say whether fewer layers are being inflated than there are processors."""
        with self._lock:
            return not self._todo and len(self._threads) < self._processors

    def _run(self) -> None:
        """Fill one spool after the other, in the order of asking."""
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
                    FlattenError(f"{spool.where}: given up") if self._closed else None
                )
                spool.finish(closed)
