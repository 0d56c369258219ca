"""What an output must be able to do, and what it is given."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ..host.files import LayerBytes
from ..host.spools import Spool
from ..image.image import Image
from ..options import nothing
from ..plan.plan import Plan


@dataclass(frozen=True, slots=True)
class Shape:
    """What a plan must be like for an output.

    Attributes:
        posix: POSIX headers (pax) instead of GNU ones.
        rooted: The root is a member, also where no layer lists it.
        times: The earliest and the latest mtime that can be held; None is any.
        fractions: Fractions of a second can be held.
        xattrs: How the names of the xattrs start that can be held; None is any.
        xattr_room: Bytes that the xattrs of one file may take; None is any number.
        share: Block size of the output's file system, to place contents so that
            their blocks can be shared with the image's file; 0 does not.
    """

    posix: bool = False
    rooted: bool = False
    times: tuple[int, int] | None = None
    fractions: bool = True
    xattrs: tuple[bytes, ...] | None = None
    xattr_room: int | None = None
    share: int = 0


@dataclass(frozen=True, slots=True)
class Job:
    """One image, planned, to be written.

    Attributes:
        image: Open.
        plan: What there is to write.
        shape: What the output asked for.
        sync: Wait until files are on the disk before they get their names.
        again: Contents are read again afterwards.
        checked: Layers are being hashed meanwhile.
        settle: Called when all is right, before the output gets its name.
        advance: Called with the number of bytes, each time some are written.
        notes: What the user should know afterwards, a sentence each; outputs add.
    """

    image: Image
    plan: Plan
    shape: Shape
    sync: bool = True
    again: bool = False
    checked: bool = False
    settle: Callable[[], object] = nothing
    advance: Callable[[int], object] | None = None
    notes: list[str] = field(default_factory=list)

    def layers(self) -> Sequence[LayerBytes]:
        """Return the layers' bytes, by position."""
        image = self.image
        return [layer.open() for layer in (*image.layers, *image.added)]

    def alone(self) -> bool:
        """Say whether no thread works beside the writing: hashes, or frees memory."""
        return not (self.checked or any(isinstance(x, Spool) for x in self.layers()))

    def spent(self) -> bool:
        """Say whether all contents are read just once: nothing else needs them."""
        layers = self.layers()
        return not self.again and len({*map(id, layers)}) == len(layers)


class Output(Protocol):
    """Something to write to.

    Attributes:
        path: Where it will be; None for a descriptor.
    """

    @property
    def path(self) -> Path | None:
        """Where it will be; None for a descriptor."""

    def shape(self, image: Image) -> Shape:
        """Say what the plan must be like."""

    def writing(self, job: Job) -> AbstractContextManager[None]:
        """Write all; it appears under its name when the body ends without an error.

        Raises:
            FlattenError: And nothing is left under that name.
        """
