"""``flatten common A B``: the steps and layers that two images share."""

import argparse

from ...views.ancestry import common
from .. import options
from ..tables import print_json

DESCRIPTION = f"""\
Show how many steps and layers two images share, from the beginning: by history,
the steps that are the same and made the same layers; by layers, the layers that
are the same, whatever the histories say.

{options.IMAGE}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments and options."""
    parser.add_argument("image", metavar="A", help="the first image")
    parser.add_argument("other", metavar="B", help="the second image")
    options.add_json_option(parser)
    options.add_quiet_option(parser)
    options.add_input_options(parser)


def run(args: argparse.Namespace) -> int:
    """Print the counts, and return the exit code."""
    with options.open_image(args) as one, options.open_image(args, args.other) as two:
        found = common(one, two)
        same = [layer.diff_id for layer in one.layers[: found.layers]]
    by = "layers" if found.layers > found.step_layers else "history"
    if args.json:
        print_json(
            {
                "steps": found.steps,
                "step_layers": found.step_layers,
                "layers": found.layers,
                "diff_ids": same,
                "by": by if found.layers or found.steps else None,
            }
        )
        return 0
    print(
        f"by history: {_count(found.steps, 'step')} with "
        f"{_count(found.step_layers, 'layer')}"
    )
    print(f"by layers: {_count(found.layers, 'layer')}")
    return 0


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
