"""Assemble a tar stream, as it is read, from encoded bytes and host files.

A layer that is stored as a directory becomes the tar that it was unpacked from: headers
and padding are kept here, contents are read from the files. So archives and engine
roots are read by the same code.
"""

import os
import stat
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from errno import ELOOP
from typing import Final, NoReturn

from ..errors import FlattenError, FormatError, quoted
from ..host.beneath import Beneath
from ..host.decompress import CHUNK
from ..host.files import LayerBytes
from ..host.spools import Pool
from ..tar.read_header import HeaderBytes
from .crc64 import crc64
from .image import Place

MAX_TREES: Final = 1 << 16
_UNKNOWN: Final = -1
_LARGE: Final = 1 << 18  # bytes of a content whose file is used to test for sharing
_CRC_STEP: Final = 1 << 20

_Content = Callable[[int, int, memoryview], None]
"""Fills a view with part of a content: its number, the bytes to skip, the view."""


class Assembly(LayerBytes):
    """A layer's bytes: alternating encoded bytes and contents of files.

    Contents are rows of columns. Encoded bytes are stored consecutively in a spool, so
    they count against ``--memory``. Once it is finished, all threads may read it.

    Attributes:
        where: Its name in messages.
        contents: Bytes of all contents.
    """

    def __init__(self, pool: Pool, where: str, packed: int = 0) -> None:
        """Create an empty stream.

        Args:
            pool: The pool that holds the encoded bytes.
            where: The stream's name in messages.
            packed: Number of compressed bytes that it is made from, if any, for the
                limit on the inflation ratio.
        """
        self.where = where
        self._pool = pool
        self._packed = packed
        self._encoded = pool.spool(where)
        self._pending = bytearray()  # encoded bytes that are not in the spool yet
        self._trees: list[Beneath | str] = []
        self._names = bytearray()
        # Columns of contents: start and end in the stream, and position in the encoded
        # bytes; end of the name; tree; CRC-64, if known.
        self._starts = array("q")
        self._ends = array("q")
        self._places = array("q")
        self._name_ends = array("q")
        self._tree = array("H")
        self._crcs = array("Q")
        self._parts: dict[int, tuple[int, int]] = {}  # start in a file; size of that
        self._size = 0
        self.contents = 0
        self._held = _UNKNOWN, _UNKNOWN  # the content that ``extent`` opened last

    # --- assembling

    def add_tree(self, tree: Beneath | str) -> int:
        """Add a directory that contains contents, and return its number.

        A text gives the reason why the directory is missing; it is raised as the error
        when a content is read.
        """
        self._trees.append(tree)
        if len(self._trees) > MAX_TREES:
            raise FormatError("too many directories", where=self.where)
        return len(self._trees) - 1

    def add_bytes(self, data: bytes) -> None:
        """Append encoded bytes.

        Raises:
            FlattenError: A limit is exceeded.
        """
        self._pending += data
        self._size += len(data)
        if len(self._pending) >= CHUNK:
            self._pool.fill(self._encoded, [bytes(self._pending)], self._packed)
            self._pending.clear()

    def add_file(
        self,
        path: bytes,
        size: int,
        *,
        tree: int = 0,
        crc: int = 0,
        part: tuple[int, int] | None = None,
    ) -> None:
        """Append the content of a file, which is not opened yet.

        Args:
            path: Its normalised path in the tree.
            size: Its length.
            tree: Number of its directory, from ``add_tree``.
            crc: Its CRC-64, to detect changes; 0 if unknown.
            part: For a part of a longer file: its start there, and the file's length.
        """
        if not size:
            return
        if len(self._starts) >= self._pool.limits.members:
            raise FormatError("more contents than --max-members", where=self.where)
        if size >> 62 or self._size >> 62:
            raise FormatError(f"a content of {size:,} bytes", where=self.where)
        self._starts.append(self._size)
        self._ends.append(self._size + size)
        self._places.append(self._size - self.contents)
        self._size += size
        self.contents += size
        self._names += path
        self._name_ends.append(len(self._names))
        self._tree.append(tree)
        self._crcs.append(crc)
        if part is not None:
            self._parts[len(self._starts) - 1] = part

    def finish(self) -> None:
        """Mark the stream as complete."""
        if self._pending:
            self._pool.fill(self._encoded, [bytes(self._pending)], self._packed)
            self._pending.clear()
        self._encoded.finish()

    # --- the bytes

    def read(self, offset: int, count: int) -> bytes:
        """Return ``count`` bytes; fewer only at the end."""
        out = bytearray(max(min(count, self._size - offset), 0))
        self.fill(offset, memoryview(out), self._content)
        return bytes(out)

    def readinto(self, offset: int, view: memoryview) -> None:
        """Fill ``view``.

        Raises:
            FormatError: The stream is too short, or a file is missing or has another
                length than recorded.
        """
        if offset + len(view) > self._size:
            raise FormatError("ends too soon", where=self.where, offset=self._size)
        self.fill(offset, view, self._content)

    def size(self) -> int:
        """Return the length of the stream."""
        return self._size

    def extent(self, offset: int) -> tuple[int, int, int] | None:
        """Return the descriptor of the file whose content contains ``offset``.

        It is valid until the next call. The file is checked to have exactly the
        content's length when it is opened.
        """
        number = self._content_at(offset)
        if number == _UNKNOWN:
            return None
        if self._held[0] != number:
            self.close()
            self._held = number, self._open(number)
        return self._held[1], self._place(number, offset), self._ends[number] - offset

    def origin(self, offset: int) -> int | None:
        """Return the position of ``offset`` in its content's file, or None."""
        number = self._content_at(offset)
        return None if number == _UNKNOWN else self._place(number, offset)

    def sample(self) -> int | None:
        """Return a descriptor of the first large content's file."""
        for start, end in zip(self._starts, self._ends, strict=True):
            if end - start >= _LARGE:
                found = self.extent(start)
                return None if found is None else found[0]
        return None

    def close(self) -> None:
        """Close the file that ``extent`` opened; a second call does nothing."""
        _, descriptor = self._held
        self._held = _UNKNOWN, _UNKNOWN
        if descriptor != _UNKNOWN:
            os.close(descriptor)

    def headers(self) -> "Headers":
        """Return the bytes for reading headers, without opening any files."""
        return Headers(self)

    def edited(self) -> Iterator[str]:
        """Yield the files whose CRC-64 differs from the recorded one."""
        columns = zip(self._starts, self._ends, self._crcs, strict=True)
        for number, (start, end, known) in enumerate(columns):
            crc = 0
            for offset in range(start, end if known else start, _CRC_STEP):
                crc = crc64(self.read(offset, min(_CRC_STEP, end - offset)), crc)
            if crc != known:
                yield self._named(number)

    # --- contents

    def in_content(self, offset: int) -> bool:
        """Return True if ``offset`` is in a content, not in encoded bytes."""
        return self._content_at(offset) != _UNKNOWN

    def _content_at(self, offset: int) -> int:
        number = bisect_right(self._starts, offset) - 1
        inside = number >= 0 and offset < self._ends[number]
        return number if inside else _UNKNOWN

    def _place(self, number: int, offset: int) -> int:
        """Return the position of a stream offset in a content's file."""
        start, _ = self._parts.get(number, (0, 0))
        return start + offset - self._starts[number]

    def fill(self, offset: int, view: memoryview, content: _Content) -> None:
        """Fill ``view`` with encoded bytes, read in one piece, and contents.

        ``content`` is called to fill each content. The range is within the stream.
        """
        starts, ends = self._starts, self._ends
        stop = offset + len(view)
        number = bisect_right(ends, offset)
        encoded = self._encoded_at(offset, number)
        more = self._encoded_at(stop, bisect_right(ends, stop)) - encoded
        source = memoryview(self._encoded.read(encoded, more))
        at, taken, count = offset, 0, len(starts)
        while at < stop:
            start = starts[number] if number < count else stop
            if at < start:
                end = min(start, stop)
                view[at - offset : end - offset] = source[taken : taken + end - at]
                taken += end - at
            else:
                end = min(ends[number], stop)
                content(number, at - start, view[at - offset : end - offset])
                number += 1
            at = end

    def _encoded_at(self, offset: int, number: int) -> int:
        """Return the number of encoded bytes before ``offset``.

        ``number`` is that of the first content that ends after ``offset``, or the
        number of contents if there is none.
        """
        if number < len(self._starts):
            start, place = self._starts[number], self._places[number]
            return place - max(start - offset, 0)
        return offset - self.contents

    def _content(self, number: int, skip: int, view: memoryview) -> None:
        """Read part of a content."""
        descriptor = self._open(number)
        skip += self._parts.get(number, (0, 0))[0]
        try:
            while view:
                done = os.preadv(descriptor, [view], skip)
                if not done:
                    self._changed(number, "it became shorter while being read")
                skip += done
                view = view[done:]
        except OSError as error:
            raise self._failed(number, error) from error
        finally:
            os.close(descriptor)

    def _open(self, number: int) -> int:
        """Open a content's file, and check that it has the recorded length."""
        tree = self._trees[self._tree[number]]
        if isinstance(tree, str):
            raise FormatError(tree, where=self.where)
        try:
            descriptor = tree.open(self._path(number))
        except OSError as error:
            raise self._failed(number, error) from error
        status = os.fstat(descriptor)
        size = self._ends[number] - self._starts[number]
        _, size = self._parts.get(number, (0, size))
        if not stat.S_ISREG(status.st_mode) or status.st_size != size:
            os.close(descriptor)
            found = f"{status.st_size:,} bytes"
            found = found if stat.S_ISREG(status.st_mode) else "not a regular file"
            self._changed(number, f"it is {found}, the layer records {size:,} bytes")
        return descriptor

    def _path(self, number: int) -> bytes:
        start = self._name_ends[number - 1] if number else 0
        return bytes(self._names[start : self._name_ends[number]])

    def _named(self, number: int) -> str:
        tree = self._trees[self._tree[number]]
        place = "" if isinstance(tree, str) else f"{tree.name}/"
        return place + os.fsdecode(self._path(number))

    def _changed(self, number: int, how: str) -> NoReturn:
        raise FormatError(
            f"{quoted(self._named(number))} was changed on disk: {how}",
            where=self.where,
        )

    def _failed(self, number: int, error: OSError) -> FlattenError:
        path = quoted(self._named(number))
        if isinstance(error, FileNotFoundError):
            return FormatError(f"{path} is not there", where=self.where)
        if error.errno == ELOOP:
            self._changed(number, "it is a symlink")
        hint = "; read it as root" if isinstance(error, PermissionError) else ""
        return FlattenError(f"{self.where}: cannot read {path}: {error.strerror}{hint}")


