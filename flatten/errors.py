"""The errors that flatten raises deliberately, and their exit codes.

The class hierarchy, with the exit codes::

    FlattenError        1   base class; itself: I/O errors, no space
    ├── UsageError      2   the request is not valid (argparse also uses 2)
    ├── SourceError     3   the image is missing, or of an unknown kind
    ├── FormatError     4   bytes that break their format, with the offset
    └── IntegrityError  5   a digest does not match

A message is one line: file, layer, what was expected and found, the byte offset, and
a hint if there is one. User data in it is quoted with ``quoted``.
"""

from typing import Any


class FlattenError(Exception):
    """Base class of all errors of this package.

    Attributes:
        exit_code: Exit status of the command.
    """

    exit_code = 1

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the finished message, whatever arguments made the error."""
        return Exception.__new__, (type(self), *self.args), self.__dict__


class UsageError(FlattenError):
    """An option or a choice is not valid."""

    exit_code = 2


class SourceError(FlattenError):
    """The image is missing, or is of an unknown kind."""

    exit_code = 3


class FormatError(FlattenError):
    """Bytes that break their format, ``offset`` bytes into ``where``.

    Attributes:
        where: The file, and the layer in it.
        offset: Bytes from the start of the layer's stream (of the file, when
            no layer is named); None if the error has no single position.
    """

    exit_code = 4

    def __init__(
        self, what: str, *, where: str, offset: int | None = None, hint: str = ""
    ) -> None:
        at = "" if offset is None else f" at byte {offset:,}"
        super().__init__(f"{where}: {what}{at}" + (f"; {hint}" if hint else ""))
        self.where = where
        self.offset = offset


class IntegrityError(FlattenError):
    """The digest of some content differs from the one that the image records."""

    exit_code = 5


def shown(text: str) -> str:
    r"""Return user data unchanged if that is safe to print, else quoted.

    >>> print(shown("app.tar"), shown("a\nb"))
    app.tar 'a\nb'
    """
    return text if text.isprintable() and 0 < len(text) < 300 else quoted(text)


def quoted(text: bytes | str) -> str:
    r"""Quote user data for a message, on one line, whatever bytes it contains.

    >>> print(quoted(b"caf\xc3\xa9\n"))
    'café\n'
    """
    if isinstance(text, str):
        text = text.encode("utf-8", "backslashreplace")
    if len(text) > 300:
        text = text[:297] + b"..."
    return repr(text.decode("utf-8", "backslashreplace"))
