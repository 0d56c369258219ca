"""The main job: ``flatten IMAGE [-o OUT]``."""

import argparse
import os
import re
from contextlib import nullcontext
from dataclasses import replace

from .. import __version__, export, target
from ..errors import UsageError, quoted
from ..history import Point
from ..options import CHOICES, Options
from . import options
from .messages import say

DESCRIPTION = f"""\
Flatten a container image into one root file system tar.

{options.IMAGE}
"""


def add_arguments(parser: argparse.ArgumentParser, format: str = "gnu") -> None:
    """Add all that this command takes; ``format`` is the default of that option."""
    options.add_image_argument(parser)
    parser.add_argument(
        "-V", "--version", action="version", version=f"flatten {__version__}"
    )
    add_output_options(parser, format)
    add_directory_options(parser)
    group = options.add_input_options(parser)
    options.add_point_arguments(group)
    options.add_verify_option(group)
    add_message_options(parser)


def add_output_options(parser: argparse.ArgumentParser, format: str) -> None:
    """Add what says where and how to write."""
    group = parser.add_argument_group("output")
    group.add_argument(
        "-o", "--output", metavar="OUT", default="-",
        help="write here; - is standard output [default: -]",
    )  # fmt: skip
    group.add_argument(
        "--compress", metavar="HOW",
        help="zstd, gzip or xz, :LEVEL may follow, or none [default: by OUT's suffix]",
    )  # fmt: skip
    group.add_argument(
        "--format", choices=CHOICES["format"], default=format,
        help=f"headers: GNU's, or POSIX's throughout [default: {format}]",
    )  # fmt: skip
    group.add_argument(
        "--reflink", choices=CHOICES["reflink"], default="never",
        help="share contents with the image's file, on btrfs and XFS [default: never]",
    )  # fmt: skip
    group.add_argument(
        "--mtime", metavar="TIME",
        help="make later mtimes TIME: seconds since the epoch, or an ISO 8601 date "
        "[default: $SOURCE_DATE_EPOCH, if set]",
    )  # fmt: skip


def add_directory_options(parser: argparse.ArgumentParser) -> None:
    """Add what is about outputs that are directories."""
    group = parser.add_argument_group("output to a directory, -o DIR/")
    group.add_argument(
        "--ownership", choices=CHOICES["ownership"], default="keep",
        help="keep the image's owners, or leave all to you [default: keep]",
    )  # fmt: skip
    group.add_argument(
        "--force", action="store_true", help="replace a directory that is not empty"
    )


def add_message_options(parser: argparse.ArgumentParser) -> None:
    """Add what says how much to tell."""
    group = parser.add_argument_group("messages, on standard error")
    group.add_argument("-q", "--quiet", action="store_true", help="no warnings, no bar")
    group.add_argument(
        "-v", "--verbose", action="store_true", help="say what was written"
    )
    group.add_argument(
        "--progress",
        choices=("auto", "always", "never"),
        default="auto",
        help="a bar while writing [default: auto, on a terminal]",
    )


def run(args: argparse.Namespace) -> int:
    """Flatten, and return the exit code."""
    return write(args)


def write(args: argparse.Namespace, since: Point | None = None) -> int:
    """Write the tree, or what is new in it since some point; return the exit code."""
    how = replace(read_options(args), since=since)
    to_stdout = args.output == "-"
    with target.standard_output() if to_stdout else nullcontext(None) as out:
        done = export(args.image, args.output if out is None else out, how)
    if not args.quiet:
        for warning in done.warnings:
            say(f"warning: {warning}")
    if args.verbose:
        say(
            f"{done.layers:,} layers ({done.verified:,} verified), "
            f"{done.members:,} members, {done.size:,} bytes"
        )
    return 0


def read_options(args: argparse.Namespace) -> Options:
    """Return what the arguments ask for.

    Raises:
        UsageError: One makes no sense.
    """
    return Options(
        platform=args.platform,
        store=args.store,
        at=options.point(args),
        with_init=args.with_init,
        verify=args.verify,
        limits=options.limits(args),
        mtime=parse_mtime(args.mtime),
        format=args.format,
        compress=args.compress,
        reflink=args.reflink,
        ownership=args.ownership,
        force=args.force,
        progress="never" if args.quiet else args.progress,
    )


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
