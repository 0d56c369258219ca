"""Messages for people, on standard error."""

import os
import sys

_RED = "31"
_YELLOW = "33"
_WARNING = "warning:"


def is_terminal() -> bool:
    """Return True if standard error is a terminal."""
    return sys.stderr is not None and sys.stderr.isatty()


def say(text: str) -> None:
    """Print a line, unless standard error is closed; "warning:" is coloured."""
    if text.startswith(_WARNING):
        text = _painted(_WARNING, _YELLOW) + text.removeprefix(_WARNING)
    _print("flatten:", text)


def fail(text: str) -> None:
    """Print an error."""
    _print(_painted("flatten:", _RED), text)


def _print(label: str, text: str) -> None:
    if sys.stderr is not None:
        print(label, text, file=sys.stderr)


def _painted(text: str, colour: str) -> str:
    """Colour text on a terminal, unless NO_COLOR is set (no-color.org)."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    if plain or not is_terminal():
        return text
    return f"\033[{colour}m{text}\033[0m"
