"""Copy ranges of layers to files inside the kernel, where that works."""

import os
from collections.abc import Callable
from typing import Final

from ..host.files import LayerBytes
from .reflink import clone

STEP: Final = 1 << 24  # bytes per call, so that progress moves

_Way = Callable[[int, int, int, int], int]  # source, out, count, offset in the source


class Copier:
    """Copies by cloning, copy_file_range(2) or sendfile(2): the first that works."""

    def __init__(self, share: int = 0) -> None:
        """Prepare to copy.

        Args:
            share: Block size of the output's file system, to share blocks that are
                aligned in both files instead of copying them; 0 shares none.
        """
        self._share = share
        self._ways: dict[int, list[_Way]] = {}  # those that have not failed, by source

    def copy(self, layer: LayerBytes, offset: int, out: int, count: int) -> int:
        """Copy up to ``count`` bytes of a layer to a descriptor's position.

        Returns:
            The number of bytes copied; 0 if the kernel cannot copy, for any reason. The
            caller then reads and writes, which tells which of the two fails.

        Raises:
            BrokenPipeError: The descriptor is a pipe that nobody reads.
        """
        extent = layer.extent(offset)
        if extent is None:
            return 0
        source, start, available = extent
        ways = self._ways.get(source)
        if ways is None:
            clones = [self._clone] if self._share else []
            ways = self._ways[source] = [*clones, _copy_file_range, _sendfile]
        while ways:
            try:
                return ways[0](source, out, min(count, available, STEP), start)
            except BrokenPipeError:
                raise
            except OSError:
                ways.pop(0)
        return 0

    def _clone(self, source: int, out: int, count: int, offset: int) -> int:
        """Share whole blocks that are aligned in both files, and copy the rest."""
        block = self._share
        if (offset - os.lseek(out, 0, os.SEEK_CUR)) % block:
            return _copy_file_range(source, out, count, offset)
        before = -offset % block
        if before or count < block:
            return _copy_file_range(source, out, min(before or count, count), offset)
        return clone(source, out, count - count % block, offset)


def _copy_file_range(source: int, out: int, count: int, offset: int) -> int:
    return os.copy_file_range(source, out, count, offset)


def _sendfile(source: int, out: int, count: int, offset: int) -> int:
    return os.sendfile(out, source, offset, count)
