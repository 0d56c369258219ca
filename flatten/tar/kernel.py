"""The compiled kernel, which reads and writes plain headers much faster than Python.

It is ``flatten/_headers.c``, and optional. It is not there if there was no compiler
at installation, and not used if the environment has ``FLATTEN_PURE=1``. With or without
it, flatten gives the same rows, bytes and errors: what the kernel does not take, Python
reads and writes.
"""

import os
from array import array
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from .members import LINK, SYMLINK, Members
from .wire import BLOCK_SIZE

scan: Callable[..., None] | None = None
encode: Callable[..., tuple[int, int]] | None = None
"""The kernel's functions, if it is used; ``flatten/_headers.pyi`` describes them."""

if os.environ.get("FLATTEN_PURE", "") in ("", "0"):
    with suppress(ImportError):
        from .. import _headers

        scan, encode = _headers.scan, _headers.encode

MOST: Final = 1 << 15  # bytes that are scanned at once
_ROWS: Final = 1 << 11  # rows that are kept until they are moved to the columns
_TEXTS: Final = 1 << 17  # bytes of names, or of targets, that are kept
_ID: Final = 21  # bits of a uid or a gid


class Scanner:
    """Scans a stream for plain headers, and appends their rows to the columns.

    Rows are kept until there are many of them, or ``flush`` is called.
    """

    def __init__(
        self, scan: Callable[..., None], into: Members, paths: list[bytes]
    ) -> None:
        """Append rows to ``into``, except its column ``layers``, and to ``paths``."""
        self._scan = scan
        self._into = into
        self._paths = paths
        self._owners = _Owners(into)
        self._state = array("q", bytes(5 * 8))
        # Room for the rows that are kept, and for those of one more scan.
        self._rows = _ROWS + MOST // BLOCK_SIZE
        self._kinds = bytearray(self._rows)
        self._numbers = array("q", bytes(4 * 8 * self._rows))
        self._names = bytearray(_TEXTS + MOST)
        self._targets = bytearray(_TEXTS + MOST)

    def kept(self) -> int:
        """Return the number of rows that are not in the columns yet."""
        return self._state[0]

    def scan(
        self, buffer: bytes, base: int, offset: int, reached: int
    ) -> tuple[int, int]:
        """Keep the rows of all plain headers up to the first that is not plain.

        Args:
            buffer: At most ``MOST`` bytes of the stream.
            base: Their offset in the stream.
            offset: Offset of the first header.
            reached: End of the data before it.

        Returns:
            The offset of the next header, and the end of the data before that.
        """
        state = self._state
        if state[0] > _ROWS or state[1] > _TEXTS or state[2] > _TEXTS:
            self.flush()
        state[3], state[4] = offset, reached
        self._scan(
            buffer, base, state, self._kinds, self._numbers, self._names, self._targets
        )
        return state[3], state[4]

    def flush(self) -> None:
        """Move the rows that are kept to the columns."""
        count, names, targets, *_ = self._state
        if not count:
            return
        into, first = self._into, len(self._into)
        kinds = self._kinds[:count]
        owners, sizes, data, mtimes = (
            self._numbers[start : start + count]
            for start in range(0, 4 * self._rows, self._rows)
        )
        into.kinds += kinds
        into.owners.extend(map(self._owners.__getitem__, owners))
        into.sizes.extend(sizes)
        into.data.extend(data)
        into.mtimes.extend(mtimes)
        self._paths += bytes(self._names[: names - 1]).split(b"\0")
        if targets:
            rows = [n for n, kind in enumerate(kinds, first) if kind in (LINK, SYMLINK)]
            texts = bytes(self._targets[: targets - 1]).split(b"\0")
            into.targets.update(zip(rows, texts, strict=True))
        self._state[0] = self._state[1] = self._state[2] = 0


class _Owners(dict[int, int]):
    """The index of each owner in the owner table, by the form that the kernel gives."""

    def __init__(self, into: Members) -> None:
        super().__init__()
        self._into = into

    def __missing__(self, packed: int) -> int:
        uid, gid = packed >> _ID & (1 << _ID) - 1, packed & (1 << _ID) - 1
        self[packed] = self._into.owner((packed >> 2 * _ID, uid, gid))
        return self[packed]
