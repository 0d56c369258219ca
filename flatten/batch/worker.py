"""Do a job on this machine, in a child of its fork server: what executors call."""

import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import Future
from contextlib import suppress
from itertools import count
from multiprocessing.connection import Connection
from typing import Final

from .jobs import Common, Job
from .results import Result

_PROGRAM: Final = (
    "import sys; sys.path[:] = {path!r}; "  # before anything is imported from elsewhere
    "from flatten.batch.forkserver import main; main({descriptor})"
)


class LostWorkerError(Exception):
    """The process that did a job was killed."""


def work(job: Job, common: Common) -> list[Result]:
    """Do a job in a child of this process's fork server, which is started if needed.

    Any number of threads may call it.

    Raises:
        LostWorkerError: The fork server was killed.
    """
    global _server  # noqa: PLW0603 - one a process, whichever thread starts it
    with _lock:
        if _server is None or not _server.runs():
            _server = _ForkServer()
        future = _server.submit(job, common)
    return future.result()


def stop() -> None:
    """End this process's fork server; jobs that it runs end without a result."""
    with _lock:
        if _server is not None:
            _server.stop()


class _ForkServer:
    """The other end of ``forkserver``: sends jobs; a thread receives the results."""

    def __init__(self) -> None:
        """Start the process."""
        self._numbers = count()
        self._waiting: dict[int, Future[list[Result]]] = {}
        self._socket, other = socket.socketpair()
        with other:
            descriptor = other.fileno()
            program = _PROGRAM.format(path=sys.path, descriptor=descriptor)
            self._process = subprocess.Popen(
                [sys.executable, "-c", program],
                stdin=subprocess.DEVNULL,
                pass_fds=[descriptor],
                start_new_session=True,  # Ctrl-C is for the client, which then stops it
            )
        self._connection = Connection(os.dup(self._socket.fileno()))
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()

    def runs(self) -> bool:
        """Return True unless the process has ended, or is ending."""
        return self._thread.is_alive()

    def submit(self, job: Job, common: Common) -> Future[list[Result]]:
        """Send a job; return the future of its results."""
        number = next(self._numbers)
        future: Future[list[Result]] = Future()
        self._waiting[number] = future
        with suppress(OSError):  # it was just killed, which the thread finds too
            self._connection.send((number, job, common))
        if not self._thread.is_alive():
            self._fail()
        return future

    def stop(self) -> None:
        """End the process with its children, and wait for that."""
        with suppress(OSError):  # the other end is closed
            self._socket.shutdown(socket.SHUT_RDWR)
        self._process.wait()
        self._thread.join()

    def _receive(self) -> None:
        try:
            while True:
                number, results = self._connection.recv()
                self._waiting.pop(number).set_result(results)
        except (EOFError, OSError):
            pass
        finally:
            self._process.wait()
            self._connection.close()
            self._socket.close()
            self._fail()

    def _fail(self) -> None:
        """Fail the jobs that have no result."""
        while self._waiting:
            with suppress(KeyError):  # another thread was faster
                _, future = self._waiting.popitem()
                future.set_exception(LostWorkerError())


_lock: Final = threading.Lock()
_server: _ForkServer | None = None
