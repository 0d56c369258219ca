"""Bytes of the host, read at offsets: files, stretches of them, and spools.

A *spool* holds what comes once and is needed again: a compressed layer, inflated, or an
archive from a pipe. It is filled by a thread while it is read.

**The strategy** for compressed layers, all of it here: each is inflated once, two or
more at a time, in threads ahead of the indexing, into files without a name: in memory
(memfd) up to a budget, in $TMPDIR from there on. So readers, and the kernel that copies
from them to the output, have descriptors as of any file. Measured on 2 cores, 0.7 GB of
gzip to 2.9 GB in 9 layers, inflated and written out again, without any index: into
memory of the process 10.6 s of CPU, as each page of it faults; into a memfd 7.0 s;
``igzip -dc`` of them in turn, which keeps nothing, 5.7 s. Inflating twice costs 3.9 s
more than that, a scratch file on a disk as much, and the disk's time. Chunks of zeros
take no memory, so gigabytes of them do not either.
"""

import os
import stat
import sys
import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .decompress import CHUNK, decompress, sniff
from .errors import FlattenError, FormatError, SourceError, quoted, shown
from .model import LayerBytes
from .tarball import BLOCK_SIZE, checksum_error

_ZERO_CHUNK: Final = bytes(CHUNK)
_MIN_BUDGET: Final = 1 << 26


@dataclass(frozen=True, slots=True)
class Limits:
    """What an image may cost; no real one comes near the defaults.

    Attributes:
        memory: Bytes of inflated data to keep in memory; None is a quarter of what
            is free, in the control group too.
        size: Bytes that all layers together may inflate to, and bytes of output.
        members: Members of all layers together.
        ratio: How many times its own size a layer may inflate to. It counts from
            1 GiB on: a smaller one does no harm.
    """

    memory: int | None = None
    size: int = 1 << 40
    members: int = 8_000_000
    ratio: int = 2000


SWITCH: Final = 0.0005  # seconds; Python's own default is ten times as long
RATIO_COUNTS_FROM: Final = 1 << 30


@contextmanager
def taking_turns() -> Iterator[None]:
    """Let threads switch often, as those that inflate and hash wait for it often."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(min(before, SWITCH))
    try:
        yield
    finally:
        sys.setswitchinterval(before)


class File:
    """An open file of the host that can be read at offsets.

    Attributes:
        where: As the user gave it.
    """

    __slots__ = ("_changed", "_length", "descriptor", "where")

    def __init__(self, descriptor: int, where: str, length: int) -> None:
        """Take over an open descriptor."""
        self.descriptor = descriptor
        self.where = where
        self._length = length
        self._changed = os.fstat(descriptor).st_mtime_ns

    def check_unchanged(self) -> None:
        """Check that nobody has written to the file since it was opened.

        Raises:
            FlattenError: Somebody has, so that what was read is of no one time.
        """
        if self.descriptor < 0:
            return
        status = os.fstat(self.descriptor)
        grown = stat.S_ISREG(status.st_mode) and status.st_size != self._length
        if grown or status.st_mtime_ns != self._changed:
            raise FlattenError(f"{self.where}: changed while it was read")

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def read(self, offset: int, count: int) -> bytes:
        """Return ``count`` bytes; fewer only at the end."""
        want = max(min(count, self._length - offset), 0)
        try:
            got = os.pread(self.descriptor, want, offset)
        except OSError as error:
            raise self._failed(error) from error
        if len(got) == want:
            return got
        out = bytearray(want)
        self.readinto(offset, memoryview(out))
        return bytes(out)

    def readinto(self, offset: int, view: memoryview) -> None:
        """Fill ``view``."""
        try:
            done = _fill(self.descriptor, view, offset)
        except OSError as error:
            raise self._failed(error) from error
        if done < len(view):
            raise self._short(offset + done)

    def size(self) -> int:
        """Return how many bytes there were when the file was opened."""
        return self._length

    def extent(self, offset: int) -> tuple[int, int, int]:
        """Return the descriptor, ``offset``, and how much is behind that."""
        return self.descriptor, offset, self._length - offset

    def origin(self, offset: int) -> int:
        """Return ``offset``."""
        return offset

    def sample(self) -> int:
        """Return the descriptor."""
        return self.descriptor

    def _short(self, offset: int) -> FormatError:
        return FormatError("the file ends too soon", where=self.where, offset=offset)

    def _failed(self, error: OSError) -> FlattenError:
        return FlattenError(f"{self.where}: cannot read: {error.strerror}")


def _fill(descriptor: int, view: memoryview, offset: int) -> int:
    """Fill a view from a file; return how many bytes there were."""
    done = os.preadv(descriptor, [view], offset)
    while 0 < done < len(view):  # a signal, or more than 2 GiB at once
        more = os.preadv(descriptor, [view[done:]], offset + done)
        if not more:
            break
        done += more
    return done


class Window:
    """A stretch of other bytes: a layer in an archive.

    Attributes:
        where: Its name in messages.
        place: Where it begins, and how long it is.
    """

    __slots__ = ("_length", "_source", "_start", "place", "where")

    def __init__(self, source: LayerBytes, start: int, length: int, where: str) -> None:
        """Make a window ``length`` bytes wide, ``start`` bytes into ``source``."""
        self._source = source
        self._start = start
        self._length = length
        self.place = start, length
        self.where = where

    def read(self, offset: int, count: int) -> bytes:
        """Return ``count`` bytes; fewer only at the end of the window."""
        want = max(min(count, self._length - offset), 0)
        return self._source.read(self._start + offset, want)

    def readinto(self, offset: int, view: memoryview) -> None:
        """Fill ``view``."""
        if offset + len(view) > self._length:
            raise FormatError("ends too soon", where=self.where, offset=self._length)
        self._source.readinto(self._start + offset, view)

    def size(self) -> int:
        """Return the window's width."""
        return self._length

    def extent(self, offset: int) -> tuple[int, int, int] | None:
        """Return the descriptor behind the window, and where in it ``offset`` is."""
        found = self._source.extent(self._start + offset)
        if found is None:
            return None
        descriptor, start, length = found
        return descriptor, start, min(length, self._length - offset)

    def origin(self, offset: int) -> int | None:
        """Return where ``offset`` is in the file behind the window."""
        return self._source.origin(self._start + offset)

    def sample(self) -> int | None:
        """Return the descriptor behind the window."""
        return self._source.sample()


