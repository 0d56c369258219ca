"""The manual page flatten(1), made from the parsers.

Reference: man-pages(7), groff_man(7).
"""

from collections.abc import Iterable

from .. import __version__
from .described import Described, Group, Option, describe
from .options import IMAGE
from .registry import EXIT_CODES

_ENVIRONMENT = {
    "COLUMNS": "the width at which tables are cut on a terminal",
    "NO_COLOR": "if it is not empty, messages on a terminal are not coloured",
    "SOURCE_DATE_EPOCH": "later mtimes become this time, as with --mtime",
    "TMPDIR": "the directory for decompressed data that does not fit into memory",
    "XDG_CACHE_HOME": "the directory whose subdirectory flatten has the layer indexes",
}


def page() -> str:
    """Return the page, in roff."""
    main, *others = describe()
    out = [
        f'.TH FLATTEN 1 "" "flatten {__version__}" "User Commands"',
        ".SH NAME",
        "flatten \\- container images to one root file system tar, without a daemon",
        ".SH SYNOPSIS",
        _usage(main),
        *(line for command in others for line in (".br", _usage(command))),
        ".SH DESCRIPTION",
        *_paragraphs(main.description),
        ".SH OPTIONS",
        *_groups(main.groups),
        ".SH COMMANDS",
        *(line for command in others for line in _command(command, main)),
        ".SH EXIT STATUS",
        *_paragraphs(EXIT_CODES.removeprefix("exit codes: ")),
        ".SH ENVIRONMENT",
        *(
            line
            for name, text in _ENVIRONMENT.items()
            for line in (".TP", f".B {_plain(name)}", _plain(text))
        ),
        ".SH SEE ALSO",
        r"\fBdocker\-save\fR(1), \fBskopeo\fR(1), \fBtar\fR(1), \fBumoci\fR(1)",
        "",
    ]
    return "\n".join(out)


def _usage(command: Described) -> str:
    program = f"flatten {command.name}".strip()
    rest = command.usage.removeprefix(program)
    return f"\\fB{_plain(program)}\\fR{_plain(rest)}"


def _command(command: Described, main: Described) -> list[str]:
    """Return the section of a command, without the options of the main command."""
    said = set(main.options())
    shared = [
        name
        for option in command.options()
        if option in said and option.names
        for name in option.names[-1:]
        if name != "--help"
    ]
    about = command.description.removesuffix(IMAGE + "\n").strip()
    own = tuple(
        Group(group.title, tuple(o for o in group.options if o not in said))
        for group in command.groups
    )
    also = [".PP", _plain(f"Also, as above: {', '.join(shared)}.")] if shared else []
    return [
        f".SS flatten {_plain(command.name)}",
        _usage(command),
        *_paragraphs(about),
        *_groups(own),
        *also,
    ]


def _groups(groups: Iterable[Group]) -> list[str]:
    out = []
    for group in groups:
        if group.options and group.title not in ("options", "positional arguments"):
            out += [
                ".PP",
                f"\\fI{_plain(group.title[:1].upper() + group.title[1:])}\\fR",
            ]
        out += [
            line
            for option in group.options
            for line in (".TP", _title(option), _plain(option.help))
        ]
    return out


def _title(option: Option) -> str:
    value = f" \\fI{_plain(option.metavar)}\\fR" if option.metavar else ""
    if not option.names:
        return value.strip()
    return ", ".join(f"\\fB{_plain(name)}\\fR{value}" for name in option.names)


def _paragraphs(text: str) -> list[str]:
    out = []
    for paragraph in text.strip().split("\n\n"):
        out += [".PP", _plain(" ".join(paragraph.split()))]
    return out


def _plain(text: str) -> str:
    r"""Escape what roff would read.

    >>> print(_plain(".a-b\\c"))
    \&.a\-b\ec
    """
    escaped = text.replace("\\", r"\e").replace("-", r"\-")
    return rf"\&{escaped}" if escaped[:1] in (".", "'") else escaped
