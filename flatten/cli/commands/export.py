"""The main command: ``flatten IMAGE [-o OUT]``."""

import argparse
import os
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Final, NoReturn

from ... import __version__, pipeline
from ...errors import UsageError
from ...options import CHOICES, Options
from ...outputs import atomic
from ...outputs.choose import KINDS, kind
from ...tar import kernel
from .. import options, signals
from ..messages import say

DESCRIPTION = f"""\
Flatten a container image into one root file system: a tar, a directory or a
disk image.

{options.IMAGE}
"""

EFFECTIVE: Final = {
    "--compress": (
        "tar", "image", "cpio", "disks.squashfs", "disks.erofs", "disks.ext4",
        "disks.qcow2",
    ),
    "--statement": (
        "tar", "image", "cpio", "disks.squashfs", "disks.erofs", "disks.ext4",
        "disks.qcow2",
    ),
    "--format": ("tar",),
    "--sparse": ("tar",),
    "--reflink": ("tar",),
    "--ownership": ("directory",),
    "--force": ("directory",),
    "--size": ("disks.ext4", "disks.qcow2"),
    "--block-size": ("disks.erofs",),
    "--index": ("disks.erofs",),
    "--verity": (
        "disks.squashfs", "disks.erofs", "disks.ext4", "disks.qcow2",
    ),
    "--label": ("disks.erofs", "disks.ext4", "disks.qcow2"),
    "--uuid": ("disks.erofs", "disks.ext4", "disks.qcow2"),
    "--no-check": (
        "directory", "disks.squashfs", "disks.erofs", "disks.ext4", "disks.qcow2",
    ),
}  # fmt: skip
"""Options that have an effect on some outputs only: the modules of those."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments and options."""
    parser.add_argument(
        "-V", "--version", action="version", version=f"flatten {__version__}"
    )
    parser.add_argument(
        "--print-completion",
        metavar="SHELL",
        action=_Print,
        nargs=1,
        choices=("bash", "zsh", "fish"),
        help="print a completion script for a shell",
    )
    parser.add_argument(
        "--print-man", action=_Print, nargs=0, help="print the manual page, in roff"
    )
    options.add_image_argument(parser)
    add_output_options(parser, "gnu")
    add_image_options(parser)
    add_reading_options(parser)


class _Print(argparse.Action):
    """Print a document that is made from the parsers, and exit."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,  # noqa: ARG002 - of argparse.Action
        values: str | Sequence[Any] | None,
        option_string: str | None = None,  # noqa: ARG002 - of argparse.Action
    ) -> NoReturn:
        """Print it."""
        from .. import completion, manual  # they import all commands

        print(completion.script(values[0]) if values else manual.page(), end="")
        parser.exit()


def add_output_options(parser: argparse.ArgumentParser, format: str) -> None:
    """Add the options of all outputs; ``format`` is the default of ``--format``."""
    group = parser.add_argument_group("output")
    group.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        default="-",
        help="write to OUT, whose suffix selects the kind of output; - is standard "
        "output [default: -]",
    )
    add_tar_options(parser, group, format)
    options.add_edit_options(parser)
    add_directory_options(parser)
    add_disk_options(parser)
    add_document_options(parser)


def add_tar_options(
    parser: argparse.ArgumentParser, group: argparse._ActionsContainer, format: str
) -> None:
    """Add the options of tars; ``format`` is the default of ``--format``."""
    group.add_argument(
        "--compress",
        metavar="HOW",
        help="zstd, gzip, xz, bzip2 or none, or zstd:LEVEL and so on [default: by the "
        "suffix of OUT]",
    )
    parser.set_defaults(default_format=format)
    group.add_argument(
        "--format",
        choices=CHOICES["format"],
        help=f"tar headers: GNU's, or those of POSIX (pax) [default: {format}]",
    )
    group.add_argument(
        "--sparse",
        action="store_true",
        help="write sparse files as sparse members, which not all programs read "
        "[default: zeros for their holes]",
    )
    group.add_argument(
        "--reflink",
        choices=CHOICES["reflink"],
        help="share data blocks with the image's file instead of copying them, on "
        "btrfs and XFS [default: never]",
    )
    group.add_argument(
        "--no-fsync",
        dest="sync",
        action="store_false",
        help="do not wait until a file is on the disk before it gets its name",
    )


def add_image_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for outputs that are images."""
    group = parser.add_argument_group("output to an image of one layer (squash)")
    kinds = group.add_mutually_exclusive_group()
    kinds.add_argument(
        "--oci",
        metavar="OUT",
        help="write an OCI archive that docker load reads too, instead of -o",
    )
    kinds.add_argument("--docker", metavar="OUT", help="the same archive")
    options.add_since_arguments(group, "keep the layers up to")
    group.add_argument(
        "--tag",
        metavar="NAME",
        action="append",
        default=[],
        help="name of the written image; may be repeated [default: the names of the "
        "source image]",
    )


