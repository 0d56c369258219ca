"""``flatten help [COMMAND]``: the help of a command."""

import argparse

from ...errors import quoted
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
        type=_command,
        choices=tuple(registry.COMMANDS),
        help="the command [default: flatten itself]",
    )


def run(args: argparse.Namespace) -> int:
    """Print the help, and return the exit code."""
    registry.build_parser(args.command or registry.MAIN).print_help()
    return 0


def _command(name: str) -> str:
    """Return the name of a command.

    Raises:
        ArgumentTypeError: There is no such command.
    """
    if name not in registry.COMMANDS:
        hint = did_you_mean(name, registry.COMMANDS)
        raise argparse.ArgumentTypeError(f"unknown command {quoted(name)}{hint}")
    return name
