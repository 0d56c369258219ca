"""An EROFS image, made by mkfs.erofs from a directory."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ...image.image import Image
from ...options import Options
from .. import atomic
from ..job import Job, Shape
from . import tools
from .stage import run_on_tree
from .stamps import stamp, uuid

COMPRESSORS: Final = ("lz4hc", "lz4", "none")


class Output:
    """An EROFS image.

    Attributes:
        path: Where it will be.
    """

    def __init__(self, out: Path, options: Options) -> None:
        """Write to a path.

        Raises:
            FlattenError: The tool is not there, or fakeroot, for users.
        """
        self.path = out
        name, level = tools.compressor(options.compress, COMPRESSORS, ("lz4hc",))
        spec = name if level is None else f"{name},{level}"
        self._compression = [] if name == "none" else [f"-z{spec}"]
        _, self._program = tools.find("mkfs.erofs")

    def shape(self, image: Image) -> Shape:  # noqa: ARG002 - of Output
        """Ask for a root, and for times that are not negative."""
        return Shape(rooted=True, times=(0, (1 << 62)))

    @contextmanager
    def writing(self, job: Job) -> Iterator[None]:
        """Stage the tree, and let the tool read it.

        It clamps mtimes to SOURCE_DATE_EPOCH, which none is later than.
        """
        env = {"SOURCE_DATE_EPOCH": str(stamp(job))}
        with atomic.create_by_name(self.path, sync=job.sync, settle=job.settle) as name:
            how = ("--quiet", *self._compression, f"-U{uuid(job, 'erofs')}")
            run_on_tree(
                job, self.path, lambda tree: (self._program, *how, name, tree), env
            )
            yield
