"""A plan: what is written, in which order, and the pieces of its tar."""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from ..tar.members import Column, Members

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
