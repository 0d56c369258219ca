"""Bytes of the host, read at offsets: files, and stretches of them."""

import os
import stat
from typing import Protocol

from ..errors import FlattenError, FormatError
from ..tar.read_header import HeaderBytes


class LayerBytes(HeaderBytes, Protocol):
    """The bytes of one layer's tar stream, read at offsets."""

    def readinto(self, offset: int, view: memoryview) -> None:
        """Fill ``view``.

        Raises:
            FormatError: The stream ends too soon.
        """

    def extent(self, offset: int) -> tuple[int, int, int] | None:
        """Return a descriptor, its offset, and how many bytes can be copied from it.

        None where there is none: for bytes that are made as they are read.
        """

    def origin(self, offset: int) -> int | None:
        """Return where ``offset`` is in a file that lasts; None where it is in none."""

    def sample(self) -> int | None:
        """Return a descriptor of such a file, to ask what its file system can do."""

    def release(self, offset: int, count: int) -> None:
        """Give back the memory that bytes are in, if it is ours: nobody reads them."""


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
            done = fill(self.descriptor, view, offset)
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

    def release(self, offset: int, count: int) -> None:
        """Do nothing: the file is not ours."""

    def _short(self, offset: int) -> FormatError:
        return FormatError("the file ends too soon", where=self.where, offset=offset)

    def _failed(self, error: OSError) -> FlattenError:
        return FlattenError(f"{self.where}: cannot read: {error.strerror}")


def fill(descriptor: int, view: memoryview, offset: int) -> int:
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

    def release(self, offset: int, count: int) -> None:
        """Do nothing: an archive may be read again."""


def read_whole(source: LayerBytes, limit: int, where: str) -> bytes:
    """Return all bytes of a source.

    Raises:
        FormatError: There are more than ``limit``.
    """
    if source.size() > limit:
        raise FormatError(f"{source.size():,} bytes, over {limit:,}", where=where)
    return source.read(0, source.size())
