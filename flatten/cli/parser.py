"""The argument parser: argparse's, with messages on one line that name a remedy."""

import argparse
import os
import re
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, NoReturn

from .messages import fail

if TYPE_CHECKING:
    from _typeshed import SupportsWrite


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Help in 80 columns; asking for the terminal's width would cost 5 ms."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=80)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, as all messages of flatten are."""

    def parse(self, arguments: list[str]) -> argparse.Namespace:
        """Parse the arguments; options may stand anywhere among them.

        Raises:
            SystemExit: Help was printed (code 0), or a usage error (code 2).
        """
        self._refuse_unknown_options(arguments)
        args, more = self.parse_known_intermixed_args(arguments)
        if more:
            self.error(f"unexpected argument {more[0]!r}{self._remedy(args, more[0])}")
        return args

    def _print_message(
        self, message: str, file: "SupportsWrite[str] | None" = None
    ) -> None:
        """Print the help or the version; argparse would ignore that it fails."""
        (sys.stderr if file is None else file).write(message)

    def error(self, message: str) -> NoReturn:
        """Print a usage error and exit with code 2."""
        fail(f"{message} (see {self.prog} --help)")
        self.exit(2)

    def _refuse_unknown_options(self, arguments: Iterable[str]) -> None:
        """Report an unknown option before anything that may be missing because of it.

        Options may be shortened, as argparse allows. An argument with a space is not
        an option to argparse, nor is a negative number.
        """
        for argument in arguments:
            if argument == "--":
                return
            name = argument.partition("=")[0]
            if re.fullmatch(r"--\w[^ ]*", name):
                known = [o for o in self._option_string_actions if o.startswith("--")]
                unknown = not any(option.startswith(name) for option in known)
            else:
                known = []
                unknown = (
                    re.fullmatch(r"-[A-Za-z][^ ]*", argument) is not None
                    and argument[:2] not in self._option_string_actions
                )
                name = name[:2]
            if unknown:
                self.error(f"unknown option {name}{did_you_mean(name, known)}")

    def _remedy(self, args: argparse.Namespace, argument: str) -> str:
        """Return what to write instead of an unexpected argument."""
        if getattr(args, "output", None) != "-":
            return ""
        return f"; to write to it, use -o {argument}"


def refuse_unknown_command(parser: Parser, word: str, commands: Iterable[str]) -> None:
    """Refuse a word that seems to be a command, but is neither one nor a file.

    Raises:
        SystemExit: The word is like a command's name, or another program's command.
    """
    if not re.fullmatch(r"[a-z]+", word) or os.path.lexists(word):
        return
    hint = _ELSEWHERE.get(word)
    if hint is not None:
        parser.error(f"unknown command {word!r}; {hint}")
    hint = did_you_mean(word, commands)
    if hint:
        parser.error(f"unknown command {word!r}{hint}")


_ELSEWHERE = {
    "inspect": "flatten config IMAGE prints the config of an image, and "
    "flatten images SOURCE lists the images of a source",
    "export": "to flatten an image, write flatten IMAGE -o OUT",
    "extract": "to write a directory, use flatten IMAGE -o DIR/",
    "unpack": "to write a directory, use flatten IMAGE -o DIR/",
}
"""Commands of similar programs, and what does their work here."""


_LIKE = 0.7  # how alike words must be, of 1; --cacert and --at are 0.67


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a question that names the closest known word, or "" if none is close."""
    from difflib import get_close_matches  # for an error only

    close = get_close_matches(word, known, n=1, cutoff=_LIKE)
    return f"; did you mean {close[0]}?" if close else ""
