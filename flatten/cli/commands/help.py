"""``flatten help [COMMAND]``: the help of a command."""

import argparse

from .. import registry

DESCRIPTION = """\
Print the help of a command, or of flatten itself.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "command",
        metavar="COMMAND",
        nargs="?",
        choices=tuple(registry.COMMANDS),
        help="the command [default: flatten itself]",
    )


def run(args: argparse.Namespace) -> int:
    """Print the help, and return the exit code."""
    registry.build_parser(args.command or registry.MAIN).print_help()
    return 0
