"""Termination signals, and deferring their handlers."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

STOPPING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def signals_later() -> Iterator[None]:
    """Defer the handlers of termination signals to the end of the block.

    A handler may run between any two instructions of the main thread, even between the
    start of a process and the assignment of it, and then nothing would end the process.
    Blocking the signals is not enough: other threads receive them, and the process
    would inherit the mask.
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
