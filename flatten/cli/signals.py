"""Signals that end the command: they unwind the stack, so that nothing is left behind.

SIGINT, SIGTERM and SIGHUP raise ``Stopped``. Signals that arrive while the stack is
being unwound are ignored, so that the cleanup is completed. From the moment an output
gets its name, it is too late to stop, and signals are ignored too. A signal that was
ignored at the start stays ignored, as under nohup.

Python notes a signal and raises between two instructions. If a system call starts to
wait in between, that can be minutes later. And if those instructions belong to a
destructor or a weakref callback, Python drops the exception. So a thread sends the
signal again until it has had its effect.
"""

import _thread
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from types import FrameType
from typing import Any, Final, Self

from ..host.signals import STOPPING

AGAIN: Final = 0.1  # seconds until a signal that had no effect is sent again


class Stopped(BaseException):
    """A signal asks the command to end; its number is the argument."""


class Handlers:
    """The handlers that raise ``Stopped``, and the state of the process before them.

    As a context manager it restores that state: handlers, signal mask, wakeup
    descriptor, and the hook for dropped exceptions; its thread has ended and its
    descriptors are closed. Signals that arrived while they were ignored are then
    delivered to the restored handlers.
    """

    def __init__(self) -> None:
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        self._handlers: dict[int, Any] = {n: signal.getsignal(n) for n in STOPPING}
        self._hook = sys.unraisablehook
        self._repeater: _Repeater | None = None

    def install(self) -> None:
        """Let termination signals raise ``Stopped``, also if the parent blocked them.

        Call it within the ``try`` that handles ``Stopped``.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)  # all of this, or nothing
        sys.unraisablehook = _report_unraisable
        self._repeater = _Repeater()
        self._repeater.start()
        for number in STOPPING:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _stop)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)

    def __enter__(self) -> Self:
        """Return the handlers; they are not installed yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Restore the state from before."""
        ignore()
        if self._repeater is not None:
            self._repeater.stop()
        sys.unraisablehook = self._hook
        for number, handler in self._handlers.items():
            if handler is not None:  # None: it was not installed from Python
                signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)


class _Repeater:
    """A thread that sends each signal again, until the command has stopped.

    Python writes the numbers of signals into its pipe (``signal.set_wakeup_fd``).
    """

    def __init__(self) -> None:
        self._numbers, self._wakeup = os.pipe()
        self._stopping = False
        self._running = _thread.allocate_lock()  # held while the thread runs
        self._before = -1  # the wakeup descriptor to restore

    def start(self) -> None:
        """Start the thread; without one, signals still work nearly always."""
        os.set_blocking(self._wakeup, False)
        self._before = signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)
        self._running.acquire()
        try:
            # Not threading's: its start() waits for a thread that may get no memory.
            _thread.start_new_thread(self._run, ())
        except RuntimeError:
            self._running.release()

    def stop(self) -> None:
        """End the thread and close its pipe; signals must be ignored by now."""
        signal.set_wakeup_fd(self._before)
        self._stopping = True
        with suppress(BlockingIOError):  # a full pipe wakes the thread too
            os.write(self._wakeup, b"\0")
        with self._running:
            os.close(self._numbers)
            os.close(self._wakeup)

    def _run(self) -> None:
        """Send the signals; this thread takes none, they would be late at the end."""
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        try:
            while not self._stopping:
                number = os.read(self._numbers, 1)[0]
                if number in STOPPING:  # not another signal's handler, nor stop()
                    time.sleep(AGAIN)
                    if signal.getsignal(number) is _stop:
                        main = threading.main_thread().ident or 0
                        signal.pthread_kill(main, number)
        finally:
            self._running.release()


def ignore() -> None:
    """From now on, run to the end whatever signals arrive.

    Not by SIG_IGN, because Python complains about signals that are pending by then.
    """
    for number in STOPPING:
        signal.signal(number, _too_late)
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)


def finish() -> None:
    """Ignore signals while Python exits, which takes its own handlers away."""
    ignore()
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


class _Stop:
    """The handler: raises ``Stopped``, unless that was raised already.

    A second exception would cut short the destructors that run while the first unwinds
    the stack, and there ``sys.exception`` does not show the first. So for a short time
    none is raised; the thread sends the signal again after that.
    """

    def __init__(self) -> None:
        self.raised = -AGAIN  # time of the last exception, on the monotonic clock
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
    """Return True if ``Stopped`` is unwinding the stack."""
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