def add_reading_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how to read the image, what to check and to print."""
    group = options.add_input_options(parser)
    options.add_point_arguments(group)
    options.add_layers_option(group)
    add_safety_options(parser)
    add_message_options(parser)


def add_document_options(
    parser: argparse.ArgumentParser,
    title: str = "more files to write; - is standard output",
) -> None:
    """Add the options for documents to write along with the output."""
    group = parser.add_argument_group(title)
    group.add_argument(
        "--config-out",
        metavar="FILE",
        help="write the image's config as JSON: environment, command, user, labels",
    )
    group.add_argument(
        "--list-out",
        metavar="FILE",
        help="write a list of the output's entries, with hashes of the contents, for "
        "flatten verify: JSON, one entry a line",
    )
    group.add_argument(
        "--statement",
        metavar="FILE",
        help="write an in-toto statement with a SLSA provenance: the digests of the "
        "output and of what it was made from",
    )


def add_safety_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what to check and to refuse."""
    group = parser.add_argument_group("safety")
    group.add_argument(
        "--strict",
        action="store_true",
        help="refuse devices, unknown setuid files, capabilities, control characters "
        "in names, and links out of the root",
    )
    group.add_argument(
        "--allow-setuid",
        metavar="PATH",
        action="append",
        default=[],
        help="with --strict: this file may be setuid; may be repeated",
    )
    options.add_verify_choice(group)


def add_disk_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for outputs that are file systems."""
    group = parser.add_argument_group(
        "output to a file system, -o OUT.squashfs, OUT.erofs, OUT.ext4 or OUT.qcow2"
    )
    group.add_argument(
        "--size",
        metavar="[+]SIZE",
        type=parse_disk_size,
        help="size of an ext4 or qcow2 disk or, with +, its free space "
        "[default: +25%%, at least +32M]",
    )
    group.add_argument(
        "--index",
        action="store_true",
        help="write an EROFS of metadata only; contents stay in the layers of the "
        "image, which must be plain, or are kept in --layers",
    )
    group.add_argument(
        "--block-size",
        metavar="SIZE",
        type=options.parse_size,
        help="size of a block of an EROFS, a power of two from 512 to 64K; Linux reads "
        "at most the size of a page, and less than that from 6.4 on [default: 4K; with "
        "--index, 512]",
    )
    group.add_argument(
        "--verity",
        metavar="FILE",
        help="also write the dm-verity hash tree of the file system to FILE, as "
        "veritysetup format does, and its root hash to FILE.roothash",
    )
    group.add_argument(
        "--label",
        metavar="NAME",
        help="label of an EROFS (at most 15 bytes), ext4 or qcow2 (16) "
        "[default: rootfs for an EROFS, else none]",
    )
    group.add_argument(
        "--uuid",
        metavar="UUID",
        help="UUID of an EROFS, ext4 or qcow2 [default: one that depends on the image "
        "alone]",
    )
    group.add_argument(
        "--no-check",
        action="store_true",
        help="do not read a directory or disk back to compare it with the image",
    )


def parse_disk_size(text: str) -> str:
    """Parse ``--size``: the size of a disk or, after a plus sign, of its free space.

    >>> parse_disk_size("+1K"), parse_disk_size("2M")
    ('+1024', '2097152')
    """
    plus = "+" if text.startswith("+") else ""
    return f"{plus}{options.parse_size(text.removeprefix('+'))}"


def add_directory_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for outputs that are directories."""
    group = parser.add_argument_group("output to a directory, -o DIR/")
    add_ownership_option(group)
    group.add_argument(
        "--force", action="store_true", help="replace a directory that is not empty"
    )


def add_ownership_option(group: argparse._ActionsContainer) -> None:
    """Add the option that says who owns the files of a directory."""
    group.add_argument(
        "--ownership",
        metavar="HOW",
        help="owners of the files: keep (the image's), current (you own everything) or "
        "map:FILE (as --owner-map FILE) [default: keep]",
    )


