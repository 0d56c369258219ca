"""The main job: ``flatten IMAGE [-o OUT]``."""

import argparse
import os
import re
from contextlib import nullcontext
from pathlib import Path

from .. import __version__, export, target
from ..errors import UsageError, quoted
from ..export import FORMATS
from ..reflink import MODES
from ..streams import Limits
from .messages import say

DESCRIPTION = """\
Flatten a container image into one root file system tar.

IMAGE is [KIND:]PATH[#NAME]: an archive of docker save (any age), podman save,
skopeo or buildx, compressed or not, an OCI layout (a directory), or - for an
archive on standard input. NAME chooses among several images: name:tag, an id or
the start of one, or @N, its position from 0.
"""

EPILOG = """\
exit codes: 0 done, 1 failed (I/O, no space), 2 usage, 3 image missing or of no
known kind, 4 malformed image, 5 digest mismatch, 130 interrupted, 141 the
reader of the output closed the pipe.
"""


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Help in 80 columns; asking for the terminal's would import shutil, 5 ms."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=80)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="flatten",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=_Formatter,
    )
    parser.add_argument("image", metavar="IMAGE", help="what to flatten")
    parser.add_argument(
        "-V", "--version", action="version", version=f"%(prog)s {__version__}"
    )
    add_output_options(parser)
    add_input_options(parser)
    add_message_options(parser)
    return parser


def add_output_options(parser: argparse.ArgumentParser) -> None:
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
        "--format", choices=FORMATS, default="gnu",
        help="headers: GNU's, or POSIX's throughout [default: gnu]",
    )  # fmt: skip
    group.add_argument(
        "--reflink", choices=MODES, default="never",
        help="share contents with the image's file, on btrfs and XFS [default: never]",
    )  # fmt: skip
    group.add_argument(
        "--mtime", metavar="TIME",
        help="make later mtimes TIME: seconds since the epoch, or an ISO 8601 date "
        "[default: $SOURCE_DATE_EPOCH, if set]",
    )  # fmt: skip


def add_input_options(parser: argparse.ArgumentParser) -> None:
    """Add what says how to read."""
    group = parser.add_argument_group("input")
    group.add_argument(
        "--platform", metavar="OS/ARCH",
        help="which image of several, /VARIANT may follow [default: this machine's]",
    )  # fmt: skip
    group.add_argument(
        "--no-verify", dest="verify", action="store_false",
        help="do not check layers against the image's digests",
    )  # fmt: skip
    group.add_argument(
        "--memory", metavar="SIZE", type=parse_size,
        help="keep this much inflated data in memory, the rest goes to $TMPDIR "
        "[default: a quarter of what is free]",
    )  # fmt: skip
    limits = Limits()
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
    mtime = parse_mtime(args.mtime)
    progress = "never" if args.quiet else args.progress
    to_stdout = args.output == "-"
    with target.standard_output() if to_stdout else nullcontext(None) as out:
        done = export(
            args.image,
            Path(args.output) if out is None else out,
            platform=args.platform,
            verify=args.verify,
            limits=Limits(args.memory, args.max_size, args.max_members, args.max_ratio),
            mtime=mtime,
            format=args.format,
            compress=args.compress,
            reflink=args.reflink,
            progress=progress,
        )
    if not args.quiet:
        for warning in done.warnings:
            say(f"warning: {warning}")
    if args.verbose:
        say(
            f"{done.layers:,} layers ({done.verified:,} verified), "
            f"{done.members:,} members, {done.size:,} bytes"
        )
    return 0


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
