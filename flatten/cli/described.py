"""All commands and their options as plain data, from the parsers that read them."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ..views.differences import FIELDS
from . import registry

FILES: Final = frozenset((
    "IMAGE", "IMAGE|LIST", "A", "B", "ROOTFS", "SOURCE", "OUT", "DIR", "FILE",
    "HOSTPATH:PATH",
))  # fmt: skip
"""Metavars of arguments that are, or begin with, a file of the host."""

WORDS: Final = {
    "--compress": ("gzip", "zstd", "xz", "lz4", "lz4hc", "none"),
    "--ownership": ("keep", "current", "map:"),
    "--only": FIELDS,
    "--ignore": FIELDS,
}
"""Values to complete, of options whose values the parser does not list."""

LISTS: Final = frozenset(("--only", "--ignore"))
"""Options that take several of their words, separated by commas."""


@dataclass(frozen=True, slots=True)
class Option:
    """An option, or a positional argument.

    Attributes:
        names: The option's names; empty for a positional argument.
        metavar: The name of its value in the help; "" if it takes none.
        words: Values to complete: all that it takes, or the usual ones.
        help: Its text in the help.
        many: It may be given more than once.
    """

    names: tuple[str, ...]
    metavar: str
    words: tuple[str, ...]
    help: str
    many: bool

    @property
    def takes_file(self) -> bool:
        """Return True if the value can be a file of the host."""
        return self.metavar in FILES

    @property
    def takes_list(self) -> bool:
        """Return True if the value is a list of words, separated by commas."""
        return not LISTS.isdisjoint(self.names)


@dataclass(frozen=True, slots=True)
class Group:
    """A group of options in the help."""

    title: str
    options: tuple[Option, ...]


@dataclass(frozen=True, slots=True)
class Described:
    """A command.

    Attributes:
        name: Its name; "" for the main command.
        summary: Its line in the list of commands.
        usage: Its usage, on one line.
        description: The description in its help.
        groups: Its options, in the order of its help.
    """

    name: str
    summary: str
    usage: str
    description: str
    groups: tuple[Group, ...]

    def options(self) -> Iterator[Option]:
        """Yield its options and its positional arguments."""
        for group in self.groups:
            yield from group.options


def describe() -> list[Described]:
    """Return all commands, the main command first."""
    found = [_described("", "flatten an image into one tar", registry.MAIN)]
    found += [_described(name, text, name) for name, text in registry.COMMANDS.items()]
    return found


def _described(name: str, summary: str, module: str) -> Described:
    parser = registry.build_parser(module)
    groups = [
        Group(group.title or "", tuple(map(_option, group._group_actions)))  # noqa: SLF001
        for group in parser._action_groups  # noqa: SLF001 - argparse has no other access
    ]
    words = [_word(action) for action in parser._get_positional_actions()]  # noqa: SLF001
    usage = " ".join(filter(None, ("flatten", name, *words, "[options]")))
    return Described(
        name,
        summary,
        usage,
        parser.description or "",
        tuple(group for group in groups if group.options),
    )


def _word(action: argparse.Action) -> str:
    """Return a positional argument as a usage shows it."""
    forms = {"?": "[{}]", "*": "[{}...]", "+": "{}..."}
    return forms.get(str(action.nargs), "{}").format(action.metavar or action.dest)


def _option(action: argparse.Action) -> Option:
    names = tuple(action.option_strings)
    choices = tuple(map(str, action.choices or ()))
    metavar = str(action.metavar or action.dest.upper())
    if choices and names:
        metavar = "|".join(choices)
    usual = [word for name in names for word in WORDS.get(name, ())]
    return Option(
        names=names,
        metavar="" if action.nargs == 0 else metavar,
        words=choices or tuple(usual),
        help=(action.help or "").replace("%%", "%"),
        many=action.nargs in ("*", "+") or isinstance(action, argparse._AppendAction),  # noqa: SLF001
    )
