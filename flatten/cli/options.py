"""Options that commands share, and how they are read."""

import argparse
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UsageError, quoted
from ..host.limits import Limits
from ..image.history import Point
from ..image.image import Image
from ..sources import open as sources
from ..sources.open import Opened
from ..tree.edit import Addition, Edits
from ..tree.owners import OwnerMap, parse_owner_map
from .messages import say

if TYPE_CHECKING:
    from ..views.contents import Contents
    from ..views.index_cache import IndexCache
    from ..views.reading import CheckedIndex, Verify


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Help in 80 columns; asking for the terminal's would import shutil, 5 ms."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=80)


IMAGE = """\
IMAGE is [KIND:]PATH[#NAME]: an archive of docker save (any age), podman save,
skopeo or buildx, compressed or not, an OCI layout (a directory), - for an
archive on standard input, or the root where docker, podman or containerd keeps
its images, /var/lib/docker, on any disk, without a daemon. NAME chooses among
several images: name:tag, an id or the start of one, or @N, its position from 0;
container:NAME is a container."""


SOURCE = """\
SOURCE is [KIND:]PATH, as in IMAGE: the root where docker, podman or containerd
keeps its images, an archive or an OCI layout. With #NAME, only those of its
images count that NAME fits."""


def add_image_argument(parser: argparse.ArgumentParser) -> None:
    """Add the image, for whose description there is ``IMAGE``."""
    parser.add_argument("image", metavar="IMAGE", help="which image")


