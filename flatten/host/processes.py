"""Work in child processes: Python code runs on one processor in each process.

A child is a copy of this process (fork), so it has the columns, the plan and the open
files without any copying; what it made is pickled and comes back through a pipe. It
must touch nothing that another thread may hold a lock of: it reads files and spools
that are full, encodes headers, and writes to a descriptor of its own.

Children end with their parent: they are killed when it goes on without them, and look
after it five times a second, as it may be killed itself.
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
from .signals import STOPPING, signals_later

_MOST: Final = 4  # the kernel writes to one file for one process at a time
_LOOK: Final = 0.2  # seconds between looks after the parent

T = TypeVar("T")


def processes() -> int:
    """Return how many processes are of use: one for each processor, up to four."""
    return min(len(os.sched_getaffinity(0)), _MOST)


def together(works: Sequence[Callable[[], T]]) -> list[T]:
    """Do the first work here and each of the others in a child; return all results.

    Where no child can be had, as there may be no more processes, all is done here.

    Raises:
        FlattenError: A child ended without a result.
        BaseException: What the first work that failed has raised.
    """
    children: list[_Child[T]] = []
    try:
        try:
            for work in works[1:]:
                children.append(_Child())
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


def each(keys: Iterable[int], do: Callable[[int], T]) -> dict[int, T]:
    """Do something for each key, in several processes; return the results by key.

    Whoever is free takes the next key.

    Args:
        keys: Numbers from 0 to 65,535, in the order of taking; at most 16,384.
        do: Does it for one key.
    """
    queue = array("H", keys)
    try:
        taking, giving = os.pipe()
    except OSError:  # there are no more descriptors
        return {key: do(key) for key in queue}
    os.write(giving, queue)  # at most half of what a pipe holds
    os.close(giving)

    def work() -> dict[int, T]:
        done = {}
        while key := os.read(taking, queue.itemsize):
            number = int.from_bytes(key, sys.byteorder)
            done[number] = do(number)
        return done

    try:
        parts = together([work] * min(len(queue), processes()))
    finally:
        os.close(taking)
    return {key: result for part in parts for key, result in part.items()}


class _Child(Generic[T]):
    """A child process with one work to do."""

    def __init__(self) -> None:
        """Start nothing yet."""
        self._pid = 0
        self._answer = -1

    def start(self, work: Callable[[], T]) -> None:
        """Start the process.

        Raises:
            OSError: There can be no more processes.
        """
        self._answer, answer = os.pipe()
        parent = os.getpid()
        try:
            with signals_later(), warnings.catch_warnings():
                # Of threads: see above what a child may touch.
                warnings.simplefilter("ignore", DeprecationWarning)
                self._pid = os.fork()
                if not self._pid:
                    _serve(work, answer, parent)
        finally:
            os.close(answer)

    def result(self) -> T:
        """Wait for the work to be done; return what it returned, raise what it raised.

        Raises:
            FlattenError: The child ended without either.
        """
        with open(self._answer, "rb", closefd=False) as answer:
            data = answer.read()
        if not data:
            raise FlattenError(
                "a process of this run was ended from outside, maybe for want of memory"
            )
        done: bool
        done, value = pickle.loads(data)
        if not done:
            raise value
        result: T = value
        return result

    def stop(self) -> None:
        """End the child, if it has not ended."""
        if self._answer >= 0:
            os.close(self._answer)
        if self._pid:
            with suppress(ProcessLookupError, ChildProcessError):  # SIGCHLD is ignored
                os.kill(self._pid, signal.SIGKILL)
                os.waitpid(self._pid, 0)


def _serve(work: Callable[[], object], answer: int, parent: int) -> NoReturn:
    """Be the child: work, answer, end."""
    try:
        gc.disable()  # it would touch, and so copy, all that there is
        for number in STOPPING:  # the parent cleans up, not a copy of it
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGALRM, lambda *_: _end_without(parent))
        signal.setitimer(signal.ITIMER_REAL, _LOOK, _LOOK)
        try:
            result = True, work()
        except BaseException as error:  # the parent raises it
            result = False, error
        with open(answer, "wb") as out:
            out.write(pickle.dumps(result))
    finally:
        os._exit(0)


def _end_without(parent: int) -> None:
    if os.getppid() != parent:
        os._exit(1)
