"""The process of a batch on one machine that forks a child for each job.

It has no threads when it forks. It reads the layers that jobs share; a child finds them
in its own memory, as a fork has all that its parent had. So a child that is killed ends
one job, and nothing is sent between processes but jobs and results.

The process that started it sends jobs over a socket and gets the results. Once the
socket is closed, because that process ended or no longer wants results, the children
are ended, then this process.
"""

import selectors
import signal
import sys
import time
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from typing import Final, NoReturn

from ..errors import FlattenError
from ..host.limits import free_memory, processors
from ..host.processes import Child
from .jobs import Common, Job
from .make import make
from .results import Result, lost
from .shared import Shared


def main(descriptor: int) -> None:
    """Serve the socket with this descriptor until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the other process ends this one
    with Connection(descriptor) as connection:
        _Server(connection).serve()


_GRACE: Final = 5.0  # seconds for children to end
_IDLE: Final = 60.0  # seconds without jobs after which shared layers are freed


class _Server:
    """Jobs in, results out."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._selector = selectors.DefaultSelector()
        self._selector.register(connection, selectors.EVENT_READ)
        self._running: dict[Child[list[Result]], tuple[int, Job, int]] = {}
        self._shared: Shared | None = None
        self._common: Common | None = None

    def serve(self) -> None:
        """Serve until the other end is closed."""
        try:
            while True:
                ready = self._selector.select(_IDLE)
                if not ready and not self._running:
                    self._forget()
                for key, _ in ready:
                    if key.fileobj is self._connection:
                        self._start(*self._connection.recv())
                    else:
                        self._finish(key.data)
        except (EOFError, ConnectionError):  # the other process has gone
            return
        finally:
            self._end()

    def _start(self, number: int, job: Job, common: Common) -> None:
        """Start a job; if there is no memory or process for it, send that."""
        try:
            child, fetched = self._forked(job, common)
        except MemoryError:
            self._connection.send((number, lost(job, FlattenError("out of memory"))))
        except OSError as error:
            why = FlattenError(f"cannot start a worker process: {error.strerror}")
            self._connection.send((number, lost(job, why)))
        else:
            self._running[child] = number, job, fetched
            self._selector.register(child, selectors.EVENT_READ, child)

    def _forked(self, job: Job, common: Common) -> tuple[Child[list[Result]], int]:
        """Read what a job shares with others, and fork a child for it.

        Returns:
            The child, and the bytes that were fetched.

        Raises:
            OSError: The process limit is reached.
        """
        options = common.options
        memory = options.limits.memory
        memory = free_memory() // 4 if memory is None else memory
        if common != self._common:  # of another batch, on a cluster
            self._forget()
        if self._shared is None:
            self._shared, self._common = Shared(common, memory // 2), common
        fetched = self._shared.prepare(job)
        limits = replace(
            options.limits,
            memory=memory // 2 // common.slots,
            processes=max(processors() // common.slots, 1),
        )
        own = replace(common, options=replace(options, limits=limits))
        child: Child[list[Result]] = Child()
        child.start(partial(_work, job, own, self._shared))
        return child, fetched

    def _forget(self) -> None:
        """Free what the jobs so far have shared."""
        if self._shared is not None:
            self._shared.close()
            self._shared = None

    def _finish(self, child: Child[list[Result]]) -> None:
        """Send the results of a child that has ended."""
        number, job, fetched = self._running.pop(child)
        self._selector.unregister(child)
        try:
            results = child.result()
            results[0] = replace(
                results[0], bytes_fetched=results[0].bytes_fetched + fetched
            )
        except MemoryError:
            results = lost(job, FlattenError("out of memory"))
        except FlattenError as error:
            results = lost(job, error)
        except Exception as error:  # of one image, and no reason to end the others
            results = lost(job, FlattenError(f"internal error: {error!r}"))
        finally:
            child.stop()
        self._connection.send((number, results))

    def _end(self) -> None:
        """End the children; they have some time to remove what they were writing."""
        self._selector.unregister(self._connection)
        for child in self._running:
            child.terminate()
        until = time.monotonic() + _GRACE
        while self._running and (left := until - time.monotonic()) > 0:
            for key, _ in self._selector.select(left):
                self._selector.unregister(key.data)
                del self._running[key.data]
                key.data.stop()
        for child in self._running:
            child.stop()


def _work(job: Job, common: Common, shared: Shared) -> list[Result]:
    """Do a job, in a child; SIGTERM ends it, but for what it cleans up."""
    signal.signal(signal.SIGTERM, _stop)
    return make(job, common, shared.reuse)


def _stop(*_: object) -> NoReturn:
    sys.exit(1)
