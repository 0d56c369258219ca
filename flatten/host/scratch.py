"""Where spools keep their bytes: in memory up to a budget, then in a scratch file."""

import os
import threading

from ..errors import FlattenError
from .limits import Limits, free_memory, processors
from .space import Freeing


class Store:
    """An unnamed append-only file: a memfd, or a temporary file on disk."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._end = 0
        self._lock = threading.Lock()

    def append(self, chunk: bytes) -> int:
        """Append a chunk; return its offset."""
        with self._lock:
            start = self._end
            self._end += len(chunk)
        done = 0
        while done < len(chunk):
            rest = memoryview(chunk)[done:]
            done += os.pwrite(self.descriptor, rest, start + done)
        return start


class Scratch:
    """The memory and the scratch file of all spools of a source.

    Attributes:
        freeing: Frees memory that is no longer needed.
    """

    def __init__(self, limits: Limits) -> None:
        """Prepare, without creating any file yet."""
        self.freeing = Freeing()
        self._budget = free_memory() // 4 if limits.memory is None else limits.memory
        self._processors = processors()
        self._memories: dict[int, Store] = {}
        self._spools = 0
        self._file: Store | None = None
        self._lock = threading.Lock()

    def memory(self) -> Store | None:
        """Return the store in memory for a new spool, or None without memfd.

        Some seccomp profiles forbid memfd; all bytes then go to the scratch file.
        Spools that are filled at the same time have their own, since threads that write
        to the same file wait for each other.
        """
        with self._lock:
            at = self._spools % self._processors
            self._spools += 1
            if at not in self._memories:
                try:
                    self._memories[at] = Store(os.memfd_create("flatten"))
                except OSError:
                    return None
            return self._memories[at]

    def keep(self, chunk: bytes, memory: Store | None) -> tuple[int, int]:
        """Store a chunk; return its descriptor and offset."""
        with self._lock:
            fits = memory is not None and len(chunk) <= self._budget
            self._budget -= len(chunk) if fits else 0
        store = memory if fits and memory is not None else self._on_disk()
        try:
            return store.descriptor, store.append(chunk)
        except OSError as error:
            if store is memory:
                why = f"{error.strerror}; --memory limits how much is kept there"
                raise FlattenError(f"cannot keep data in memory: {why}") from error
            raise self._no_scratch(error) from error

    def _on_disk(self) -> Store:
        """Return the store on disk, for bytes beyond the memory budget."""
        import tempfile  # 10 ms, only when memory is short

        with self._lock:
            try:
                if self._file is None:
                    with tempfile.TemporaryFile() as scratch:
                        self._file = Store(os.dup(scratch.fileno()))
            except OSError as error:
                raise self._no_scratch(error) from error
            return self._file

    @staticmethod
    def _no_scratch(error: OSError) -> FlattenError:
        import tempfile  # as above

        folder = tempfile.tempdir or "any folder"
        return FlattenError(
            f"cannot write scratch space in {folder}: {error.strerror}; "
            "set TMPDIR to another directory, or keep more in memory with --memory"
        )

    def close(self) -> None:
        """Free the memory and the scratch file."""
        self.freeing.stop()
        for store in (*self._memories.values(), *filter(None, [self._file])):
            os.close(store.descriptor)
        self._memories, self._file = {}, None
