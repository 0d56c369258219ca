"""Check the digests of layers against those that the image records.

Inflated bytes are hashed as they arrive (``spools``); all others are read in threads
while the output is copied. hashlib and pread release the interpreter's lock, so this
uses an idle processor, not the one that copies. A thread waits for the lock after each
step, for up to the switch interval.
"""

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from ..errors import FlattenError, IntegrityError
from ..host.files import LayerBytes
from ..host.limits import processors
from ..host.spools import short_turns
from .image import Layer

STEP: Final = 1 << 20  # bytes hashed per step: 0.7 ms of SHA-256

_Task = tuple[Layer, str, Callable[[], LayerBytes]]  # layer, digest, opener
_Arriving = tuple[Layer, str, Callable[[], str]]  # layer, digest, SHA-256 on arrival


class DigestCheck:
    """A digest check of layers that runs in threads.

    The output is only verified once ``finish`` has returned.

    Attributes:
        rereads: Whether inflated layers are read again, as they were not hashed before.
    """

    def __init__(self, layers: Iterable[Layer]) -> None:
        """Start to check the layers, as ``add``."""
        self._processors = processors()
        self._arriving: list[_Arriving] = []
        self.rereads = False
        self._later: deque[_Task] = deque()
        self._error: BaseException | None = None
        self._stopped = False
        self._threads: list[threading.Thread] = []
        self.add(layers)

    def add(self, layers: Iterable[Layer]) -> None:
        """List the digests to check, and start with the uncompressed layers.

        Inflated bytes are hashed as they arrive, and compressed bytes once the tree no
        longer waits for inflating. The largest layers come first, so that the threads
        end at about the same time.
        """
        now: deque[_Task] = deque()
        known: set[tuple[int, str | None, str | None]] = set()
        layers = tuple(layers)
        for layer in layers:
            layer.blob()  # start fetching all of them
        for layer in layers:
            opened = layer.open()
            promise = id(opened), layer.diff_id, layer.digest
            if promise in known:  # the image lists a layer again
                continue
            known.add(promise)
            inflated = opened is not layer.blob()
            if layer.diff_id is not None:
                if made := opened.arrival_digest():
                    self._arriving.append((layer, layer.diff_id, made))
                else:
                    now.append((layer, layer.diff_id, layer.open))
                    self.rereads |= inflated
            if layer.digest is not None and (inflated or layer.digest != layer.diff_id):
                blob = layer.blob()
                if made := blob.arrival_digest():
                    self._arriving.append((layer, layer.digest, made))
                else:
                    self._later.append((layer, layer.digest, layer.blob))
        self._start(now)

    def start_rest(self) -> None:
        """Start hashing the remaining bytes, and check the digests of inflated layers.

        Raises:
            FlattenError: As for ``finish``.
        """
        self._start(self._later)
        self._compare_arrived()

    def finish(self) -> None:
        """Wait for all digests.

        Raises:
            IntegrityError: A digest does not match.
            FlattenError: A layer could not be read.
        """
        self._compare_arrived()
        for thread in self._threads:
            thread.join()
        if isinstance(self._error, FlattenError):
            raise self._error
        if self._error is not None:
            raise FlattenError(f"cannot check digests: {self._error!r}")

    def stop(self) -> None:
        """Cancel the check, without a result."""
        self._stopped = True
        for thread in self._threads:
            thread.join()

    def _start(self, tasks: deque[_Task]) -> None:
        tasks = deque(sorted(tasks, key=lambda task: -task[0].blob().size()))
        for _ in range(min(self._processors, len(tasks))):
            thread = threading.Thread(target=self._run, args=(tasks,))
            try:
                thread.start()
            except RuntimeError as error:
                raise FlattenError(f"cannot check digests: {error}") from error
            self._threads.append(thread)

    def _run(self, tasks: deque[_Task]) -> None:
        """Check one task after another; an error that ends the thread is stored."""
        try:
            while tasks and self._error is None and not self._stopped:
                with suppress(IndexError):  # another thread took the last task
                    self._check(*tasks.popleft())
        except BaseException as error:
            self._error = error

    def _check(
        self, layer: Layer, promised: str, opener: Callable[[], LayerBytes]
    ) -> None:
        source = opener()
        algorithm = promised.partition(":")[0]
        digest = hashlib.new(algorithm)
        offset = 0
        while not self._stopped and (data := source.read(offset, STEP)):
            digest.update(data)
            offset += len(data)
        if not self._stopped:
            self._compare(layer, promised, f"{algorithm}:{digest.hexdigest()}")

    def _compare_arrived(self) -> None:
        arriving, self._arriving = self._arriving, []
        for layer, promised, digest in arriving:
            self._compare(layer, promised, f"sha256:{digest()}")

    @staticmethod
    def _compare(layer: Layer, promised: str, found: str) -> None:
        if found != promised:
            reason = layer.mismatch_reason()
            raise IntegrityError(
                f"{layer.name}: digest mismatch: expected {promised}, found {found}"
                f"{reason and ': '}{reason} (--no-verify goes on)"
            )


@contextmanager
def checking(layers: Iterable[Layer]) -> Iterator[DigestCheck]:
    """Check the layers' digests while the body runs; cancel if the body fails."""
    with short_turns():
        check = DigestCheck(layers)
        try:
            yield check
        finally:
            check.stop()