def add_input_options(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Add what says how to read, and return the group."""
    group = parser.add_argument_group("input")
    group.add_argument(
        "--platform", metavar="OS/ARCH",
        help="which image of several, /VARIANT may follow [default: this machine's]",
    )  # fmt: skip
    _add_store_options(group)
    group.add_argument(
        "--with-init", action="store_true",
        help="of a container, docker's own layer too, as docker export has it",
    )  # fmt: skip
    _add_limits(group)
    return group


def add_source_options(parser: argparse.ArgumentParser) -> None:
    """Add what says how to read all images of a source."""
    add_json_option(parser)
    group = parser.add_argument_group("input")
    _add_store_options(group)
    _add_limits(group)


def _add_store_options(group: argparse._ActionsContainer) -> None:
    for option, what in (("--driver", "docker's"), ("--namespace", "containerd's")):
        group.add_argument(
            option, metavar="NAME", dest="store",
            help=f"look in this one of {what} only [default: in all]",
        )  # fmt: skip


def _add_limits(group: argparse._ActionsContainer) -> None:
    limits = Limits()
    group.add_argument(
        "--memory", metavar="SIZE", type=parse_size,
        help="keep this much inflated data in memory, the rest goes to $TMPDIR "
        "[default: a quarter of what is free]",
    )  # fmt: skip
    group.add_argument(
        "--max-size", metavar="SIZE", type=parse_size, default=limits.size,
        help="refuse layers, and an output, of more [default: 1T]",
    )  # fmt: skip
    group.add_argument(
        "--max-members", metavar="N", type=parse_size, default=limits.members,
        help=f"refuse layers of more members [default: {limits.members:,}]",
    )  # fmt: skip
    group.add_argument(
        "--max-ratio", metavar="N", type=parse_size, default=limits.ratio,
        help="refuse layers that inflate to more than N times their size, if that is "
        f"over 1 GiB [default: {limits.ratio:,}]",
    )  # fmt: skip


def add_among_option(parser: argparse.ArgumentParser) -> None:
    """Add where to look for other images."""
    parser.add_argument(
        "--among", metavar="SOURCE", action="append", default=[],
        help="look among the images of this source too; may be repeated "
        "[default: the one of IMAGE only]",
    )  # fmt: skip


@contextmanager
def open_among(args: argparse.Namespace) -> Iterator[list[Image]]:
    """Open all images of the sources that are asked for; say which cannot be."""
    with ExitStack() as opened:
        images: list[Image] = []
        for reference in (args.image, *args.among):
            family = sources.open_family(reference, limits=limits(args))
            found, broken = opened.enter_context(family)
            images += found
            for error in broken:
                say(f"warning: left out: {error}")
        yield images


def add_verify_option(group: argparse._ActionsContainer) -> None:
    """Add the choice not to check digests."""
    group.add_argument(
        "--no-verify", dest="verify", action="store_false",
        help="do not check layers against the image's digests",
    )  # fmt: skip


def add_edit_options(parser: argparse.ArgumentParser) -> None:
    """Add what is left out, moved, put in or owned otherwise."""
    group = parser.add_argument_group("selection and edits, in this order")
    for option, what in (("--include", "keep only"), ("--exclude", "leave out")):
        group.add_argument(
            option, metavar="GLOB", action="append", default=[],
            help=f"{what} what a pattern chooses, as in a .gitignore file; may be "
            "repeated",
        )  # fmt: skip
    group.add_argument(
        "--strip-components", metavar="N", type=int, default=0,
        help="drop the first N components of every path",
    )  # fmt: skip
    group.add_argument(
        "--prefix", metavar="PATH", default="", help="put all below PATH"
    )
    group.add_argument(
        "--add", metavar="HOSTPATH:PATH", action="append", default=[],
        help="put a file or directory of this machine into the tree, owned by root; "
        "may be repeated",
    )  # fmt: skip
    group.add_argument(
        "--owner-map", metavar="FILE",
        help="change owners: lines of [uid|gid] FROM TO [COUNT]",
    )  # fmt: skip
    kept = group.add_mutually_exclusive_group()
    kept.add_argument(
        "--xattrs", metavar="GLOB", action="append",
        help="keep only the extended attributes whose names match, such as 'user.*'; "
        "may be repeated [default: all]",
    )  # fmt: skip
    kept.add_argument(
        "--no-xattrs", dest="xattrs", action="store_const", const=(),
        help="leave out all extended attributes and ACLs",
    )  # fmt: skip
    group.add_argument(
        "--mtime", metavar="TIME",
        help="make later mtimes TIME: seconds since the epoch, or an ISO 8601 date "
        "[default: $SOURCE_DATE_EPOCH, if set]",
    )  # fmt: skip


def edits(args: argparse.Namespace) -> Edits:
    """Return the edits that ``add_edit_options`` asks for.

    Raises:
        UsageError: One makes no sense, or a file of owners cannot be read.
    """
    owners = args.owner_map
    ownership = getattr(args, "ownership", "")
    if ownership.startswith("map:"):
        owners = ownership.removeprefix("map:")
    return Edits(
        include=tuple(args.include),
        exclude=tuple(args.exclude),
        strip_components=args.strip_components,
        prefix=parse_prefix(args.prefix),
        add=tuple(map(_addition, args.add)),
        owner_map=None if owners is None else _read_owner_map(owners),
        xattrs=None if args.xattrs is None else tuple(args.xattrs),
    )


def parse_prefix(text: str) -> bytes:
    """Read ``--prefix``: a path below the root, however it is spelled.

    Raises:
        UsageError: It leaves the root, or has a name that no tree may hold.

    >>> parse_prefix("/srv//app/"), parse_prefix(".")
    (b'srv/app', b'')
    """
    return _addition(f"/:{text}")[1] if text else b""


def _addition(text: str) -> Addition:
    from ..image.added import parse_addition  # noqa: PLC0415 - seldom needed

    return parse_addition(text)


def _read_owner_map(name: str) -> OwnerMap:
    try:
        with open(name, encoding="utf-8") as file:
            return parse_owner_map(file.read(), name)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise UsageError(f"--owner-map: {quoted(name)}: {reason}") from error


def add_tree_options(parser: argparse.ArgumentParser) -> None:
    """Add what views of one tree take: how to read it, as it stood at some moment."""
    group = add_input_options(parser)
    add_point_arguments(group)
    add_cache_options(group)


@contextmanager
def open_tree(
    args: argparse.Namespace, check: "Verify | None" = None
) -> Iterator[tuple["CheckedIndex", "Contents"]]:
    """Open the tree that ``add_tree_options`` asks for, and what its files hold.

    Args:
        args: The parsed options.
        check: Which layers are checked; None is what the options ask for.
    """
    with open_image(args, at=point(args)) as image:
        yield read_tree(args, image, check)


def read_tree(
    args: argparse.Namespace, image: Image, check: "Verify | None" = None
) -> tuple["CheckedIndex", "Contents"]:
    """Read an open image's tree; its contents can be read as long as it is open."""
    from ..views.contents import Contents  # noqa: PLC0415 - for views only
    from ..views.reading import read_index  # noqa: PLC0415 - likewise

    allowed = limits(args)
    index = read_index(image, allowed, cache(args), check or verify(args))
    return index, Contents(image, index.members, allowed.size)


def add_cache_options(group: argparse._ActionsContainer) -> None:
    """Add what views take: where the indexes of layers are kept."""
    group.add_argument(
        "--cache", metavar="DIR",
        help="keep the indexes of layers here, so that what has been seen once is not "
        "read again [default: $XDG_CACHE_HOME/flatten]",
    )  # fmt: skip
    group.add_argument(
        "--no-cache", dest="use_cache", action="store_false",
        help="read all layers, keep nothing",
    )  # fmt: skip
    add_view_verify_options(group)


def add_view_verify_options(group: argparse._ActionsContainer) -> None:
    """Add what views take: which layers are checked against the image's digests."""
    choice = group.add_mutually_exclusive_group()
    choice.add_argument(
        "--verify", action="store_true", default=None,
        help="check all layers against the image's digests [default: those stored as "
        "one file; layer directories of an engine are not read whole]",
    )  # fmt: skip
    choice.add_argument(
        "--no-verify", dest="verify", action="store_false", help="check no layers"
    )


def verify(args: argparse.Namespace) -> "Verify":
    """Return which layers ``add_view_verify_options`` asks to check."""
    from ..views.reading import Verify  # noqa: PLC0415 - for views only

    if args.verify is None:
        return Verify.BLOBS
    return Verify.ALL if args.verify else Verify.NONE


def say_unverified(
    args: argparse.Namespace, image: Image, checked: Sequence[bool]
) -> None:
    """Say that layers with a digest were not checked, unless that was asked for."""
    from ..views.reading import has_digest  # noqa: PLC0415 - for views only

    pairs = zip(image.layers, checked, strict=True)
    count = sum(has_digest(layer) and not done for layer, done in pairs)
    if count and args.verify is not False:
        layers = "1 layer was" if count == 1 else f"{count:,} layers were"
        say(f"note: {image.source}: {layers} not verified; --verify checks the digests")


def cache(args: argparse.Namespace) -> "IndexCache | None":
    """Return the cache of indexes, or None if there is to be none."""
    from ..views.index_cache import (  # noqa: PLC0415 - 2 ms, for views only
        IndexCache,
        default_folder,
    )

    folder = default_folder() if args.cache is None else Path(args.cache)
    if folder is None or not args.use_cache:
        return None
    return IndexCache(folder)


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Add the choice of what programs read."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def add_point_arguments(
    group: argparse._ActionsContainer, what: str = "the image"
) -> None:
    """Add what chooses a moment in the image's making."""
    points = group.add_mutually_exclusive_group()
    points.add_argument(
        "--at", metavar="STEP", type=int,
        help=f"{what} as it stood after that step of its history, from 1",
    )  # fmt: skip
    points.add_argument(
        "--at-layer", metavar="N", type=int,
        help=f"{what} as it stood after that layer, from 1",
    )  # fmt: skip
    points.add_argument(
        "--until", metavar="PATTERN",
        help=f"{what} as it stood after the step that has PATTERN in its command; "
        "* in it stands for anything",
    )  # fmt: skip


