"""``flatten derived IMAGE``: the images that were built on one."""

import argparse

from ...views import ancestry
from .. import options
from . import ancestors

DESCRIPTION = f"""\
List the images that were built on one, the nearest first, and how that is
known: as flatten ancestors does.

{options.IMAGE}
"""

add_arguments = ancestors.add_arguments


def run(args: argparse.Namespace) -> int:
    """Print the images, and return the exit code."""
    return ancestors.print_kin(args, ancestry.derived)
