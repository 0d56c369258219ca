"""All commands and their options as plain data, from the parsers that read them."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from . import registry

FILES: Final = frozenset((
    "IMAGE", "IMAGE|LIST", "A", "B", "ROOTFS", "SOURCE", "OUT", "DIR", "FILE", "LIST",
    "PATH=FILE",
))  # fmt: skip
"""Metavars of what is, or begins with, a file of the host."""


@dataclass(frozen=True, slots=True)
class Option:
    """An option, or an argument without a name.

    Attributes:
        names: As typed; none of an argument.
        metavar: What it takes; "" if nothing.
        choices: The words that it takes, where these are few.
        help: A sentence, in the voice of ``--help``.
        many: It may be repeated.
    """

    names: tuple[str, ...]
    metavar: str
    choices: tuple[str, ...]
    help: str
    many: bool

    @property
    def takes_file(self) -> bool:
        """Say whether a file of the host may be meant."""
        return self.metavar in FILES


@dataclass(frozen=True, slots=True)
class Group:
    """Options that belong together."""

    title: str
    options: tuple[Option, ...]


@dataclass(frozen=True, slots=True)
class Described:
    """A command.

    Attributes:
        name: "" of the main job.
        summary: Its line in the list of commands.
        usage: What is typed, in one line.
        description: As in ``--help``.
        groups: In the order of ``--help``.
    """

    name: str
    summary: str
    usage: str
    description: str
    groups: tuple[Group, ...]

    def options(self) -> Iterator[Option]:
        """Yield its options and arguments."""
        for group in self.groups:
            yield from group.options


def describe() -> list[Described]:
    """Return all commands, the main job first."""
    found = [_described("", "flatten an image into one tar", registry.MAIN)]
    found += [_described(name, text, name) for name, text in registry.COMMANDS.items()]
    return found


def _described(name: str, summary: str, module: str) -> Described:
    parser = registry.build_parser(module)
    groups = [
        Group(group.title or "", tuple(map(_option, group._group_actions)))  # noqa: SLF001
        for group in parser._action_groups  # noqa: SLF001 - argparse shows them to no one
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
    """Return an argument as usages show it."""
    forms = {"?": "[{}]", "*": "[{}...]", "+": "{}..."}
    return forms.get(str(action.nargs), "{}").format(action.metavar or action.dest)


def _option(action: argparse.Action) -> Option:
    takes = action.nargs != 0
    metavar = action.metavar or (action.dest.upper() if takes else "")
    choices = tuple(map(str, action.choices or ()))
    return Option(
        names=tuple(action.option_strings),
        metavar="|".join(choices) if choices else str(metavar) if takes else "",
        choices=choices,
        help=(action.help or "").replace("%%", "%"),
        many=action.nargs in ("*", "+") or isinstance(action, argparse._AppendAction),  # noqa: SLF001
    )
