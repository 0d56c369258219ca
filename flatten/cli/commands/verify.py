"""``flatten verify ROOTFS IMAGE``: compare a root file system with its image."""

import argparse
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict

from ...errors import IntegrityError, UsageError, quoted, shown
from ...image.image import Image
from ...image.rootfs import open_rootfs
from ...image.verify import DigestCheck, checking
from ...options import Options
from ...pipeline import plan_image, with_additions
from ...tree.edit import NO_EDITS
from ...views.describe import Row, directory_rows, plan_rows
from ...views.differences import FIELDS, Difference, differences, read_list
from .. import options
from ..tables import print_json_line

DESCRIPTION = f"""\
Compare a root file system (a tar or a directory) with an image, or with a list
that --list-out wrote. Each difference is a line, and the exit code is 5 if
there are any. The image's layers are checked against its digests. With an
image, repeat the options that were used when writing; with a list they are not
needed.

{options.IMAGE}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments and options."""
    parser.add_argument("rootfs", metavar="ROOTFS", help="a tar, or a directory")
    parser.add_argument(
        "image", metavar="IMAGE|LIST", help="the image, or the list, to compare with"
    )
    parser.add_argument(
        "--ignore",
        metavar="FIELD,...",
        default="",
        help=f"do not compare these fields: {', '.join(FIELDS)}",
    )
    options.add_json_option(parser)
    options.add_quiet_option(parser)
    options.add_edit_options(parser)
    group = options.add_input_options(parser)
    options.add_point_arguments(group)
    options.add_verify_option(group)


def run(args: argparse.Namespace) -> int:
    """Print the differences, and return the exit code.

    Raises:
        IntegrityError: There are differences, or a layer of the image does not have
            the digest that the image records.
    """
    ignored = tuple(filter(None, args.ignore.split(",")))
    for field in ignored:
        if field not in FIELDS:
            raise UsageError(
                f"--ignore: unknown field {quoted(field)}; choose from "
                f"{', '.join(FIELDS)}"
            )
    count = 0
    with _rootfs(args) as found, _expected(args) as expected:
        for difference in differences(found, expected, ignored):
            count += 1
            if args.json:
                print_json_line(asdict(difference))
            else:
                print(_line(difference))
    if count:
        raise IntegrityError(
            f"{shown(args.rootfs)}: {count:,} differences from {shown(args.image)}"
        )
    return 0


@contextmanager
def _rootfs(args: argparse.Namespace) -> Iterator[Iterator[Row]]:
    """Open the root file system to compare."""
    if os.path.isdir(args.rootfs):
        yield directory_rows(args.rootfs)
        return
    with open_rootfs(args.rootfs, options.limits(args)) as image:
        yield _rows(image, Options(limits=options.limits(args)))


@contextmanager
def _expected(args: argparse.Namespace) -> Iterator[Iterator[Row]]:
    """Open the image, or the list: it is empty or begins with a brace."""
    with ExitStack() as stack:
        if os.path.isfile(args.image):
            file = stack.enter_context(
                open(args.image, encoding="utf-8", errors="surrogateescape")
            )
            if file.read(1) in ("{", ""):
                file.seek(0)
                _refuse_edits(args)
                yield read_list(file, args.image)
                return
        how = Options(
            limits=options.limits(args),
            edits=options.edits(args),
            mtime=options.parse_mtime(args.mtime),
        )
        image = stack.enter_context(options.open_image(args, at=options.point(args)))
        check = stack.enter_context(checking(image.layers if args.verify else ()))
        yield _checked(_rows(image, how), check)


def _refuse_edits(args: argparse.Namespace) -> None:
    """Refuse edits along with a list, which already reflects them.

    Raises:
        UsageError: An edit is requested.
    """
    if options.edits(args) != NO_EDITS or args.mtime is not None:
        raise UsageError(
            "selection and edits have no effect with a list, which reflects them"
        )


def _rows(image: Image, how: Options) -> Iterator[Row]:
    image = with_additions(image, how)
    plan = plan_image(image, how)
    layers = [layer.open() for layer in (*image.layers, *image.added)]
    return plan_rows(plan, layers, len(image.layers))


def _checked(rows: Iterator[Row], check: DigestCheck) -> Iterator[Row]:
    """Yield all rows, and end when the digests are checked too."""
    check.start_rest()
    yield from rows
    check.finish()


def _line(difference: Difference) -> str:
    path = shown(difference.path)
    if difference.field in ("missing", "extra"):
        return f"{difference.field}: {path}"
    found, expected = difference.found, difference.expected
    return f"changed: {path}: {difference.field} {found!r}, expected {expected!r}"
