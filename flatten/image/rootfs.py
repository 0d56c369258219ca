"""Open a root file system tar as an image of one layer, to compare it with images."""

from contextlib import ExitStack
from typing import Final

from ..errors import SourceError
from ..host.files import File
from ..host.inputs import open_file, plain
from ..host.limits import Limits
from ..host.spools import Pool
from ..tar.wire import BLOCK_SIZE, ZEROS, checksum_error
from .blob import BlobLayer
from .image import Image

KIND: Final = "rootfs"


def open_rootfs(path: str, limits: Limits | None = None) -> Image:
    """Open a tar, compressed or not, as an image without a config.

    Raises:
        SourceError: The file does not exist, or is not a tar.
    """
    with ExitStack() as resources:
        pool = Pool(limits or Limits())
        resources.callback(pool.close)
        file = open_file(path, pool)
        if isinstance(file, File):
            resources.callback(file.close)
        start = plain(file, pool, file.where).read(0, BLOCK_SIZE)
        if start not in (b"", ZEROS) and (
            len(start) < BLOCK_SIZE or checksum_error(start)
        ):
            raise SourceError(f"{file.where}: neither an image nor a rootfs tar")
        layer = BlobLayer(file.where, None, None, lambda: file, pool)
        return Image(file.where, "", (), {}, (layer,), resources=resources.pop_all())
