"""``flatten cat IMAGE PATH...``: the contents of files."""

import argparse
import sys

from ...errors import FlattenError, quoted
from ...image.verify import checking
from ...tar.members import FILE
from ...views.listing import lookup
from ...views.reading import Verify, fetches_parts
from .. import options
from ..tables import print_bytes

DESCRIPTION = f"""\
Print the contents of files of the flattened tree. Symlinks are followed inside
the tree, as in a container.

{options.IMAGE}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments and options."""
    options.add_image_argument(parser)
    parser.add_argument("paths", metavar="PATH", nargs="+", help="the files")
    options.add_tree_options(parser)


def run(args: argparse.Namespace) -> int:
    """Print the files, and return the exit code."""
    verify = options.verify(args)
    if not args.use_cache and not args.verify:
        verify = Verify.NONE  # below, of the layers that are read only
    with options.open_tree(args, verify) as (index, contents):
        inodes = [lookup(index, path) for path in args.paths]
        for path, inode in zip(args.paths, inodes, strict=True):
            if index.members.kinds[inode] != FILE:
                raise FlattenError(f"{quoted(path)} is not a regular file")
        used = {index.members.layers[inode] for inode in inodes}
        layers = contents.image.layers
        wanted = [
            at
            for at in sorted(used)
            if args.verify is not False
            and not index.checked[at]
            and (args.verify or not fetches_parts(layers[at]))
        ]
        with checking([layers[at] for at in wanted]) as check:
            check.start_rest()
            for inode in inodes:
                for data in contents.read(inode):
                    print_bytes(data)
            sys.stdout.flush()
            check.finish()
        checked = [
            index.checked[at] or at in wanted or at not in used
            for at in range(len(layers))
        ]
        options.say_unverified(args, contents.image, checked)
    return 0
