"""Arguments in, messages and exit codes out."""

import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import NoReturn

from ..errors import FlattenError, shown

INTERRUPTED = 130
BROKEN_PIPE = 141


def script() -> NoReturn:
    """Run the program to its end; a signal that comes while Python ends is too late."""
    code = main()
    from . import signals  # noqa: PLC0415 - it is there by now

    signals.finish()
    sys.exit(code)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code."""
    try:
        from . import signals  # noqa: PLC0415 - a signal may come while it loads

        try:
            signals.heed()
            _occupy_descriptors()
            return _answer(_with_named_stdin(argv))
        except signals.Stopped as stopped:
            signals.ignore()
            return 128 + int(stopped.args[0])
        except (RuntimeError, SystemError) as error:  # what Python 3.11 makes of it in
            # __set_name__, and where a C function has returned already
            if isinstance(error.__cause__, signals.Stopped):
                signals.ignore()
                return 128 + int(error.__cause__.args[0])
            raise
    except KeyboardInterrupt:  # before signals were heeded
        return INTERRUPTED


def _answer(arguments: list[str]) -> int:
    """Run a command; turn what it raises into a message and an exit code."""
    try:
        return _run(arguments)
    except FlattenError as error:
        _fail(str(error))
        return error.exit_code
    except BrokenPipeError:  # the reader left: say nothing, as cat does
        _discard_output()
        return BROKEN_PIPE
    except OSError as error:  # of standard output, mostly: the others are named
        _discard_output()
        _fail(f"{shown(str(error.filename or 'standard output'))}: {error.strerror}")
        return FlattenError.exit_code
    except MemoryError:
        _fail("out of memory")
        return FlattenError.exit_code


def _discard_output() -> None:
    """Send what is still in the buffer of standard output nowhere.

    Python writes it once more when it ends, and makes a second failure of it.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _occupy_descriptors() -> None:
    """Let no file become standard output because that is closed, and be written to.

    What takes the place of a closed one fails when it is used, as nothing would.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDONLY if descriptor else os.O_WRONLY)


def _fail(text: str) -> None:
    from .messages import fail  # noqa: PLC0415 - as above

    fail(text)


def _run(arguments: list[str]) -> int:
    from . import registry  # noqa: PLC0415 - a signal while it loads is answered above

    if isinstance(sys.stdout, TextIOWrapper):  # names may be anything
        sys.stdout.reconfigure(errors="backslashreplace")
    name, rest = registry.split(arguments)
    parser = registry.build_parser(name)
    try:
        code = registry.find(name).run(parser.parse_intermixed_args(rest))
    except SystemExit:  # --help was printed
        _flush_output()
        raise
    _flush_output()
    return code


def _flush_output() -> None:
    if sys.stdout is not None:
        sys.stdout.flush()


def _with_named_stdin(argv: Sequence[str] | None) -> list[str]:
    """Spell ``-#NAME`` in a way that does not look like an option."""
    arguments = sys.argv[1:] if argv is None else argv
    return [f"/dev/stdin{a[1:]}" if a.startswith("-#") else a for a in arguments]
