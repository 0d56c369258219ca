"""A tar stream put together, while it is read, from bytes and files of the host.

A layer that lies on a disk as a directory becomes the tar that it came from: its
headers and padding are held here, the contents are read from the files. So there is
one engine for archives and disks.
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
from ..host.spools import Pool, Spool
from ..tar.read_header import HeaderBytes
from .crc64 import crc64
from .image import Place

MAX_TREES: Final = 1 << 16
_UNKNOWN: Final = -1
_LARGE: Final = 1 << 18  # bytes of a content whose file shows what can be shared
_CRC_STEP: Final = 1 << 20

_Content = Callable[[int, int, memoryview], None]
"""Fills a view with a part of a content: its number, how much to skip, the view."""


class Assembly:
    """Encoded bytes and contents of files, in turn: a layer's bytes.

    A content is a row of columns. Encoded bytes lie one after another in a spool, so
    they count against ``--memory``. Once it is finished, any thread may read.

    Attributes:
        where: Its name in messages.
    """

    def __init__(self, pool: Pool, where: str, packed: int = 0) -> None:
        """Begin an empty stream.

        Args:
            pool: What holds the encoded bytes.
            where: The stream's name in messages.
            packed: How many compressed bytes it is made from, if any: the limit of
                what they may inflate to counts.
        """
        self.where = where
        self._pool = pool
        self._packed = packed
        self._encoded = Spool(pool, where)
        self._pending = bytearray()  # of encoded bytes, not in the spool yet
        self._trees: list[Beneath | str] = []
        self._names = bytearray()
        # A content: where it begins and ends in the stream, and among the encoded
        # bytes; where its name ends; its tree; its CRC-64, if that is known.
        self._starts = array("q")
        self._ends = array("q")
        self._places = array("q")
        self._name_ends = array("q")
        self._tree = array("H")
        self._crcs = array("Q")
        self._parts: dict[int, tuple[int, int]] = {}  # where a part starts, of how much
        self._size = 0
        self._contents = 0  # bytes of all of them
        self._held = _UNKNOWN, _UNKNOWN  # the content that extent opened last

    # --- putting it together

    def add_tree(self, tree: Beneath | str) -> int:
        """Add a directory that contents come from, and return its number.

        A text says why there is none; it is the error when a content is read.
        """
        self._trees.append(tree)
        if len(self._trees) > MAX_TREES:
            raise FormatError("too many directories", where=self.where)
        return len(self._trees) - 1

    def add_bytes(self, data: bytes) -> None:
        """Add encoded bytes to the end.

        Raises:
            FlattenError: A limit is passed.
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
        """Add the content of a file, which is not opened yet.

        Args:
            path: Normalised, below the tree.
            size: Its length.
            tree: Which directory it is in, as ``add_tree`` numbers them.
            crc: Its CRC-64, to tell whether it was changed; 0 if it is not known.
            part: Where it starts in a file that is longer, and how long that is.
        """
        if not size:
            return
        if len(self._starts) >= self._pool.limits.members:
            raise FormatError("more contents than --max-members", where=self.where)
        if size >> 62 or self._size >> 62:
            raise FormatError(f"a content of {size:,} bytes", where=self.where)
        self._starts.append(self._size)
        self._ends.append(self._size + size)
        self._places.append(self._size - self._contents)
        self._size += size
        self._contents += size
        self._names += path
        self._name_ends.append(len(self._names))
        self._tree.append(tree)
        self._crcs.append(crc)
        if part is not None:
            self._parts[len(self._starts) - 1] = part

    def finish(self) -> None:
        """Say that nothing more comes."""
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
            FormatError: The stream ends too soon, or a file is not there, or not as
                long as it was.
        """
        if offset + len(view) > self._size:
            raise FormatError("ends too soon", where=self.where, offset=self._size)
        self.fill(offset, view, self._content)

    def size(self) -> int:
        """Return the length of the stream."""
        return self._size

    def extent(self, offset: int) -> tuple[int, int, int] | None:
        """Return the descriptor of the file whose content ``offset`` is in.

        It is valid until the next call. The file has the content's length and no more
        when it is opened.
        """
        number = self._content_at(offset)
        if number == _UNKNOWN:
            return None
        if self._held[0] != number:
            self.close()
            self._held = number, self._open(number)
        return self._held[1], self._place(number, offset), self._ends[number] - offset

    def origin(self, offset: int) -> int | None:
        """Return where ``offset`` is in the file whose content it is in."""
        number = self._content_at(offset)
        return None if number == _UNKNOWN else self._place(number, offset)

    def sample(self) -> int | None:
        """Return a descriptor of the first large content's file."""
        for start, end in zip(self._starts, self._ends, strict=True):
            if end - start >= _LARGE:
                found = self.extent(start)
                return None if found is None else found[0]
        return None

    def release(self, offset: int, count: int) -> None:
        """Do nothing: the files are not ours."""

    def close(self) -> None:
        """Close what ``extent`` has opened; a second time does nothing."""
        _, descriptor = self._held
        self._held = _UNKNOWN, _UNKNOWN
        if descriptor != _UNKNOWN:
            os.close(descriptor)

    def edited(self) -> Iterator[str]:
        """Yield the files whose CRC-64 is not what is known of them."""
        columns = zip(self._starts, self._ends, self._crcs, strict=True)
        for number, (start, end, known) in enumerate(columns):
            crc = 0
            for offset in range(start, end if known else start, _CRC_STEP):
                crc = crc64(self.read(offset, min(_CRC_STEP, end - offset)), crc)
            if crc != known:
                yield self._named(number)

    # --- contents

    def in_content(self, offset: int) -> bool:
        """Say whether ``offset`` is in a content, not among encoded bytes."""
        return self._content_at(offset) != _UNKNOWN

    def _content_at(self, offset: int) -> int:
        number = bisect_right(self._starts, offset) - 1
        inside = number >= 0 and offset < self._ends[number]
        return number if inside else _UNKNOWN

    def _place(self, number: int, offset: int) -> int:
        """Return where an offset of the stream is in a content's file."""
        start, _ = self._parts.get(number, (0, 0))
        return start + offset - self._starts[number]

    def fill(self, offset: int, view: memoryview, content: _Content) -> None:
        """Fill ``view``: encoded bytes, taken in one piece, and contents among them.

        ``content`` fills each of these; the parts are within the stream.
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
        """Return how many encoded bytes come before ``offset``.

        ``number`` is of the content that ends behind it, or the count of all.
        """
        if number < len(self._starts):
            start, place = self._starts[number], self._places[number]
            return place - max(start - offset, 0)
        return offset - self._contents

    def _content(self, number: int, skip: int, view: memoryview) -> None:
        """Read a part of a content."""
        descriptor = self._open(number)
        skip += self._parts.get(number, (0, 0))[0]
        try:
            while view:
                done = os.preadv(descriptor, [view], skip)
                if not done:
                    self._changed(number, "it became shorter while it was read")
                skip += done
                view = view[done:]
        except OSError as error:
            raise self._failed(number, error) from error
        finally:
            os.close(descriptor)

    def _open(self, number: int) -> int:
        """Open a content's file, which must be as long as it was."""
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
            found = found if stat.S_ISREG(status.st_mode) else "no regular file"
            self._changed(number, f"it is {found}, the layer has {size:,} of it")
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
    """An assembly as the reader of its headers needs it: contents are not read.

    They are filled with 0xff, which no header can be made of, so that one that
    stands in a content is an error and not missed. A read that begins in a content
    is for it, the map of a sparse file, and is answered.
    """

    def __init__(self, assembly: Assembly) -> None:
        """Look at an assembly."""
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
    """Leave a content as it is."""


