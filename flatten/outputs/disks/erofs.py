"""An EROFS image: written from the plan, or compressed by mkfs.erofs.

mkfs.erofs of erofs-utils 1.7 and later reads a tar. It leaves out sparse members (seen
in 1.9.4), so a tree that has any is staged in a directory, as for earlier versions.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ...errors import FlattenError, UsageError, quoted
from ...host.compress import PlainSink
from ...image.image import Image
from ...options import Options
from ...plan.plan import Plan
from ...tar.wire import BLOCK_SIZE as TAR_BLOCK
from ...tar.xattrs import ACL
from .. import atomic
from ..check import check
from ..job import Job, Shape
from ..layer_store import require_files
from . import tools
from .erofs_fs import BLOCK, BLOCKS, MAX_LABEL
from .read_erofs import Erofs
from .stage import (
    as_root,
    check_staged,
    require_fakeroot,
    run_on_tree,
    warn_of_missed,
)
from .stamps import label, stamp, uuid
from .verity import sealing
from .write_erofs import Volume, write_erofs

COMPRESSORS: Final = (
    "none", "lz4hc", "lz4", "zstd", "lzma", "deflate", "libdeflate",
)  # fmt: skip
LEVELLED: Final = ("lz4hc", "zstd", "lzma", "deflate", "libdeflate")
XATTRS: Final = (b"user.", b"trusted.", b"security.", ACL)
MAX_NAME: Final = 255  # bytes


class Output:
    """An EROFS image.

    Attributes:
        path: Path of the output.
    """

    def __init__(self, out: Path, options: Options) -> None:
        """Write to a path.

        Raises:
            UsageError: The size of a block, the label or the compressor is not valid.
            FlattenError: It is to be compressed, and a program for that is missing.
        """
        self.path = out
        self._check = options.check
        self._limits = options.limits
        self._volume = _volume(options)
        self._uuid = options.uuid
        self._verity = options.verity
        if options.index and options.verity is not None:
            raise UsageError("--verity would not protect what --index points at")
        name, level = tools.compressor(options.compress, COMPRESSORS, LEVELLED)
        self._compressor = name if level is None else f"{name},{level}"
        self._program: str | None = None
        self._choices: list[str] = []
        self._reads_tar = False
        if name != "none" and options.index:
            raise UsageError("--index: it holds no contents that could be compressed")
        if name != "none":
            _, self._program = tools.find("mkfs.erofs")
            self._choices = _choices(self._program, options)
            self._reads_tar = tools.offers(self._program, "--tar")
            if not self._reads_tar:
                require_fakeroot()

    def shape(self, image: Image) -> Shape:
        """Ask for a root, and for the xattrs that EROFS can hold.

        mkfs.erofs takes fractions of seconds from POSIX headers only. It takes mtimes
        before 1970 for very late ones when it limits times, so it gets none.

        Raises:
            UsageError: It is to be an index, and a layer is in no file.
        """
        if self._volume.index:
            require_files(image)
        if self._program is None:
            return Shape(rooted=True, xattrs=XATTRS)
        return Shape(
            posix=self._reads_tar or not as_root(),
            rooted=True,
            xattrs=XATTRS,
            times=(0, 1 << 62),
        )

    @contextmanager
    def writing(self, job: Job) -> Iterator[None]:
        """Write the image, and read it back."""
        with (
            atomic.create_by_name(
                self.path, sync=job.sync, before_commit=job.before_commit
            ) as name,
            sealing(job, self._verity) as seal,
        ):
            if self._program is None:
                path = quoted(str(self.path))
                files = write_erofs(job, name, path, self._limits, self._volume)
                if self._volume.index:
                    job.made.devices = tuple(device.path for device in files)
                if self._check:
                    check(job.plan, name, self.path, Erofs, lambda *_: False)
            else:
                self._compress(self._program, job, name)
            seal(name)
            yield

    def _compress(self, program: str, job: Job, name: Path) -> None:
        """Run mkfs.erofs on the tar, or stage the tree and run it on that.

        The program reduces mtimes to SOURCE_DATE_EPOCH, which is later than all.
        """
        env = {"SOURCE_DATE_EPOCH": str(stamp(job))}
        id_ = self._uuid or uuid(job, "erofs")
        how = (program, "--quiet", f"-z{self._compressor}", f"-U{id_}", *self._choices)
        if self._reads_tar and not job.plan.sparse_files():
            with tools.fed((*how, "--tar=f", name), env, folder=name.parent) as pipe:
                job.write_tar(PlainSink(pipe, program))
            if self._check:
                check(job.plan, name, self.path, Erofs, lambda *_: False)
            return
        try:
            missed = run_on_tree(job, self.path, lambda tree: (*how, name, tree), env)
        except FlattenError as error:
            raise FlattenError(f"{error}{_hint(job.plan)}") from error
        warn_of_missed(job, self.path, missed)
        if self._check:
            check_staged(job, name, self.path, Erofs, missed)


def _volume(options: Options) -> Volume:
    """Return what the options choose of an image.

    Raises:
        UsageError: The size of a block or the label is not valid.
    """
    block = options.block_size or (TAR_BLOCK if options.index else BLOCK)
    if block not in BLOCKS:
        sizes = ", ".join(map(str, BLOCKS))
        raise UsageError(f"--block-size: {block} is not one of {sizes}")
    name = os.fsencode(label(options, "EROFS", MAX_LABEL, "rootfs"))
    if options.uuid is None:
        return Volume(block, name, index=options.index)
    chosen = bytes.fromhex(options.uuid.replace("-", ""))
    return Volume(block, name, chosen, options.index)


def _choices(program: str, options: Options) -> list[str]:
    """Return the options of mkfs.erofs for the label and the size of a block.

    Raises:
        FlattenError: It does not have one of them.
    """
    chosen = {"-L": options.label, "-b": options.block_size}
    wanted = {option: value for option, value in chosen.items() if value is not None}
    for option in wanted:
        if not tools.offers(program, option):
            name = {"-L": "--label", "-b": "--block-size"}[option]
            raise FlattenError(
                f"mkfs.erofs here has no option {option}, for {name}; use a newer "
                "erofs-utils, or do not compress"
            )
    return [f"{option}{value}" for option, value in wanted.items()]


def _hint(plan: Plan) -> str:
    """Return what mkfs.erofs does not say when it fails at a name of 255 bytes."""
    for path in plan.paths:
        if len(path) >= MAX_NAME:
            longest = max(path.split(b"/"), key=len)
            if len(longest) == MAX_NAME:
                return (
                    f"; mkfs.erofs 1.5 takes no name of {MAX_NAME} bytes, such "
                    f"as {quoted(longest)}"
                )
    return ""
