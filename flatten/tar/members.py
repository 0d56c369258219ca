"""The nouns: members and their columns, layers, images, plans. No I/O.

Units, everywhere: sizes and offsets are ints in bytes, times are ints in seconds
since the epoch. Paths in archives are bytes, relative to the root, without ``.``,
``..``, doubled or trailing slashes; the root is ``b""``. Host paths are ``Path``.

A *member* is one entry of one layer. It is a row number: image-wide, in the order
of reading, so a layer's members are one range. An *inode* is what a path of the
tree names, and is called by the number of the member that made it; a hard link is
a second path to the same number.
"""

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, MutableSequence, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import takewhile
from types import TracebackType
from typing import Any, ClassVar, Final, Protocol, Self

from ..errors import FormatError

# Kinds of members: the typeflags of POSIX tar, so that they need no translation.
FILE: Final = 0x30  # "0"
LINK: Final = 0x31  # "1", a hard link
SYMLINK: Final = 0x32  # "2"
CHAR: Final = 0x33  # "3"
BLOCK: Final = 0x34  # "4"
DIRECTORY: Final = 0x35  # "5"
FIFO: Final = 0x36  # "6"

NO_SOURCE: Final = -1
"""The data offset of a member that no layer holds: an implied directory."""

MAX_NAME: Final = 1 << 16  # bytes of a name, a target or a path

Column = MutableSequence[int]
"""An ``array``, or a bytearray."""

SparseMap = tuple[tuple[int, int], ...]
"""Where a sparse file has data: (offset, length) in order, without overlap."""


@dataclass(frozen=True, slots=True)
class Extra:
    """What few members have, kept out of the columns.

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
        """Return the bytes that the records and regions take, three objects each."""
        texts = sum(len(key) + len(value) for key, value in self.records)
        return texts + 128 * (len(self.records) + len(self.sparse or ()))


NO_EXTRA: Final = Extra()


@dataclass(slots=True)
class Allowance:
    """Memory for what columns do not bound: names, targets, records, sparse maps.

    What a member has of them beyond ``FREE`` bytes counts; real images stay near 0.

    Attributes:
        left: Bytes that all members of an image together may still take.
    """

    FREE: ClassVar[int] = 512
    left: int = 1 << 27

    def take(self, size: int) -> None:
        """Count ``size`` bytes of one member.

        Raises:
            ValueError: All members together have too many.
        """
        self.left -= max(size - self.FREE, 0)
        if self.left < 0:
            raise ValueError("names, targets and records too large, all together")


Owner = tuple[int, int, int]
"""Mode (0 to 0o7777), uid, gid: few combinations in an image, so they are shared."""


def drop_items(column: Any, first: int, gone: Sequence[int]) -> None:
    """Drop some of the items of a list or array from ``first`` on, in place.

    What is left between two of them is moved at once: as a rule few are dropped.
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
    """The members of all layers of an image, a column a field.

    Columns, since an object a member costs twice the time and eight times the
    memory. A row takes 31 bytes, and what ``targets`` and ``extras`` hold of it.

    Attributes:
        kinds: One of the kinds above.
        layers: Position of the layer, oldest first from 0.
        owners: Index into ``owner_table``.
        sizes: Bytes of content as unpacked; 0 for all but files.
        data: Offset of the first content byte in the layer's stream; the header
            is the 512 bytes before it. ``NO_SOURCE`` for implied directories.
        mtimes: Whole seconds, floored.
        targets: What a symlink holds, or the path that a hard link names.
        extras: What few members have.
        limit: How many members there may be.
        limited: What they are, in the message that says that there are more.
        allowance: For what they have beside the columns.
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
    limited: str = "members; if that is right, allow more with --max-members"
    allowance: Allowance = field(default_factory=Allowance)

    def __len__(self) -> int:
        """Count the members of all layers read so far."""
        return len(self.kinds)

    def imply(self, layer: int, mtime: int) -> int:
        """Append a directory that no layer lists and return its number."""
        self.kinds.append(DIRECTORY)
        self.layers.append(layer)
        self.owners.append(self.owner((0o755, 0, 0)))
        self.sizes.append(0)
        self.data.append(NO_SOURCE)
        self.mtimes.append(mtime)
        return len(self.kinds) - 1

    def check_limit(self, more: int, *, where: str, offset: int | None = None) -> None:
        """Check that there may be ``more`` members.

        Raises:
            FormatError: They would be too many.
        """
        if len(self) + more > self.limit:
            what = f"more than {self.limit:,} {self.limited}"
            raise FormatError(what, where=where, offset=offset)

    def drop(self, first: int, gone: Sequence[int]) -> None:
        """Drop rows, in order, of those from ``first`` on, which have no layer yet.

        Their targets and extras are the last that were entered, in order too.
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
        """Append rows once more, for another layer; return how far they were moved."""
        by, rows = len(self) - first, range(first, first + count)
        for column in (self.kinds, self.owners, self.sizes, self.data, self.mtimes):
            column.extend(column[first : first + count])
        self.layers.extend([layer] * count)
        targets, extras = self.targets, self.extras
        targets |= {row + by: targets[row] for row in rows if row in targets}
        extras |= {row + by: extras[row] for row in rows if row in extras}
        return by

    def owner(self, owner: Owner) -> int:
        """Return the index of a mode, uid and gid, entering it when new."""
        found = self.owner_index.get(owner)
        if found is None:
            found = self.owner_index[owner] = len(self.owner_table)
            self.owner_table.append(owner)
        return found

    def stored(self, member: int) -> int:
        """Return how many bytes of content the layer holds of a member.

        That is its size, but for a sparse file, whose holes are not stored.
        """
        extra = self.extras.get(member, NO_EXTRA)
        if extra.sparse is None:
            return self.sizes[member]
        return sum(length for _, length in extra.sparse)


