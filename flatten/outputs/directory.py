"""A directory: for a chroot, for systemd-nspawn, or to look at.

It is written as ``.DIR.flatten-part`` beside its place, locked, entered by nobody else,
and renamed when all is there and verified.
"""

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import FlattenError, UsageError, quoted
from ..host.beneath import mounts_below, remove_tree
from ..image.image import Image
from ..options import Options
from .job import Job, Shape
from .write_dir import describe_root, write_directory

PART = ".flatten-part"


class Output:
    """A directory.

    Attributes:
        path: Where it will be.
    """

    def __init__(self, out: Path, options: Options) -> None:
        """Write to a path, where there is nothing yet or an empty directory.

        Raises:
            UsageError: There is something else; with ``options.force``, something
                that cannot be replaced.
        """
        self.path = out
        self._place = _resolved(out)
        self._options = options
        _check_place(self._place, options.force)

    def shape(self, image: Image) -> Shape:
        """Ask for a root with metadata.

        Raises:
            UsageError: The image lies in the directory that is to be replaced.
        """
        if self._place in _resolved(Path(image.source)).parents:
            raise UsageError(f"{quoted(str(self.path))} holds the image")
        return Shape(rooted=True)

    @contextmanager
    def writing(self, job: Job) -> Iterator[None]:
        """Write beside the place, and rename when the body ends."""
        part = self._place.with_name(f".{_start(self._place, 240)}{PART}")
        try:
            with _locked(part) as root:
                missed = write_directory(
                    job.plan, job.layers(), root,
                    own=self._options.ownership == "keep", advance=job.advance,
                )  # fmt: skip
                yield
                describe_root(
                    job.plan, root, missed, own=self._options.ownership == "keep"
                )
                job.settle()
                if not os.path.samestat(os.fstat(root), os.lstat(part)):
                    name = quoted(str(part))
                    raise FlattenError(f"{name}: another directory took its place")
                _swap(part, self._place, self._options.force)
        except OSError as error:
            raise FlattenError(f"{quoted(str(self.path))}: {error.strerror}") from error
        if missed:
            job.notes.append(_shortfall(self.path, missed))


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


def _check_place(place: Path, force: bool) -> None:
    """Refuse what a directory cannot be renamed to, before anything is read."""
    name = quoted(str(place))
    if not os.path.lexists(place):
        return
    if not place.is_dir():
        raise UsageError(f"{name} is not a directory; leave the slash out for a file")
    if place == Path.cwd() or place in Path.cwd().parents:
        raise UsageError(f"{name} is where you are; name a directory in it")
    if place.is_mount():
        raise UsageError(f"{name} is a mount point; name a directory in it, or use "
                         f"flatten IMAGE | tar -C {place} -xp")  # fmt: skip
    if not force and any(place.iterdir()):
        raise UsageError(f"{name} is not empty; --force replaces it")
    _check_mounts(place)


def _check_mounts(place: Path) -> None:
    """Refuse to replace a directory that others are mounted in.

    Raises:
        UsageError: Removing it would remove what is mounted there.
    """
    points = mounts_below(str(place))
    if points:
        raise UsageError(
            f"{quoted(str(place))} has mount points below it, such as "
            f"{quoted(points[0])}; unmount them, or name another directory"
        )


def _start(path: Path, count: int) -> str:
    """Return the first bytes of a path's name: file systems limit bytes."""
    return os.fsdecode(os.fsencode(path.name)[:count])


@contextmanager
def _locked(part: Path) -> Iterator[int]:
    """Make a directory that is only ours; yield its descriptor.

    One that an interrupted run has left is removed first, one that a running one is
    writing is not; on an error it is removed.
    """
    name = quoted(str(part))
    with suppress(FileNotFoundError):
        left = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            if os.fstat(left).st_uid != os.geteuid():
                raise FlattenError(f"{name} belongs to another user; remove it")
            _lock(left, name)
            remove_tree(part)
        finally:
            os.close(left)
    os.mkdir(part, 0o700)
    try:
        root = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            _lock(root, name)
            for acl in ("default", "access"):  # of the directory around it
                with suppress(OSError):
                    os.removexattr(root, f"system.posix_acl_{acl}")
            yield root
        finally:
            os.close(root)
    except BaseException:
        with suppress(OSError):
            remove_tree(part)
        raise


def _lock(folder: int, name: str) -> None:
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise FlattenError(f"{name}: another run is writing it") from error


def _swap(part: Path, place: Path, force: bool) -> None:
    """Rename to the place; with ``force``, what is in it is moved away and removed.

    rename(2) itself replaces an empty directory, and nothing else.
    """
    if not force or not os.path.lexists(place) or not any(place.iterdir()):
        os.rename(part, place)
        return
    _check_mounts(place)
    old = place.with_name(f".{_start(place, 180)}.{os.urandom(6).hex()}.flatten-old")
    os.rename(place, old)
    try:
        os.rename(part, place)
    except OSError:
        os.rename(old, place)
        raise
    remove_tree(old)