def add_message_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what to print."""
    group = parser.add_argument_group(
        "messages, on standard error, in colour on a terminal without $NO_COLOR"
    )
    group.add_argument(
        "-q",
        "--quiet",
        action="store_true",
        help="print no warnings and no progress bar",
    )
    group.add_argument(
        "-v", "--verbose", action="store_true", help="print what was written"
    )
    group.add_argument(
        "--json",
        action="store_true",
        help="print a summary as JSON: on standard output, or on standard error if "
        "the data goes to standard output",
    )
    group.add_argument(
        "--progress",
        choices=("auto", "always", "never"),
        default="auto",
        help="progress bar [default: auto, only on a terminal]",
    )


def run(args: argparse.Namespace) -> int:
    """Flatten, and return the exit code.

    Raises:
        UsageError: An option is not valid, or has no effect on the output.
    """
    since = options.since(args)
    image = args.oci or args.docker
    if image is None:
        if since is not None or args.tag:
            raise UsageError(
                "--from and --tag need --oci or --docker; to write only the new layer, "
                "use flatten delta"
            )
        return write(args, args.output, read_options(args))
    if args.output != "-":
        raise UsageError("-o cannot be used together with --oci or --docker")
    if image == "-":
        raise UsageError("--oci and --docker write to a file, not to standard output")
    how = replace(
        read_options(args),
        since=since,
        image_kind="docker" if args.oci is None else "oci",
        tags=tuple(args.tag),
    )
    return write(args, image, how)


def write(args: argparse.Namespace, output: str, how: Options) -> int:
    """Write the output, print what is asked for, and return the exit code.

    Raises:
        UsageError: An option has no effect on the output.
    """
    started = time.monotonic()
    to_stdout = output == "-" and how.image_kind is None
    refuse_without_effect(args, "tar" if to_stdout else _kind(output, how))
    how = _with_documents(args, how, to_stdout=to_stdout)
    with atomic.standard_output() if to_stdout else nullcontext(None) as out:
        done = pipeline.run(
            args.image,
            output if out is None else out,
            how,
            progress="never" if args.quiet else args.progress,
            sync=args.sync,
            before_commit=signals.ignore,
        )
    for warning in done.warnings:
        options.warn(args, warning)
    if done.verified_by_toc and done.transfer is not None and args.verify is None:
        said = options.read_in_parts(done.verified_by_toc, done.transfer)
        options.note(args, f"note: {said}")
    goes_out = args.json or to_stdout or 1 in {how.config_out, how.list_out}
    if args.verbose:
        tables = f", {done.verified_by_toc:,} by table of contents"
        tables = tables if done.verified_by_toc else ""
        say(
            f"{done.layers:,} layers ({done.verified:,} verified{tables}), "
            f"{done.members:,} members, {done.size:,} bytes"
        )
        if done.transfer is not None:
            what = f"; digest {done.transfer.digest}" if done.transfer.digest else ""
            say(
                f"fetched {done.transfer.fetched:,} of {done.transfer.size:,} "
                f"bytes{what}"
            )
        if kernel.scan is None:
            say("there is no compiled kernel, so Python read all headers, more slowly")
    if args.verbose and done.devices is not None:
        import shlex  # for an index only

        from ...host.mounts import mount_command  # ctypes

        command = mount_command(os.path.abspath(output), done.devices)
        say(f"mount it by: {shlex.join(command)} DIRECTORY")
    if args.verbose and done.root_hash and not goes_out:
        print(done.root_hash)
    if args.json:
        from ..summary import print_summary, summary  # json, hashlib

        seconds = time.monotonic() - started
        document = summary(done, None if to_stdout else output, seconds)
        print_summary(document, to_stdout=not to_stdout)
    return 0


def _kind(output: str, how: Options) -> str:
    return kind(output) if how.image_kind is None else "image"


def refuse_without_effect(args: argparse.Namespace, module: str) -> None:
    """Refuse options that have no effect on an output of this kind.

    Raises:
        UsageError: One is given; the message names the outputs that it is for.
    """
    for option, modules in EFFECTIVE.items():
        value = getattr(args, option.removeprefix("--").replace("-", "_"))
        if value and module not in modules and not str(value).startswith("map:"):
            suffixes = [suffix for suffix, module in KINDS.items() if module in modules]
            outputs = ["a tar"] * ("tar" in modules) + suffixes
            named = ", ".join(outputs).replace("/", "DIR/")
            raise UsageError(
                f"{option} has no effect on this output; it is for {named}"
            )
    if args.allow_setuid and not args.strict:
        raise UsageError("--allow-setuid has no effect without --strict")


def _with_documents(
    args: argparse.Namespace, how: Options, *, to_stdout: bool
) -> Options:
    """Return the options with ``-`` as the descriptor of standard output.

    Raises:
        UsageError: More than one thing would be written there.
    """
    there = {
        "the output": to_stdout,
        "--config-out": args.config_out == "-",
        "--list-out": args.list_out == "-",
        "--json": args.json and not to_stdout,
    }
    found = [name for name, goes in there.items() if goes]
    if len(found) > 1:
        raise UsageError(f"only one of {' and '.join(found)} can go to standard output")
    return replace(
        how,
        config_out=1 if args.config_out == "-" else args.config_out,
        list_out=1 if args.list_out == "-" else args.list_out,
    )


def read_options(args: argparse.Namespace) -> Options:
    """Return the options of an export that the arguments request.

    Raises:
        UsageError: An option is not valid.
    """
    keep = args.ownership is None or args.ownership.startswith("map:")
    return Options(
        **options.selection(args, options.point(args)),
        verify=args.verify,
        edits=options.edits(args),
        mtime=options.parse_mtime(args.mtime),
        format=args.format or args.default_format,
        sparse=args.sparse,
        compress=args.compress,
        reflink=args.reflink or "never",
        ownership="keep" if keep else args.ownership,
        check=not args.no_check,
        size=args.size,
        block_size=args.block_size,
        index=args.index,
        layers=args.layers,
        verity=args.verity,
        statement=args.statement,
        label=args.label,
        uuid=args.uuid,
        force=args.force,
        strict=args.strict,
        allow_setuid=tuple(args.allow_setuid),
    )
