"""The signals that ask for the end, and how to have them wait."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

STOPPING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def signals_later() -> Iterator[None]:
    """Let the handlers of signals that come meanwhile run at the end.

    They may run between any two instructions of the main thread: also between the start
    of a process and the note of it, and nobody would end it. To block the signals would
    not do, since other threads take them, and the process would inherit that.
    """
    came: list[int] = []

    def note(number: int, _frame: object) -> None:
        came.append(number)

    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in STOPPING}
    try:
        for number, handler in before.items():
            if callable(handler):
                signal.signal(number, note)
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is note:
                signal.signal(number, handler)
        for number in came:
            signal.raise_signal(number)
