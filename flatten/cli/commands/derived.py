"""``flatten derived IMAGE``: the images that were built on an image."""

import argparse

from ...views import ancestry
from .. import options
from . import ancestors

DESCRIPTION = f"""\
List the images that were built on IMAGE, nearest first. The columns are those
of flatten ancestors.

{options.IMAGE}
"""

add_arguments = ancestors.add_arguments


def run(args: argparse.Namespace) -> int:
    """Print the images, and return the exit code."""
    none = "no image was found that was built on this image"
    return ancestors.print_kin(args, ancestry.derived, none)
