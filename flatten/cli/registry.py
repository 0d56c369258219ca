"""The commands by name: one module each, imported only when it is the one.

A module has ``DESCRIPTION``, ``add_arguments(parser)`` and ``run(args) -> int``, the
exit code. The main job has no name: ``flatten IMAGE``.
"""

import argparse
from importlib import import_module
from typing import Final, Protocol, cast

from .options import Formatter

COMMANDS: Final = {
    "ancestors": "list the images that one was built on",
    "cat": "print files of the flattened tree",
    "common": "say what two images have in common",
    "config": "print an image's config document",
    "images": "list the images of an engine's root or an archive",
    "layers": "list an image's layers, and where each lies",
    "which": "say which layers a path comes from",
    "users": "say which images and containers use a layer",
    "orphans": "list what nothing needs in an engine's root",
    "delta": "write what some steps add, as a layer",
    "derived": "list the images that were built on one",
    "diff": "compare two images, an image and a tar, or two steps",
    "history": "list the steps that made an image, and their layers",
    "ls": "list the flattened tree, with the layer of each entry",
    "match": "say which image a build of one more step would reuse",
    "report": "show what is in an image, and what of it is in vain",
    "verify": "compare a root file system with an image, or with a list",
}
"""Each has a module called after it, and this in the list of the main help."""

HEADINGS: Final = {
    "look into an image": (
        "ls", "cat", "which", "layers", "history", "config", "report",
    ),
    "compare": ("diff", "common", "verify"),
    "which image was built on which": ("ancestors", "derived", "match"),
    "engines' roots and archives": ("images", "users", "orphans"),
    "make something else": ("delta",),
}  # fmt: skip
"""Which commands the main help lists together, in this order."""

MAIN: Final = "export"
USAGE: Final = """\
flatten IMAGE [-o OUT] [options]
       flatten COMMAND ... [options]"""
EXIT_CODES: Final = """\
exit codes: 0 done, 1 failed (I/O, no space), 2 usage, 3 image missing or of no
known kind, 4 malformed image, 5 digest mismatch, 130 interrupted, 141 the
reader of the output closed the pipe.
"""


class Command(Protocol):
    """A module of this package that is a command."""

    DESCRIPTION: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add what it takes."""

    def run(self, args: argparse.Namespace) -> int:
        """Do it, and return the exit code."""


def find(name: str) -> Command:
    """Return the module of a command."""
    return cast("Command", import_module(f".commands.{name}", __package__))


def build_parser(name: str = MAIN) -> argparse.ArgumentParser:
    """Return the parser of a command, or of the main job."""
    command = find(name)
    parser = argparse.ArgumentParser(
        prog="flatten" if name == MAIN else f"flatten {name}",
        usage=USAGE if name == MAIN else None,
        description=command.DESCRIPTION,
        epilog=EXIT_CODES if name != MAIN else f"{_listed()}\n{EXIT_CODES}",
        formatter_class=Formatter,
    )
    command.add_arguments(parser)
    return parser


def split(arguments: list[str]) -> tuple[str, list[str]]:
    """Return the command that arguments are for, and the arguments left.

    Its name comes first; a file with such a name is written ``./config``.

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
