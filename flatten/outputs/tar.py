"""A tar: a file, plain or compressed, or a descriptor."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .. import target
from ..compress import compressing, parse_spec
from ..errors import quoted
from ..model import Image
from ..options import Options
from ..plan import pieces
from ..reflink import sharing_block
from ..write_tar import write_tar
from .job import Job, Shape


class Output:
    """A tar.

    Attributes:
        path: Where it will be; None for a descriptor.
    """

    def __init__(self, out: Path | int, options: Options) -> None:
        """Write to a path, or to an open descriptor from where it stands."""
        self.path = None if isinstance(out, int) else out
        self._out = out
        self._posix = options.format == "pax"
        self._spec = parse_spec(options.compress, str(self.path or ""))
        self._reflink = options.reflink

    def shape(self, image: Image) -> Shape:
        """Ask for the headers that the options say, and for room to share blocks."""
        file = None if self._spec or self._posix else self.path
        return Shape(posix=self._posix, share=sharing_block(image, file, self._reflink))

    @contextmanager
    def writing(self, job: Job) -> Iterator[None]:
        """Write the tar, to a temporary name that is renamed when the body ends."""
        with (
            self._opened(job) as (descriptor, name),
            compressing(descriptor, self._spec, name) as sink,
        ):
            if self._spec is None and self.path is not None and not job.shape.share:
                target.reserve(descriptor, job.plan.size, name)
            write_tar(
                pieces(job.plan), job.layers(), sink, job.advance, share=job.shape.share
            )
            yield

    @contextmanager
    def _opened(self, job: Job) -> Iterator[tuple[int, str]]:
        """Yield the descriptor, and its name for messages."""
        if isinstance(self._out, int):
            yield self._out, "standard output" if self._out == 1 else "the output"
            job.settle()
            return
        with target.create(self._out, sync=job.sync, settle=job.settle) as descriptor:
            yield descriptor, quoted(str(self._out))
