"""One tar, plain or compressed, as an image of one layer: it is flat already."""

from contextlib import ExitStack

from ..model import Image
from ..streams import File, Limits, Pool, open_file
from .documents import BlobLayer


def open_rootfs(path: str, limits: Limits | None = None) -> Image:
    """Open a tar as an image of one layer, about which nothing is promised.

    Raises:
        SourceError: It cannot be opened.
    """
    with ExitStack() as resources:
        pool = Pool(limits or Limits())
        resources.callback(pool.close)
        file = open_file(path, pool)
        if isinstance(file, File):
            resources.callback(file.close)
        layer = BlobLayer(file.where, None, None, lambda: file, pool)
        return Image(path, "", (), {}, (layer,), resources=resources.pop_all())
