"""``flatten config IMAGE``: the image's config, which a root file system lacks."""

import argparse
import json

from .. import options

DESCRIPTION = f"""\
Print the config document of an image as JSON: its environment, entrypoint,
user, labels and history.

{options.IMAGE}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments and options."""
    options.add_image_argument(parser)
    options.add_quiet_option(parser)
    options.add_point_arguments(options.add_input_options(parser))


def run(args: argparse.Namespace) -> int:
    """Print the config, and return the exit code."""
    with options.open_image(args, at=options.point(args)) as image:
        print(json.dumps(image.config, indent=2))
    return 0
