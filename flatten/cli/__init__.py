"""Arguments in, messages and exit codes out."""

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from ..errors import FlattenError
from . import commands
from .messages import say

BROKEN_PIPE = 128 + signal.SIGPIPE


class _Terminated(BaseException):
    """SIGTERM or SIGHUP: unwinds the stack, so that no half-written file is left."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, _terminate)
    try:
        name, arguments = commands.split(_with_named_stdin(argv))
        parser = commands.build_parser(name)
        return commands.find(name).run(parser.parse_intermixed_args(arguments))
    except FlattenError as error:
        say(str(error))
        return error.exit_code
    except BrokenPipeError:  # the reader left: say nothing, as cat does
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return BROKEN_PIPE
    except MemoryError:
        say("out of memory")
        return FlattenError.exit_code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except _Terminated as stopped:
        return 128 + int(stopped.args[0])


def _with_named_stdin(argv: Sequence[str] | None) -> list[str]:
    """Spell ``-#NAME`` in a way that does not look like an option."""
    arguments = sys.argv[1:] if argv is None else argv
    return [f"/dev/stdin{a[1:]}" if a.startswith("-#") else a for a in arguments]


def _terminate(number: int, _frame: FrameType | None) -> NoReturn:
    for again in (signal.SIGTERM, signal.SIGHUP):  # let the cleaning up be done
        signal.signal(again, signal.SIG_IGN)
    raise _Terminated(number)