@dataclass(slots=True)
class AssembledLayer:
    """A layer that is assembled when it is first needed.

    Attributes:
        build: Puts it together.
        resources: Closes it.
        digest: ``sha256:<hex>`` of what ``stored`` gives, if that is known.
        stored: Opens another form that it is stored in too.
        place: Where it lies.
    """

    name: str
    diff_id: str | None
    build: Callable[[], Assembly]
    resources: ExitStack
    digest: str | None = None
    stored: Callable[[], LayerBytes] | None = None
    place: Place | None = None
    _assembly: Assembly | None = field(default=None, repr=False)

    def open(self, *, hashed: bool = False) -> Assembly:  # noqa: ARG002 - of Layer
        """Return the layer's bytes; they are put together at the first call."""
        if self._assembly is None:
            self._assembly = self.build()
            self.resources.callback(self._assembly.close)
        return self._assembly

    def blob(self) -> LayerBytes:
        """Return another form that it is stored in, or else the same."""
        return self.open() if self.stored is None else self.stored()

    def headers(self) -> HeaderBytes:
        """Return the bytes for reading headers, which opens no files.

        Unless the layer is open, they are put together each time, and not kept.
        """
        return Headers(self._assembly or self.build())

    def blame(self) -> str:
        """Say which file was edited, where that is known."""
        edited = next(self.open().edited(), None)
        return "" if edited is None else f"{quoted(edited)} was changed on disk"
