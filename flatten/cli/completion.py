"""Completion of the command line in shells, made from the parsers."""

import shlex
from collections.abc import Callable
from typing import Final

from .described import Described, Option, describe


def script(shell: str) -> str:
    """Return what a shell reads to complete ``flatten``: bash, zsh or fish."""
    return SHELLS[shell](describe())


def _named(command: Described) -> list[Option]:
    return [option for option in command.options() if option.names]


# --- bash

_BASH: Final = """\
# bash completion for flatten: eval "$(flatten --print-completion bash)"
_flatten() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}
    local command= words= value=
    (( COMP_CWORD > 1 )) && case ${COMP_WORDS[1]} in
        @NAMES@) command=${COMP_WORDS[1]} ;;
    esac
    case $command in
@OPTIONS@
    esac
    case $command:$prev in
@VALUES@
    esac
    case $value in
        none) return ;;
        words) COMPREPLY=($(compgen -W "$words" -- "$cur")); return ;;
    esac
    if [[ $cur == -* && -z $value ]]; then
        COMPREPLY=($(compgen -W "$words" -- "$cur"))
        return
    fi
    COMPREPLY=($(compgen -f -- "$cur"))
    if (( COMP_CWORD == 1 )); then
        COMPREPLY+=($(compgen -W "@WORDS@" -- "$cur"))
    fi
}
complete -o filenames -F _flatten flatten
"""


def _bash(commands: list[Described]) -> str:
    names = [command.name for command in commands if command.name]
    options, values = [], []
    for command in commands:
        every = " ".join(name for option in _named(command) for name in option.names)
        name = command.name or "''"
        options.append(f'        {name}) words="{every}" ;;')
        for option in _named(command):
            if not option.metavar:
                continue
            kind = (
                "words" if option.choices else "file" if option.takes_file else "none"
            )
            words = f'; words="{" ".join(option.choices)}"' if option.choices else ""
            places = "|".join(f"{command.name}:{name}" for name in option.names)
            values.append(f"        {places}) value={kind}{words} ;;")
    return (
        _BASH.replace("@NAMES@", "|".join(names))
        .replace("@OPTIONS@", "\n".join(options))
        .replace("@VALUES@", "\n".join(values))
        .replace("@WORDS@", " ".join(names))
    )


# --- zsh

_ZSH: Final = """\
#compdef flatten
# zsh completion for flatten: into a directory of $fpath, as _flatten
_flatten() {
    local -a commands
    commands=(
@COMMANDS@
    )
    if (( CURRENT > 2 )); then
        case $words[2] in
@ARGUMENTS@
        esac
    elif [[ $words[CURRENT] != -* ]]; then
        _describe command commands
    fi
    _arguments -S \\
@MAIN@
}
if [[ $funcstack[1] == _flatten ]]; then
    _flatten "$@"
else
    compdef _flatten flatten
fi
"""


def _zsh(commands: list[Described]) -> str:
    listed = [
        f"        {shlex.quote(f'{command.name}:{command.summary}')}"
        for command in commands
        if command.name
    ]
    arguments = []
    for command in commands:
        if command.name:
            lines = _zsh_arguments(command, "                ")
            arguments.append(
                f"            {command.name})\n"
                "                shift words; (( CURRENT-- ))\n"
                f"                _arguments -S \\\n{lines}\n"
                "                return ;;"
            )
    return (
        _ZSH.replace("@COMMANDS@", "\n".join(listed))
        .replace("@ARGUMENTS@", "\n".join(arguments))
        .replace("@MAIN@", _zsh_arguments(commands[0], "        "))
    )


def _zsh_arguments(command: Described, indent: str) -> str:
    specs = []
    for option in command.options():
        if not option.names:
            continue
        text = option.help.replace("[", "(").replace("]", ")").replace(":", ",")
        value = f":{option.metavar}:{_zsh_action(option)}" if option.metavar else ""
        star = "*" if option.many else ""
        specs += [shlex.quote(f"{star}{name}[{text}]{value}") for name in option.names]
    specs.append("'*:file:_files'")
    return " \\\n".join(f"{indent}{spec}" for spec in specs)


def _zsh_action(option: Option) -> str:
    if option.choices:
        return f"({' '.join(option.choices)})"
    return "_files" if option.takes_file else " "


# --- fish


def _fish(commands: list[Described]) -> str:
    names = " ".join(command.name for command in commands if command.name)
    lines = ["# fish completion for flatten: flatten --print-completion fish | source"]
    for command in commands:
        seen = f"__fish_seen_subcommand_from {command.name or names}"
        where = seen if command.name else f"not {seen}"
        if command.name:
            lines.append(
                "complete -c flatten -n __fish_use_subcommand "
                f"-a {command.name} -d {_fish_quote(command.summary)}"
            )
        lines += [_fish_option(where, option) for option in _named(command)]
    return "\n".join([*lines, ""])


def _fish_option(where: str, option: Option) -> str:
    names = [
        f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}"
        for name in option.names
    ]
    value = (
        "-x "
        if option.metavar and not option.takes_file
        else ("-r " if option.metavar else "")
    )
    if option.choices:
        value += f"-a {_fish_quote(' '.join(option.choices))} "
    return (
        f"complete -c flatten -n {_fish_quote(where)} {' '.join(names)} {value}"
        f"-d {_fish_quote(option.help)}"
    )


def _fish_quote(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


SHELLS: Final[dict[str, Callable[[list[Described]], str]]] = {
    "bash": _bash, "zsh": _zsh, "fish": _fish,
}  # fmt: skip
