"""A tar: a file, plain or compressed, or a descriptor."""

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from ..errors import quoted
from ..host.compress import PlainSink, Sink, compressing, parse_spec
from ..host.space import reserve
from ..image.image import Image
from ..options import Options
from ..plan.pieces import pieces, sections
from ..plan.plan import Section
from . import atomic
from .job import Job, Shape
from .reflink import sharing_block
from .write_tar import Advance, write_tar

WORTHWHILE: Final = 20_000  # members to write in more than one process
SMALL: Final = 24 << 10  # bytes of tar a member, up to which that pays


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
            if self._spec is None and self.path is not None:
                if not job.shape.share:
                    reserve(descriptor, job.plan.size, name)
                _write_plain(job, sink, descriptor, name)
            else:
                _write(job, sink, advance=job.advance)
            yield

    @contextmanager
    def _opened(self, job: Job) -> Iterator[tuple[int, str]]:
        """Yield the descriptor, and its name for messages."""
        if isinstance(self._out, int):
            yield self._out, "standard output" if self._out == 1 else "the output"
            job.settle()
            return
        with atomic.create(self._out, sync=job.sync, settle=job.settle) as descriptor:
            yield descriptor, quoted(str(self._out))


def _write(
    job: Job, sink: Sink, section: Section | None = None, advance: Advance | None = None
) -> None:
    """Write a section of the tar, or all of it."""
    part = pieces(job.plan, section)
    share, spent = job.shape.share, job.spent()
    write_tar(part, job.layers(), sink, advance, share=share, spent=spent)


def _write_plain(job: Job, sink: Sink, descriptor: int, name: str) -> None:
    """Write the tar to a file, in several processes if it has many members.

    The first section is written here, and moves the bar as if all were as far.

    Measured on 2 cores, 240,000 members of 2 GB: 1.5 s instead of 2.6. Where contents
    are larger, most of the time goes into copying them, and the kernel lets only one
    process write to a file at a time; others wait in a loop. 86,000 members of 3 GB
    took 2.3 s instead of 2.7 when nothing else ran, and as long as with one process,
    for a tenth more of CPU, beside hashing; inflated ones twice the system time, and
    longer, where pages had to be found first.
    """
    members = len(job.plan)
    small = job.shape.share or job.plan.size < SMALL * members
    pays = members >= WORTHWHILE and (small or job.alone())
    if not pays or not stat.S_ISREG(os.fstat(descriptor).st_mode):
        _write(job, sink, advance=job.advance)
        return
    from ..host.processes import processes, together  # noqa: PLC0415 - 4 ms

    parts = sections(job.plan, processes())
    with ExitStack() as stack:
        try:
            outs = [stack.enter_context(_again(descriptor, at.offset)) for at in parts]
        except OSError:  # there is no /proc
            _write(job, sink, advance=job.advance)
            return
        sinks = [PlainSink(out, name) for out in outs]
        advances = [_times(len(parts), job.advance), *[None] * (len(parts) - 1)]
        works = zip(sinks, parts, advances, strict=True)
        together([partial(_write, job, *work) for work in works])


def _times(count: int, advance: Advance | None) -> Advance | None:
    """Return what moves the bar ``count`` times as far."""
    return advance and (lambda done: advance(count * done))


@contextmanager
def _again(descriptor: int, offset: int) -> Iterator[int]:
    """Open the file of a descriptor once more, to write from an offset on."""
    again = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.lseek(again, offset, os.SEEK_SET)
        yield again
    finally:
        os.close(again)
