"""Open a root file system tar as an image of one layer, to compare it with images."""

from contextlib import ExitStack
from typing import Final

from ..errors import SourceError
from ..host.files import File, LayerBytes
from ..host.inputs import open_file, plain
from ..host.limits import Limits
from ..host.spools import Pool
from ..tar import magic
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
        source = plain(file, pool, file.where)
        _check_is_tar(source, file.where)
        layer = BlobLayer(file.where, None, None, lambda: file, pool)
        return Image(file.where, "", (), {}, (layer,), resources=resources.pop_all())


def _check_is_tar(source: LayerBytes, where: str) -> None:
    """Check that bytes begin as a tar does, which may have no members.

    Raises:
        SourceError: They do not.
    """
    start = source.read(0, BLOCK_SIZE)
    if len(start) == BLOCK_SIZE and not checksum_error(start):
        return
    what = magic.recognise(source.read(0, magic.START))
    if start == ZEROS and what is None:
        return
    found = f", but {what}" if what else ""
    hint = "; mount it and name the directory" if "file system" in found else ""
    raise SourceError(f"{where}: neither an image nor a rootfs tar{found}{hint}")
