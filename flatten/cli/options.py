"""Options that commands share, and how they are read."""

import argparse
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..errors import SourceError, UsageError, quoted, shown
from ..host.limits import Limits
from ..image import rootfs
from ..image.history import Point
from ..image.image import Image, Transfer
from ..options import Access, Selection, SelectionFields
from ..sources import open as sources
from ..sources.choice import CONTAINER
from ..sources.open import Opened
from ..sources.references import parse_reference
from ..tree.edit import Addition, Edits
from ..tree.owners import OwnerMap, parse_owner_map
from .messages import is_terminal, say

if TYPE_CHECKING:
    from ..views.contents import Contents
    from ..views.index_cache import IndexCache
    from ..views.reading import CheckedIndex, Verify


IMAGE = """\
IMAGE is [KIND:]PATH[#NAME]. PATH is an archive written by docker save (of any
version), podman save, skopeo or buildx, compressed or not; an OCI layout (a
directory); - for an archive on standard input; or the directory where docker,
podman or containerd keeps its images, such as /var/lib/docker, on any disk and
without a daemon. NAME chooses one of several images: name:tag, an id or the
start of one, or @N, its position from 0; container:NAME is a container. Quote
'PATH#NAME' for the shell, or write PATH --image NAME.

IMAGE can also be docker://HOST/NAME:TAG, in a registry; the URL of an archive;
docker-daemon:NAME or podman:NAME, in a running engine; or
containers-storage:NAME, in your own store of podman."""


SOURCE = """\
SOURCE is [KIND:]PATH: the directory where docker, podman or containerd keeps
its images, an archive or an OCI layout. 'PATH#NAME', or --image NAME, limits
the command to the images that match NAME."""

MAX_SIZE: Final = 1 << 60  # bytes; file sizes have 63 bits


def add_image_argument(parser: argparse.ArgumentParser) -> None:
    """Add IMAGE, which the text ``IMAGE`` describes."""
    parser.add_argument("image", metavar="IMAGE", help="the image to read (see above)")


def add_source_argument(parser: argparse.ArgumentParser) -> None:
    """Add SOURCE, which the text ``SOURCE`` describes."""
    parser.add_argument(
        "source", metavar="SOURCE", help="the source to read (see above)"
    )


