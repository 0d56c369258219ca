"""Scripts that complete the command line in bash, zsh and fish, from the parsers."""

import shlex
from collections.abc import Callable
from typing import Final

from ..image import rootfs
from ..sources.references import KINDS
from .described import Described, Option, describe


def script(shell: str) -> str:
    """Return the completion script for a shell: bash, zsh or fish."""
    return SHELLS[shell](describe())


def _options(command: Described) -> list[Option]:
    return [option for option in command.options() if option.names]


def _argument_words(command: Described) -> str:
    """Return the words that a positional argument can be, if they are known."""
    arguments = [option for option in command.options() if not option.names]
    return " ".join(word for argument in arguments for word in argument.words)


# --- bash

# Files are left to readline, which can quote their names. To readline a colon separates
# words, so that it completes the path in KIND:PATH too.
_BASH: Final = """\
# bash completion for flatten: eval "$(flatten --print-completion bash)"
_flatten() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}
    local command= options= argument= value= words= listed=
    COMPREPLY=()
    if [[ $cur == = ]]; then
        cur=
    elif [[ $prev == = ]]; then
        prev=${COMP_WORDS[COMP_CWORD-2]}
    fi
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
        file) return ;;
        none) compopt +o default +o bashdefault; return ;;
        words) [[ $words == *: ]] && compopt -o nospace ;;
        list) compopt -o nospace; [[ $cur == *,* ]] && listed=${cur%,*}, ;;
        *)
            if [[ $cur == -* ]]; then
                words=$options
            elif (( COMP_CWORD == 1 )); then
                words="@WORDS@"
            else
                words=$argument
            fi ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -P "$listed" -- "${cur##*,}")
    if (( COMP_CWORD == 1 && ${#COMPREPLY[@]} )) && [[ $cur != -* ]]; then
        compopt -o filenames
        mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen -f -- "$cur")
    fi
}
complete -o bashdefault -o default -F _flatten flatten
"""


def _bash(commands: list[Described]) -> str:
    names = [command.name for command in commands if command.name]
    options, values = [], []
    for command in commands:
        every = " ".join(name for option in _options(command) for name in option.names)
        words = _argument_words(command)
        name = command.name or "''"
        options.append(f'        {name}) options="{every}" argument="{words}" ;;')
        for option in _options(command):
            if option.metavar:
                places = "|".join(f"{command.name}:{name}" for name in option.names)
                values.append(f"        {places}) {_bash_value(option)} ;;")
    return (
        _BASH.replace("@NAMES@", "|".join(names))
        .replace("@OPTIONS@", "\n".join(options))
        .replace("@VALUES@", "\n".join(values))
        .replace("@WORDS@", " ".join(names))
    )


def _bash_value(option: Option) -> str:
    if option.words:
        kind = "list" if option.takes_list else "words"
        return f'value={kind} words="{" ".join(option.words)}"'
    return "value=file" if option.takes_file else "value=none"


# --- zsh

_ZSH: Final = """\
#compdef flatten
# zsh completion for flatten: into a directory of $fpath, as _flatten
_flatten_file() {
    compset -P '(@KINDS@):'
    _files
}
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
        .replace("@KINDS@", "|".join((*KINDS, rootfs.KIND)))
        .replace("@ARGUMENTS@", "\n".join(arguments))
        .replace("@MAIN@", _zsh_arguments(commands[0], "        "))
    )


def _zsh_arguments(command: Described, indent: str) -> str:
    specs = []
    for option in _options(command):
        text = option.help.replace("[", "(").replace("]", ")").replace(":", ",")
        star = "*" if option.many else ""
        for name in option.names:
            equals = value = ""
            if option.metavar:
                equals = "=" if name.startswith("--") else ""
                metavar = option.metavar.replace(":", r"\:")
                value = f":{metavar}:{_zsh_action(option)}"
            specs.append(shlex.quote(f"{star}{name}{equals}[{text}]{value}"))
    words = _argument_words(command)
    specs.append(f"'*:word:({words})'" if words else "'*:file:_flatten_file'")
    return " \\\n".join(f"{indent}{spec}" for spec in specs)


def _zsh_action(option: Option) -> str:
    words = " ".join(option.words)
    if option.takes_list:
        return f"_values -s , field {words}"
    if words:
        return f"({words})".replace(":", r"\:")
    return "_flatten_file" if option.takes_file else " "


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
        words = _argument_words(command)
        if words:
            lines.append(
                f"complete -c flatten -n {_fish_quote(where)} -f "
                f"-a {_fish_quote(words)}"
            )
        lines += [_fish_option(where, option) for option in _options(command)]
    return "\n".join([*lines, ""])


def _fish_option(where: str, option: Option) -> str:
    names = [
        f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}"
        for name in option.names
    ]
    value = ""
    if option.metavar:
        value = "-r " if option.takes_file else "-x "
    if option.words:
        words = " ".join(option.words)
        listed = f"(__fish_append , {words})" if option.takes_list else words
        value += f"-a {_fish_quote(listed)} "
    return (
        f"complete -c flatten -n {_fish_quote(where)} {' '.join(names)} {value}"
        f"-d {_fish_quote(option.help)}"
    )


def _fish_quote(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


SHELLS: Final[dict[str, Callable[[list[Described]], str]]] = {
    "bash": _bash, "zsh": _zsh, "fish": _fish,
}  # fmt: skip
