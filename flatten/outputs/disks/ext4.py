"""An ext4 file system, made by mke2fs from a directory."""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ...errors import UsageError, quoted
from ...image.image import Image
from ...options import Options
from ...plan.plan import Plan
from ...tar.members import DIRECTORY, FILE, NO_EXTRA, SYMLINK
from .. import atomic
from ..job import Job, Shape
from . import tools
from .stage import run_on_tree
from .stamps import stamp, uuid

BLOCK: Final = 4096
INODE: Final = 256
MIB: Final = 1 << 20
_FAST_SYMLINK: Final = 59  # longer targets take a block
_JOURNALS: Final = ((1 << 27, 4), (1 << 30, 16), (1 << 31, 32), (1 << 34, 64))
"""Sizes of file systems, and MiB of journal up to them: as mke2fs has it."""


class Output:
    """An ext4 file system.

    Attributes:
        path: Where it will be.
    """

    def __init__(self, out: Path, options: Options) -> None:
        """Write to a path.

        Raises:
            UsageError: It is to be compressed.
            FlattenError: A tool is not there.
        """
        self.path = out
        self._size = options.size
        if options.compress not in (None, "none"):
            raise UsageError(f"{quoted(str(out))} is not compressed; compress it then, "
                             "or make .squashfs or .erofs")  # fmt: skip
        for name in ("mke2fs", "dumpe2fs", "debugfs"):
            tools.find(name)

    def shape(self, image: Image) -> Shape:  # noqa: ARG002 - of Output
        """Ask for a root, and for times that the file system can hold."""
        return Shape(rooted=True, times=(-(1 << 31), (1 << 34) - (1 << 31) - 1))

    @contextmanager
    def writing(self, job: Job) -> Iterator[None]:
        """Stage the tree, and make the file system of it."""
        with atomic.create_by_name(self.path, sync=job.sync, settle=job.settle) as name:
            self.make(job, name)
            yield

    def make(self, job: Job, name: Path) -> None:
        """Make the file system, in a file of some other name."""
        blocks, inodes = needed(job.plan)
        content = blocks * BLOCK + inodes * INODE
        content += content // 50 + 2 * MIB  # bitmaps, descriptors, their copies
        total = _total(self.path, content, self._size)
        inodes = max(inodes + inodes // 4 + 1024, total // 16384)
        id_, time = uuid(job, "ext4"), stamp(job)
        env = {"E2FSPROGS_FAKE_TIME": str(time or 1)}  # 0 is no time to it
        _, mke2fs = tools.find("mke2fs")
        with open(name, "xb") as file:
            os.truncate(file.fileno(), total)
        how = (
            mke2fs, "-q", "-F", "-t", "ext4", "-b", str(BLOCK), "-I", str(INODE),
            "-N", str(inodes), "-J", f"size={_journal(total)}", "-m", "1", "-U", id_,
            "-E", f"hash_seed={id_},nodiscard,lazy_itable_init=0",
        )  # fmt: skip
        run_on_tree(job, self.path, lambda tree: (*how, "-d", tree, name), env)
        _set_times(job, name, time, env)


def _total(path: Path, content: int, size: str | None) -> int:
    """Return the size of a file system, in bytes.

    Raises:
        UsageError: It is less than what is needed.
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
    """Return the MiB of the journal of a file system of some size."""
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
    return blocks + sum(size // (BLOCK - 300) for size in names.values()), inodes


def _set_times(job: Job, name: Path, time: int, env: dict[str, str]) -> None:
    """Set what mke2fs takes from the staging, or leaves: ctimes, and the root's own."""
    _, dumpe2fs = tools.find("dumpe2fs")
    _, debugfs = tools.find("debugfs")
    used = used_inodes(tools.run([dumpe2fs, name], env))
    members, root = job.plan.members, job.plan.inodes[0]
    mode, uid, gid = members.owner_table[members.owners[root]]
    fields = {"mode": f"0{0o40000 | mode:o}", "uid": uid, "gid": gid,
              "mtime": f"@{members.mtimes[root]}", "atime": f"@{time}"}  # fmt: skip
    commands = [f"set_inode_field <2> {key} {text}\n" for key, text in fields.items()]
    commands += [f"set_inode_field <{inode}> ctime @{time}\n" for inode in used]
    with tools.fed([debugfs, "-w", "-f", "-", name], env, banner=b"debugfs ") as pipe:
        data = memoryview("".join(commands).encode())
        while data:
            data = data[os.write(pipe, data) :]


def used_inodes(text: str) -> Iterator[int]:
    r"""Yield the inodes in use, the root and those of files, as dumpe2fs tells them.

    >>> head = "Free inodes:  16\nInodes per group:  16\n"
    >>> list(used_inodes(head + "  Free inodes: 14-16\n  Free inodes: 20-32\n"))
    [2, 11, 12, 13, 17, 18, 19]
    """
    per_group = group = 0
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key == "Inodes per group":
            per_group = int(value)
        elif key == "  Free inodes":  # of a group; those of all are not indented
            pairs = [part.split("-") for part in value.split(",") if part.strip()]
            free = {n for p in pairs for n in range(int(p[0]), int(p[-1]) + 1)}
            first = group * per_group + 1
            for inode in range(first, first + per_group):
                if inode not in free and (inode == 2 or inode > 10):
                    yield inode
            group += 1
