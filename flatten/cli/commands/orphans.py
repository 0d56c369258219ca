"""``flatten orphans SOURCE``: the unused data in an engine's root."""

import argparse

from ...views.usage import orphans
from .. import options
from ..tables import human, one_line, print_json, print_table

DESCRIPTION = f"""\
List the unused data in an engine's root: directories that no layer record
names, layers that no image and no container uses, and interrupted removals.
Nothing is removed. While the engine runs, data that it is writing may be
listed too.

{options.SOURCE}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments and options."""
    options.add_source_argument(parser)
    options.add_source_options(parser)


def run(args: argparse.Namespace) -> int:
    """Print the orphans, and return the exit code."""
    with options.open_root(args) as opened:
        rows, problems = orphans(opened)
    if args.json:
        print_json({"orphans": rows, "problems": problems})
        return 0
    for problem in problems:
        options.warn(args, f"{problem}; files that it needs may be listed as orphans")
    if not rows:
        options.note(args, f"{opened.where}: no orphans")
        return 0
    print_table(
        (">SIZE", "KIND", "PATH", "WHY"),
        [
            (
                "-" if row["size"] is None else human(row["size"]),
                row["kind"],
                one_line(row["path"]),
                row["why"],
            )
            for row in rows
        ],
    )
    return 0
