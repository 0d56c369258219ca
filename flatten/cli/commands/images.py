"""``flatten images SOURCE``: the images of an engine's root or an archive."""

import argparse

from ...views.stored import ImageRow, list_images
from .. import options
from ..tables import human, one_line, print_json, print_table, utc

DESCRIPTION = f"""\
List the images of an engine's root or of an archive.

{options.SOURCE}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments and options."""
    options.add_source_argument(parser)
    options.add_source_options(parser)


def run(args: argparse.Namespace) -> int:
    """Print the images, and return the exit code."""
    with options.open_source(args) as opened:
        rows = list_images(opened)
    if args.json:
        print_json(rows)
        return 0
    for row in rows:
        if row["error"] is not None:
            options.warn(args, row["error"])
    if not rows:
        options.note(args, f"{opened.where}: no images")
        return 0
    heads = ["ID", "CREATED", ">SIZE", ">LAYERS", "DRIVER", "NAME"]
    if any(row["namespace"] for row in rows):
        heads.insert(5, "NAMESPACE")
    lines = [(row, name) for row in rows for name in row["names"] or ["-"]]
    print_table(heads, [_cells(row, name, heads) for row, name in lines])
    return 0


def _cells(row: ImageRow, name: str, heads: list[str]) -> list[str]:
    cells = {
        "ID": row["id"][:12] or "-",
        "CREATED": utc(row["created"]),
        ">SIZE": "-" if row["size"] is None else human(row["size"]),
        ">LAYERS": "-" if row["layers"] is None else str(row["layers"]),
        "DRIVER": one_line(row["driver"] or "-"),
        "NAMESPACE": one_line(row["namespace"] or "-"),
        "NAME": one_line(name),
    }
    return [cells[head] for head in heads]