def read_whole(source: LayerBytes, limit: int, where: str) -> bytes:
    """Return all bytes of a source.

    Raises:
        FormatError: There are more than ``limit``.
    """
    if source.size() > limit:
        raise FormatError(f"{source.size():,} bytes, over {limit:,}", where=where)
    return source.read(0, source.size())


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

    def __init__(self, pool: "Pool", where: str) -> None:
        """Make an empty spool, filled by ``pool``."""
        self.where = where
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
            done = _fill(descriptor, view, start)
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


class Pool:
    """Threads that fill spools, and the memory and scratch file that hold them.

    Attributes:
        limits: What may not be passed.
        files: The open files of the source.
    """

    def __init__(self, limits: Limits) -> None:
        """Start no thread yet."""
        self.limits = limits
        self.files: list[File] = []
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

    def inflate(self, source: LayerBytes, kind: str, where: str) -> Spool:
        """Return a spool that a thread fills with what ``source`` inflates to."""
        spool = Spool(self, where)
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
                self.fill(spool, plain, source.size())
            except FlattenError as error:
                spool.finish(error)
            except BaseException as error:
                spool.finish(FlattenError(f"{spool.where}: cannot inflate: {error!r}"))
            else:
                closed = (
                    FlattenError(f"{spool.where}: given up") if self._closed else None
                )
                spool.finish(closed)


def open_file(path: str, pool: Pool) -> File | Spool:
    """Open what a path names, so that it can be read at offsets.

    Args:
        path: A path; ``-`` is standard input. A pipe, FIFO or socket is read to its
            end, into a spool.
        pool: What holds the spool.

    Raises:
        SourceError: It does not exist, may not be read, or is a directory or a
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
            raise SourceError(f"{named}: not a file, a directory of an image or a pipe")
        spool = Spool(pool, name)
        pool.fill(spool, _chunks(descriptor, named))
        spool.finish()
    finally:
        os.close(descriptor)
    return spool


def _chunks(descriptor: int, named: str) -> Iterable[bytes]:
    """Yield what a pipe gives, in chunks of one size, so that zeros are seen."""
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
    """Return bytes as they are, or what they inflate to when they are compressed."""
    kind = compression(source)
    return source if kind is None else pool.inflate(source, kind, where)


def compression(source: LayerBytes) -> str | None:
    """Return how bytes are compressed, None if they are not, or are a tar.

    The name that a tar begins with may look like the start of compressed data.
    """
    kind = sniff(source)
    block = b"" if kind is None else source.read(0, BLOCK_SIZE)
    is_tar = len(block) == BLOCK_SIZE and not checksum_error(block)
    return None if is_tar else kind


def free_memory() -> int:
    """Return the bytes of memory that are free, also under the control group's limit.

    Reference: Linux Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
    """
    free = _MIN_BUDGET
    with suppress(OSError, ValueError, IndexError):
        text = Path("/proc/meminfo").read_text().partition("MemAvailable:")[2]
        free = int(text.split()[0]) << 10
    for group, limit, used in (
        (_cgroup(""), "memory.max", "memory.current"),
        (_cgroup("memory"), "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        for folder in () if group is None else (group, *group.parents):
            with suppress(OSError, ValueError):  # "max" is no number
                most = int((folder / limit).read_text())
                free = min(free, max(most - int((folder / used).read_text()), 0))
    return max(free, _MIN_BUDGET)


def _cgroup(controller: str) -> Path | None:
    """Return the directory of this process's control group."""
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controller in controllers.split(","):
                root = Path("/sys/fs/cgroup", controller)
                return root / path.lstrip("/")
    return None
