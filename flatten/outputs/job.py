"""The protocol of outputs: what they require of a plan, and what they are given."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ..host.compress import Sink
from ..host.files import LayerBytes
from ..image.image import Image
from ..plan.pieces import pieces as encode
from ..plan.plan import Piece, Plan
from .atomic import nothing
from .write_tar import Advance, write_tar


@dataclass(frozen=True, slots=True)
class Shape:
    """What a plan must be like for an output.

    Attributes:
        posix: POSIX headers (pax) instead of GNU ones.
        sparse: Sparse files are sparse members; if not, their holes are zeros.
        rooted: The root is a member, also where no layer lists it.
        times: The earliest and the latest mtime that can be held; None is any.
        fractions: Fractions of a second can be held.
        xattrs: How the names of the xattrs start that can be held; None is any.
        xattr_room: Bytes that the xattrs of one file may take; None is any number.
        share: Block size of the output's file system, to place contents so that
            their blocks can be shared with the image's file; 0 does not.
    """

    posix: bool = False
    sparse: bool = True
    rooted: bool = False
    times: tuple[int, int] | None = None
    fractions: bool = True
    xattrs: tuple[bytes, ...] | None = None
    xattr_room: int | None = None
    share: int = 0


@dataclass(slots=True)
class Made:
    """What an output reports to its user, beyond that it is there.

    Attributes:
        devices: The files that an index points at, in order; None for other outputs.
        root_hash: The root hash (hex) of the dm-verity hash tree; None without one.
    """

    devices: tuple[str, ...] | None = None
    root_hash: str | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """A planned image to write.

    Attributes:
        image: The open image.
        plan: The plan of its tree.
        shape: The requirements of the output.
        sync: Wait until files are on the disk before they get their names.
        rereads: Contents are read again after they are written.
        hashes: Threads hash layers during the write.
        before_commit: Called when all checks have passed, before the output gets its
            name.
        advance: Called with the number of bytes after each write.
        notes: Warnings for the user, one sentence each; outputs append theirs.
        made: What the output reports; outputs fill it in.
    """

    image: Image
    plan: Plan
    shape: Shape
    sync: bool = True
    rereads: bool = False
    hashes: bool = False
    before_commit: Callable[[], object] = nothing
    advance: Advance | None = None
    notes: list[str] = field(default_factory=list)
    made: Made = field(default_factory=Made)
    _layers: Sequence[LayerBytes] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Open all layers."""
        layers = [layer.open() for layer in (*self.image.layers, *self.image.added)]
        object.__setattr__(self, "_layers", layers)

    def layers(self) -> Sequence[LayerBytes]:
        """Return the layers' bytes, by position."""
        return self._layers

    def write_tar(self, sink: Sink, pieces: Iterable[Piece] | None = None) -> None:
        """Write the planned tar to a sink.

        Args:
            sink: Receives the bytes.
            pieces: Other pieces to write, of a section of the tar or of another format;
                no content is in two of them.

        Raises:
            FormatError: A layer has fewer bytes than when its headers were read.
            FlattenError: Writing failed. BrokenPipeError is passed through.
        """
        write_tar(
            encode(self.plan) if pieces is None else pieces,
            self._layers,
            sink,
            self.advance,
            share=self.shape.share,
            read_once=self.reads_once(),
        )

    def runs_alone(self) -> bool:
        """Return True if no thread hashes layers or frees memory during the write."""
        return not (self.hashes or any(x.is_scratch() for x in self._layers))

    def reads_once(self) -> bool:
        """Return True if every layer's content is read exactly once."""
        return not self.rereads and len({*map(id, self._layers)}) == len(self._layers)


class Output(Protocol):
    """A kind of output.

    Attributes:
        path: Where it is written; None for a descriptor.
    """

    @property
    def path(self) -> Path | None:
        """Where it is written; None for a descriptor."""

    def shape(self, image: Image) -> Shape:
        """Return the requirements on the plan."""

    def writing(self, job: Job) -> AbstractContextManager[None]:
        """Write everything; the output gets its name when the body ends normally.

        Raises:
            FlattenError: Writing failed; nothing is left under the output's name.
        """
