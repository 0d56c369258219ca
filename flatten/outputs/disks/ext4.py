"""An ext4 file system: mke2fs makes an empty one, and flatten fills it.

mke2fs can also copy a directory or, if it is recent, a tar. It then loses fractions of
a second or times after 2038, copies hard links to symlinks, needs root or fakeroot for
a directory, and takes time that grows with the square of the names in one directory.
"""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ...errors import FlattenError, UsageError, quoted
from ...image.image import Image
from ...options import Options
from ...plan.plan import Plan
from ...tar.members import DIRECTORY, FILE, NO_EXTRA, SYMLINK
from ...tar.xattrs import ACL
from .. import atomic
from ..check import check
from ..job import Job, Shape
from . import tools
from .ext4_disk import FEATURES
from .ext4_fs import BLOCK, FIRST, INODE, MAX_LINKS, MAX_NAME, TAIL, tree_blocks
from .read_ext4 import Ext4
from .stamps import label, stamp, uuid
from .verity import sealing
from .write_ext4 import FAST_SYMLINK, write_ext4

MIB: Final = 1 << 20
MAX_LABEL: Final = 16  # bytes
_JOURNALS: Final = ((1 << 27, 4), (1 << 30, 16), (1 << 31, 32), (1 << 34, 64))
"""Sizes of file systems in bytes, and the MiB of journal of smaller ones: mke2fs's."""

XATTR_ROOM: Final = BLOCK - 36  # bytes of the one block for a file's xattrs
TIMES: Final = -(1 << 31), (1 << 34) - (1 << 31) - 1  # 1901 to 2446
XATTRS: Final = (b"user.", b"trusted.", b"security.", ACL)


class Output:
    """An ext4 file system.

    Attributes:
        path: Path of the output.
    """

    def __init__(self, out: Path, options: Options) -> None:
        """Write to a path.

        Raises:
            UsageError: Compression is asked for, or the label is too long.
            FlattenError: mke2fs is missing.
        """
        self.path = out
        self._size = options.size
        self._check = options.check
        self._label = label(options, "ext4", MAX_LABEL)
        self._uuid = options.uuid
        self._verity = options.verity
        if options.compress not in (None, "none"):
            raise UsageError(
                f"{quoted(str(out))}: ext4 cannot be compressed; compress the file "
                "afterwards, or write .squashfs or .erofs"
            )
        _, self._program = tools.find("mke2fs")

    def shape(self, image: Image) -> Shape:  # noqa: ARG002 - of Output
        """Ask for a root, and for the times and xattrs that ext4 can hold."""
        return Shape(
            rooted=True,
            xattrs=XATTRS,
            xattr_room=XATTR_ROOM,
            times=TIMES,
        )

    @contextmanager
    def writing(self, job: Job) -> Iterator[None]:
        """Make the file system, and read it back."""
        with (
            atomic.create_by_name(
                self.path, sync=job.sync, before_commit=job.before_commit
            ) as name,
            sealing(job, self._verity) as seal,
        ):
            self.make(job, name)
            seal(name)
            yield

    def make(self, job: Job, name: Path) -> None:
        """Make the file system in a new file, ``name``."""
        _check_links(job.plan, self.path)
        blocks, inodes = needed(job.plan)
        inodes += inodes // 4 + 1024
        content = blocks * BLOCK + inodes * INODE
        content += content // 32 + 2 * MIB  # more inodes, bitmaps, descriptors, copies
        total = _total(self.path, content, self._size)
        inodes = max(inodes, total // 16384)
        id_, time = self._uuid or uuid(job, "ext4"), min(stamp(job), TIMES[1])
        env = {"E2FSPROGS_FAKE_TIME": str(time or 1)}  # 0 means the current time
        with open(name, "xb", buffering=0) as file:
            try:
                os.truncate(file.fileno(), total)
            except OSError as error:  # it has no filename
                raise FlattenError(
                    f"{quoted(str(self.path))}: cannot make a disk of "
                    f"{total >> 20:,}M here: {error.strerror}"
                ) from error
            how = (
                self._program, "-q", "-F", "-t", "ext4", "-b", str(BLOCK),
                "-I", str(INODE), "-N", str(inodes), "-J", f"size={_journal(total)}",
                "-m", "1", "-U", id_, "-L", self._label, "-O", FEATURES,
                "-E", f"hash_seed={id_},nodiscard,lazy_itable_init=0", name,
            )  # fmt: skip
            tools.run(how, env, folder=name.parent)
        with open(name, "r+b", buffering=0) as file:
            write_ext4(job, file.fileno(), quoted(str(self.path)), time)
        if self._check:
            check(job.plan, name, self.path, Ext4, lambda *_: False)


def _check_links(plan: Plan, path: Path) -> None:
    """Refuse a file with more names than an ext4 inode can count.

    Raises:
        FlattenError: There is one.
    """
    counts = Counter(plan.links.values())
    for first, count in counts.most_common(1):
        if count + 1 > MAX_LINKS:
            raise FlattenError(
                f"{quoted(str(path))}: {quoted(first)} has {count + 1:,} names; ext4 "
                f"holds at most {MAX_LINKS:,} hard links to a file"
            )


def _total(path: Path, content: int, size: str | None) -> int:
    """Return the size of a file system, in bytes.

    Raises:
        UsageError: ``--size`` is less than the content needs.
    """
    if size is not None and not size.startswith("+"):
        least = _with_journal(content)
        if int(size) < least:
            raise UsageError(
                f"{quoted(str(path))}: --size {int(size) >> 20:,}M is too small, it "
                f"needs {least + MIB - 1 >> 20:,}M"
            )
        return int(size) - int(size) % BLOCK
    free = max(32 * MIB, content // 4) if size is None else int(size[1:])
    total = _with_journal(content + free)
    return total + -total % MIB


def _with_journal(size: int) -> int:
    """Return a size in bytes with a journal: for mke2fs, at most half of the whole."""
    journal = _journal(size) * MIB
    return max(size + journal, 2 * journal + MIB)


def _journal(size: int) -> int:
    """Return the size of the journal, in MiB, of a file system of some bytes."""
    return next((mib for limit, mib in _JOURNALS if size < limit), 128)


def needed(plan: Plan) -> tuple[int, int]:
    """Return the blocks and the inodes that a tree takes, at most."""
    members = plan.members
    blocks, inodes = 0, FIRST - 1 + len(plan) - len(plan.links)
    names: Counter[bytes] = Counter()  # bytes of entries, by directory
    for position, (path, inode) in enumerate(plan):
        parent, _, name = path.rstrip(b"/").rpartition(b"/")
        names[parent] += len(name) + 11 & -4
        if position in plan.links:
            continue
        extra = members.extras.get(inode, NO_EXTRA)
        kind = members.kinds[inode]
        if kind == FILE:
            used = [
                -(-(start + length) // BLOCK) - start // BLOCK
                for start, length, _ in members.regions(inode)
            ]
            total = sum(used)
            blocks += total + tree_blocks(len(used) + (total >> 13))
        elif kind == DIRECTORY or (
            kind == SYMLINK and len(members.targets[inode]) > FAST_SYMLINK
        ):
            blocks += 1
        blocks += bool(extra.records)
    return blocks + sum(size // (TAIL - MAX_NAME) for size in names.values()), inodes
