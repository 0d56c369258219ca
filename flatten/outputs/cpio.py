"""A cpio archive, plain or compressed, which Linux takes as an initramfs."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import quoted
from ..host.compress import compressing, parse_spec
from ..image.image import Image
from ..options import Options
from . import atomic
from .job import Job, Shape
from .write_cpio import MAX_NUMBER, cpio_pieces


class Output:
    """A cpio archive.

    Attributes:
        path: The archive.
    """

    def __init__(self, out: Path, options: Options) -> None:
        """Write to a path."""
        self.path = out
        self._spec = parse_spec(options.compress, str(out))

    def shape(self, image: Image) -> Shape:  # noqa: ARG002 - of Output
        """Ask for a root, and for mtimes that fit into 32 bits without a sign."""
        return Shape(rooted=True, times=(0, MAX_NUMBER), fractions=False)

    @contextmanager
    def writing(self, job: Job) -> Iterator[None]:
        """Write the archive, to a temporary name that is renamed when the body ends."""
        with (
            atomic.create(
                self.path, sync=job.sync, before_commit=job.before_commit
            ) as descriptor,
            compressing(descriptor, self._spec, quoted(str(self.path))) as sink,
        ):
            job.write_tar(sink, cpio_pieces(job.plan))
            yield
        lost = sum(
            bool(job.plan.members.extras[inode].records)
            for inode in set(job.plan.inodes) & job.plan.members.extras.keys()
        )
        if lost:
            job.notes.append(
                f"{self.path}: cpio holds no xattrs; {lost:,} files had some"
            )
