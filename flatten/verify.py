"""Digests against what the image promised, in threads beside the copying.

hashlib and pread release the interpreter's lock, so hashing costs a processor that
is free, not the one that copies. Bytes are read in large steps: a thread waits for
the lock after each, for up to the switch interval.
"""

import hashlib
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from .errors import FlattenError, IntegrityError
from .model import Layer

STEP: Final = 1 << 22  # 2 ms of SHA-256
THREADS: Final = 2


class DigestCheck:
    """Layers being hashed in threads.

    ``finish`` must be reached before the output counts as right.
    """

    def __init__(self, layers: Iterable[Layer]) -> None:
        """Start hashing the layers whose diff_id is known."""
        self._todo = [layer for layer in layers if layer.diff_id is not None][::-1]
        self._error: BaseException | None = None
        self._stopped = False
        count = min(THREADS, len(self._todo))
        self._threads = [threading.Thread(target=self._run) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def finish(self) -> None:
        """Wait for all digests.

        Raises:
            IntegrityError: A layer's is not its diff_id.
            FlattenError: A layer could not be read.
        """
        for thread in self._threads:
            thread.join()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Give up, without an answer."""
        self._stopped = True
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        buffer = memoryview(bytearray(STEP))
        while self._todo and self._error is None and not self._stopped:
            try:
                layer = self._todo.pop()
            except IndexError:
                return  # the other thread took the last one
            try:
                self._check(layer, buffer)
            except FlattenError as error:
                self._error = error

    def _check(self, layer: Layer, buffer: memoryview) -> None:
        source = layer.open()
        digest = hashlib.sha256()
        offset, size = 0, source.size()
        while offset < size and not self._stopped:
            view = buffer[: size - offset]
            source.readinto(offset, view)
            digest.update(view)
            offset += len(view)
        found = f"sha256:{digest.hexdigest()}"
        if found != layer.diff_id and not self._stopped:
            raise IntegrityError(
                f"{layer.name}: its digest is {found}, "
                f"the image's config promises {layer.diff_id} (--no-verify goes on)"
            )


@contextmanager
def checking(layers: Iterable[Layer]) -> Iterator[DigestCheck]:
    """Hash the layers while the body runs; on its failure, stop."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(min(interval, 0.0005))
    check = DigestCheck(layers)
    try:
        yield check
    finally:
        check.stop()
        sys.setswitchinterval(interval)
