"""``flatten which SOURCE PATH``: the layers that a path comes from."""

import argparse
from collections.abc import Iterator
from typing import Final

from ...views.which import EventRow, LayerUse, which
from .. import options
from ..tables import human, one_line, print_json, print_table
from .layers import short

SHOWN: Final = 3  # images per line

DESCRIPTION = f"""\
Find the layers that add, change, delete or hide PATH, with the directories
where they are stored and the images that have them. Only tar headers are read,
once per layer.

{options.SOURCE}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments and options."""
    options.add_source_argument(parser)
    parser.add_argument("path", metavar="PATH", help="a path in the images")
    options.add_source_options(parser)
    parser.add_argument(
        "--verify",
        action="store_true",
        help="check the layers against the digests that the images record",
    )
    parser.set_defaults(parts=True)


def run(args: argparse.Namespace) -> int:
    """Print the layers, and return the exit code."""
    with options.open_source(args) as opened:
        limits = options.limits(args)
        found = which(opened, args.path, limits, verify=args.verify)
    if args.json:
        print_json(found)
        return 0
    for problem in found["problems"]:
        options.warn(args, problem)
    if found["verified"] is not True and found["layers"]:
        how = (
            "verified only by table of contents"
            if found["verified"]
            else "not verified"
        )
        options.note(
            args, f"note: the layers were {how}; --verify checks their digests"
        )
    heads = ("EVENT", "TYPE", ">SIZE", "DIFF ID", ">LAYER", "IMAGES", "WHERE")
    print_table(heads, [line for row in found["layers"] for line in _lines(row)])
    return 0


def _lines(row: EventRow) -> Iterator[tuple[str, ...]]:
    """Yield a line for the images that show the layer's entry, and one for the rest."""
    for visible in (True, False):
        images = [image for image in row["images"] if image["visible"] is visible]
        if images:
            yield _cells(row, images)


def _cells(row: EventRow, images: list[LayerUse]) -> tuple[str, ...]:
    """Return the cells of a line; a star marks content that the images show."""
    where = row["directory"] or row["layer"]
    if row["directory"] and row["entry"] and not row["implied"]:
        where = f"{row['directory']}/{row['entry']}"
    return (
        row["event"] + ("*" if images[0]["visible"] else ""),
        row["type"] or "-",
        "-" if row["size"] is None else human(row["size"]),
        short(row["diff_id"]),
        str(images[0]["position"]),
        one_line(_some(images)),
        one_line(where),
    )


def _some(images: list[LayerUse]) -> str:
    """Return the names of some images, and the number of the others."""
    named = sorted(images, key=lambda image: not image["names"])
    some = [" ".join(image["names"]) or image["id"][:12] for image in named[:SHOWN]]
    more = len(images) - SHOWN
    return " ".join(some) + (f" +{more}" if more > 0 else "")
