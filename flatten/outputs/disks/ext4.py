"""An ext4 file system, made by mke2fs from a directory and completed by debugfs.

mke2fs 1.47 copies a directory with faults, which depend on its version: times after
2038 wrap, fractions of seconds are lost, and hard links to symlinks become copies.
So the file system is read back, and debugfs, run once, changes what differs.
"""

import os
import re
import stat
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
from ..check import pairs, reading
from ..inode import FileSystem, Inode
from ..job import Job, Shape
from ..write_dir import ROOT
from . import tools
from .read_ext4 import Ext4
from .stage import (
    as_root,
    check_staged,
    require_fakeroot,
    run_on_tree,
    warn_of_missed,
)
from .stamps import label, stamp, uuid
from .verity import sealing

BLOCK: Final = 4096
INODE: Final = 256
MIB: Final = 1 << 20
MAX_LABEL: Final = 16  # bytes
MAX_LINKS: Final = 65_000  # names of one file
_BREAKS: Final = re.compile(rb"[\n\r][^/]*\Z")  # in a name; debugfs cannot be given it
_FAST_SYMLINK: Final = 59  # bytes; longer targets take a block
_JOURNALS: Final = ((1 << 27, 4), (1 << 30, 16), (1 << 31, 32), (1 << 34, 64))
"""Sizes of file systems in bytes, and the MiB of journal of smaller ones: mke2fs's."""

