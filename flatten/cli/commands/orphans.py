"""``flatten orphans ROOT``: what lies in an engine's root and nothing needs."""

import argparse

from ...errors import UsageError
from ...views.usage import orphans
from .. import options
from ..messages import say
from ..tables import human, one_line, print_json, print_table

DESCRIPTION = f"""\
List what lies in an engine's root and nothing needs: directories that no list
of layers has, layers that no image and no container has, interrupted removals.
Nothing is removed; while the engine runs, what it is making may be listed.

{options.SOURCE}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add all that this command takes."""
    parser.add_argument("source", metavar="SOURCE", help="which images")
    options.add_source_options(parser)


def run(args: argparse.Namespace) -> int:
    """Print the orphans, and return the exit code."""
    with options.open_source(args) as opened:
        if opened.root is None:
            raise UsageError(f"{opened.where}: not an engine's root")
        rows, problems = orphans(opened)
    if args.json:
        print_json({"orphans": rows, "problems": problems})
        return 0
    for problem in problems:
        say(f"warning: {problem}; what it needs may be listed as needed by nothing")
    if rows:
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
