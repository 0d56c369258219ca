"""Read a bbolt database file: buckets of keys and values, in B+ trees of pages.

All numbers are little endian::

    page     0 id u64  8 flags u16  10 count u16  12 overflow pages u32  16 elements
    branch   (flags 1) an element: position u32, key size u32, child page u64
    leaf     (flags 2) an element: flags u32, position u32, key size u32, value size u32
    bucket   the value of a leaf element with flags 1: root page u64, sequence u64;
             root 0: an inline bucket, whose only page follows in the value
    meta     (flags 4) pages 0 and 1, at 16: magic u32, version u32, page size u32,
             flags u32, root bucket, freelist u64, number of pages u64,
             transaction u64, FNV-64a of the preceding 56 bytes

Positions are relative to the element. The valid meta page with the later transaction is
used.

A daemon may write to the file at the same time. A page freed by one transaction can be
overwritten by the next but one, so the data read is consistent if the current meta page
is the same afterwards. No lock is taken, because the daemon would have to wait for it.
Every page belongs to exactly one tree, so no page is read twice, and a malicious file
costs no more than its length.

Reference: go.etcd.io/bbolt page.go, bucket.go, db.go (v1.3). This is format version 2.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from struct import Struct
from typing import Final, NoReturn, TypeVar

from ...errors import FlattenError, FormatError
from ...host.files import LayerBytes

MAX_READ: Final = 1 << 28  # bytes of pages; 10,000 images take about 50 MB
TRIES: Final = 20  # reads; a busy daemon commits a few times per second

_PAGE: Final = Struct("<QHHI")
_BRANCH: Final = Struct("<IIQ")
_LEAF: Final = Struct("<IIII")
_BUCKET: Final = Struct("<QQ")
_META: Final = Struct("<IIIIQQQQQQ")
_MAGIC: Final = 0xED0CDAED
_VERSION: Final = 2
_IS_BRANCH, _IS_LEAF, _IS_META = 1, 2, 4
_IS_BUCKET: Final = 1
_PAGE_SIZES: Final = tuple(1 << power for power in range(9, 25))

T = TypeVar("T")


@dataclass(slots=True)
class Bucket:
    """Keys in byte order, each with a value or a nested bucket; read on first use.

    Attributes:
        root: Number of the root page; None for an inline bucket.
        inline: The page of an inline bucket.
    """

    _file: "_File" = field(repr=False)
    root: int | None
    inline: bytes = field(default=b"", repr=False)
    _values: dict[bytes, bytes] | None = field(default=None, repr=False)
    _buckets: dict[bytes, "Bucket"] = field(default_factory=dict, repr=False)

    def values(self) -> dict[bytes, bytes]:
        """Return the values by key.

        Raises:
            FormatError: The pages are malformed.
        """
        if self._values is None:
            self._values = {}
            last = None
            for key, value, is_bucket in self._file.elements(self):
                if last is not None and key <= last:
                    self._file.fail("keys are not in order")
                last = key
                if is_bucket:
                    self._buckets[key] = self._file.bucket(value, self)
                else:
                    self._values[key] = value
        return self._values

    def buckets(self) -> dict[bytes, "Bucket"]:
        """Return the nested buckets by key.

        Raises:
            FormatError: As ``values``.
        """
        self.values()
        return self._buckets

    def find(self, *keys: bytes) -> "Bucket":
        """Return the bucket at a path of keys, or an empty bucket if there is none."""
        found = self
        for key in keys:
            found = found.buckets().get(key) or Bucket(self._file, None)
        return found


def read_bolt(
    opener: Callable[[], LayerBytes], where: str, take: Callable[[Bucket], T]
) -> T:
    """Return the result of ``take`` for the root bucket, consistent as of one commit.

    Args:
        opener: Opens the file; it is called again if a daemon has written to it.
        where: The file's name in messages.
        take: Reads everything that is needed; it may run more than once.

    Raises:
        FormatError: The file is not a valid bbolt database.
        FlattenError: The file kept changing.
    """
    for _ in range(TRIES):
        source = opener()
        meta = _meta(source, where)
        failure = None
        try:
            found = take(Bucket(_File(source, where, meta), meta.root))
        except FormatError as error:
            failure = error
        if _meta(opener(), where) != meta:
            continue
        if failure is not None:
            raise failure
        return found
    raise FlattenError(
        f"{where}: a daemon keeps writing to it; stop the daemon, or copy the root"
    )


@dataclass(frozen=True, slots=True)
class _Meta:
    """The fields of a meta page that are used."""

    page_size: int
    root: int
    high: int
    transaction: int


def _meta(source: LayerBytes, where: str) -> _Meta:
    """Return the meta page of the last transaction.

    The second meta page is at the offset of one page. If the first is damaged, the page
    size is unknown, so all sizes are tried, as bbolt does.
    """
    found = [
        meta
        for at in (0, *_PAGE_SIZES)
        if (meta := _parse_meta(source.read(at, _PAGE.size + _META.size))) is not None
        and at in (0, meta.page_size)
    ]
    if not found:
        raise FormatError("not a bbolt file: it has no valid meta page", where=where)
    return max(found, key=lambda meta: meta.transaction)


def _parse_meta(data: bytes) -> _Meta | None:
    if len(data) < _PAGE.size + _META.size or not _PAGE.unpack_from(data)[1] & _IS_META:
        return None
    magic, version, page_size, _, root, _, _, high, transaction, checksum = (
        _META.unpack_from(data, _PAGE.size)
    )
    if (magic, version) != (_MAGIC, _VERSION) or page_size not in _PAGE_SIZES:
        return None
    if checksum != fnv64a(data[_PAGE.size : _PAGE.size + _META.size - 8]):
        return None
    return _Meta(page_size, root, high, transaction)


def fnv64a(data: bytes) -> int:
    """Return the 64-bit FNV-1a hash.

    >>> hex(fnv64a(b"a"))
    '0xaf63dc4c8601ec8c'
    """
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value


class _File:
    """The pages of a file, each of which is read at most once."""

    def __init__(self, source: LayerBytes, where: str, meta: _Meta) -> None:
        self._source = source
        self._where = where
        self._meta = meta
        self._seen: set[int] = set()
        self._read = 0

    def fail(self, what: str, page: int | None = None) -> NoReturn:
        """Raise FormatError, with the offset of a page if one is given."""
        at = None if page is None else page * self._meta.page_size
        raise FormatError(what, where=self._where, offset=at)

    def bucket(self, value: bytes, parent: Bucket) -> Bucket:
        """Return the bucket that a leaf element's value describes."""
        if len(value) < _BUCKET.size:
            self.fail(f"a bucket of {len(value)} bytes")
        root, _ = _BUCKET.unpack_from(value)
        if root:
            return Bucket(self, root)
        if parent.root is None:  # never written by bbolt; its cost is quadratic
            self.fail("a nested bucket in an inline bucket")
        return Bucket(self, None, value[_BUCKET.size :])

    def elements(self, bucket: Bucket) -> Iterator[tuple[bytes, bytes, bool]]:
        """Yield each leaf element in order: key, value, whether it is a bucket."""
        if bucket.root is None:
            if bucket.inline:
                flags, count = self._header(bucket.inline, None)
                if flags != _IS_LEAF:
                    self.fail("an inline bucket that is not a leaf page")
                yield from self._leaf(bucket.inline, count, None)
            return
        todo = [bucket.root]
        while todo:
            number = todo.pop()
            page, flags, count = self._page(number)
            if flags == _IS_BRANCH:
                todo += self._children(page, count, number)[::-1]
            elif flags == _IS_LEAF:
                yield from self._leaf(page, count, number)
            else:
                self.fail(f"a page with flags {flags:#x} in a tree", number)

    def _page(self, number: int) -> tuple[bytes, int, int]:
        """Return a page with its overflow pages, its flags and its element count."""
        size = self._meta.page_size
        if not 1 < number < self._meta.high:
            self.fail(f"page {number:,} of a file with {self._meta.high:,} pages")
        if number in self._seen:
            self.fail("a page that is used twice", number)
        self._seen.add(number)
        page = self._source.read(number * size, size)
        flags, count = self._header(page, number)
        found, _, _, overflow = _PAGE.unpack_from(page)
        if found != number:
            self.fail(f"a page with the number of page {found:,}", number)
        self._read += size * (overflow + 1)
        if self._read > MAX_READ:
            self.fail(f"over {MAX_READ:,} bytes of pages", number)
        if overflow:
            page = self._source.read(number * size, size * (overflow + 1))
        if len(page) < size * (overflow + 1):
            self.fail("the file ends inside a page", number)
        return page, flags, count

    def _header(self, page: bytes, number: int | None) -> tuple[int, int]:
        if len(page) < _PAGE.size:
            self.fail(f"a page of {len(page)} bytes", number)
        _, flags, count, _ = _PAGE.unpack_from(page)
        return flags, count

    def _children(self, page: bytes, count: int, number: int) -> list[int]:
        """Return the numbers of a branch page's children."""
        if _PAGE.size + count * _BRANCH.size > len(page):
            self.fail(f"{count:,} children do not fit into the page", number)
        start = _PAGE.size
        return [
            child
            for _, _, child in _BRANCH.iter_unpack(
                page[start : start + count * _BRANCH.size]
            )
        ]

    def _leaf(
        self, page: bytes, count: int, number: int | None
    ) -> Iterator[tuple[bytes, bytes, bool]]:
        """Yield the elements of a leaf page, whose total size is at most the page's."""
        total = _PAGE.size + count * _LEAF.size
        for at in range(_PAGE.size, total, _LEAF.size):
            if at + _LEAF.size > len(page):
                self.fail(f"{count:,} elements do not fit into the page", number)
            flags, position, key, value = _LEAF.unpack_from(page, at)
            start = at + position
            total += key + value
            if start + key + value > len(page) or total > len(page):
                self.fail("an element that extends beyond its page", number)
            middle = start + key
            yield page[start:middle], page[middle : middle + value], flags == _IS_BUCKET
