"""``flatten delta IMAGE``: what some steps add, as a layer that goes on top."""

import argparse
from dataclasses import replace

from ...image.history import Point
from .. import options
from . import export

DESCRIPTION = f"""\
Write what the steps after one add to it, as one layer: a tar with OCI
whiteouts, which any engine applies on top of the layers before.

{options.IMAGE}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add all that this command takes."""
    export.add_writing_arguments(parser, format="pax")  # as layers are
    group = parser.add_argument_group("range, from the first step if not given")
    options.add_since_arguments(group, "only what is new since")


def run(args: argparse.Namespace) -> int:
    """Write the delta, and return the exit code."""
    since = options.since(args) or Point(layer=0)
    how = replace(export.read_options(args), since=since)
    return export.write(args, args.output, how)