def add_input_options(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Add the options that say how to read an image; return their group."""
    group = parser.add_argument_group("input")
    _add_name_option(
        group,
        "read the image of this name, like #NAME; for a second image, repeat it",
    )
    add_selection_options(group)
    return group


def add_selection_options(group: argparse._ActionsContainer) -> None:
    """Add the options that say which image of a source to read, and how."""
    group.add_argument(
        "--platform",
        metavar="OS/ARCH",
        help="select the platform of a multi-platform image, such as linux/arm64 or "
        "linux/arm/v7 [default: this machine's]",
    )
    _add_store_options(group)
    group.add_argument(
        "--with-init",
        action="store_true",
        help="for a container, include docker's init layer, as docker export does",
    )
    _add_access_options(group)
    _add_limits(group)


def add_source_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how to read all images of a source."""
    add_json_option(parser)
    add_quiet_option(parser)
    group = parser.add_argument_group("input")
    _add_name_option(group, "only the images that match this name, like #NAME")
    _add_store_options(group)
    _add_access_options(group)
    _add_limits(group)


def _add_name_option(group: argparse._ActionsContainer, text: str) -> None:
    group.add_argument(
        "--image", metavar="NAME", dest="names", action="append", default=[], help=text
    )


def _add_store_options(group: argparse._ActionsContainer) -> None:
    for option, what in (
        ("--driver", "storage driver of docker"),
        ("--namespace", "namespace of containerd"),
    ):
        group.add_argument(
            option,
            metavar="NAME",
            dest="store",
            help=f"use only this {what} [default: search all]",
        )


def _add_access_options(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--authfile",
        metavar="FILE",
        help="read the credentials for registries from FILE [default: those of podman "
        "login and docker login]",
    )
    group.add_argument(
        "--cacert",
        metavar="FILE",
        help="also trust the certificate authorities in FILE (PEM)",
    )
    group.add_argument(
        "--insecure",
        action="store_true",
        help="allow plain HTTP, and TLS certificates that cannot be verified",
    )


def _add_limits(group: argparse._ActionsContainer) -> None:
    limits = Limits()
    group.add_argument(
        "--memory",
        metavar="SIZE",
        type=parse_size,
        help="keep this much decompressed data in memory, and the rest in $TMPDIR "
        "[default: a quarter of the free memory]",
    )
    group.add_argument(
        "--max-size",
        metavar="SIZE",
        type=parse_size,
        default=limits.size,
        help="fail if the layers, or the output, exceed SIZE [default: 1T]",
    )
    group.add_argument(
        "--max-members",
        metavar="N",
        type=parse_size,
        default=limits.members,
        help=f"fail if the layers have more members [default: {limits.members:,}]",
    )
    group.add_argument(
        "--max-ratio",
        metavar="N",
        type=parse_size,
        default=limits.ratio,
        help="fail if a layer of over 1 GiB is more than N times its compressed size "
        f"[default: {limits.ratio:,}]",
    )


def apply_names(args: argparse.Namespace) -> None:
    """Put the names that ``--image`` gives into the references of ``args``.

    The first name is for the first image, the second for the second.

    Raises:
        UsageError: There are more names than images, or an image has a name already.
    """
    names = getattr(args, "names", ())
    keys = [key for key in ("source", "image", "other") if getattr(args, key, None)]
    if len(names) > len(keys):
        raise UsageError(
            f"--image: {len(names)} names are given for {len(keys)} "
            f"image{'' if len(keys) == 1 else 's'}"
        )
    for key, name in zip(keys, names, strict=False):
        setattr(args, key, _named(getattr(args, key), name))


def _named(reference: str, name: str) -> str:
    """Add an image's name to a reference."""
    kind, path, named = parse_reference(reference)
    if named is not None:
        raise UsageError(
            f"--image: {shown(reference)} names an image already; leave one of both out"
        )
    both = f"{reference}#{name}"
    if parse_reference(both) != (kind, path, name):
        raise UsageError(
            f"--image: {shown(both)} is ambiguous: a file of such a name is there too"
        )
    return both


def add_among_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that names more sources to search."""
    parser.add_argument(
        "--among",
        metavar="SOURCE",
        action="append",
        default=[],
        help="also search the images of this source; may be repeated "
        "[default: only the source of IMAGE]",
    )


@contextmanager
def open_among(args: argparse.Namespace) -> Iterator[list[Image]]:
    """Open all images of the requested sources; warn of those that cannot be opened."""
    with ExitStack() as opened:
        images: list[Image] = []
        for reference in (args.image, *args.among):
            family = sources.open_family(
                reference, Selection(limits=limits(args), access=access(args))
            )
            found, broken = opened.enter_context(family)
            images += found
            for error in broken:
                warn(args, f"left out: {error}")
        yield images


def add_layers_option(group: argparse._ActionsContainer) -> None:
    """Add the option that keeps plain layers in a directory."""
    group.add_argument(
        "--layers",
        metavar="DIR",
        help="keep the plain tars of compressed layers, and of layers that are in no "
        "file, by diff_id in DIR, and read them from there; many images can share it",
    )


def add_quiet_option(group: argparse._ActionsContainer) -> None:
    """Add the option that suppresses warnings."""
    group.add_argument("-q", "--quiet", action="store_true", help="print no warnings")


def warn(args: argparse.Namespace, text: str) -> None:
    """Print a warning, unless ``--quiet`` is given."""
    if not args.quiet:
        say(f"warning: {text}")


def note(args: argparse.Namespace, text: str) -> None:
    """Print a remark in place of an empty table, unless ``--quiet`` is given."""
    if not args.quiet:
        say(text)


def add_verify_option(group: argparse._ActionsContainer) -> None:
    """Add the option not to check digests."""
    group.add_argument(
        "--no-verify",
        dest="verify",
        action="store_false",
        help="do not check layers against the image's digests",
    )


def add_verify_choice(group: argparse._ActionsContainer) -> None:
    """Add the options of an export that say which layers to check, and how."""
    choice = group.add_mutually_exclusive_group()
    choice.add_argument(
        "--verify",
        action="store_true",
        default=None,
        help="read all layers whole and check them against the image's digests "
        "[default: of zstd:chunked layers of a registry or URL, read and check only "
        "parts if less than half is needed]",
    )
    choice.add_argument(
        "--no-verify",
        dest="verify",
        action="store_false",
        help="do not check layers against the image's digests",
    )


def add_edit_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that select, move and add names, and change metadata."""
    group = parser.add_argument_group("selection and edits, applied in this order")
    for option, what in (("--include", "keep only"), ("--exclude", "leave out")):
        group.add_argument(
            option,
            metavar="GLOB",
            action="append",
            default=[],
            help=f"{what} the paths that match, as in a .gitignore file; may be "
            "repeated",
        )
    group.add_argument(
        "--strip-components",
        metavar="N",
        type=number(5),  # a path of 64 KiB has 32,768 components at most
        default=0,
        help="drop the first N components of every path",
    )
    group.add_argument(
        "--prefix", metavar="PATH", default="", help="put the whole tree under PATH"
    )
    group.add_argument(
        "--add",
        metavar="HOSTPATH:PATH",
        action="append",
        default=[],
        help="add a file or directory of this machine to the tree, owned by root; "
        "may be repeated",
    )
    group.add_argument(
        "--init",
        metavar="HOSTFILE",
        help="add a program of this machine as /sbin/init, executable, for a virtual "
        "machine to start",
    )
    group.add_argument(
        "--owner-map",
        metavar="FILE",
        help="change owners: lines of [uid|gid] FROM TO [COUNT]",
    )
    kept = group.add_mutually_exclusive_group()
    kept.add_argument(
        "--xattrs",
        metavar="GLOB",
        action="append",
        help="keep only the extended attributes whose names match, such as 'user.*'; "
        "may be repeated [default: all]",
    )
    kept.add_argument(
        "--no-xattrs",
        dest="xattrs",
        action="store_const",
        const=(),
        help="leave out all extended attributes and ACLs",
    )
    group.add_argument(
        "--mtime",
        metavar="TIME",
        help="set later mtimes to TIME: seconds since the epoch, or an ISO 8601 date "
        "[default: $SOURCE_DATE_EPOCH, if set]",
    )


def edits(args: argparse.Namespace) -> Edits:
    """Return the edits that the options of ``add_edit_options`` request.

    Raises:
        UsageError: An option is not valid, or the owner map cannot be read.
    """
    owners = args.owner_map
    ownership = getattr(args, "ownership", None) or ""
    if ownership.startswith("map:"):
        if owners is not None:
            raise UsageError("--ownership map:FILE and --owner-map exclude each other")
        owners = ownership.removeprefix("map:")
    return Edits(
        include=tuple(args.include),
        exclude=tuple(args.exclude),
        strip_components=args.strip_components,
        prefix=parse_prefix(args.prefix),
        add=(*map(_addition, args.add), *_init(args.init)),
        owner_map=None if owners is None else _read_owner_map(owners),
        xattrs=None if args.xattrs is None else tuple(args.xattrs),
    )


def parse_prefix(text: str) -> bytes:
    """Parse ``--prefix``: a path below the root, in any spelling.

    Raises:
        UsageError: The path leaves the root, or has a name that no tree can hold.

    >>> parse_prefix("/srv//app/"), parse_prefix(".")
    (b'srv/app', b'')
    """
    return _addition(f"/:{text}")[1] if text else b""


def _addition(text: str) -> Addition:
    from ..image.added import parse_addition  # seldom needed

    return parse_addition(text)


def _init(host: str | None) -> tuple[Addition, ...]:
    if host is None:
        return ()
    from ..image.added import init_program  # seldom needed

    return (init_program(host),)


def _read_owner_map(name: str) -> OwnerMap:
    try:
        with open(name, encoding="utf-8") as file:
            return parse_owner_map(file.read(), name)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise UsageError(f"--owner-map: {quoted(name)}: {reason}") from error


def add_tree_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of views of one tree: how to read it, and as of which step."""
    add_quiet_option(parser)
    group = add_input_options(parser)
    add_point_arguments(group)
    add_cache_options(group)


@contextmanager
def open_tree(
    args: argparse.Namespace, check: "Verify | None" = None
) -> Iterator[tuple["CheckedIndex", "Contents"]]:
    """Open the requested tree; yield it, and the contents of its files.

    Args:
        args: The parsed options.
        check: Which layers to check; None does as the options request.
    """
    with open_image_or_tar(args, at=point(args)) as image:
        yield read_tree(args, image, check)


def read_tree(
    args: argparse.Namespace, image: Image, check: "Verify | None" = None
) -> tuple["CheckedIndex", "Contents"]:
    """Read an open image's tree; contents can be read as long as the image is open."""
    from ..views.contents import Contents  # for views only
    from ..views.reading import read_index  # likewise

    allowed = limits(args)
    index = read_index(image, allowed, cache(args), check or verify(args))
    return index, Contents(image, index.members, allowed.size)


def add_cache_options(group: argparse._ActionsContainer) -> None:
    """Add the options of the cache of layer indexes, which views use."""
    group.add_argument(
        "--cache",
        metavar="DIR",
        help="the directory of the layer index cache, which makes repeated commands "
        "fast [default: $XDG_CACHE_HOME/flatten]",
    )
    group.add_argument(
        "--no-cache",
        dest="use_cache",
        action="store_false",
        help="read all layers, and keep no index of them",
    )
    add_view_verify_options(group)


def add_view_verify_options(group: argparse._ActionsContainer) -> None:
    """Add the options of views that say which layers to check against digests."""
    group.set_defaults(parts=True)
    choice = group.add_mutually_exclusive_group()
    choice.add_argument(
        "--verify",
        action="store_true",
        default=None,
        help="check all layers against the image's digests [default: those stored as "
        "one file; layer directories of an engine are not read whole]",
    )
    choice.add_argument(
        "--no-verify", dest="verify", action="store_false", help="check no layers"
    )


def verify(args: argparse.Namespace) -> "Verify":
    """Return which layers to check, by ``add_view_verify_options``."""
    from ..views.reading import Verify  # for views only

    if args.verify is None:
        return Verify.BLOBS
    return Verify.ALL if args.verify else Verify.NONE


def say_unverified(
    args: argparse.Namespace, image: Image, checked: Sequence[bool]
) -> None:
    """Print that layers with a digest were not checked, unless that was requested.

    Layers that are read by their tables of contents are checked against these.
    """
    from ..views.reading import has_digest, has_table  # for views only

    if args.verify is False:
        return
    rest = [
        layer for layer, done in zip(image.layers, checked, strict=True) if not done
    ]
    tables = sum(map(has_table, rest))
    others = sum(map(has_digest, rest)) - tables
    if others:
        note(
            args,
            f"note: {image.source}: {_layers(others)} not verified; --verify checks "
            "the digests",
        )
    if tables and image.transfer is not None:
        said = read_in_parts(tables, image.transfer())
        note(args, f"note: {image.source}: {said}")


def read_in_parts(count: int, done: Transfer) -> str:
    """Return the sentence that says how much was fetched of layers read in parts."""
    return (
        f"{_layers(count)} read in parts, by table of contents: fetched "
        f"{done.fetched:,} of {done.size:,} bytes; --verify fetches all and checks the "
        "digests"
    )


def _layers(count: int) -> str:
    return "1 layer was" if count == 1 else f"{count:,} layers were"


def cache(args: argparse.Namespace) -> "IndexCache | None":
    """Return the cache of layer indexes, or None with ``--no-cache``."""
    from ..views.index_cache import (  # 2 ms, for views only
        IndexCache,
        default_folder,
    )

    folder = default_folder() if args.cache is None else Path(args.cache)
    if folder is None or not args.use_cache:
        return None
    return IndexCache(folder)


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Add the option for output as JSON."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def add_point_arguments(
    group: argparse._ActionsContainer, what: str = "the image"
) -> None:
    """Add the options that choose a step of the image's history."""
    points = group.add_mutually_exclusive_group()
    points.add_argument(
        "--at",
        metavar="STEP",
        type=int,
        help=f"{what} as of that step of its history; steps count from 1",
    )
    points.add_argument(
        "--at-layer",
        metavar="N",
        type=int,
        help=f"{what} as of that layer; layers count from 1",
    )
    points.add_argument(
        "--until",
        metavar="PATTERN",
        help=f"{what} as of the one step whose command contains PATTERN; * in it "
        "matches any text",
    )


