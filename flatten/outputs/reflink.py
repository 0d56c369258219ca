"""Share extents of the image's file with the output instead of copying contents.

On btrfs, and on XFS with reflink, two files can have blocks in common. Only whole
blocks can be shared, at offsets that are multiples of the block size in both files. The
plan aligns contents for that; the rest is copied.

Reference: ioctl_ficlonerange(2).
"""

import fcntl
import os
import struct
from pathlib import Path
from typing import Final

from ..errors import FlattenError
from ..image.image import Image

FICLONERANGE: Final = 0x4020940D
_RANGE: Final = struct.Struct("=qQQQ")  # source, offset in it, length, offset in ours


def sharing_block(image: Image, out: Path | None, mode: str) -> int:
    """Return the size of the blocks that an output can share with an image.

    Args:
        image: An open image.
        out: The output; None if it is not an uncompressed GNU tar in a file.
        mode: ``auto``, ``always`` or ``never``.

    Returns:
        The block size in bytes; 0 if nothing can be shared.

    Raises:
        FlattenError: Nothing can be shared, and ``mode`` is ``always``.
    """
    if mode == "never":
        return 0
    why = "the output is not an uncompressed GNU tar, in a file"
    if out is not None:
        why = "no layer is uncompressed, in a file or a directory"
        for layer in image.layers:
            descriptor = layer.open().sample()
            if descriptor is None:
                continue
            why = _probe(descriptor, out.resolve().parent)
            if not why:
                return max(os.fstatvfs(descriptor).f_bsize, 4096)
    if mode == "always":
        raise FlattenError(f"{image.source}: cannot share extents: {why}")
    return 0


def _probe(source: int, folder: Path) -> str:
    """Share a block with an unnamed file; return why that fails, or ""."""
    size = max(os.fstatvfs(source).f_bsize, 4096)
    if os.fstat(source).st_size < size:
        return "the image is smaller than a block"
    try:
        scratch = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            clone(source, scratch, size, 0)
        finally:
            os.close(scratch)
    except OSError as error:
        return f"{error.strerror} (both must be on one btrfs, or XFS with reflink)"
    return ""


def clone(source: int, out: int, count: int, offset: int) -> int:
    """Append ``count`` bytes of another file by sharing its blocks; advance ``out``."""
    position = os.lseek(out, 0, os.SEEK_CUR)
    fcntl.ioctl(out, FICLONERANGE, _RANGE.pack(source, offset, count, position))
    os.lseek(out, position + count, os.SEEK_SET)
    return count
