"""A SquashFS image, made by tar2sqfs or sqfstar from the tar while it is written.

Both compress on all processors, and their bytes do not depend on how many there are.
They take as much CPU; tar2sqfs is preferred, as it also keeps the metadata of the root.

Both read POSIX headers right. In a GNU tar, where a PAX header with xattrs and a GNU
long name precede one member, tar2sqfs 1.2 cuts the name at 100 bytes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ...errors import quoted
from ...host.compress import PlainSink
from ...image.image import Image
from ...options import Options
from ...tar.wire import BLOCK_SIZE
from .. import atomic
from ..check import check
from ..job import Job, Shape
from ..write_dir import ROOT
from . import tools
from .limits import check_limits
from .read_squashfs import Squashfs
from .stamps import stamp
from .verity import sealing

COMPRESSORS: Final = ("zstd", "gzip", "xz", "lz4")
LEVEL: Final = 6  # of zstd; the programs' own default, 15, takes eight times as long
BACKLOG: Final = 256  # blocks of 128 KiB; with tar2sqfs's own 20, processors idle
MEMORY: Final = "64M"  # of sqfstar; its own quarter of the RAM is no faster
XATTRS: Final = (b"user.", b"trusted.", b"security.")
XATTR_ROOM: Final = 56 << 10  # bytes; tar2sqfs 1.2 takes PAX headers up to 64 KiB
ROOT_LOST: Final = ("modes", "owners", "times", "xattrs")
"""What sqfstar 4.5 does not take from the tar, and mostly not from its options."""

_LEVELLED: Final = ("zstd", "gzip")


class Output:
    """A SquashFS image.

    Attributes:
        path: Path of the output.
    """

    def __init__(self, out: Path, options: Options) -> None:
        """Write to a path.

        Raises:
            FlattenError: Both programs are missing.
        """
        self.path = out
        self._check = options.check
        self._verity = options.verity
        how = tools.compressor(options.compress, COMPRESSORS, _LEVELLED)
        self._compressor, self._level = how
        self._tool, self._program = tools.find("tar2sqfs", "sqfstar")
        if options.compress is None and self._takes_levels():
            self._level = LEVEL

    def shape(self, image: Image) -> Shape:  # noqa: ARG002 - of Output
        """Ask for POSIX headers, a root, and what SquashFS can hold."""
        return Shape(
            posix=True,
            rooted=True,
            times=(0, (1 << 32) - 1),
            fractions=False,
            xattrs=XATTRS,
            xattr_room=XATTR_ROOM if self._tool == "tar2sqfs" else None,
        )

    @contextmanager
    def writing(self, job: Job) -> Iterator[None]:
        """Feed the tar to the program."""
        check_limits(job.plan, where=f"{quoted(str(self.path))}: ")
        env = {"SOURCE_DATE_EPOCH": str(stamp(job))}
        with (
            atomic.create_by_name(
                self.path, sync=job.sync, before_commit=job.before_commit
            ) as name,
            sealing(job, self._verity) as seal,
        ):
            make = self._tar2sqfs if self._tool == "tar2sqfs" else self._sqfstar
            argv = [self._program, *make(job, str(name))]
            with tools.fed(argv, env, folder=name.parent) as pipe:
                job.write_tar(PlainSink(pipe, self._program))
            if self._check:
                lost = check(job.plan, name, self.path, Squashfs, self._is_excused)
                if lost:
                    job.notes.append(
                        f"{self.path}: sqfstar did not keep the root directory's "
                        f"{', '.join(sorted(lost))}; tar2sqfs does"
                    )
            seal(name)
            yield

    def _takes_levels(self) -> bool:
        """Return True if the program accepts a level: sqfstar 4.5 fails with any."""
        if self._tool == "tar2sqfs":
            return True
        import tempfile  # 10 ms

        with tempfile.TemporaryDirectory() as folder:
            out = str(Path(folder, "empty"))
            how = ("-quiet", "-no-progress", "-comp", "zstd")
            argv = (self._program, *how, "-Xcompression-level", str(LEVEL), out)
            return tools.succeeds(argv, bytes(2 * BLOCK_SIZE))

    def _is_excused(self, kind: str, path: bytes) -> bool:
        return self._tool == "sqfstar" and path == ROOT and kind in ROOT_LOST

    def _tar2sqfs(self, _job: Job, name: str) -> list[str]:
        level = [] if self._level is None else ["--comp-extra", f"level={self._level}"]
        return ["--quiet", "--no-skip", "--queue-backlog", str(BACKLOG),
                "--compressor", self._compressor, *level, name]  # fmt: skip

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
        }  # sqfstar does not take them from the tar
        described = [text for pair in about_root.items() for text in pair]
        return ["-quiet", "-no-progress", "-mem", MEMORY, "-comp", self._compressor,
                *level, *described, name]  # fmt: skip
