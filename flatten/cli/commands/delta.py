"""``flatten delta IMAGE``: the changes made by a range of steps, as a layer."""

import argparse
from dataclasses import replace

from ...image.history import Point
from .. import options
from . import export

DESCRIPTION = f"""\
Write the changes made by the steps after --from as one layer: a tar with OCI
whiteouts, which any engine applies on top of the layers up to that step.

{options.IMAGE}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments and options."""
    options.add_image_argument(parser)
    group = parser.add_argument_group("range [default: from the first step]")
    options.add_since_arguments(group, "only the changes after")
    export.add_output_options(parser, "pax")  # as in layers
    export.add_reading_options(parser)


def run(args: argparse.Namespace) -> int:
    """Write the delta, and return the exit code."""
    since = options.since(args) or Point(layer=0)
    how = replace(export.read_options(args), since=since)
    return export.write(args, args.output, how)
