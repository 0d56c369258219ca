"""The whole story: an image is opened, indexed, stacked, planned and written."""

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from . import target
from .errors import UsageError, quoted
from .model import Image, Members, Plan
from .plan import make_plan, pieces
from .progress import bar
from .read_tar import read_layer
from .resolve import Tree
from .sources import open_image
from .verify import DigestCheck, checking
from .write_tar import write_tar

FORMATS = ("gnu", "pax")


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written.

    Attributes:
        size: Bytes of the tar.
        members: Entries in it.
        layers: How many the image has.
        verified: How many of them were checked against their diff_id.
        warnings: What the reader should know, a sentence each.
    """

    size: int
    members: int
    layers: int
    verified: int
    warnings: tuple[str, ...]


def export(  # noqa: PLR0913 - options of the main job, all by keyword
    source: str | os.PathLike[str],
    out: str | os.PathLike[str] | int,
    *,
    verify: bool = True,
    mtime: int | None = None,
    format: str = "gnu",
    progress: str = "never",
) -> Exported:
    """Flatten an image into one tar.

    Args:
        source: ``[KIND:]PATH[#NAME]``, as ``open_image`` takes it.
        out: A path, written under a temporary name and renamed when it is whole; or
            an open descriptor, written from where it stands.
        verify: Check each layer against its diff_id.
        mtime: Later mtimes become this one (seconds), as ``tar --clamp-mtime``.
        format: ``gnu``, or ``pax`` for POSIX headers throughout.
        progress: A bar on standard error: ``auto``, ``always`` or ``never``.

    Raises:
        FlattenError: And nothing is left under the name ``out``.
    """
    if format not in FORMATS:
        raise UsageError(f"no format {quoted(format)}; there are {', '.join(FORMATS)}")
    with open_image(os.fspath(source)) as image, _checking(image, verify) as check:
        plan = plan_image(image, posix=format == "pax", mtime=mtime)
        opened = [layer.open() for layer in image.layers]
        with _output(out, image) as descriptor, bar(plan.size, progress) as advance:
            write_tar(pieces(plan), opened, descriptor, advance)
            if check is not None:
                check.finish()
    known = sum(layer.diff_id is not None for layer in image.layers) if verify else 0
    return Exported(
        plan.size, len(plan), len(image.layers), known, tuple(plan.warnings)
    )


def plan_image(image: Image, *, posix: bool = False, mtime: int | None = None) -> Plan:
    """Read the headers of all layers and plan the tar of the tree they make.

    Args:
        image: An open image.
        posix: POSIX headers (pax) instead of GNU ones.
        mtime: Later mtimes become this one.

    Raises:
        FormatError: A layer breaks its format, or says what no tree can be.
    """
    members = Members()
    tree = Tree(members)
    for position, layer in enumerate(image.layers):
        tree.apply(read_layer(layer.open(), layer.name, position, members))
    return make_plan(tree, posix=posix, clamp_mtime=mtime)


def _checking(image: Image, verify: bool) -> AbstractContextManager[DigestCheck | None]:
    return checking(image.layers) if verify else nullcontext()


def _output(
    out: str | os.PathLike[str] | int, source: Image
) -> AbstractContextManager[int]:
    """Open the output, which must not be the image itself."""
    if isinstance(out, int):
        return nullcontext(out)
    path = Path(out)
    if path.exists() and path.samefile(source.source):
        raise UsageError(f"{quoted(str(path))} is the image; write to another file")
    return target.create(path)