@dataclass(frozen=True, slots=True)
class Removal:
    """What a layer hides of the layers below it.

    Attributes:
        path: What is hidden; for an opaque mark, the directory whose children are.
        opaque: The children are hidden and the directory stays.
        offset: Of the mark's header, for messages.
    """

    path: bytes
    opaque: bool
    offset: int


@dataclass(slots=True)
class LayerIndex:
    """What one layer does to the tree: remove, then add.

    Attributes:
        where: The layer's name in messages.
        first: Number of the layer's first member; ``paths[i]`` is of ``first + i``.
        paths: Normalised paths, in archive order.
        removals: In archive order.
        aside: Members that are AUFS bookkeeping: not in the tree, but hard links of
            the same layer may name them.
    """

    where: str
    first: int
    paths: list[bytes] = field(default_factory=list)
    removals: list[Removal] = field(default_factory=list)
    aside: set[int] = field(default_factory=set)


class HeaderBytes(Protocol):
    """What is needed of a tar stream to read its headers, first to last."""

    def read(self, offset: int, count: int) -> bytes:
        """Return ``count`` bytes; fewer only at the end of the stream."""

    def size(self) -> int:
        """Return the length of the stream."""


class LayerBytes(HeaderBytes, Protocol):
    """The bytes of one layer's tar stream, read at offsets."""

    def readinto(self, offset: int, view: memoryview) -> None:
        """Fill ``view``.

        Raises:
            FormatError: The stream ends too soon.
        """

    def extent(self, offset: int) -> tuple[int, int, int] | None:
        """Return a descriptor, its offset, and how many bytes can be copied from it.

        None where there is none: for bytes that are made as they are read.
        """

    def origin(self, offset: int) -> int | None:
        """Return where ``offset`` is in a file that lasts; None where it is in none."""

    def sample(self) -> int | None:
        """Return a descriptor of such a file, to ask what its file system can do."""

    def release(self, offset: int, count: int) -> None:
        """Give back the memory that bytes are in, if it is ours: nobody reads them."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a layer lies in an engine's root.

    Attributes:
        driver: The storage driver, or containerd's snapshotter.
        cache_id: What the driver calls the layer.
        directory: Its tree, on the host: what is new in the layer, or all, by driver.
        size: Its bytes as the engine counts them, if it does.
    """

    driver: str
    cache_id: str
    directory: str
    size: int | None = None


class Layer(Protocol):
    """A layer of an image: how to open it, not an open file."""

    @property
    def name(self) -> str:
        """The layer's name in messages: file, position, name in the archive."""

    @property
    def diff_id(self) -> str | None:
        """``sha256:<hex>`` of the uncompressed stream, when the image says it."""

    @property
    def digest(self) -> str | None:
        """``sha256:<hex>`` of the blob as it is stored, when the image says it."""

    @property
    def place(self) -> Place | None:
        """Where it lies in an engine's root; None in an archive."""

    def blob(self) -> LayerBytes:
        """Return the layer's bytes as they are stored, maybe compressed."""

    def open(self, *, hashed: bool = False) -> LayerBytes:
        """Return the layer's uncompressed bytes; opened once, however often asked.

        Args:
            hashed: If that inflates them, hash them as they come.
        """

    def headers(self) -> HeaderBytes:
        """Return the bytes for reading headers: contents may be anything in them."""

    def blame(self) -> str:
        """Say what makes a digest wrong, after it was; "" where that is unknown."""


