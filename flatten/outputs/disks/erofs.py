"""An EROFS image, made by mkfs.erofs from a directory."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ...errors import FlattenError, quoted
from ...image.image import Image
from ...options import Options
from ...plan.plan import Plan
from ...tar.xattrs import ACL
from .. import atomic
from ..job import Job, Shape
from . import tools
from .read_erofs import Erofs
from .stage import (
    as_root,
    check_staged,
    require_fakeroot,
    run_on_tree,
    warn_of_missed,
)
from .stamps import stamp, uuid

COMPRESSORS: Final = ("lz4hc", "lz4", "none")
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
            FlattenError: The program is missing.
        """
        self.path = out
        self._check = options.check
        name, level = tools.compressor(options.compress, COMPRESSORS, ("lz4hc",))
        spec = name if level is None else f"{name},{level}"
        self._compression = [] if name == "none" else [f"-z{spec}"]
        _, self._program = tools.find("mkfs.erofs")
        require_fakeroot()

    def shape(self, image: Image) -> Shape:  # noqa: ARG002 - of Output
        """Ask for a root, and for the times and xattrs that EROFS can hold."""
        return Shape(
            posix=not as_root(),
            rooted=True,
            xattrs=XATTRS,
            times=(0, 1 << 62),
        )

    @contextmanager
    def writing(self, job: Job) -> Iterator[None]:
        """Stage the tree and run the program on it.

        The program reduces mtimes to SOURCE_DATE_EPOCH, which is later than all.
        """
        env = {"SOURCE_DATE_EPOCH": str(stamp(job))}
        how = (self._program, "--quiet", *self._compression, f"-U{uuid(job, 'erofs')}")
        with atomic.create_by_name(
            self.path, sync=job.sync, before_commit=job.before_commit
        ) as name:
            try:
                missed = run_on_tree(
                    job, self.path, lambda tree: (*how, name, tree), env
                )
            except FlattenError as error:
                raise FlattenError(f"{error}{_hint(job.plan)}") from error
            warn_of_missed(job, self.path, missed)
            if self._check:
                check_staged(job, name, self.path, Erofs, missed)
            yield


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