def add_since_arguments(group: argparse._ActionsContainer, what: str) -> None:
    """Add what chooses the moment that another is compared with."""
    points = group.add_mutually_exclusive_group()
    points.add_argument(
        "--from", metavar="STEP", type=int, dest="since", help=f"{what} that step"
    )
    points.add_argument(
        "--from-layer", metavar="N", type=int, dest="since_layer",
        help=f"{what} that layer",
    )  # fmt: skip


def point(args: argparse.Namespace) -> Point | None:
    """Return the moment that ``add_point_arguments`` asks for."""
    return _point(args.at, args.at_layer, args.until)


def since(args: argparse.Namespace) -> Point | None:
    """Return the moment that ``add_since_arguments`` asks for."""
    return _point(args.since, args.since_layer, None)


def _point(step: int | None, layer: int | None, pattern: str | None) -> Point | None:
    if step is None and layer is None and pattern is None:
        return None
    return Point(step, layer, pattern)


def parse_size(text: str) -> int:
    """Read a number of bytes, or of anything: digits, and maybe K, M, G or T.

    Raises:
        argparse.ArgumentTypeError: It is none.

    >>> parse_size("1536"), parse_size("1.5K"), parse_size("2GiB")
    (1536, 1536, 2147483648)
    """
    found = re.fullmatch(
        r"([0-9]{1,15}(?:\.[0-9]{1,6})?)([KMGT]?)(?:i?B)?", text, re.IGNORECASE
    )
    if found is None:
        raise argparse.ArgumentTypeError(f"{quoted(text)} is no size, such as 512M")
    power = "KMGT".find(found[2].upper()) + 1 if found[2] else 0
    return int(float(found[1]) * 1024**power)


def parse_mtime(text: str | None) -> int | None:
    """Read ``--mtime``, or else SOURCE_DATE_EPOCH.

    Raises:
        UsageError: It is no time.

    >>> parse_mtime("@86400"), parse_mtime("1970-01-02"), parse_mtime("1970-01-02T00Z")
    (86400, 86400, 86400)
    """
    name = "--mtime"
    if text is None:
        name, text = "SOURCE_DATE_EPOCH", os.environ.get("SOURCE_DATE_EPOCH")
        if not text:
            return None
    if re.fullmatch(r"@?-?[0-9]{1,15}", text):
        return int(text.removeprefix("@"))
    try:
        if name == "SOURCE_DATE_EPOCH":
            raise ValueError("only seconds are a SOURCE_DATE_EPOCH")
        from datetime import UTC, datetime  # noqa: PLC0415 - 5 ms, for a date only

        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{name}: {quoted(text)} is no time: {error}") from error
    if time.tzinfo is None:
        time = time.replace(tzinfo=UTC)
    return int(time.timestamp())


def limits(args: argparse.Namespace) -> Limits:
    """Return the limits that ``add_input_options`` asks for."""
    return Limits(args.memory, args.max_size, args.max_members, args.max_ratio)


def open_source(args: argparse.Namespace) -> AbstractContextManager[Opened]:
    """Open the source that the options ask for."""
    return sources.open_source(args.source, limits=limits(args), store=args.store)


def open_image(
    args: argparse.Namespace, reference: str | None = None, at: Point | None = None
) -> Image:
    """Open the image that the options ask for, or another with the same options."""
    return sources.open_image(
        args.image if reference is None else reference,
        platform=args.platform,
        limits=limits(args),
        store=args.store,
        at=at,
        with_init=args.with_init,
    )
