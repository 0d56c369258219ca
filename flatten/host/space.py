"""Room in a file, asked for and given back a stretch at a time.

Reference: xfsctl(3), XFS_IOC_RESVSP64 and XFS_IOC_UNRESVSP64, which Linux answers for
every file system that has fallocate(2); Python has no fallocate, and posix_fallocate(3)
writes all blocks where the file system has none.
"""

import errno
import fcntl
import os
import struct
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from ..errors import FlattenError

if TYPE_CHECKING:
    from queue import SimpleQueue

_RESERVE: Final = 0x40305828  # FS_IOC_RESVSP
_GIVE_BACK: Final = 0x4030582B  # FS_IOC_UNRESVSP64, of Linux 5.6 and on
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_SPACE: Final = struct.Struct("@hhqqiI4i")  # struct space_resv, of linux/falloc.h


def reserve(descriptor: int, size: int, name: str) -> None:
    """Ask the file system for all the room that a new file will take.

    Finding it at once is cheaper than block by block as it is written: on ext4 a copy
    of 3 GB takes a third less time (bench/micro/reserve.py). The file's size does not
    change. Where the file system cannot do that, nothing is done.

    Raises:
        FlattenError: There is not enough room.
    """
    try:
        _ask(_RESERVE, descriptor, 0, size)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise FlattenError(f"{name}: cannot write: {error.strerror}") from error


def give_back(descriptor: int, start: int, size: int) -> None:
    """Free the pages of a file in memory that are wholly in a stretch.

    Where the kernel cannot do that, nothing is done.
    """
    first, behind = -(-start // _PAGE) * _PAGE, (start + size) // _PAGE * _PAGE
    if first < behind:
        with suppress(OSError):
            _ask(_GIVE_BACK, descriptor, first, behind - first)


class Freeing:
    """A thread that gives back stretches of files in memory, one after the other.

    Freeing pages takes half as long as copying them. The thread is started in the
    process that has the first one to give back, so forking before that is safe.
    """

    def __init__(self) -> None:
        """Start no thread yet."""
        self._todo: SimpleQueue[tuple[int, int, int] | None] | None = None
        self._thread: threading.Thread | None = None
        self._stopped = False

    def give_back(self, descriptor: int, start: int, size: int) -> None:
        """Free what ``give_back`` frees, soon; the descriptor must stay open."""
        if self._todo is None:
            from queue import SimpleQueue  # noqa: PLC0415 - 2 ms, seldom needed

            self._todo = SimpleQueue()
            self._thread = threading.Thread(target=self._run, daemon=True)
            with suppress(
                RuntimeError
            ):  # no more threads: all stays until it is closed
                self._thread.start()
        self._todo.put((descriptor, start, size))

    def finish(self) -> None:
        """Wait until all is given back."""
        if self._todo is not None and self._thread is not None:
            self._todo.put(None)
            with suppress(RuntimeError):  # it could not be started
                self._thread.join()

    def stop(self) -> None:
        """Leave the rest to those who close the files."""
        self._stopped = True
        self.finish()

    def _run(self) -> None:
        assert self._todo is not None, "it is made before the thread"
        while (stretch := self._todo.get()) is not None:
            if not self._stopped:
                give_back(*stretch)


def _ask(request: int, descriptor: int, start: int, size: int) -> None:
    space = _SPACE.pack(0, os.SEEK_SET, start, size, 0, 0, 0, 0, 0, 0)
    fcntl.ioctl(descriptor, request, space)
