"""``flatten history IMAGE``: the steps that made an image, and their layers."""

import argparse
from dataclasses import asdict

from ...tar.members import Members
from ...views.reading import LayerReader, verified
from ...views.steps import StepRow, list_steps
from .. import options
from ..tables import human, one_line, print_json, print_table, utc

DESCRIPTION = f"""\
List the steps that made an image, oldest first, each with the layer that it
made and the size of the files in that layer.

{options.IMAGE}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments and options."""
    options.add_image_argument(parser)
    options.add_json_option(parser)
    options.add_quiet_option(parser)
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
            print_json(
                {
                    "id": image.id,
                    "names": image.names,
                    "problem": problem,
                    "verified": verified(image.layers, reader.checked),
                    "transfer": image.transfer and asdict(image.transfer()),
                    "steps": rows,
                }
            )
            return 0
        options.say_unverified(args, image, reader.checked)
    if history.problem:
        options.warn(args, f"{image.source}: {history.problem}")
    if not rows:
        options.note(args, f"{image.source}: the image has no steps and no layers")
        return 0
    heads = (">STEP", ">LAYER", "CREATED", ">SIZE", "DIFF ID", "COMMAND")
    print_table(heads, map(_cells, rows))
    return 0


def _cells(row: StepRow) -> tuple[str, ...]:
    return (
        str(row["step"] or "-"),
        str(row["layer"] or "-"),
        utc(row["created"]),
        "-" if row["layer"] is None else human(row["size"]),
        (row["diff_id"] or "-").removeprefix("sha256:")[:12],
        one_line(row["created_by"] or row["comment"] or "-"),
    )
