"""A qcow2 disk with an ext4 file system, and no partitions, made by qemu-img."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .. import target
from ..model import Image
from ..options import Options
from . import tools
from .ext4 import SHAPE, check_options, make_ext4
from .job import Job, Shape


class Output:
    """A qcow2 disk.

    Attributes:
        path: Where it will be.
    """

    def __init__(self, out: Path, options: Options) -> None:
        """Write to a path.

        Raises:
            FlattenError: A tool is not there.
        """
        self.path = out
        self._size = options.size
        _, self._program = tools.find("qemu-img")
        check_options(out, options)

    def shape(self, image: Image) -> Shape:  # noqa: ARG002 - of Output
        """Ask for what the file system can hold."""
        return SHAPE

    @contextmanager
    def writing(self, job: Job) -> Iterator[None]:
        """Make the file system, and convert it."""
        with target.create_by_name(self.path, sync=job.sync, settle=job.settle) as name:
            with target.scratch_directory(self.path) as folder:
                raw = folder / "disk"
                make_ext4(job, self.path, raw, self._size)
                how = ("convert", "-f", "raw", "-O", "qcow2", str(raw), str(name))
                tools.run([self._program, *how], {})
            yield
