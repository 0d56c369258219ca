"""The plan of a tar: its members in order, and the types of its pieces."""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from ..tar.members import Column, Members

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


@dataclass(slots=True)
class Span:
    """A piece of the output that is a range of a layer's bytes.

    Attributes:
        layer: Position of the layer.
        offset: Start of the range in the layer's stream.
        length: Length of the range.
        patches: Bytes that replace the layer's in the output, in order: (position from
            the start of the range, bytes).
    """

    layer: int
    offset: int
    length: int
    patches: list[tuple[int, bytes]]


Piece = bytes | Span
"""A piece of the output: bytes that we encoded, or a span of a layer."""
