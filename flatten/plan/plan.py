"""The plan of a tar: its members in order, and the types of its pieces."""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from ..tar import kernel
from ..tar.members import Column, Members
from ..tar.wire import BLOCK_SIZE, padded

CHECKPOINT: Final = 1024  # members from one checkpoint to the next

FULL: Final = 1
"""Mark of a member whose header is not one plain block; its header is encoded in full.

It has extended headers, or a number in base-256, or any header in a tar in pax format.
"""

VARIANT: Final = 2
"""Mark of a plain member that is a hard link, or has a name that is padded."""


@dataclass(slots=True)
class Plan:
    """The members to write, in order; the total size is known in advance.

    Attributes:
        members: The columns that ``inodes`` index.
        paths: Output names in walk order; directories end in a slash.
        inodes: The member whose content and metadata each path has.
        links: The first name of the same inode, by position in ``paths`` of each later
            name. All other paths are written with their content.
        posix: Whether to write POSIX headers (pax) instead of GNU ones.
        sparse: Whether sparse files are sparse members; if not, their holes are zeros.
        special: By position, 0 for most members, ``FULL`` or ``VARIANT``.
        name_blocks: By position, the blocks of name before a member that align its
            content, so that the blocks of the layer's file can be shared.
        separate_from: Size in bytes from which a content is a piece of its own.
        checkpoints: Bytes of the tar before every ``CHECKPOINT``th member, starting
            with the first.
        size: Bytes of the tar, including its end blocks and padding.
        warnings: Warnings for the user, one sentence each.
    """

    members: Members
    paths: list[bytes]
    inodes: Column
    links: dict[int, bytes]
    posix: bool = False
    sparse: bool = True
    special: bytearray = field(init=False)
    name_blocks: dict[int, int] = field(default_factory=dict)
    separate_from: int = 1 << 17
    checkpoints: Column = field(default_factory=lambda: array("q"))
    size: int = 0
    warnings: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Start with no member marked."""
        self.special = bytearray(len(self.paths))

    def __len__(self) -> int:
        """Return the number of members to write."""
        return len(self.paths)

    def stored(self, inode: int) -> int:
        """Return the bytes of an inode's content in the tar."""
        members = self.members
        return members.stored(inode) if self.sparse else members.sizes[inode]

    def sparse_files(self) -> set[int]:
        """Return the inodes of the sparse files among the members to write."""
        extras = self.members.extras.items()
        found = {inode for inode, extra in extras if extra.sparse is not None}
        return found and found.intersection(self.inodes)

    def __iter__(self) -> Iterator[tuple[bytes, int]]:
        """Yield each path and its inode, in output order."""
        return zip(self.paths, self.inodes, strict=True)


@dataclass(frozen=True, slots=True)
class Section:
    """A range of consecutive members of a plan.

    Attributes:
        start: Position of the first member.
        stop: Position after the last member.
        offset: Bytes of the tar before them.
    """

    start: int
    stop: int
    offset: int


MERGED: Final = 1 << 18
"""Maximum bytes of a span with patches: the writer's buffer, which fits L2 caches."""


@dataclass(frozen=True, slots=True)
class Headers:
    """The headers of consecutive members, which the kernel writes over a layer's bytes.

    Attributes:
        columns: The plan's columns, as ``encode.columns`` returns them.
        start: Position of the first member.
        stop: Position after the last member.
        size: Bytes from the first header to the end of the last content.
    """

    columns: tuple[Any, ...]
    start: int
    stop: int
    size: int

    def write(self, view: memoryview) -> None:
        """Write the headers, with the padding between the members.

        Args:
            view: The layer's bytes of that size. The contents are left as they are.
        """
        assert kernel.encode is not None
        size = self.size
        done = kernel.encode(self.columns, self.start, self.stop, size, size, view)
        assert done == (self.stop, size), "the plan is the same as before"

    def places(self) -> Iterator[tuple[int, int]]:
        """Yield the position in that view, and the length, of each member's header."""
        paths, _, inodes, _, _, _, _, sizes, *_ = self.columns
        at = 0
        for position in range(self.start, self.stop):
            length = header_length(paths[position])
            yield at, length
            at = padded(at + length + sizes[inodes[position]])


def header_length(path: bytes) -> int:
    """Return the length of a plain member's header, with that of a GNU long name."""
    return BLOCK_SIZE if len(path) <= 100 else 2 * BLOCK_SIZE + padded(len(path) + 1)


@dataclass(slots=True)
class Span:
    """A piece of the output that is a range of a layer's bytes.

    Attributes:
        layer: Position of the layer.
        offset: Start of the range in the layer's stream.
        length: Length of the range.
        patches: What replaces the layer's bytes in the output, in order: (position from
            the start of the range, bytes or headers).
    """

    layer: int
    offset: int
    length: int
    patches: list[tuple[int, bytes | Headers]]

    def places(self) -> Iterator[tuple[int, int]]:
        """Yield the position in the range, and the length, of each patch or header."""
        for start, patch in self.patches:
            if isinstance(patch, bytes):
                yield start, len(patch)
            else:
                yield from ((start + at, length) for at, length in patch.places())


Piece = bytes | Span
"""A piece of the output: bytes that we encoded, or a span of a layer."""
