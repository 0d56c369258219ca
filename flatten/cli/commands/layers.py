"""``flatten layers IMAGE``: the layers of an image, and where each is stored."""

import argparse

from ...views.stored import LayerRow, list_layers
from .. import options
from ..tables import human, one_line, print_json, print_table

DESCRIPTION = f"""\
List the layers of an image, oldest first: their ids, their sizes, the step of
the history that made each, and the directory where it is stored.

{options.IMAGE}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments and options."""
    options.add_image_argument(parser)
    options.add_json_option(parser)
    options.add_quiet_option(parser)
    options.add_input_options(parser)


def run(args: argparse.Namespace) -> int:
    """Print the layers, and return the exit code."""
    with options.open_image(args) as image:
        rows = list_layers(image)
        if args.json:
            print_json({"id": image.id, "names": image.names, "layers": rows})
            return 0
    if not rows:
        options.note(args, f"{image.source}: the image has no layers")
        return 0
    heads = (
        ">#",
        "DIFF ID",
        "CHAIN ID",
        "CACHE ID",
        ">STORED",
        ">TAR",
        ">STEP",
        "DIRECTORY",
    )
    print_table(heads, map(_cells, rows))
    return 0


def _cells(row: LayerRow) -> tuple[str, ...]:
    return (
        str(row["position"]),
        *map(short, (row["diff_id"], row["chain_id"], row["cache_id"])),
        "-" if row["stored"] is None else human(row["stored"]),
        human(row["size"]),
        str(row["step"] or "-"),
        one_line(row["directory"] or "-"),
    )


def short(name: str | None) -> str:
    """Return the first twelve digits of an id."""
    return one_line((name or "-").removeprefix("sha256:")[:12])
