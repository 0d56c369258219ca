"""Read a file system back and compare its metadata with the plan.

Paths, file types, modes, owners, sizes, mtimes, hard links, devices, symlink targets
and xattrs are compared; contents are not read. What a format cannot hold was removed
from the plan before (``job.Shape``), so every difference is a fault, of the program
that made the file system or of the directory that it was made from.
"""

import stat
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from lzma import LZMAError
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Final

from ..errors import FlattenError, quoted
from ..plan.plan import Plan
from ..tar import xattrs
from ..tar.members import (
    BLOCK,
    CHAR,
    DIRECTORY,
    FIFO,
    FILE,
    FILE_TYPES,
    NO_EXTRA,
    SYMLINK,
    TYPEFLAGS,
)
from .inode import FileSystem, Inode, walk

LABELS: Final = "SELinux labels"
"""The kind of difference where only a label was added."""

RESULTS: Final = {"devices": "names", "setuid bits": "modes"}
"""The check's words for what ``write_directory`` could not set, if they differ."""

_PERMISSIONS: Final = 0o7777
_SELINUX: Final = b"security.selinux"
_NAMES: Final = {
    FILE: "a file",
    DIRECTORY: "a directory",
    SYMLINK: "a symlink",
    CHAR: "a character device",
    BLOCK: "a block device",
    FIFO: "a FIFO",
}

_BROKEN: Final = (ValueError, LookupError, struct.error, zlib.error, LZMAError)
"""What readers raise for bytes that do not follow the format."""

Difference = tuple[str, bytes, object, object]
"""What differs (plural), the path, the expected value, the one that was found."""


