"""Every error that flatten raises on purpose, with the exit code it ends in.

The tree, and the exit codes::

    FlattenError        1   anything below; alone: I/O, no space
    ├── UsageError      2   the request makes no sense (argparse uses 2 too)
    ├── SourceError     3   the image is missing, or is of no kind we know
    ├── FormatError     4   bytes that break their format, with the offset
    └── IntegrityError  5   a digest is not what was promised

A message is one line: file, layer, what was found, what was expected, the byte
offset, and a hint where there is one. It quotes user data with ``quoted``.
"""

from typing import Any


class FlattenError(Exception):
    """Superclass of all errors of this package.

    Attributes:
        exit_code: What the command ends with.
    """

    exit_code = 1

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the message as it is, whatever parts the error is made of."""
        return Exception.__new__, (type(self), *self.args), self.__dict__


class UsageError(FlattenError):
    """The request makes no sense: an option, or a choice that is not one."""

    exit_code = 2


class SourceError(FlattenError):
    """The image is missing, or is of no kind that is known here."""

    exit_code = 3


class FormatError(FlattenError):
    """Bytes that break their format, ``offset`` bytes into ``where``.

    Attributes:
        where: The file, and the layer in it.
        offset: Bytes from the start of the layer's stream (of the file, when
            no layer is named); None where no one place is to blame.
    """

    exit_code = 4

    def __init__(self, what: str, *, where: str, offset: int | None = None) -> None:
        at = "" if offset is None else f" at byte {offset:,}"
        super().__init__(f"{where}: {what}{at}")
        self.where = where
        self.offset = offset


class IntegrityError(FlattenError):
    """Content whose digest is not the one that the image promises."""

    exit_code = 5


def shown(text: str) -> str:
    r"""Return user data as it is where that is harmless, else quoted.

    >>> print(shown("app.tar"), shown("a\nb"))
    app.tar 'a\nb'
    """
    return text if text.isprintable() and 0 < len(text) < 300 else quoted(text)


def quoted(text: bytes | str) -> str:
    r"""Quote user data for a message, on one line, whatever bytes are in it.

    >>> print(quoted(b"caf\xc3\xa9\n"))
    'café\n'
    """
    if isinstance(text, str):
        text = text.encode("utf-8", "backslashreplace")
    if len(text) > 300:
        text = text[:297] + b"..."
    return repr(text.decode("utf-8", "backslashreplace"))
