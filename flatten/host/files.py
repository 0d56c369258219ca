"""Random-access bytes on the host: files, and ranges of files."""

import os
import stat
from collections.abc import Callable
from typing import Protocol

from ..errors import FlattenError, FormatError
from ..tar.read_header import HeaderBytes


class LayerBytes(HeaderBytes, Protocol):
    """The bytes of one layer's tar stream, read at offsets.

    Most bytes inherit some of the last methods: those in no permanent file inherit
    ``origin`` and ``sample``, and those that are not in scratch space the others.
    """

    def readinto(self, offset: int, view: memoryview) -> None:
        """Fill ``view``.

        Raises:
            FormatError: The stream is too short.
        """

    def extent(self, offset: int) -> tuple[int, int, int] | None:
        """Return a descriptor, the offset in it, and how many bytes can be copied.

        Return None if the bytes are in no file, but generated when they are read.
        """

    def origin(self, offset: int) -> int | None:  # noqa: ARG002 - for those in files
        """Return the position of ``offset`` in a permanent file, or None if in none."""
        return None

    def sample(self) -> int | None:
        """Return a descriptor of such a file, to test its file system's features."""
        return None

    def is_scratch(self) -> bool:
        """Return True if the bytes are in scratch space, which ``release`` frees."""
        return False

    def release(self, offset: int, count: int) -> None:  # noqa: ARG002 - for scratch
        """Free the scratch space of bytes that are no longer needed."""
        return

    def is_here(self) -> bool:
        """Return True if a process that is forked now could read all bytes.

        It has no threads that fetch the others.
        """
        return True

    def fetches_parts(self) -> bool:
        """Return True if only the bytes that are read are fetched, from elsewhere."""
        return False

    def fetch(self, start: int, stop: int) -> None:  # noqa: ARG002 - for those
        """Fetch a range that will be read, in few requests."""
        return

    def arrival_digest(self) -> Callable[[], str] | None:
        """Return the way to the SHA-256 of all bytes, if they are hashed on arrival.

        The function waits for the end and returns the digest in hex. It raises
        FlattenError if the bytes could not be read.
        """
        return None


class File(LayerBytes):
    """An open file of the host with random access.

    Attributes:
        where: The path as the user gave it.
    """

    __slots__ = ("_changed", "_length", "descriptor", "where")

    def __init__(self, descriptor: int, where: str, length: int) -> None:
        """Take ownership of an open descriptor."""
        self.descriptor = descriptor
        self.where = where
        self._length = length
        self._changed = os.fstat(descriptor).st_mtime_ns

    def check_unchanged(self) -> None:
        """Check that the file has not been modified since it was opened.

        Raises:
            FlattenError: The file was modified, so the bytes read may be inconsistent.
        """
        if self.descriptor < 0:
            return
        status = os.fstat(self.descriptor)
        grown = stat.S_ISREG(status.st_mode) and status.st_size != self._length
        if grown or status.st_mtime_ns != self._changed:
            raise FlattenError(f"{self.where}: changed while being read")

    def close(self) -> None:
        """Close the file; a second call does nothing."""
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
            done = fill(self.descriptor, view, offset)
        except OSError as error:
            raise self._failed(error) from error
        if done < len(view):
            raise self._short(offset + done)

    def size(self) -> int:
        """Return the size of the file when it was opened."""
        return self._length

    def extent(self, offset: int) -> tuple[int, int, int]:
        """Return the descriptor, ``offset``, and the number of bytes after it."""
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


def fill(descriptor: int, view: memoryview, offset: int) -> int:
    """Fill a view from a file; return how many bytes were read."""
    done = os.preadv(descriptor, [view], offset)
    while 0 < done < len(view):  # a short read: a signal, or more than 2 GiB
        more = os.preadv(descriptor, [view[done:]], offset + done)
        if not more:
            break
        done += more
    return done


class Window(LayerBytes):
    """A range of other bytes, such as a layer in an archive.

    Attributes:
        where: Its name in messages.
        place: Its offset and length.
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
        """Return the window's length."""
        return self._length

    def extent(self, offset: int) -> tuple[int, int, int] | None:
        """Return the descriptor of the source, and the position of ``offset`` in it."""
        found = self._source.extent(self._start + offset)
        if found is None:
            return None
        descriptor, start, length = found
        return descriptor, start, min(length, self._length - offset)

    def origin(self, offset: int) -> int | None:
        """Return the position of ``offset`` in the source's file."""
        return self._source.origin(self._start + offset)

    def sample(self) -> int | None:
        """Return the descriptor of the source's file."""
        return self._source.sample()

    def is_here(self) -> bool:
        """Return what holds for the source."""
        return self._source.is_here()

    def fetches_parts(self) -> bool:
        """Return what holds for the source."""
        return self._source.fetches_parts()

    def fetch(self, start: int, stop: int) -> None:
        """Fetch a range of the source."""
        self._source.fetch(self._start + start, self._start + stop)


def read_whole(source: LayerBytes, limit: int, where: str) -> bytes:
    """Return all bytes of a source.

    Raises:
        FormatError: The source has more than ``limit`` bytes.
    """
    if source.size() > limit:
        raise FormatError(f"{source.size():,} bytes, over {limit:,}", where=where)
    return source.read(0, source.size())
