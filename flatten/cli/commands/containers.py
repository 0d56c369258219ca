"""``flatten containers SOURCE``: the containers of an engine's root."""

import argparse

from ...views.stored import list_containers
from .. import options
from ..tables import one_line, print_json, print_table

DESCRIPTION = f"""\
List the containers of an engine's root. To read the tree of one, name it as
'ROOT#container:NAME' where a command takes an IMAGE.

{options.SOURCE}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments and options."""
    options.add_source_argument(parser)
    options.add_source_options(parser)


def run(args: argparse.Namespace) -> int:
    """Print the containers, and return the exit code."""
    with options.open_root(args) as opened:
        rows = list_containers(opened)
    if args.json:
        print_json(rows)
        return 0
    if not rows:
        options.note(args, f"{opened.where}: no containers")
        return 0
    print_table(
        ("ID", "DRIVER", "NAME"),
        [
            (row["id"][:12], one_line(row["driver"]), one_line(name))
            for row in rows
            for name in row["names"] or ["-"]
        ],
    )
    return 0
