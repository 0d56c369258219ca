"""The commands by name: one module each, imported only when it is used.

A module has ``DESCRIPTION``, ``add_arguments(parser)`` and ``run(args) -> int``, which
returns the exit code. The main command has no name: ``flatten IMAGE``.
"""

import argparse
from importlib import import_module
from typing import Final, Protocol, cast

from .options import apply_names
from .parser import Formatter, Parser, refuse_unknown_command

COMMANDS: Final = {
    "batch": "flatten many images, and read what they share once",
    "ancestors": "list the images that an image was built on",
    "cat": "print files of the flattened tree",
    "common": "show how many steps and layers two images share",
    "config": "print an image's config document",
    "images": "list the images of an engine's root or an archive",
    "containers": "list the containers of an engine's root",
    "layers": "list an image's layers, and where each is stored",
    "which": "find the layers that a path comes from",
    "users": "find the images and containers that use a layer",
    "orphans": "list unused data in an engine's root",
    "delta": "write the changes made by a range of steps as a layer",
    "derived": "list the images that were built on an image",
    "diff": "compare two images, an image and a tar, or two steps",
    "mount": "mount an image on a directory, without copying it",
    "history": "list the steps that made an image, and their layers",
    "ls": "list the flattened tree, with the layer of each entry",
    "match": "find the image that a build of one more step would reuse",
    "report": "show what takes space in an image, and how much is wasted",
    "verify": "compare a root file system with an image, or with a list",
    "help": "print the help of a command",
    "version": "print the version",
}
"""Each has a module of its name, and its line in the list of the main help."""

HEADINGS: Final = {
    "look into an image": (
        "ls", "cat", "which", "layers", "history", "config", "report",
    ),
    "compare": ("diff", "common", "verify"),
    "which image was built on which": ("ancestors", "derived", "match"),
    "engines' roots and archives": ("images", "containers", "users", "orphans"),
    "make something else": ("batch", "delta", "mount"),
    "about flatten": ("help", "version"),
}  # fmt: skip
"""The groups of commands in the main help, in this order."""

MAIN: Final = "export"
USAGE: Final = """\
flatten IMAGE [-o OUT] [options]
       flatten COMMAND ... [options]"""
EXIT_CODES: Final = """\
exit codes: 0 done; 1 failed (I/O, no space, nothing found); 2 usage; 3 the
image is missing or of an unknown kind; 4 malformed image; 5 digest mismatch;
129, 130, 143 ended by SIGHUP, SIGINT, SIGTERM; 141 the reader of the output
closed the pipe.
"""


class Command(Protocol):
    """A module of ``commands``."""

    DESCRIPTION: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add its arguments and options."""

    def run(self, args: argparse.Namespace) -> int:
        """Run the command, and return the exit code."""


def find(name: str) -> Command:
    """Return the module of a command."""
    return cast("Command", import_module(f".commands.{name}", __package__))


def build_parser(name: str = MAIN) -> Parser:
    """Return the parser of a command; without a name, of the main command."""
    command = find(name)
    parser = Parser(
        prog="flatten" if name == MAIN else f"flatten {name}",
        usage=USAGE if name == MAIN else None,
        description=command.DESCRIPTION,
        epilog=EXIT_CODES if name != MAIN else f"{_listed()}\n{EXIT_CODES}",
        formatter_class=Formatter,
    )
    command.add_arguments(parser)
    return parser


def parse(name: str, arguments: list[str]) -> argparse.Namespace:
    """Parse the arguments of a command.

    Raises:
        SystemExit: Help was printed (code 0), or a usage error (code 2).
        UsageError: A name is given for an image that has one already.
    """
    parser = build_parser(name)
    if name == MAIN and arguments:
        refuse_unknown_command(parser, arguments[0], COMMANDS)
    args = parser.parse(arguments)
    apply_names(args)
    return args


def split(arguments: list[str]) -> tuple[str, list[str]]:
    """Return the command's name, and the arguments after it.

    The name comes first; an image file of such a name is written ``./config``.

    >>> split(["config", "app.tar"]), split(["app.tar", "-o", "config"])
    (('config', ['app.tar']), ('export', ['app.tar', '-o', 'config']))
    """
    if arguments and arguments[0] in COMMANDS:
        return arguments[0], arguments[1:]
    return MAIN, arguments


def _listed() -> str:
    """List the commands for the main help."""
    width = max(map(len, COMMANDS))
    lines = ["other commands, each with --help:"]
    for heading, names in HEADINGS.items():
        lines += ["", f"{heading}:"]
        lines += [f"  flatten {name:{width}}  {COMMANDS[name]}" for name in names]
    return "\n".join([*lines, ""])
