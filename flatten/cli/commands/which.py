"""``flatten which SOURCE PATH``: the layers that a path comes from."""

import argparse
from collections.abc import Iterator
from typing import Final

from ...views.which import EventRow, ImageUse, which
from .. import options
from ..messages import say
from ..tables import human, one_line, print_json, print_table
from .layers import short

SHOWN: Final = 3  # images on a line

DESCRIPTION = f"""\
Say which layers add, change, delete or hide a path, where they lie, and which
images have them. Of layers only headers are read, of each once.

{options.SOURCE}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add all that this command takes."""
    parser.add_argument("source", metavar="SOURCE", help="which images")
    parser.add_argument("path", metavar="PATH", help="in the images")
    options.add_source_options(parser)
    parser.add_argument(
        "--verify", action="store_true",
        help="check the layers against the digests that the images record",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Print the layers, and return the exit code."""
    with options.open_source(args) as opened:
        limits = options.limits(args)
        found = which(opened, args.path, limits, verify=args.verify)
    if args.json:
        print_json(found)
        return 0
    for problem in found["problems"]:
        say(f"warning: {problem}")
    heads = ("EVENT", "TYPE", ">SIZE", "DIFF ID", ">LAYER", "IMAGES", "WHERE")
    print_table(heads, [line for row in found["layers"] for line in _lines(row)])
    return 0


def _lines(row: EventRow) -> Iterator[tuple[str, ...]]:
    """Yield a line for the images that show what a layer has, and one for others."""
    for visible in (True, False):
        images = [image for image in row["images"] if image["visible"] is visible]
        if images:
            yield _cells(row, images)


def _cells(row: EventRow, images: list[ImageUse]) -> tuple[str, ...]:
    """Return a line; one whose content the images show has a star."""
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


def _some(images: list[ImageUse]) -> str:
    """Return some of the images' names, and how many images more there are."""
    named = sorted(images, key=lambda image: not image["names"])
    some = [" ".join(image["names"]) or image["id"][:12] for image in named[:SHOWN]]
    more = len(images) - SHOWN
    return " ".join(some) + (f" +{more}" if more > 0 else "")
