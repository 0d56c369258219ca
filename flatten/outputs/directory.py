"""A directory, for a chroot, for systemd-nspawn, or to look at.

It is written under a temporary name beside its own (``atomic``), which nobody else can
enter, and renamed when it is complete and verified.
"""

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from ..errors import FlattenError, UsageError, quoted
from ..host.beneath import mounts_below, remove_tree
from ..host.processes import processes
from ..image.image import Image
from ..options import Options
from ..plan.plan import Plan
from ..tar.members import DIRECTORY
from . import atomic
from .check import LABELS, RESULTS, compare
from .job import Job, Shape
from .read_dir import HostTree
from .write_dir import describe_root, write_directory

_LISTABLE: Final = stat.S_IRUSR | stat.S_IXUSR
_ANY: Final = (b"",)  # ACLs set the mode, as the kernel will


class Output:
    """A directory.

    Attributes:
        path: The directory.
    """

    def __init__(self, out: Path, options: Options) -> None:
        """Write to a path that is free or an empty directory, or replace a full one.

        Raises:
            UsageError: The path cannot be replaced, or only with ``options.force``.
        """
        self.path = out
        self._target = _resolved(out)
        self._options = options
        _check_target(self._target, options.force)

    def shape(self, image: Image) -> Shape:
        """Ask for a root with metadata.

        Raises:
            UsageError: The image is in the directory that would be replaced.
        """
        if self._target in _resolved(Path(image.source)).parents:
            raise UsageError(f"{quoted(str(self.path))} contains the image")
        return Shape(rooted=True, xattrs=_ANY)

    @contextmanager
    def writing(self, job: Job) -> Iterator[None]:
        """Write beside the target, and rename when the body ends."""
        own = self._options.ownership == "keep"
        try:
            with atomic.scratch_directory(self._target) as part, _opened(part) as root:
                missed = write_directory(
                    job.plan,
                    job.layers(),
                    root,
                    own=own,
                    advance=job.advance,
                    processes=self._options.limits.processes or processes(),
                )
                yield
                describe_root(job.plan, root, missed, own=own)
                if self._options.check and _is_readable(job.plan):
                    self._compare(job, root, missed, own=own)
                job.before_commit()
                if not os.path.samestat(os.fstat(root), os.lstat(part)):
                    name = quoted(str(part))
                    raise FlattenError(f"{name}: another directory took its place")
                _swap(part, self._target, self._options.force)
        except OSError as error:
            raise FlattenError(f"{quoted(str(self.path))}: {error.strerror}") from error
        if missed:
            job.notes.append(_shortfall(self.path, missed))

    def _compare(
        self, job: Job, root: int, missed: Mapping[str, int], *, own: bool
    ) -> None:
        """Compare the directory with the plan, except for what could not be set.

        Raises:
            FlattenError: They differ.
        """
        excused = {LABELS, *(RESULTS.get(what, what) for what in missed)}
        if not own:
            excused.add("owners")
        with HostTree(root) as tree:
            compare(job.plan, tree, self.path, lambda kind, _: kind in excused)


def _is_readable(plan: Plan) -> bool:
    """Return True if the calling user can list all directories of a plan."""
    members = plan.members
    return os.geteuid() == 0 or all(
        members.owner_table[members.owners[inode]][0] & _LISTABLE == _LISTABLE
        for _, inode in plan
        if members.kinds[inode] == DIRECTORY
    )


def _shortfall(path: Path, missed: Mapping[str, int]) -> str:
    """Return the warning that counts what could not be set."""
    counts = ", ".join(f"{count:,} {what}" for what, count in sorted(missed.items()))
    why = "" if os.geteuid() == 0 else " without being root"
    hint = "--ownership current does not set owners; " if "owners" in missed else ""
    return f"{path}/: could not set {counts}{why}; {hint}a tar keeps everything"


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise UsageError(f"{quoted(str(path))}: {error}") from error


def _check_target(target: Path, force: bool) -> None:
    """Refuse a target that cannot be renamed to, before anything is read.

    Raises:
        UsageError: The target is refused.
    """
    name = quoted(str(target))
    if not os.path.lexists(target):
        return
    if not target.is_dir():
        raise UsageError(
            f"{name} exists and is not a directory; leave out the slash "
            "to replace the file"
        )
    if target == Path.cwd() or target in Path.cwd().parents:
        raise UsageError(
            f"{name} is or contains the current directory; name a directory in it"
        )
    if target.is_mount():
        raise UsageError(
            f"{name} is a mount point; name a directory in it, or use "
            f"flatten IMAGE | tar -C {target} -xp"
        )
    if not force and any(target.iterdir()):
        raise UsageError(f"{name} is not empty; --force replaces it")
    _check_mounts(target)


def _check_mounts(target: Path) -> None:
    """Refuse to replace a directory that others are mounted in.

    Raises:
        UsageError: Removing it would remove files of another file system.
    """
    points = mounts_below(str(target))
    if points:
        raise UsageError(
            f"{quoted(str(target))} has mount points below it, such as "
            f"{quoted(points[0])}; unmount them, or name another directory"
        )


@contextmanager
def _opened(part: Path) -> Iterator[int]:
    """Yield the descriptor of the new directory, without ACLs of its parent."""
    root = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        for acl in ("default", "access"):
            with suppress(OSError):  # there is none, or the file system has none
                os.removexattr(root, f"system.posix_acl_{acl}")
        yield root
    finally:
        os.close(root)


def _swap(part: Path, target: Path, force: bool) -> None:
    """Rename to the target; with ``force``, move a full one away first and remove it.

    rename(2) itself replaces an empty directory, but not a full one.
    """
    if not force or not os.path.lexists(target) or not any(target.iterdir()):
        os.rename(part, target)
        return
    _check_mounts(target)
    old = part.with_suffix(".flatten-old")
    os.rename(target, old)
    try:
        os.rename(part, target)
    except OSError:
        os.rename(old, target)
        raise
    remove_tree(old)