def add_since_arguments(group: argparse._ActionsContainer, what: str) -> None:
    """Add the options that choose the step to compare with."""
    points = group.add_mutually_exclusive_group()
    points.add_argument(
        "--from", metavar="STEP", type=int, dest="since", help=f"{what} that step"
    )
    points.add_argument(
        "--from-layer",
        metavar="N",
        type=int,
        dest="since_layer",
        help=f"{what} that layer",
    )


def point(args: argparse.Namespace) -> Point | None:
    """Return the step that ``add_point_arguments`` chooses, or None."""
    return _point(args.at, args.at_layer, args.until)


def since(args: argparse.Namespace) -> Point | None:
    """Return the step that ``add_since_arguments`` chooses, or None."""
    return _point(args.since, args.since_layer, None)


def _point(step: int | None, layer: int | None, pattern: str | None) -> Point | None:
    if step is None and layer is None and pattern is None:
        return None
    return Point(step, layer, pattern)


def parse_size(text: str) -> int:
    """Parse a number with an optional unit K, M, G or T, which are powers of 1024.

    Raises:
        argparse.ArgumentTypeError: The text is not such a number, or over ``MAX_SIZE``.

    >>> parse_size("1536"), parse_size("1.5K"), parse_size("2GiB")
    (1536, 1536, 2147483648)
    """
    found = re.fullmatch(
        r"([0-9]{1,15}(?:\.[0-9]{1,6})?)([KMGT]?)(?:i?B)?", text, re.IGNORECASE
    )
    if found is None:
        raise argparse.ArgumentTypeError(
            f"{quoted(text)} is not a valid size; write it as 512M"
        )
    power = "KMGT".find(found[2].upper()) + 1 if found[2] else 0
    size = int(float(found[1]) * 1024**power)
    if size > MAX_SIZE:
        raise argparse.ArgumentTypeError(f"{quoted(text)} is over 1048576T")
    return size


