"""A SquashFS image, made by tar2sqfs or sqfstar of our tar, as it is written."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ...host.compress import PlainSink
from ...image.image import Image
from ...options import Options
from ...plan.pieces import pieces
from .. import atomic
from ..job import Job, Shape
from ..write_tar import write_tar
from . import tools
from .stamps import stamp

COMPRESSORS: Final = ("zstd", "gzip", "xz", "lz4")
_LEVELLED: Final = ("zstd", "gzip")


class Output:
    """A SquashFS image.

    Attributes:
        path: Where it will be.
    """

    def __init__(self, out: Path, options: Options) -> None:
        """Write to a path.

        Raises:
            FlattenError: Neither tool is there.
        """
        self.path = out
        how = tools.compressor(options.compress, COMPRESSORS, _LEVELLED)
        self._compressor, self._level = how
        self._tool, self._program = tools.find("tar2sqfs", "sqfstar")

    def shape(self, image: Image) -> Shape:  # noqa: ARG002 - of Output
        """Ask for a root, and for times that 32 bits hold."""
        return Shape(rooted=True, times=(0, (1 << 32) - 1))

    @contextmanager
    def writing(self, job: Job) -> Iterator[None]:
        """Feed the tar to the tool."""
        env = {"SOURCE_DATE_EPOCH": str(stamp(job))}
        with atomic.create_by_name(self.path, sync=job.sync, settle=job.settle) as name:
            make = self._tar2sqfs if self._tool == "tar2sqfs" else self._sqfstar
            with tools.fed([self._program, *make(job, str(name))], env) as pipe:
                sink = PlainSink(pipe, self._program)
                write_tar(pieces(job.plan), job.layers(), sink, job.advance)
            yield

    def _tar2sqfs(self, _job: Job, name: str) -> list[str]:
        level = [] if self._level is None else ["--comp-extra", f"level={self._level}"]
        return ["--quiet", "--no-skip", "--compressor", self._compressor, *level, name]

    def _sqfstar(self, job: Job, name: str) -> list[str]:
        level = []
        if self._level is not None:
            level = ["-Xcompression-level", str(self._level)]
        members, root = job.plan.members, job.plan.inodes[0]
        mode, uid, gid = members.owner_table[members.owners[root]]
        about_root = {
            "-root-mode": f"{mode:o}",
            "-root-uid": str(uid),
            "-root-gid": str(gid),
            "-root-time": str(members.mtimes[root]),
        }  # which it does not take from the tar
        described = [text for pair in about_root.items() for text in pair]
        return ["-quiet", "-no-progress", "-comp", self._compressor, *level,
                *described, name]  # fmt: skip
