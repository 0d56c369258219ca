"""``flatten help [COMMAND]``: the help of a command."""

import argparse

from ...errors import UsageError, quoted
from .. import registry
from ..parser import did_you_mean

DESCRIPTION = """\
Print the help of a command, or of flatten itself.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "command",
        metavar="COMMAND",
        nargs="?",
        help="the command [default: flatten itself]",
    )


def run(args: argparse.Namespace) -> int:
    """Print the help, and return the exit code."""
    name = args.command or registry.MAIN
    if args.command is not None and name not in registry.COMMANDS:
        hint = did_you_mean(name, registry.COMMANDS)
        raise UsageError(f"unknown command {quoted(name)}{hint} (see flatten help)")
    registry.build_parser(name).print_help()
    return 0
