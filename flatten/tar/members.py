"""The data model of layer tars: members, stored as columns. No I/O.

Units, everywhere: sizes and offsets are ints in bytes, times are ints in seconds
since the epoch. Paths in archives are bytes, relative to the root, without ``.``,
``..``, doubled or trailing slashes; the root is ``b""``. Host paths are ``Path``.

A *member* is one entry of one layer. It is identified by a row number that counts
through the image in reading order, so a layer's members are one range. An *inode* is
the object that a path of the tree refers to, identified by the number of the member
that created it; a hard link is a second path to the same number.
"""

import stat
from array import array
from bisect import bisect_left
from collections.abc import Iterator, MutableSequence, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Any, ClassVar, Final

from ..errors import FormatError

# Kinds of members: POSIX tar's typeflags, so that they need no translation.
FILE: Final = 0x30  # "0"
LINK: Final = 0x31  # "1", a hard link
SYMLINK: Final = 0x32  # "2"
CHAR: Final = 0x33  # "3"
BLOCK: Final = 0x34  # "4"
DIRECTORY: Final = 0x35  # "5"
FIFO: Final = 0x36  # "6"

FILE_TYPES: Final = {
    FILE: stat.S_IFREG,
    SYMLINK: stat.S_IFLNK,
    CHAR: stat.S_IFCHR,
    BLOCK: stat.S_IFBLK,
    DIRECTORY: stat.S_IFDIR,
    FIFO: stat.S_IFIFO,
}
"""The file type in st_mode (inode(7)) for each typeflag but that of hard links."""

TYPEFLAGS: Final = {file_type: kind for kind, file_type in FILE_TYPES.items()}
"""The typeflag for each file type in st_mode; a tar cannot contain sockets."""

NO_SOURCE: Final = -1
"""The data offset of a member that is in no layer: an implied directory."""

MAX_NAME: Final = 1 << 16  # bytes of a name, a link target or a path
MAX_LINKS: Final = 40  # symlinks followed per path, as in Linux (MAXSYMLINKS)

Column = MutableSequence[int]
"""An ``array``, or a bytearray."""

SparseMap = tuple[tuple[int, int], ...]
"""Where a sparse file has data: (offset, length) in order, without overlap."""


@dataclass(frozen=True, slots=True)
class Extra:
    """Fields that few members have, kept out of the columns.

    Attributes:
        records: PAX records to keep (xattrs, ACLs), sorted by keyword.
        sparse: The data regions of a sparse file, or None.
        device: Major and minor number of a device.
        nanoseconds: The fraction of the mtime, 0 to 999,999,999.
    """

    records: tuple[tuple[bytes, bytes], ...] = ()
    sparse: SparseMap | None = None
    device: tuple[int, int] = (0, 0)
    nanoseconds: int = 0

    def memory(self) -> int:
        """Return the memory that the records and regions take, three objects each."""
        texts = sum(len(key) + len(value) for key, value in self.records)
        return texts + 128 * (len(self.records) + len(self.sparse or ()))


NO_EXTRA: Final = Extra()


@dataclass(slots=True)
class Allowance:
    """A memory budget for names, targets, records and sparse maps, of any length.

    Only a member's bytes beyond ``FREE`` are counted; real images stay near 0.

    Attributes:
        left: Bytes that the members of an image may still take in total.
    """

    FREE: ClassVar[int] = 512
    left: int = 1 << 27

    def take(self, size: int) -> None:
        """Count ``size`` bytes of one member.

        Raises:
            ValueError: The members of the image exceed the budget.
        """
        self.left -= max(size - self.FREE, 0)
        if self.left < 0:
            raise ValueError("names, link targets and records too large in total")


Owner = tuple[int, int, int]
"""Mode (0 to 0o7777), uid, gid; shared, as an image has few combinations."""


def drop_items(column: Any, first: int, gone: Sequence[int]) -> None:
    """Delete the items at positions ``gone`` of a list or array, in place.

    All of them are at ``first`` or later. The items between two of them are moved in
    one step, since usually few are deleted.
    """
    tail = column[first:]
    del column[first:]
    start = 0
    for row in gone:
        column.extend(tail[start : row - first])
        start = row - first + 1
    column.extend(tail[start:])


