"""Bytes of the host: files read at offsets, and stretches of them.

Everything here reads with ``pread``: no file position is shared, so one open file
serves any number of layers and threads.
"""

import os
import stat
from pathlib import Path
from typing import Final

from .errors import FlattenError, FormatError, SourceError, quoted

SOME: Final = 1 << 16


class File:
    """An open regular file, or block device, of the host.

    Attributes:
        name: As the user gave it.
        length: Bytes in it when it was opened.
    """

    __slots__ = ("descriptor", "length", "name")

    def __init__(self, path: Path, name: str) -> None:
        """Open a file for reading.

        Raises:
            SourceError: It does not exist, may not be read, or holds no bytes at
                offsets: a directory, a device, a pipe.
        """
        self.name = name
        try:
            # O_NONBLOCK: opening a FIFO must not wait for a writer.
            self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise SourceError(f"{quoted(name)}: {reason}") from error
        self.length = 0
        status = os.fstat(self.descriptor)
        if stat.S_ISREG(status.st_mode):
            self.length = status.st_size
        elif stat.S_ISBLK(status.st_mode):
            self.length = os.lseek(self.descriptor, 0, os.SEEK_END)
        else:
            self.close()
            raise SourceError(f"{quoted(name)}: not a file that can be read at offsets")

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class Window:
    """A stretch of a file: the bytes of one uncompressed layer.

    Attributes:
        where: Its name in messages.
    """

    __slots__ = ("_file", "_length", "_start", "where")

    def __init__(self, file: File, start: int, length: int, where: str) -> None:
        """Make a window ``length`` bytes wide, ``start`` bytes into ``file``."""
        self._file = file
        self._start = start
        self._length = length
        self.where = where

    def read(self, offset: int, count: int) -> bytes:
        """Return ``count`` bytes; fewer only at the end of the window.

        Raises:
            FormatError: The file has become shorter.
        """
        want = max(min(count, self._length - offset), 0)
        try:
            got = os.pread(self._file.descriptor, want, self._start + offset)
            while 0 < len(got) < want:  # a signal, or more than 2 GiB at once
                more = os.pread(
                    self._file.descriptor,
                    want - len(got),
                    self._start + offset + len(got),
                )
                if not more:
                    break
                got += more
        except OSError as error:
            raise self._failed(error) from error
        if len(got) < want:
            raise self._short(offset + len(got))
        return got

    def readinto(self, offset: int, view: memoryview) -> None:
        """Fill ``view``.

        Raises:
            FormatError: The window ends too soon.
        """
        if offset + len(view) > self._length:
            raise self._short(self._length)
        try:
            done = os.preadv(self._file.descriptor, [view], self._start + offset)
            while 0 < done < len(view):
                more = os.preadv(
                    self._file.descriptor, [view[done:]], self._start + offset + done
                )
                if not more:
                    break
                done += more
        except OSError as error:
            raise self._failed(error) from error
        if done < len(view):
            raise self._short(offset + done)

    def size(self) -> int:
        """Return the window's width."""
        return self._length

    def extent(self, offset: int) -> tuple[int, int]:
        """Return the file's descriptor, and where in it ``offset`` is."""
        return self._file.descriptor, self._start + offset

    def _short(self, offset: int) -> FormatError:
        return FormatError("the file ends too soon", where=self.where, offset=offset)

    def _failed(self, error: OSError) -> FlattenError:
        return FlattenError(f"{self.where}: cannot read: {error.strerror}")
