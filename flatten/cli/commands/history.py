"""``flatten history IMAGE``: the steps that made an image, and their layers."""

import argparse

from ...tar.members import Members
from ...views.reading import LayerReader
from ...views.steps import StepRow, list_steps
from .. import options
from ..messages import say
from ..tables import human, one_line, print_json, print_table

DESCRIPTION = f"""\
List the steps that made an image, oldest first, each with the layer that it
made and what that adds.

{options.IMAGE}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add all that this command takes."""
    options.add_image_argument(parser)
    options.add_json_option(parser)
    options.add_cache_options(options.add_input_options(parser))


def run(args: argparse.Namespace) -> int:
    """Print the steps, and return the exit code."""
    with options.open_image(args) as image:
        members = Members(limit=options.limits(args).members)
        reader = LayerReader(options.cache(args), options.verify(args))
        layers = list(reader.read(image, members))
        history, rows = list_steps(image, members, layers)
        if args.json:
            problem = history.problem or None
            print_json({"id": image.id, "names": image.names, "problem": problem,
                        "verified": all(reader.checked), "steps": rows})  # fmt: skip
            return 0
        options.say_unverified(args, image, reader.checked)
    if history.problem:
        say(f"warning: {image.source}: {history.problem}; which step made which layer "
            "cannot be told")  # fmt: skip
    heads = (">STEP", ">LAYER", "CREATED", ">SIZE", "DIFF ID", "COMMAND")
    print_table(heads, map(_cells, rows))
    return 0


def _cells(row: StepRow) -> tuple[str, ...]:
    return (
        str(row["step"] or "-"),
        str(row["layer"] or "-"),
        one_line((row["created"] or "-")[:19]),
        "-" if row["layer"] is None else human(row["size"]),
        (row["diff_id"] or "-").removeprefix("sha256:")[:12],
        one_line(row["created_by"] or row["comment"] or "-"),
    )
