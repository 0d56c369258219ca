"""A qcow2 disk with an ext4 file system and no partitions, converted by qemu-img."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...image.image import Image
from ...options import Options
from .. import atomic
from ..job import Job, Shape
from . import ext4, tools
from .verity import sealing


class Output:
    """A qcow2 disk.

    Attributes:
        path: Path of the output.
    """

    def __init__(self, out: Path, options: Options) -> None:
        """Write to a path.

        Raises:
            UsageError: Compression is asked for.
            FlattenError: A program is missing.
        """
        self.path = out
        self._verity = options.verity
        _, self._program = tools.find("qemu-img")
        self._inside = ext4.Output(out, options)

    def shape(self, image: Image) -> Shape:
        """Ask for what ext4 can hold."""
        return self._inside.shape(image)

    @contextmanager
    def writing(self, job: Job) -> Iterator[None]:
        """Make and check the file system, and convert it."""
        with (
            atomic.create_by_name(
                self.path, sync=job.sync, before_commit=job.before_commit
            ) as name,
            sealing(job, self._verity) as seal,
        ):
            with atomic.scratch_directory(self.path) as folder:
                raw = folder / "disk"
                self._inside.make(job, raw)
                seal(raw)
                how = ("convert", "-f", "raw", "-O", "qcow2", str(raw), str(name))
                tools.run([self._program, *how], {}, folder=folder)
            yield
