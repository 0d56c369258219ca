"""``flatten mount IMAGE DIR``: an image as a file system, without copying it."""

import argparse
import os
import tempfile
from pathlib import Path

from ... import pipeline
from ...errors import FlattenError, UsageError, quoted
from ...host.mounts import mount, unmount
from ...options import Options
from .. import options

DESCRIPTION = f"""\
Mount an image on a directory, read only. Its contents are read from the files
of its layers, through an index that is written first (--index). As root.

{options.IMAGE}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments and options."""
    parser.add_argument(
        "image", metavar="IMAGE", nargs="?", help="the image to read (see above)"
    )
    parser.add_argument("folder", metavar="DIR", nargs="?", help="where to mount it")
    parser.add_argument(
        "-u", "--unmount", metavar="DIR", help="unmount what is mounted on DIR, instead"
    )
    options.add_quiet_option(parser)
    group = options.add_input_options(parser)
    options.add_point_arguments(group)
    options.add_layers_option(group)
    options.add_verify_option(group)


def run(args: argparse.Namespace) -> int:
    """Mount or unmount, and return the exit code.

    Raises:
        UsageError: An argument is missing or one too many, or DIR is no directory.
        FlattenError: The user is not root, or the kernel refuses.
    """
    if (args.unmount is None) != (args.folder is not None) or (
        args.unmount is not None and args.image is not None
    ):
        raise UsageError("give IMAGE and DIR to mount, or only -u DIR to unmount")
    if os.geteuid() != 0:
        raise FlattenError("mounting needs root")
    if args.unmount is not None:
        unmount(Path(args.unmount))
        return 0
    if not os.path.isdir(args.folder):
        raise UsageError(f"{quoted(args.folder)}: not a directory to mount on")
    with tempfile.TemporaryDirectory(prefix="flatten-") as private:
        index = Path(private, "index.erofs")
        how = Options(
            **options.selection(args, options.point(args)),
            verify=args.verify,
            index=True,
            layers=args.layers or Path(private, "layers"),
        )
        done = pipeline.export(args.image, index, how, sync=False)
        for warning in done.warnings:
            options.warn(args, warning)
        mount(index, done.devices or (), Path(args.folder))
    return 0
