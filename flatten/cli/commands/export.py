"""The main job: ``flatten IMAGE [-o OUT]``."""

import argparse
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, NoReturn

from ... import __version__, export
from ...errors import UsageError
from ...options import CHOICES, Options
from ...outputs import atomic
from .. import options, signals
from ..messages import say

DESCRIPTION = f"""\
Flatten a container image into one root file system tar.

{options.IMAGE}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add all that this command takes."""
    parser.add_argument(
        "-V", "--version", action="version", version=f"flatten {__version__}"
    )
    parser.add_argument(
        "--print-completion", metavar="SHELL", action=_Print, nargs=1,
        choices=("bash", "zsh", "fish"),
        help="print what a shell reads to complete the command line",
    )  # fmt: skip
    parser.add_argument(
        "--print-man", action=_Print, nargs=0, help="print the manual page, in roff"
    )
    add_writing_arguments(parser)
    group = parser.add_argument_group("output that is an image again, of one layer")
    kinds = group.add_mutually_exclusive_group()
    kinds.add_argument("--oci", metavar="OUT", help="write an OCI archive, not -o")
    kinds.add_argument("--docker", metavar="OUT", help="write what docker load reads")
    options.add_since_arguments(group, "keep the layers up to")
    group.add_argument(
        "--tag", metavar="NAME", action="append", default=[],
        help="name it so, not as it was called; may be repeated",
    )  # fmt: skip


class _Print(argparse.Action):
    """Prints what is made from the parsers, and exits."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,  # noqa: ARG002 - of argparse.Action
        values: str | Sequence[Any] | None,
        option_string: str | None = None,  # noqa: ARG002 - of argparse.Action
    ) -> NoReturn:
        """Print it."""
        from .. import completion, manual  # noqa: PLC0415 - they import all commands

        print(completion.script(values[0]) if values else manual.page(), end="")
        parser.exit()


def add_writing_arguments(parser: argparse.ArgumentParser, format: str = "gnu") -> None:
    """Add all but images; ``format`` is the default of that option."""
    options.add_image_argument(parser)
    add_output_options(parser, format)
    options.add_edit_options(parser)
    add_directory_options(parser)
    add_disk_options(parser)
    add_sidecar_options(parser)
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


def add_sidecar_options(parser: argparse.ArgumentParser) -> None:
    """Add what is written beside the output."""
    group = parser.add_argument_group("documents beside the output")
    group.add_argument(
        "--config-out", metavar="FILE",
        help="write the image's config: environment, command, user, labels, as JSON",
    )  # fmt: skip
    group.add_argument(
        "--list-out", metavar="FILE",
        help="write what is in the output, with hashes of contents: JSON, a line a "
        "name, for flatten verify",
    )  # fmt: skip

    group.add_argument(
        "--strict", action="store_true",
        help="refuse devices, unknown setuid files, capabilities, control characters "
        "in names, links out of the root",
    )  # fmt: skip
    group.add_argument(
        "--allow-setuid", metavar="PATH", action="append", default=[],
        help="with --strict: this file may be setuid; may be given more than once",
    )  # fmt: skip
    group.add_argument(
        "--no-fsync", dest="sync", action="store_false",
        help="do not wait until a file is on the disk before it gets its name",
    )  # fmt: skip


def add_disk_options(parser: argparse.ArgumentParser) -> None:
    """Add what is about outputs that are disks."""
    group = parser.add_argument_group(
        "output to a file system, -o OUT.squashfs, OUT.erofs, OUT.ext4 or OUT.qcow2"
    )
    group.add_argument(
        "--size", metavar="[+]SIZE", type=parse_disk_size,
        help="size of an ext4 or qcow2 disk, or with + its free space "
        "[default: +25%%, at least +32M]",
    )  # fmt: skip
    group.add_argument(
        "--no-check", dest="check", action="store_false",
        help="do not read the file system back to compare it with the image",
    )  # fmt: skip


def parse_disk_size(text: str) -> str:
    """Read ``--size``: a size of a disk, or, with a plus sign, of the room on it.

    >>> parse_disk_size("+1K"), parse_disk_size("2M")
    ('+1024', '2097152')
    """
    plus = "+" if text.startswith("+") else ""
    return f"{plus}{options.parse_size(text.removeprefix('+'))}"


def add_directory_options(parser: argparse.ArgumentParser) -> None:
    """Add what is about outputs that are directories."""
    group = parser.add_argument_group("output to a directory, -o DIR/")
    group.add_argument(
        "--ownership", metavar="HOW", default="keep",
        help="keep the image's owners, current: leave all to you, or map:FILE, as "
        "--owner-map FILE [default: keep]",
    )  # fmt: skip
    group.add_argument(
        "--force", action="store_true", help="replace a directory that is not empty"
    )


def add_message_options(parser: argparse.ArgumentParser) -> None:
    """Add what says how much to tell."""
    group = parser.add_argument_group(
        "messages, on standard error, in colour on a terminal without $NO_COLOR"
    )
    group.add_argument("-q", "--quiet", action="store_true", help="no warnings, no bar")
    group.add_argument(
        "-v", "--verbose", action="store_true", help="say what was written"
    )
    group.add_argument(
        "--json", action="store_true",
        help="print a summary as JSON on standard output, if no data goes there",
    )  # fmt: skip
    group.add_argument(
        "--progress",
        choices=("auto", "always", "never"),
        default="auto",
        help="a bar with rate and time left [default: auto, on a terminal]",
    )


def run(args: argparse.Namespace) -> int:
    """Flatten, and return the exit code."""
    since = options.since(args)
    image = args.oci or args.docker
    if image is None and (since is not None or args.tag):
        raise UsageError(
            "--from and --tag are about --oci OUT and --docker OUT; flatten delta "
            "writes a layer"
        )
    if image is None:
        return write(args, args.output, read_options(args))
    if args.output != "-":
        raise UsageError("either -o OUT, or an image: --oci OUT or --docker OUT")
    how = replace(
        read_options(args),
        since=since,
        image_kind="docker" if args.oci is None else "oci",
        tags=tuple(args.tag),
    )
    return write(args, image, how)


def write(args: argparse.Namespace, output: str, how: Options) -> int:
    """Write what is asked for, say what there is to say; return the exit code."""
    started = time.monotonic()
    to_stdout = output == "-" and how.image_kind is None
    with atomic.standard_output() if to_stdout else nullcontext(None) as out:
        done = export(args.image, output if out is None else out, how)
    if not args.quiet:
        for warning in done.warnings:
            say(f"warning: {warning}")
    if args.verbose:
        say(
            f"{done.layers:,} layers ({done.verified:,} verified), "
            f"{done.members:,} members, {done.size:,} bytes"
        )
    if args.json:
        from ..summary import print_summary, summary  # noqa: PLC0415 - json, hashlib

        seconds = time.monotonic() - started
        document = summary(done, None if to_stdout else output, seconds)
        print_summary(document, to_stdout=not to_stdout)
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
        edits=options.edits(args),
        mtime=options.parse_mtime(args.mtime),
        format=args.format,
        compress=args.compress,
        reflink=args.reflink,
        ownership="keep" if args.ownership.startswith("map:") else args.ownership,
        check=args.check,
        size=args.size,
        force=args.force,
        config_out=args.config_out,
        list_out=args.list_out,
        strict=args.strict,
        allow_setuid=tuple(args.allow_setuid),
        sync=args.sync,
        settle=signals.ignore,
        progress="never" if args.quiet else args.progress,
    )