@contextmanager
def reading(
    name: Path, output: Path, read: Callable[[mmap], FileSystem]
) -> Iterator[FileSystem]:
    """Yield the file system in a file.

    Args:
        name: The file.
        output: Its name in messages.
        read: Opens the file system.

    Raises:
        FlattenError: The file system cannot be read, now or in the body.
    """
    with open(name, "rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        try:
            yield read(data)
        except _BROKEN as error:
            raise FlattenError(
                f"{quoted(str(output))}: cannot read it back: {error}"
            ) from error


def check(
    plan: Plan,
    name: Path,
    output: Path,
    read: Callable[[mmap], FileSystem],
    excused: Callable[[str, bytes], bool],
) -> Counter[str]:
    """Compare a file system with a plan.

    Args:
        plan: What was written.
        name: The file that has the file system.
        output: Its name in messages.
        read: Opens the file system.
        excused: Returns True for a kind of difference, at a path, that is not an error.

    Returns:
        The number of differences of each excused kind.

    Raises:
        FlattenError: They differ otherwise, or the file system cannot be read.
    """
    with reading(name, output, read) as files:
        return compare(plan, files, output, excused)


def compare(
    plan: Plan,
    files: FileSystem,
    output: Path,
    excused: Callable[[str, bytes], bool],
) -> Counter[str]:
    """Compare a file system that is open with a plan, as ``check`` does.

    Raises:
        FlattenError: They differ, otherwise than is excused.
    """
    counts: Counter[str] = Counter()
    known: Counter[str] = Counter()
    first = ""
    for kind, path, expected, found in differences(plan, files):
        if excused(kind, path):
            known[kind] += 1
        else:
            counts[kind] += 1
            first = first or (
                f"{quoted(path)}: expected {_shown(kind, expected)}, "
                f"found {_shown(kind, found)}"
            )
    if counts:
        kinds = ", ".join(f"{kind} ({count:,})" for kind, count in counts.items())
        raise FlattenError(
            f"{quoted(str(output))} differs from the image in {kinds}, first at "
            f"{first}; --no-check skips this check"
        )
    return known


_FORMATS: Final = {
    "modes": "{:04o}",
    "owners": "{0[0]}:{0[1]}",
    "times": "{0[0]} s, {0[1]} ns",
}
"""How values of some kinds are written in messages; others are written as they are."""


def differences(plan: Plan, files: FileSystem) -> Iterator[Difference]:
    """Yield all differences between a plan and a file system."""
    later = Counter(plan.inodes[position] for position in plan.links)
    numbers: dict[int, int] = {}  # inode numbers of members with several names
    for path, member, inode in pairs(plan, files):
        if inode is None:
            yield "names", path, "a file", "none"
        elif member is None:
            if path not in files.own_paths:
                yield "names", path, "none", "a file"
        else:
            if member in later and numbers.setdefault(member, inode.number) != (
                inode.number
            ):
                yield "hard links", path, "a link", "a separate file"
            elif inode.links != later[member] + 1 and not stat.S_ISDIR(inode.mode):
                yield "link counts", path, later[member] + 1, inode.links
            for kind, expected, found in _differences(plan, member, inode):
                if expected != found:
                    yield kind, path, expected, found


def pairs(
    plan: Plan, files: FileSystem
) -> Iterator[tuple[bytes, int | None, Inode | None]]:
    """Yield each path with its member and its inode, or None where it has none.

    Both sides are in walk order, so that neither is held in memory.
    """
    found = walk(files)
    other = next(found, None)
    for path, member in plan:
        while other is not None and other[0] != path and _before(other[0], path):
            yield other[0], None, other[1]
            other = next(found, None)
        if other is not None and other[0] == path:
            yield path, member, other[1]
            other = next(found, None)
        else:
            yield path, member, None
    while other is not None:
        yield other[0], None, other[1]
        other = next(found, None)


def _before(path: bytes, other: bytes) -> bool:
    """Return True if a path comes first in walk order."""
    return path.rstrip(b"/").split(b"/") < other.rstrip(b"/").split(b"/")


def _differences(
    plan: Plan, member: int, inode: Inode
) -> list[tuple[str, object, object]]:
    """Return the kind, the expected and the found value of fields that may differ.

    The list is empty if all are equal, as nearly always.
    """
    members = plan.members
    kind = members.kinds[member]
    mode, uid, gid = members.owner_table[members.owners[member]]
    extra = members.extras.get(member, NO_EXTRA)
    mtime, fraction = members.mtimes[member], extra.nanoseconds
    expected = xattrs.from_records(extra.records) if extra.records else {}
    value: object = None  # of a directory or a FIFO
    other: object = None
    what = "devices"
    if kind == FILE:
        what, value, other = "sizes", members.sizes[member], inode.size
    elif kind == SYMLINK:
        what, value, other = "symlink targets", members.targets[member], inode.target
        mode = inode.mode & _PERMISSIONS  # Linux has one mode for all symlinks
    elif kind in (CHAR, BLOCK):
        value, other = extra.device, inode.device
    if (
        FILE_TYPES[kind] | mode == inode.mode
        and uid == inode.uid
        and gid == inode.gid
        and mtime == inode.mtime
        and fraction == inode.nanoseconds
        and value == other
        and expected == inode.xattrs
    ):
        return []
    labels = inode.xattrs.keys() - expected.keys() == {_SELINUX}
    return [
        ("types", _NAMES[kind], _NAMES.get(TYPEFLAGS.get(stat.S_IFMT(inode.mode), 0))),
        ("owners", (uid, gid), (inode.uid, inode.gid)),
        ("times", (mtime, fraction), (inode.mtime, inode.nanoseconds)),
        (what, value, other),
        ("modes", mode, inode.mode & _PERMISSIONS),
        (LABELS if labels else "xattrs", expected, inode.xattrs),
    ]


def _shown(kind: str, value: object) -> str:
    """Return a value for a message, on one line and not too long."""
    if kind in _FORMATS:
        return _FORMATS[kind].format(value)
    if isinstance(value, dict):
        return quoted(b" ".join(key + b"=" + value[key] for key in sorted(value)))
    return quoted(value) if isinstance(value, bytes) else str(value)
