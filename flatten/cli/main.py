"""Arguments in, messages and exit codes out."""

import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import TYPE_CHECKING, NoReturn

from ..errors import FlattenError, shown

if TYPE_CHECKING:
    from .signals import Handlers

INTERRUPTED = 130
BROKEN_PIPE = 141


def script() -> NoReturn:
    """Run the command of this process and exit.

    Signals that arrive while Python exits are ignored: the output is complete then.
    """
    try:
        from . import signals  # a signal may arrive while it loads

        code = _stoppable(sys.argv[1:], signals.Handlers())
        signals.finish()
    except KeyboardInterrupt:  # before the handlers were installed
        code = INTERRUPTED
    sys.exit(code)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command in this process and return its exit code.

    Signal handlers, threads and descriptors are the same afterwards as before.
    """
    from . import signals  # as above

    with signals.Handlers() as handlers:
        return _stoppable(sys.argv[1:] if argv is None else argv, handlers)


def _stoppable(arguments: Sequence[str], handlers: "Handlers") -> int:
    """Run a command that a signal can stop; on return, signals are ignored."""
    from . import signals  # as above

    try:
        _occupy_descriptors()  # the handlers open a pipe
        handlers.install()
        code = _answer(_with_named_stdin(arguments))
        signals.ignore()
    except signals.Stopped as stopped:
        signals.ignore()
        return 128 + int(stopped.args[0])
    except (RuntimeError, SystemError) as error:
        # Python 3.11 wraps an exception in __set_name__ in RuntimeError, and one that
        # a C function leaves behind on success in SystemError.
        if not isinstance(error.__cause__, signals.Stopped):
            raise
        signals.ignore()
        return 128 + int(error.__cause__.args[0])
    return code


def _answer(arguments: list[str]) -> int:
    """Run a command; turn its errors into a message and an exit code."""
    try:
        return _run(arguments)
    except FlattenError as error:
        _fail(str(error))
        return error.exit_code
    except BrokenPipeError:  # the reader left: end silently, as cat does
        _discard_output()
        return BROKEN_PIPE
    except OSError as error:
        _discard_output()
        name = error.filename or "standard output: cannot write"  # it has no filename
        _fail(f"{shown(str(name))}: {error.strerror}")
        return FlattenError.exit_code
    except MemoryError:
        _fail("out of memory")
        return FlattenError.exit_code


def _discard_output() -> None:
    """Discard the rest of the buffer of standard output.

    Python writes it when it exits, and would report a second failure.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def _occupy_descriptors() -> None:
    """Open each closed standard descriptor, so that no other file gets its number.

    It is opened in the wrong mode, so that its use fails, as on a closed one. Python
    has no ``sys.stdout`` then, and print() would discard its text without an error.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDONLY if descriptor else os.O_WRONLY)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def _fail(text: str) -> None:
    from .messages import fail  # only when it is needed

    fail(text)


def _run(arguments: list[str]) -> int:
    from . import registry  # signals are handled while it loads

    if isinstance(sys.stdout, TextIOWrapper):  # names may contain any bytes
        sys.stdout.reconfigure(errors="backslashreplace")
    name, rest = registry.split(arguments)
    try:
        code = registry.find(name).run(registry.parse(name, rest))
    except SystemExit as ended:  # argparse has printed help, or a usage error
        code = int(ended.code or 0)
    sys.stdout.flush()
    return code


def _with_named_stdin(arguments: Sequence[str]) -> list[str]:
    """Spell ``-#NAME`` in a way that does not look like an option."""
    return [f"/dev/stdin{a[1:]}" if a.startswith("-#") else a for a in arguments]
