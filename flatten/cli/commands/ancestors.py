"""``flatten ancestors IMAGE``: the images that one was built on."""

import argparse
from collections.abc import Callable, Iterable

from ...image.image import Image
from ...views import ancestry
from ...views.ancestry import Kin
from .. import options
from ..tables import one_line, print_json, print_table

DESCRIPTION = f"""\
List the images that one was built on, the nearest first, and how that is known:
by docker's record of the parent, by steps and layers that are its first ones
(history), or by the layers alone.

{options.IMAGE}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add all that this command takes."""
    options.add_image_argument(parser)
    options.add_among_option(parser)
    options.add_json_option(parser)
    options.add_input_options(parser)


def run(args: argparse.Namespace) -> int:
    """Print the images, and return the exit code."""
    return print_kin(args, ancestry.ancestors)


def print_kin(
    args: argparse.Namespace, find: Callable[[Image, Iterable[Image]], list[Kin]]
) -> int:
    """Print the images that ``find`` finds, and return the exit code."""
    with options.open_among(args) as others, options.open_image(args) as image:
        found = find(image, others)
    if args.json:
        print_json(
            [
                {
                    "id": kin.image.id,
                    "names": kin.image.names,
                    "how": kin.how,
                    "source": kin.image.source,
                    "layers": len(kin.image.layers),
                    "steps": len(kin.image.config.get("history") or []),
                }
                for kin in found
            ]
        )
        return 0
    print_table(
        ("ID", "HOW", ">LAYERS", "NAMES"),
        [
            (
                kin.image.id[:12],
                kin.how,
                str(len(kin.image.layers)),
                one_line(" ".join(kin.image.names)) or "-",
            )
            for kin in found
        ],
    )
    return 0