def number(digits: int) -> Callable[[str], int]:
    """Return a parser of numbers from 0, of up to ``digits`` digits, for argparse."""

    def parse(text: str) -> int:
        if not re.fullmatch(rf"[0-9]{{1,{digits}}}", text):
            raise argparse.ArgumentTypeError(
                f"{quoted(text)} is not a number from 0 to {'9' * digits}"
            )
        return int(text)

    return parse


def parse_mtime(text: str | None) -> int | None:
    """Parse ``--mtime`` or, without it, SOURCE_DATE_EPOCH.

    Raises:
        UsageError: The text is not a valid time.

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
            raise ValueError
        from datetime import UTC, datetime  # 5 ms, for a date only

        time = datetime.fromisoformat(text)
    except ValueError as error:
        date = (
            ""
            if name == "SOURCE_DATE_EPOCH"
            else (", or a date such as 2024-01-31T00:00:00Z")
        )
        raise UsageError(
            f"{name}: {quoted(text)} is not a valid time; give seconds since the "
            f"epoch{date}"
        ) from error
    if time.tzinfo is None:
        time = time.replace(tzinfo=UTC)
    return int(time.timestamp())


def limits(args: argparse.Namespace) -> Limits:
    """Return the limits that the options request."""
    return Limits(args.memory, args.max_size, args.max_members, args.max_ratio)


def access(args: argparse.Namespace) -> Access:
    """Return how to reach registries and web servers, as the options say."""
    parts = getattr(args, "parts", False) and not args.verify
    tells = getattr(args, "verbose", False) or is_terminal()
    waiting = say if tells and not getattr(args, "quiet", False) else None
    return Access(args.authfile, args.cacert, args.insecure, parts, waiting)


def open_source(args: argparse.Namespace) -> AbstractContextManager[Opened]:
    """Open the source that the arguments name."""
    selection = Selection(limits=limits(args), access=access(args), store=args.store)
    return sources.open_source(args.source, selection)


@contextmanager
def open_root(args: argparse.Namespace) -> Iterator[Opened]:
    """Open the source as an engine's root.

    Raises:
        UsageError: It is an archive or a layout.
    """
    with open_source(args) as opened:
        if opened.root is None:
            raise UsageError(f"{opened.where}: not an engine's root")
        yield opened


def selection(args: argparse.Namespace, at: Point | None) -> SelectionFields:
    """Return the fields that say which image of a source to read.

    Raises:
        UsageError: ``--with-init`` is given, but no container.
    """
    named = [getattr(args, "image", None), getattr(args, "other", None)]
    names = [parse_reference(each)[2] or "" for each in named if each is not None]
    has_container = any(name.startswith(CONTAINER) for name in names)
    if args.with_init and names and not has_container:  # a batch has no names yet
        raise UsageError(
            "--with-init has no effect on an image; it is for a container, "
            "ROOT#container:NAME"
        )
    return {
        "platform": args.platform,
        "store": args.store,
        "at": at,
        "with_init": args.with_init,
        "limits": limits(args),
        "access": access(args),
    }


def open_image_or_tar(
    args: argparse.Namespace, reference: str | None = None, at: Point | None = None
) -> Image:
    """Open an image, or a tar of a tree as an image of one layer.

    ``rootfs:PATH`` is a tar of a tree even if it looks like an image.
    """
    reference = args.image if reference is None else reference
    if reference.startswith(f"{rootfs.KIND}:"):
        path = reference.removeprefix(f"{rootfs.KIND}:")
        return rootfs.open_rootfs(path, limits(args))
    try:
        return open_image(args, reference, at)
    except SourceError as error:
        if at is not None or not os.path.isfile(reference):
            raise
        try:
            return rootfs.open_rootfs(reference, limits(args))
        except SourceError:
            raise error from None  # it says what the file is


def open_image(
    args: argparse.Namespace, reference: str | None = None, at: Point | None = None
) -> Image:
    """Open the image that the arguments name, or another with the same options."""
    return sources.open_image(
        args.image if reference is None else reference,
        Selection(**selection(args, at)),
    )