class Headers:
    """An assembly for reading headers only: its contents are not read.

    Contents are filled with 0xff, which no valid header has, so that a header within a
    content gives an error instead of being missed. A read that starts in a content is
    for the map of a sparse file, and returns the real bytes.
    """

    def __init__(self, assembly: Assembly) -> None:
        """Wrap an assembly."""
        self._assembly = assembly

    def read(self, offset: int, count: int) -> bytes:
        """Return ``count`` bytes; fewer only at the end."""
        assembly = self._assembly
        if assembly.in_content(offset):
            return assembly.read(offset, count)
        out = bytearray(b"\xff") * max(min(count, assembly.size() - offset), 0)
        assembly.fill(offset, memoryview(out), _leave)
        return bytes(out)

    def size(self) -> int:
        """Return the length of the stream."""
        return self._assembly.size()


def _leave(_number: int, _skip: int, _view: memoryview) -> None:
    """Leave a content's part of the view unchanged."""


@dataclass(slots=True)
class AssembledLayer:
    """A layer that is assembled when it is first needed.

    Attributes:
        build: Assembles the layer.
        resources: Closes it.
        digest: ``sha256:<hex>`` of the bytes of ``stored``, if known.
        stored: Opens another stored form of the layer, if there is one.
        place: The layer's location in an engine's root.
    """

    name: str
    diff_id: str | None
    build: Callable[[], Assembly]
    resources: ExitStack
    digest: str | None = None
    stored: Callable[[], LayerBytes] | None = None
    place: Place | None = None
    _assembly: Assembly | None = field(default=None, repr=False)

    def open(self) -> Assembly:
        """Return the layer's bytes, assembled at the first call."""
        if self._assembly is None:
            self._assembly = self.build()
            self.resources.callback(self._assembly.close)
        return self._assembly

    def blob(self) -> LayerBytes:
        """Return the other stored form of the layer, or else the assembled bytes."""
        return self.open() if self.stored is None else self.stored()

    def headers(self) -> HeaderBytes:
        """Return the bytes for reading headers, without opening any files.

        Unless the layer is open, they are assembled on each call, and not kept.
        """
        return (self._assembly or self.build()).headers()

    def mismatch_reason(self) -> str:
        """Return a message that names an edited file, or "" if none is known."""
        edited = next(self.open().edited(), None)
        return "" if edited is None else f"{quoted(edited)} was changed on disk"
