"""Write an EROFS image from a plan, without any program."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import FlattenError, FormatError
from ...host.compress import PlainSink
from ...host.limits import Limits
from ...host.space import reserve
from ...plan.plan import Piece
from ..job import Job
from .erofs_devices import Device, Devices
from .erofs_fs import BLOCK, MAX_BLOCKS, encode_devices, encode_head
from .erofs_layout import ROOT, Layout
from .erofs_pieces import erofs_pieces
from .stamps import stamp, version_8


@dataclass(frozen=True, slots=True)
class Volume:
    """What can be chosen of an image.

    Attributes:
        block: The size of a block, in bytes.
        label: The volume's name, which ``blkid`` shows: at most ``MAX_LABEL`` bytes.
        uuid: 16 bytes; None chooses a hash of what is written.
        index: Contents stay in the files of the layers where that is possible.
    """

    block: int = BLOCK
    label: bytes = b"rootfs"
    uuid: bytes | None = None
    index: bool = False


def write_erofs(
    job: Job, file: Path, output: str, limits: Limits, volume: Volume
) -> Sequence[Device]:
    """Write an image to a new file; return the files that it points at.

    The superblock is written last, since its UUID is a hash of all other bytes that are
    not contents of files. So it depends on the tree alone, and not on its layers.

    Args:
        job: The job.
        file: The file to create.
        output: The output's name in messages.
        limits: The largest size that is allowed.
        volume: The size of a block, the label and the UUID.

    Raises:
        FlattenError: EROFS cannot hold the tree, or the file cannot be written.
    """
    devices = None
    if volume.index:
        devices = Devices(job.plan, job.image, job.layers(), volume.block)
    files = () if devices is None else devices.files
    table = encode_devices((device.tag, device.blocks) for device in files)
    layout = Layout(job.plan, volume.block, devices)
    size = layout.blocks * volume.block
    if layout.blocks > MAX_BLOCKS:
        raise FlattenError(
            f"{output}: {size:,} bytes; EROFS holds at most "
            f"{MAX_BLOCKS * volume.block:,}"
        )
    if size > limits.size:
        raise FormatError(
            f"makes an EROFS image of {size:,} bytes, over {limits.size:,}; if that "
            "is right, allow more with --max-size",
            where=job.image.source,
        )
    digest = hashlib.sha256(table)
    with open(file, "xb", buffering=0) as out:
        reserve(out.fileno(), size, output)
        out.seek(layout.head)
        pieces = _hashed(erofs_pieces(layout), digest.update)
        job.write_tar(PlainSink(out.fileno(), output), pieces)
        head = encode_head(
            block=volume.block,
            root=layout.nids[ROOT],
            inodes=layout.inodes,
            time=stamp(job),
            blocks=layout.blocks,
            xattrs=layout.area,
            uuid=volume.uuid or version_8(digest.digest()),
            label=volume.label,
            chunked=bool(layout.chunks or table),
            devices=table,
        )
        try:
            os.pwrite(out.fileno(), head, 0)
        except OSError as error:
            raise FlattenError(f"{output}: cannot write: {error.strerror}") from error
    return files


def _hashed(
    pieces: Iterable[Piece], update: Callable[[bytes], object]
) -> Iterator[Piece]:
    """Pass pieces on, and their bytes to a hash, but not the spans."""
    for piece in pieces:
        if isinstance(piece, bytes):
            update(piece)
        yield piece
