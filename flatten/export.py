"""The whole story: an image is opened, indexed, stacked, planned and written."""

import os
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from . import target
from .compress import compressing, parse_spec
from .errors import FormatError, UsageError, quoted
from .model import Image, LayerBytes, Members, Plan
from .plan import Placement, make_plan, pieces
from .progress import bar
from .read_tar import read_layer
from .reflink import MODES, sharing_block
from .resolve import Tree
from .sources import open_image
from .streams import Limits
from .verify import DigestCheck, checking
from .write_tar import write_tar

FORMATS = ("gnu", "pax")


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written.

    Attributes:
        size: Bytes of the tar, before compression.
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
    platform: str | None = None,
    store: str | None = None,
    verify: bool = True,
    limits: Limits | None = None,
    mtime: int | None = None,
    format: str = "gnu",
    compress: str | None = None,
    reflink: str = "never",
    progress: str = "never",
) -> Exported:
    """Flatten an image into one tar.

    Args:
        source: ``[KIND:]PATH[#NAME]``, as ``open_image`` takes it.
        out: A path, written under a temporary name and renamed when it is whole; or
            an open descriptor, written from where it stands.
        platform: ``os/architecture[/variant]``, where the source has several.
        store: A driver of docker's or a namespace of containerd's, likewise.
        verify: Check layers against the image's digests.
        limits: What the image may cost.
        mtime: Later mtimes become this one (seconds), as ``tar --clamp-mtime``.
        format: ``gnu``, or ``pax`` for POSIX headers throughout.
        compress: ``zstd[:level]``, ``gzip[:level]``, ``xz[:level]`` or ``none``; None
            goes by the suffix of ``out``.
        reflink: Share contents with the image's file instead of copying them:
            ``auto`` where the file system can, ``always`` or else fail, ``never``.
            It changes padding, so bytes, and never what they mean.
        progress: A bar on standard error: ``auto``, ``always`` or ``never``.

    Raises:
        FlattenError: And nothing is left under the name ``out``.
    """
    if format not in FORMATS:
        raise UsageError(f"no format {quoted(format)}; there are {', '.join(FORMATS)}")
    if reflink not in MODES:
        raise UsageError(f"no reflink {quoted(reflink)}; there are {', '.join(MODES)}")
    limits = limits or Limits()
    spec = parse_spec(compress, "" if isinstance(out, int) else os.fspath(out))
    reference = os.fspath(source)
    with (
        open_image(reference, platform=platform, limits=limits, store=store) as image,
        _checking(image, verify) as check,
    ):
        file = None if isinstance(out, int) or spec or format == "pax" else Path(out)
        block = sharing_block(image, file, reflink)
        plan = plan_image(
            image, posix=format == "pax", mtime=mtime, limits=limits, share=block
        )
        if check is not None:
            check.start_rest()
        with (
            _output(out, image) as descriptor,
            compressing(descriptor, spec) as sink,
            bar(plan.size, progress) as advance,
        ):
            opened = [layer.open() for layer in image.layers]
            write_tar(pieces(plan), opened, sink, advance, share=block)
            if check is not None:
                check.finish()
    known = sum(layer.diff_id is not None for layer in image.layers) if verify else 0
    return Exported(
        plan.size, len(plan), len(image.layers), known, tuple(plan.warnings)
    )


def plan_image(
    image: Image,
    *,
    posix: bool = False,
    mtime: int | None = None,
    limits: Limits | None = None,
    share: int = 0,
) -> Plan:
    """Read the headers of all layers and plan the tar of the tree they make.

    Args:
        image: An open image.
        posix: POSIX headers (pax) instead of GNU ones.
        mtime: Later mtimes become this one.
        limits: What the image may cost.
        share: Block size of the output's file system, to place contents so that
            their blocks can be shared with the image's file; 0 does not.

    Raises:
        FormatError: A layer breaks its format, or says what no tree can be; or a
            limit is passed.
    """
    limits = limits or Limits()
    members = Members(limit=limits.members)
    tree = Tree(members)
    opened = [layer.open() for layer in image.layers]  # all begin to inflate
    for position, layer in enumerate(image.layers):
        tree.apply(read_layer(layer.headers(), layer.name, position, members))
    placement = (
        Placement(share, [_origin(layer) for layer in opened]) if share else None
    )
    plan = make_plan(tree, posix=posix, clamp_mtime=mtime, placement=placement)
    if plan.size > limits.size:
        raise FormatError(
            f"makes a tar of {plan.size:,} bytes, over {limits.size:,}; if that is "
            "right, allow more with --max-size",
            where=image.source,
        )
    return plan


def _origin(layer: LayerBytes) -> int | None:
    extent = layer.extent(0)
    return None if extent is None else extent[1]


def _checking(image: Image, verify: bool) -> AbstractContextManager[DigestCheck | None]:
    return checking(image.layers) if verify else nullcontext()


def _output(
    out: str | os.PathLike[str] | int, image: Image
) -> AbstractContextManager[int]:
    """Open the output, which must not be the image itself."""
    if isinstance(out, int):
        return nullcontext(out)
    path = Path(out)
    with suppress(OSError, ValueError):  # whatever it is, it is not the image
        if path.samefile(image.source):
            raise UsageError(f"{quoted(str(path))} is the image; write elsewhere")
    return target.create(path)
