r"""Patterns that match paths, as in a .gitignore file.

==============  ==================================================================
``name``        that name in any directory
``dir/name``    relative to the root, like ``/name``: a slash that is not the last
                character anchors a pattern
``name/``       directories only
``*`` ``?``     any characters of one name; any single character
``[a-z]``       one character of a set; ``[!a-z]`` one outside the set
``[[:upper:]]`` a POSIX character class in a set, in ASCII
``**``          as a whole component: any number of directories
``!pattern``    cancels earlier matches; the last matching pattern decides
``\``           makes the next character literal
==============  ==================================================================

Reference: gitignore(5), "PATTERN FORMAT".
"""

import re
from collections.abc import Iterable
from typing import Final

from ..errors import UsageError, quoted

_WHOLE: Final = re.compile(
    rb"\\(?P<literal>.)"
    rb"|\[(?P<negated>[!^]?)(?P<set>\]?(?:\[:[a-z]*:\]|[^\]/])*)\]"
    rb"|(?P<star>\*+)|(?P<one>\?)|(?P<plain>.)",
    re.DOTALL,
)
_CLASS: Final = re.compile(rb"\[:([a-z]*):\]")
_CLASSES: Final = {
    b"alnum": rb"0-9A-Za-z",
    b"alpha": rb"A-Za-z",
    b"blank": rb" \t",
    b"cntrl": rb"\x00-\x1f\x7f",
    b"digit": rb"0-9",
    b"graph": rb"!-~",
    b"lower": rb"a-z",
    b"print": rb" -~",
    b"punct": rb"!-/:-@\[-`{-~",
    b"space": rb"\t-\r ",
    b"upper": rb"A-Z",
    b"xdigit": rb"0-9A-Fa-f",
}


class Patterns:
    """Patterns in order; the last one that matches a path decides."""

    def __init__(self, texts: Iterable[str]) -> None:
        """Compile patterns.

        Raises:
            UsageError: A pattern is not valid.
        """
        self._rules = [_compile(text) for text in texts]

    def __bool__(self) -> bool:
        """Return True if there are any patterns."""
        return bool(self._rules)

    def fit(self, path: bytes, directory: bool) -> bool:
        """Return True if the patterns match a path itself, not only a parent.

        >>> Patterns(["*.pyc", "!keep.pyc"]).fit(b"usr/lib/a.pyc", False)
        True
        >>> Patterns(["/usr/share/doc/**/*.gz"]).fit(b"usr/share/doc/a/b/c.gz", False)
        True
        """
        for expression, taken, directories in reversed(self._rules):
            if (directory or not directories) and expression.fullmatch(path):
                return taken
        return False


def _compile(text: str) -> tuple[re.Pattern[bytes], bool, bool]:
    """Return a rule: a regex, whether a match selects, whether it needs a directory."""
    pattern = text.encode("utf-8", "surrogateescape")
    taken = not pattern.startswith(b"!")
    pattern = pattern.removeprefix(b"!").removeprefix(b"./")
    directories = pattern.endswith(b"/")
    parts = pattern.rstrip(b"/").split(b"/")
    if not pattern.strip(b"/"):
        raise UsageError(f"{quoted(text)} is not a valid pattern")
    if len(parts) == 1:
        parts.insert(0, b"**")
    if not parts[0]:  # before a leading slash
        parts.pop(0)
    try:
        expression = b"".join(
            _component(part, at + 1 == len(parts)) for at, part in enumerate(parts)
        )
        return re.compile(expression, re.DOTALL), taken, directories
    except (re.error, ValueError) as error:
        raise UsageError(f"{quoted(text)} is not a valid pattern: {error}") from error


def _component(part: bytes, last: bool) -> bytes:
    """Translate one component, with the slash after it."""
    if part == b"**":
        return b".+" if last else b"(?:.*/)?"
    out = b""
    for found in _WHOLE.finditer(part):
        if found["star"]:
            out += b"[^/]*"
        elif found["one"]:
            out += b"[^/]"
        elif found["set"]:
            out += (
                b"[" + (b"^/" if found["negated"] else b"") + _set(found["set"]) + b"]"
            )
        else:
            out += re.escape(found["literal"] or found["plain"])
    return out if last else out + b"/"


def _set(text: bytes) -> bytes:
    """Translate the inside of a set; ValueError if a class in it does not exist."""
    out = b""
    for at, part in enumerate(_CLASS.split(text)):
        if at % 2 == 0:
            out += part.replace(b"\\", b"\\\\").replace(b"[", b"\\[")
        elif part in _CLASSES:
            out += _CLASSES[part]
        else:
            raise ValueError(f"no character class [:{part.decode()}:]")
    return out
