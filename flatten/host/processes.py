"""Run work in child processes, because one Python process uses one processor.

A child is a fork of this process, so it has the columns, the plan and the open files
without copying them; its result is pickled and returned through a pipe. It must not use
anything that another thread may have locked: it reads files and filled spools, encodes
headers, and writes to a descriptor of its own.

Python warns about a fork in a process with threads (DeprecationWarning), as a child may
wait for a lock that another thread held. The rule above makes forking safe here;
``Limits(processes=1)`` prevents it.

Children end with their parent. The parent kills them when it no longer needs them, and
they check five times a second that the parent still runs, as it may be killed itself.
"""

import gc
import os
import pickle
import signal
import sys
import warnings
from array import array
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Final, Generic, NoReturn, TypeVar

from ..errors import FlattenError
from .limits import processors
from .signals import STOPPING, signals_later

_MOST: Final = 4  # processes; the kernel lets only one at a time write to a file
_LOOK: Final = 0.2  # seconds between checks that the parent runs

T = TypeVar("T")


def processes() -> int:
    """Return how many processes are useful: one per processor, at most four."""
    return min(processors(), _MOST)


def together(works: Sequence[Callable[[], T]]) -> list[T]:
    """Run the first function here and each other one in a child; return all results.

    If no child can be started (process limit), everything runs here.

    Raises:
        FlattenError: A child ended without a result.
        BaseException: The exception of the first function that failed.
    """
    children: list[Child[T]] = []
    try:
        try:
            for work in works[1:]:
                children.append(Child())
                children[-1].start(work)
        except OSError:
            children.pop().stop()
        results = [works[0]()]
        results += [child.result() for child in children]
        return results + [work() for work in works[len(results) :]]
    finally:
        with signals_later():
            for child in children:
                child.stop()


def each(keys: Iterable[int], do: Callable[[int], T], most: int) -> dict[int, T]:
    """Call ``do`` for each key, in several processes; return the results by key.

    Each process takes the next key when it is free.

    Args:
        keys: Numbers from 0 to 65,535, in the order of taking; at most 16,384.
        do: The function to call with one key.
        most: Maximum number of processes.
    """
    queue = array("H", keys)
    try:
        taking, giving = os.pipe()
    except OSError:  # no more descriptors available
        return {key: do(key) for key in queue}
    os.write(giving, queue)  # at most half of a pipe's capacity
    os.close(giving)

    def work() -> dict[int, T]:
        done = {}
        while key := os.read(taking, queue.itemsize):
            number = int.from_bytes(key, sys.byteorder)
            done[number] = do(number)
        return done

    try:
        parts = together([work] * min(len(queue), most))
    finally:
        os.close(taking)
    return {key: result for part in parts for key, result in part.items()}


class Child(Generic[T]):
    """A child process that runs one function."""

    def __init__(self) -> None:
        """Prepare a child, without starting it yet."""
        self._pid = 0
        self._answer = -1

    def start(self, work: Callable[[], T]) -> None:
        """Start the process.

        Raises:
            OSError: The process limit is reached.
        """
        self._answer, answer = os.pipe()
        parent = os.getpid()
        try:
            with signals_later(), warnings.catch_warnings():
                # For Python's warning, see the module docstring.
                warnings.simplefilter("ignore", DeprecationWarning)
                self._pid = os.fork()
                if not self._pid:
                    _serve(work, answer, parent)
        finally:
            os.close(answer)

    def fileno(self) -> int:
        """Return the descriptor that is readable once the child has ended."""
        return self._answer

    def result(self) -> T:
        """Wait for the child's function; return its result, or raise its exception.

        Raises:
            FlattenError: The child ended without a result or an exception.
        """
        with open(self._answer, "rb", closefd=False) as answer:
            data = answer.read()
        if not data:
            raise FlattenError(
                "a worker process was killed, possibly by the out-of-memory killer"
            )
        done: bool
        done, value = pickle.loads(data)
        if not done:
            raise value
        result: T = value
        return result

    def terminate(self) -> None:
        """Send SIGTERM to the child, for functions that handle it."""
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGTERM)

    def stop(self) -> None:
        """Kill the child, if it has not ended."""
        if self._answer >= 0:
            os.close(self._answer)
        if self._pid:
            with suppress(ProcessLookupError, ChildProcessError):  # SIGCHLD is ignored
                os.kill(self._pid, signal.SIGKILL)
                os.waitpid(self._pid, 0)


def _serve(work: Callable[[], object], answer: int, parent: int) -> NoReturn:
    """Run as the child: do the work, send the answer, exit."""
    try:
        gc.disable()  # a collection would touch, and so copy, all memory pages
        for number in STOPPING:  # only the parent cleans up
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGALRM, lambda *_: _end_without(parent))
        signal.setitimer(signal.ITIMER_REAL, _LOOK, _LOOK)
        try:
            result = True, work()
        except BaseException as error:  # raised again by the parent
            result = False, error
        with open(answer, "wb") as out:
            out.write(pickle.dumps(result))
    finally:
        os._exit(0)


def _end_without(parent: int) -> None:
    if os.getppid() != parent:
        os._exit(1)