@dataclass(slots=True)
class Image:
    """An image: its layers, oldest first, and what it says of itself.

    A context manager: on leaving it, the files behind the layers are closed.

    Attributes:
        source: The archive or store it was found in, as messages name it.
        path: Where that is on the host.
        check_unchanged: Raises FlattenError if its files are not what they were when
            they were opened.
        id: Hex digest of the config, or the image's id before docker 1.10.
        names: Its names with tags, as written in the source.
        config: The config document, as parsed.
        layers: Oldest first.
        init: Position of docker's own layer in a container, with the mount points
            and files that it makes for it; None in images.
        warnings: What is lost, a sentence each; reading layers may add to them.
        added: What goes on top of them, and is not of the image.
        parent: Id of the image that it was built on, where docker recorded that.
    """

    source: str
    id: str
    names: tuple[str, ...]
    config: dict[str, Any]
    layers: tuple[Layer, ...]
    init: int | None = None
    warnings: list[str] = field(default_factory=list)
    added: tuple[Layer, ...] = ()
    parent: str | None = None
    path: str = ""
    check_unchanged: Callable[[], object] = field(default=lambda: None, repr=False)
    resources: ExitStack = field(default_factory=ExitStack, repr=False)

    def __enter__(self) -> Self:
        """Return the image itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the files behind the layers."""
        self.close()

    def close(self) -> None:
        """Close the files behind the layers; a second time does nothing."""
        self.resources.close()


MARK: Final = 1024
CODED: Final = 1
VARIED: Final = 2


@dataclass(slots=True)
class Plan:
    """What will be written, in order, with the total known before the first byte.

    Attributes:
        members: The columns that ``inodes`` are rows of.
        paths: Output names in walk order; those of directories end in a slash.
        inodes: The member whose content and metadata each path has.
        links: By position in ``paths``: the first name of the same inode, for
            each later name. All others are written whole.
        posix: POSIX headers (pax) instead of GNU ones.
        odd: By position, 0 for most: ``CODED`` where the header is not one plain block,
            ``VARIED`` where it is one, but of a later name, or behind a padded name.
        pads: By position, how many blocks of name stand before a member, so that its
            content can be shared with the layer's file.
        alone: From this size on a content is a piece of its own.
        marks: Bytes of the tar before each ``MARK``th member, from the first on.
        size: Bytes of the tar, its end blocks and padding included.
        warnings: What the reader of the image should know, a sentence each.
    """

    members: Members
    paths: list[bytes]
    inodes: Column
    links: dict[int, bytes]
    posix: bool = False
    odd: bytearray = field(init=False)
    pads: dict[int, int] = field(default_factory=dict)
    alone: int = 1 << 17
    marks: Column = field(default_factory=lambda: array("q"))
    size: int = 0
    warnings: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Begin with no member marked."""
        self.odd = bytearray(len(self.paths))

    def __len__(self) -> int:
        """Count the members that will be written."""
        return len(self.paths)

    def __iter__(self) -> Iterator[tuple[bytes, int]]:
        """Yield each path and its inode, in the order of writing."""
        return zip(self.paths, self.inodes, strict=True)


@dataclass(frozen=True, slots=True)
class Section:
    """Some members of a plan that follow each other.

    Attributes:
        start: Position of the first.
        stop: Position behind the last.
        offset: Bytes of the tar before them.
    """

    start: int
    stop: int
    offset: int


MERGED: Final = 1 << 18
"""The most bytes in a span with patches: the writer's buffer, within L2 caches."""


@dataclass(slots=True)
class Span:
    """A piece of the output that is a stretch of a layer.

    Attributes:
        layer: Position of the layer.
        offset: Where the stretch begins in the layer's stream.
        length: How long it is.
        patches: What stands in the output instead of the layer's bytes: (position
            from the start of the stretch, bytes), in order.
    """

    layer: int
    offset: int
    length: int
    patches: list[tuple[int, bytes]]


Piece = bytes | Span
"""A piece of the output: bytes that we encoded, or a span of a layer."""