XATTR_ROOM: Final = BLOCK - 36  # bytes of the one block for a file's xattrs
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
            FlattenError: A program is missing.
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
        for name in ("mke2fs", "debugfs"):
            tools.find(name)
        require_fakeroot()

    def shape(self, image: Image) -> Shape:  # noqa: ARG002 - of Output
        """Ask for a root, and for the times and xattrs that ext4 can hold."""
        return Shape(
            posix=not as_root(),
            rooted=True,
            xattrs=XATTRS,
            xattr_room=XATTR_ROOM,
            times=(-(1 << 31), (1 << 34) - (1 << 31) - 1),
        )

    @contextmanager
    def writing(self, job: Job) -> Iterator[None]:
        """Stage the tree and make the file system of it."""
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
        content = blocks * BLOCK + inodes * INODE
        content += content // 50 + 2 * MIB  # bitmaps, descriptors, their copies
        total = _total(self.path, content, self._size)
        inodes = max(inodes + inodes // 4 + 1024, total // 16384)
        id_, time = self._uuid or uuid(job, "ext4"), stamp(job)
        env = {"E2FSPROGS_FAKE_TIME": str(time or 1)}  # 0 means the current time
        _, mke2fs = tools.find("mke2fs")
        with open(name, "xb") as file:
            try:
                os.truncate(file.fileno(), total)
            except OSError as error:  # it has no filename
                raise FlattenError(
                    f"{quoted(str(self.path))}: cannot make a disk of "
                    f"{total >> 20:,}M here: {error.strerror}"
                ) from error
        how = (
            mke2fs, "-q", "-F", "-t", "ext4", "-b", str(BLOCK), "-I", str(INODE),
            "-N", str(inodes), "-J", f"size={_journal(total)}", "-m", "1", "-U", id_,
            "-L", self._label,
            "-E", f"hash_seed={id_},nodiscard,lazy_itable_init=0",
        )  # fmt: skip
        missed = run_on_tree(job, self.path, lambda tree: (*how, "-d", tree, name), env)
        with reading(name, self.path, Ext4) as files:
            commands = "".join(f"{line}\n" for line in repairs(job.plan, files, time))
        _debugfs(name, commands.encode("utf-8", "surrogateescape"), env)
        missed.pop("times", None)  # they are right now
        warn_of_missed(job, self.path, missed)
        if self._check:
            check_staged(job, name, self.path, Ext4, missed)


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
        least = content + _journal(content) * MIB
        if int(size) < least:
            raise UsageError(
                f"{quoted(str(path))}: --size {int(size) >> 20:,}M is too small, it "
                f"needs {least + MIB - 1 >> 20:,}M"
            )
        return int(size) - int(size) % BLOCK
    free = max(32 * MIB, content // 4) if size is None else int(size[1:])
    total = content + free
    total += _journal(total) * MIB
    return total + -total % MIB


def _journal(size: int) -> int:
    """Return the size of the journal, in MiB, of a file system of some bytes."""
    return next((mib for limit, mib in _JOURNALS if size < limit), 128)


def needed(plan: Plan) -> tuple[int, int]:
    """Return the blocks and the inodes that a tree takes."""
    members = plan.members
    blocks, inodes = 0, 12 + len(plan) - len(plan.links)
    names: Counter[bytes] = Counter()  # bytes of entries, by directory
    for position, (path, inode) in enumerate(plan):
        parent, _, name = path.rstrip(b"/").rpartition(b"/")
        names[parent] += len(name) + 11 & -4
        if position in plan.links:
            continue
        extra = members.extras.get(inode, NO_EXTRA)
        kind = members.kinds[inode]
        if kind == FILE:
            regions = extra.sparse or ((0, members.sizes[inode]),)
            used = sum(-(-length // BLOCK) + 1 for _, length in regions)
            blocks += used + len(regions) // 300 + (used >> 15)  # and their extents
        elif kind == DIRECTORY or (
            kind == SYMLINK and len(members.targets[inode]) > _FAST_SYMLINK
        ):
            blocks += 1
        blocks += bool(extra.records)
    inodes += sum(members.kinds[plan.inodes[at]] != FILE for at in plan.links)
    return blocks + sum(size // (BLOCK - 300) for size in names.values()), inodes


def repairs(plan: Plan, files: FileSystem, time: int) -> Iterator[str]:
    """Yield debugfs commands that make a file system what the plan says.

    They set the ctime of every inode to ``time``, so that equal images give equal
    bytes, and set the mtimes and the root's metadata where they differ.
    """
    for _, member, inode in pairs(plan, files):
        if inode is not None:
            yield from _time(inode.number, "ctime", time)
            if member is not None:
                yield from _times(plan, member, inode)
            if inode.number == files.root:
                yield from _root(plan, inode, time)
    yield from _links(plan, files)


def _links(plan: Plan, files: FileSystem) -> Iterator[str]:
    """Yield the commands that replace copies of symlinks and the like by hard links."""
    kinds = plan.members.kinds
    later = Counter(m for at in plan.links if kinds[m := plan.inodes[at]] != FILE)
    firsts: dict[int, Inode] = {}
    folders: dict[bytes, int] = {}  # inode numbers
    linked: set[int] = set()
    for path, member, inode in pairs(plan, files) if later else ():
        if inode is not None and stat.S_ISDIR(inode.mode):
            folders[path] = inode.number
        elif inode is not None and member is not None and member in later:
            first = firsts.setdefault(member, inode)
            if first.number != inode.number and not _BREAKS.search(path):
                yield from _link(path, folders, inode, first)
                linked.add(member)
    for member in linked:
        count = later[member] + 1
        yield f"set_inode_field <{firsts[member].number}> links_count {count}"


def _times(plan: Plan, member: int, inode: Inode) -> Iterator[str]:
    """Yield the commands that correct an mtime; mke2fs sets the atime likewise."""
    mtime = plan.members.mtimes[member]
    fraction = plan.members.extras.get(member, NO_EXTRA).nanoseconds
    if (mtime, fraction) != (inode.mtime, inode.nanoseconds):
        yield from _time(inode.number, "mtime", mtime, fraction)
        yield from _time(inode.number, "atime", mtime, fraction)


def _root(plan: Plan, root: Inode, time: int) -> Iterator[str]:
    """Yield the commands that set the root's mode, owner and atime."""
    members = plan.members
    mode, uid, gid = members.owner_table[members.owners[plan.inodes[0]]]
    fields = {"mode": f"0{stat.S_IFDIR | mode:o}", "uid": uid, "gid": gid}
    for field, value in fields.items():
        yield f"set_inode_field <{root.number}> {field} {value}"
    yield from _time(root.number, "atime", time)


def _time(number: int, field: str, seconds: int, fraction: int = 0) -> Iterator[str]:
    """Yield the commands that set a time: 34 bits of seconds, 30 of nanoseconds.

    The kernel reads the low 32 bits of the seconds as a signed number; debugfs does not
    take -1.
    """
    low = seconds % (1 << 32)
    epoch = seconds + (1 << 31) >> 32
    yield f"set_inode_field <{number}> {field} @{low}"
    yield f"set_inode_field <{number}> {field}_extra {fraction << 2 | epoch}"


def _link(
    path: bytes, folders: dict[bytes, int], copy: Inode, first: Inode
) -> Iterator[str]:
    """Yield the commands that replace a copy by a hard link.

    The inode of the copy is cleared, as it holds the time of the run. The lines are
    short on purpose: debugfs takes what follows the first BUFSIZ bytes of a line (1,024
    with musl) for another command.
    """
    parent, _, name = path.rpartition(b"/")
    text = os.fsdecode(name).replace('"', '""')
    yield f"cd <{folders[parent + b'/' if parent else ROOT]}>"
    yield f'rm "./{text}"'
    yield f"clri <{copy.number}>"
    yield f'ln <{first.number}> "./{text}"'


def _debugfs(name: Path, commands: bytes, env: dict[str, str]) -> None:
    """Run commands on a file system.

    Raises:
        FlattenError: One failed.
    """
    _, debugfs = tools.find("debugfs")
    argv = (debugfs, "-w", "-f", "-", str(name))
    with tools.fed(argv, env, folder=name.parent, banner=b"debugfs ") as pipe:
        data = memoryview(commands)
        while data:
            data = data[os.write(pipe, data) :]
