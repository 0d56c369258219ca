"""A tar: a file, plain or compressed, or a descriptor."""

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from ..errors import quoted
from ..host.compress import PlainSink, Sink, compressing, parse_spec
from ..host.limits import Limits
from ..host.space import reserve
from ..image.image import Image
from ..options import Options
from ..plan.pieces import pieces, sections
from . import atomic
from .job import Job, Shape
from .reflink import sharing_block
from .write_tar import Advance

MANY: Final = 20_000  # members from which several processes write the tar
SMALL: Final = 24 << 10  # average bytes per member up to which that always pays


class Output:
    """A tar.

    Attributes:
        path: The tar; None for a descriptor.
    """

    def __init__(self, out: Path | int, options: Options) -> None:
        """Write to a path, or to an open descriptor from its current position."""
        self.path = None if isinstance(out, int) else out
        self._out = out
        self._posix = options.format == "pax"
        self._sparse = options.sparse
        self._spec = parse_spec(options.compress, str(self.path or ""))
        self._reflink = options.reflink
        self._limits = options.limits

    def shape(self, image: Image) -> Shape:
        """Ask for the requested headers, and for alignment if blocks can be shared."""
        file = None if self._spec or self._posix else self.path
        share = sharing_block(image, file, self._reflink)
        return Shape(posix=self._posix, sparse=self._sparse, share=share)

    @contextmanager
    def writing(self, job: Job) -> Iterator[None]:
        """Write the tar, to a temporary name that is renamed when the body ends."""
        with (
            self._opened(job) as (descriptor, name),
            compressing(descriptor, self._spec, name) as sink,
        ):
            if self._spec is None and self.path is not None:
                if not job.shape.share:
                    reserve(descriptor, job.plan.size, name)
                _write_plain(job, sink, descriptor, name, self._limits)
            else:
                job.write_tar(sink)
            yield

    @contextmanager
    def _opened(self, job: Job) -> Iterator[tuple[int, str]]:
        """Yield the descriptor and its name in messages."""
        if isinstance(self._out, int):
            yield self._out, "standard output" if self._out == 1 else "the output"
            job.before_commit()
            return
        with atomic.create(
            self._out, sync=job.sync, before_commit=job.before_commit
        ) as descriptor:
            yield descriptor, quoted(str(self._out))


def _write_plain(
    job: Job, sink: Sink, descriptor: int, name: str, limits: Limits
) -> None:
    """Write the tar to a file, in several processes if it has many members.

    The first section is written in this process, and moves the bar for all of them.

    Measured on 2 cores, 240,000 members of 2 GB: 1.5 s instead of 2.6. With larger
    contents most of the time goes into copying, and the kernel lets only one process
    write to a file at a time; the others spin. 86,000 members of 3 GB took 2.3 s
    instead of 2.7 when nothing else ran. While threads hashed, they took as long as
    with one process and a tenth more CPU; inflated layers took longer, with twice the
    system time, as pages had to be found first.
    """
    members = len(job.plan)
    small = job.shape.share or job.plan.size < SMALL * members
    layers = (*job.image.layers, *job.image.added)
    pays = (
        members >= MANY
        and (small or job.runs_alone())
        and all(layer.open().is_here() for layer in layers)
    )
    if not pays or not stat.S_ISREG(os.fstat(descriptor).st_mode):
        job.write_tar(sink)
        return
    from ..host.processes import processes, together  # 4 ms

    parts = sections(job.plan, limits.processes or processes())
    with ExitStack() as stack:
        try:
            outs = [
                stack.enter_context(_reopened(descriptor, part.offset))
                for part in parts
            ]
        except OSError:  # there is no /proc
            job.write_tar(sink)
            return
        advances = [_times(len(parts), job.advance), *[None] * (len(parts) - 1)]
        together(
            [
                partial(
                    replace(job, advance=advance).write_tar,
                    PlainSink(out, name),
                    pieces(job.plan, part),
                )
                for out, part, advance in zip(outs, parts, advances, strict=True)
            ]
        )


def _times(count: int, advance: Advance | None) -> Advance | None:
    """Return a function that moves the bar ``count`` times as far."""
    return advance and (lambda done: advance(count * done))


@contextmanager
def _reopened(descriptor: int, offset: int) -> Iterator[int]:
    """Open a descriptor's file once more, to write from an offset on."""
    again = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.lseek(again, offset, os.SEEK_SET)
        yield again
    finally:
        os.close(again)
