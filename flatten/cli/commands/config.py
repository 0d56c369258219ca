"""``flatten config IMAGE``: what an export loses, the environment and the command."""

import argparse
import json

from .. import options

DESCRIPTION = f"""\
Print the config document of an image: its environment, entrypoint, user, labels
and history, as JSON.

{options.IMAGE}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add all that this command takes."""
    options.add_image_argument(parser)
    options.add_point_arguments(options.add_input_options(parser))


def run(args: argparse.Namespace) -> int:
    """Print the config, and return the exit code."""
    with options.open_image(args, at=options.point(args)) as image:
        print(json.dumps(image.config, indent=2))
    return 0
