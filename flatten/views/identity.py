"""Tell whether two layers are the same bytes, without reading them.

A diff_id or a digest in a document is only a claim. The same place on the host is not:
the same part of the same unchanged file, or the same layer directory with the same
record of the engine.
"""

import os
import stat
import time
from collections.abc import Hashable
from typing import Final, NamedTuple

from ..image.blob import BlobLayer, ChunkedLayer
from ..image.image import Layer

_SETTLED: Final = 2 * 10**9
"""Nanoseconds after which a further change to a file surely gives it another time: FAT
counts time in steps of two seconds."""


class Location(NamedTuple):
    """A part of a regular file of the host, in the state that ``stat`` tells.

    Times are in nanoseconds since the epoch, sizes and offsets in bytes.
    """

    device: int
    inode: int
    file_size: int
    mtime: int
    ctime: int
    offset: int
    size: int

    def is_settled(self) -> bool:
        """Return True if a later change to the file cannot go unnoticed.

        A change right after the file was last written may leave its times as they are.
        """
        return max(self.mtime, self.ctime) + _SETTLED < time.time_ns()


def location(layer: Layer) -> Location | None:
    """Return where the bytes of a layer are, or None if they are not in one file."""
    if not isinstance(layer, BlobLayer):
        return None
    blob = layer.blob()
    descriptor, offset = blob.sample(), blob.origin(0)
    if descriptor is None or offset is None:
        return None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        return None
    return Location(
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        offset,
        blob.size(),
    )


def has_file(layer: Layer) -> bool:
    """Return True if a layer's headers are in a file, or device, that may change.

    Scratch files have no name, and nothing else writes them.
    """
    found = layer.blob().extent(0)
    return found is not None and os.fstat(found[0]).st_nlink > 0


def bytes_key(layer: Layer, chain_id: str | None) -> Hashable:
    """Return a key that two layers share only if their bytes are the same.

    Args:
        layer: A layer of an open image.
        chain_id: Its chain id: in an engine's root, a layer that is stored as a
            directory is recorded under it.
    """
    if isinstance(layer, ChunkedLayer):
        return layer.table
    if layer.place is not None and not isinstance(layer, BlobLayer):
        return layer.place, chain_id
    return location(layer) or _scratch_place(layer) or id(layer)


def _scratch_place(layer: Layer) -> tuple[int, int] | None:
    """Return where the bytes of a layer of a compressed archive are, if inflated."""
    found = layer.blob().extent(0) if isinstance(layer, BlobLayer) else None
    return None if found is None else found[:2]
