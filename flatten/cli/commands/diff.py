"""``flatten diff A [B]``: the differences between two trees."""

import argparse
import os
from contextlib import ExitStack
from typing import Any

from ...errors import UsageError, quoted
from ...image.history import cut
from ...views.describe import describe
from ...views.differences import CONTENT, FIELDS
from ...views.trees import Change, Side, compare
from .. import options
from ..tables import iso_time, one_line, print_json, print_lines, show_name

DESCRIPTION = f"""\
Compare two trees: of two images, of an image and a tar of a tree, or of two
steps of one image (without B). Each line is a path that only A has (-), that
only B has (+), or that differs (~), and how. The exit code is 1 if they differ.

{options.IMAGE}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments and options."""
    parser.add_argument("image", metavar="A", help="an image, or a tar of a tree")
    parser.add_argument(
        "other",
        metavar="B",
        nargs="?",
        help="likewise; rootfs:PATH if the tar of a tree looks like an image "
        "[default: A]",
    )
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="print JSON")
    shape.add_argument(
        "-q",
        "--quiet",
        action="store_true",
        help="print nothing; only set the exit code",
    )
    group = parser.add_argument_group("fields and paths to compare")
    group.add_argument(
        "--only",
        metavar="FIELDS",
        type=parse_fields,
        default=FIELDS,
        help=f"only these fields, separated by commas: {', '.join(FIELDS)}",
    )
    group.add_argument(
        "--ignore",
        metavar="FIELDS",
        type=parse_fields,
        default=(),
        help="all fields except these",
    )
    group.add_argument(
        "--only-content",
        action="store_const",
        dest="only",
        const=CONTENT,
        help=f"only names and contents: --only {','.join(CONTENT)}",
    )
    group.add_argument(
        "--path",
        metavar="PATTERN",
        action="append",
        default=[],
        dest="paths",
        help="only the paths that match PATTERN; may be repeated",
    )
    group = options.add_input_options(parser)
    options.add_since_arguments(group, "A as of")
    options.add_point_arguments(group, "B")
    options.add_cache_options(group)


def parse_fields(listed: str) -> tuple[str, ...]:
    """Parse names of fields, separated by commas.

    Raises:
        argparse.ArgumentTypeError: A name is not one of ``FIELDS``.
    """
    found = tuple(listed.split(","))
    for name in found:
        if name not in FIELDS:
            known = ", ".join(FIELDS)
            raise argparse.ArgumentTypeError(
                f"unknown field {quoted(name)}; choose from {known}"
            )
    return found


def run(args: argparse.Namespace) -> int:
    """Print the differences; return 1 if there are any, else 0."""
    since, at = options.since(args), options.point(args)
    fields = [name for name in args.only if name not in args.ignore]
    with ExitStack() as opened:
        first = opened.enter_context(options.open_image_or_tar(args, args.image))
        second = first
        if args.other is not None:
            second = opened.enter_context(options.open_image_or_tar(args, args.other))
        elif since is None and at is None:
            raise UsageError(
                "nothing to compare with: give a second image, or --from STEP"
            )
        sides = (
            Side(*options.read_tree(args, cut(first, since))),
            Side(*options.read_tree(args, cut(second, at))),
        )
        changes = compare(*sides, fields, args.paths)
        if args.json:
            print_json([_document(change, sides) for change in changes])
        elif not args.quiet:
            print_lines(map(_line, changes))
        for side in sides if second is not first else sides[1:]:
            options.say_unverified(args, side.contents.image, side.index.checked)
    return 1 if changes else 0


def _line(change: Change) -> str:
    sign = "+" if change.before is None else "-" if change.after is None else "~"
    name = show_name(change.path)
    if not change.fields:
        return f"{sign} {name}"
    shown = [
        f"{field} {_value(field, before)} -> {_value(field, after)}"
        for field, (before, after) in change.fields.items()
    ]
    return f"{sign} {name}: {', '.join(shown)}"


def _value(field: str, value: Any) -> str:
    """Return a value on one line."""
    if field == "mtime":
        return iso_time(value)
    if isinstance(value, dict):
        value = ",".join(f"{key}={item}" for key, item in value.items())
    return one_line(str(value)) if value not in (None, "") else "none"


def _document(change: Change, sides: tuple[Side, Side]) -> dict[str, Any]:
    """Return a change for JSON: the rows of both sides, and the fields that differ."""
    rows = zip(("before", "after"), (change.before, change.after), sides, strict=True)
    described = {
        key: None if row is None else describe(side.index.members, *row)
        for key, row, side in rows
    }
    path = os.fsdecode(change.path.removeprefix(b"./").rstrip(b"/"))
    document = {"path": path, **described, "fields": change.fields}
    states = {side.index.verified for side in sides}
    if states == {True}:
        return document
    return document | {"verified": False if False in states else "toc"}
