"""Signals that end the command: they unwind the stack, so that nothing is left behind.

SIGINT, SIGTERM and SIGHUP raise ``Stopped``; those that come while that unwinds the
stack are ignored, so that cleaning up gets done. From the moment an output gets its
name it is too late for them, and they are ignored too. What was ignored at the start
stays so, as under nohup.

Python takes note of a signal and raises between two instructions; where a system call
begins to wait in between, that may be minutes later. And where those instructions
belong to a destructor or a weakref callback, Python drops what they raise. So a thread
sends the signal again until it has had its effect.
"""

import _thread
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from types import FrameType
from typing import Final

from ..host.signals import STOPPING

AGAIN: Final = 0.1  # seconds until a signal that had no effect is sent again


class Stopped(BaseException):
    """A signal asks the command to end; its number is the argument."""


def heed() -> None:
    """From now on, raise ``Stopped`` at a signal that asks for the end.

    Also where whoever started the command has them blocked, which is inherited.
    """
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
    for number in STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)
    sys.unraisablehook = _report_unraisable
    noted, note = os.pipe()
    os.set_blocking(note, False)
    signal.set_wakeup_fd(note, warn_on_full_buffer=False)
    with suppress(RuntimeError):  # no thread: it works nearly always without
        # Not threading's, whose start waits for one that has no memory to begin.
        _thread.start_new_thread(_send_again, (noted,))


def _send_again(noted: int) -> None:
    """Send each signal that is noted again, until the command has stopped.

    This thread takes no signals itself: those under way at the end would be too late.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    while number := os.read(noted, 1)[0]:
        time.sleep(AGAIN)
        if signal.getsignal(number) is _stop:
            signal.pthread_kill(threading.main_thread().ident or 0, number)


def ignore() -> None:
    """From now on, go on to the end whatever signals come.

    Not by SIG_IGN, since Python complains of signals that are under way by then.
    """
    for number in STOPPING:
        signal.signal(number, _too_late)
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)


def finish() -> None:
    """Ignore signals while Python ends, which takes its own handlers away."""
    ignore()
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


class _Stop:
    """The handler: raises ``Stopped``, unless that is on its way already.

    A second one would cut short what destructors do while the first unwinds the stack,
    which no handled exception shows there; so for a while none is raised. The thread
    sends the signal again after that.
    """

    def __init__(self) -> None:
        self.raised = -AGAIN  # when it last did, on the monotonic clock
        self.running = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.running:  # another signal came during the calls below
            return
        self.running = True
        now = time.monotonic()
        reporting = frame and frame.f_code is _report_unraisable.__code__
        raises = now - self.raised >= AGAIN / 2 and not reporting and not _unwinding()
        if raises:
            self.raised = now
        self.running = False
        if raises:
            raise Stopped(number)


_stop = _Stop()


def _unwinding() -> bool:
    """Return True if the stack is being unwound by ``Stopped``."""
    error = sys.exception()
    while error is not None and not isinstance(error, Stopped):
        error = error.__context__
    return error is not None


def _report_unraisable(dropped: "sys.UnraisableHookArgs") -> None:
    """Report an exception that Python drops, unless it will be raised again."""
    if not isinstance(dropped.exc_value, Stopped):
        sys.__unraisablehook__(dropped)


def _too_late(_number: int, _frame: FrameType | None) -> None:
    pass
