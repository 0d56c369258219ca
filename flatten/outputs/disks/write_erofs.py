"""Write an EROFS image from a plan, without any program."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from ...errors import FlattenError, FormatError
from ...host.compress import PlainSink
from ...host.limits import Limits
from ...host.space import reserve
from ...plan.plan import Piece
from ..job import Job
from .erofs_fs import BLOCK, MAX_BLOCKS, first_block
from .erofs_layout import ROOT, Layout
from .erofs_pieces import erofs_pieces
from .stamps import stamp, version_8

LABEL: Final = b"rootfs"
"""The volume's name, which ``blkid`` shows."""


def write_erofs(job: Job, file: Path, output: str, limits: Limits) -> None:
    """Write an image to a new file.

    The first block is written last, since its UUID is a hash of all other bytes that
    are not contents of files. So it depends on the tree alone, and not on its layers.

    Args:
        job: The job.
        file: The file to create.
        output: The output's name in messages.
        limits: The largest size that is allowed.

    Raises:
        FlattenError: EROFS cannot hold the tree, or the file cannot be written.
    """
    layout = Layout(job.plan)
    size = layout.blocks * BLOCK
    if layout.blocks > MAX_BLOCKS:
        raise FlattenError(
            f"{output}: {size:,} bytes; EROFS holds at most {MAX_BLOCKS * BLOCK:,}"
        )
    if size > limits.size:
        raise FormatError(
            f"makes an EROFS image of {size:,} bytes, over {limits.size:,}; if that "
            "is right, allow more with --max-size",
            where=job.image.source,
        )
    digest = hashlib.sha256()
    with open(file, "xb", buffering=0) as out:
        reserve(out.fileno(), size, output)
        out.seek(BLOCK)
        pieces = _hashed(erofs_pieces(layout), digest.update)
        job.write_tar(PlainSink(out.fileno(), output), pieces)
        block = first_block(
            root=layout.nids[ROOT],
            inodes=layout.inodes,
            time=stamp(job),
            blocks=layout.blocks,
            xattrs=layout.area,
            uuid=version_8(digest.digest()),
            label=LABEL,
            chunked=bool(layout.chunks),
        )
        try:
            os.pwrite(out.fileno(), block, 0)
        except OSError as error:
            raise FlattenError(f"{output}: cannot write: {error.strerror}") from error


def _hashed(
    pieces: Iterable[Piece], update: Callable[[bytes], object]
) -> Iterator[Piece]:
    """Pass pieces on, and their bytes to a hash, but not the spans."""
    for piece in pieces:
        if isinstance(piece, bytes):
            update(piece)
        yield piece
