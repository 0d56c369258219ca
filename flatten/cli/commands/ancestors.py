"""``flatten ancestors IMAGE``: the images that an image was built on."""

import argparse
from collections.abc import Callable, Iterable

from ...image.image import Image
from ...views import ancestry
from ...views.ancestry import Relative
from .. import options
from ..tables import one_line, print_json, print_table

DESCRIPTION = f"""\
List the images that IMAGE was built on, nearest first. HOW says how that is
known: parent (docker recorded it), history (the first steps and layers are the
same) or layers (the first layers are the same).

{options.IMAGE}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments and options."""
    options.add_image_argument(parser)
    options.add_among_option(parser)
    options.add_json_option(parser)
    options.add_quiet_option(parser)
    options.add_input_options(parser)


def run(args: argparse.Namespace) -> int:
    """Print the images, and return the exit code."""
    none = "no image was found that this image was built on"
    return print_kin(args, ancestry.ancestors, none)


def print_kin(
    args: argparse.Namespace,
    find: Callable[[Image, Iterable[Image]], list[Relative]],
    none: str,
) -> int:
    """Print the images that ``find`` returns, and return the exit code.

    Args:
        args: The parsed arguments.
        find: Selects the related images among those of the sources.
        none: A sentence to print if there are none.
    """
    with options.open_among(args) as others, options.open_image(args) as image:
        found = find(image, others)
    if args.json:
        print_json(
            [
                {
                    "id": relative.image.id,
                    "names": relative.image.names,
                    "how": relative.how,
                    "source": relative.image.source,
                    "layers": len(relative.image.layers),
                    "steps": len(relative.image.config.get("history") or []),
                }
                for relative in found
            ]
        )
        return 0
    if not found:
        options.note(args, none)
        return 0
    print_table(
        ("ID", "HOW", ">LAYERS", "NAMES"),
        [
            (
                relative.image.id[:12],
                relative.how,
                str(len(relative.image.layers)),
                one_line(" ".join(relative.image.names)) or "-",
            )
            for relative in found
        ],
    )
    return 0