@dataclass(slots=True)
class Members:
    """The members of all layers of an image, with one column per field.

    One object per member would take twice the time and eight times the memory. A row
    takes 31 bytes, plus its items in ``targets`` and ``extras``.

    Attributes:
        kinds: One of the kinds above.
        layers: Position of the layer, from 0, oldest first.
        owners: Index into ``owner_table``.
        sizes: Bytes of content as unpacked; 0 for all but files.
        data: Offset of the first content byte in the layer's stream; the header
            is the 512 bytes before it. ``NO_SOURCE`` for implied directories.
        mtimes: Whole seconds, floored.
        targets: A symlink's text, or the path that a hard link refers to.
        extras: The fields that few members have.
        limit: The maximum number of members.
        limited: The noun for the message that the limit is exceeded.
        hint: What that message says to do.
        allowance: The memory budget for data outside the columns.
    """

    kinds: bytearray = field(default_factory=bytearray)
    layers: Column = field(default_factory=lambda: array("H"))
    owners: Column = field(default_factory=lambda: array("I"))
    sizes: Column = field(default_factory=lambda: array("q"))
    data: Column = field(default_factory=lambda: array("q"))
    mtimes: Column = field(default_factory=lambda: array("q"))
    targets: dict[int, bytes] = field(default_factory=dict)
    extras: dict[int, Extra] = field(default_factory=dict)
    owner_table: list[Owner] = field(default_factory=list)
    owner_index: dict[Owner, int] = field(default_factory=dict)
    limit: int = 1 << 31
    limited: str = "members"
    hint: str = "if that is right, allow more with --max-members"
    allowance: Allowance = field(default_factory=Allowance)

    def __len__(self) -> int:
        """Return the number of members read so far, in all layers."""
        return len(self.kinds)

    def copy(self) -> "Members":
        """Return an independent copy; the items themselves never change."""
        return replace(
            self,
            kinds=self.kinds[:],
            layers=self.layers[:],
            owners=self.owners[:],
            sizes=self.sizes[:],
            data=self.data[:],
            mtimes=self.mtimes[:],
            targets=dict(self.targets),
            extras=dict(self.extras),
            owner_table=self.owner_table[:],
            owner_index=dict(self.owner_index),
            allowance=replace(self.allowance),
        )

    def imply(self, layer: int, mtime: int, nanoseconds: int = 0) -> int:
        """Append a directory that no layer lists and return its number."""
        self.kinds.append(DIRECTORY)
        self.layers.append(layer)
        self.owners.append(self.owner((0o755, 0, 0)))
        self.sizes.append(0)
        self.data.append(NO_SOURCE)
        self.mtimes.append(mtime)
        number = len(self.kinds) - 1
        if nanoseconds:
            self.extras[number] = Extra(nanoseconds=nanoseconds)
        return number

    def regions(self, number: int) -> Iterator[tuple[int, int, int]]:
        """Yield a file's data regions: offset in it, length, offset in its layer."""
        source = self.data[number]
        sparse = self.extras.get(number, NO_EXTRA).sparse
        for start, length in ((0, self.sizes[number]),) if sparse is None else sparse:
            yield start, length, source
            source += length

    def check_limit(self, more: int, *, where: str, offset: int | None = None) -> None:
        """Check that ``more`` members may be added.

        Raises:
            FormatError: There would be too many members.
        """
        if len(self) + more > self.limit:
            what = f"more than {self.limit:,} {self.limited}"
            raise FormatError(what, where=where, offset=offset, hint=self.hint)

    def drop(self, first: int, gone: Sequence[int]) -> None:
        """Delete the rows ``gone``, in order; all are at ``first`` or later.

        The rows from ``first`` on have no layer yet. Their targets and extras are the
        last ones that were added, also in order.
        """
        for column in (self.kinds, self.owners, self.sizes, self.data, self.mtimes):
            drop_items(column, first, gone)
        rares: tuple[dict[int, Any], ...] = (self.targets, self.extras)
        for rare in rares:
            rows = list(takewhile(lambda row: row >= gone[0], reversed(rare)))
            for row in reversed(rows):
                value, before = rare.pop(row), bisect_left(gone, row)
                if gone[before : before + 1] != [row]:
                    rare[row - before] = value

    def repeat(self, first: int, count: int, layer: int) -> int:
        """Append a copy of some rows for another layer; return its distance in rows."""
        by, rows = len(self) - first, range(first, first + count)
        for column in (self.kinds, self.owners, self.sizes, self.data, self.mtimes):
            column.extend(column[first : first + count])
        self.layers.extend([layer] * count)
        targets, extras = self.targets, self.extras
        targets |= {row + by: targets[row] for row in rows if row in targets}
        extras |= {row + by: extras[row] for row in rows if row in extras}
        return by

    def owner(self, owner: Owner) -> int:
        """Return the index of a mode, uid and gid, adding it if it is new."""
        found = self.owner_index.get(owner)
        if found is None:
            found = self.owner_index[owner] = len(self.owner_table)
            self.owner_table.append(owner)
        return found

    def stored(self, member: int) -> int:
        """Return the bytes of a member's content that the layer stores.

        That is the member's size, except for a sparse file, whose holes are not stored.
        """
        extra = self.extras.get(member, NO_EXTRA)
        if extra.sparse is None:
            return self.sizes[member]
        return sum(length for _, length in extra.sparse)
