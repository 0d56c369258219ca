"""``flatten version``: the version, as --version."""

import argparse

from ... import __version__

DESCRIPTION = """\
Print the version.
"""


def add_arguments(_parser: argparse.ArgumentParser) -> None:
    """Add nothing: the command takes no arguments."""


def run(_args: argparse.Namespace) -> int:
    """Print the version, and return the exit code."""
    print(f"flatten {__version__}")
    return 0
