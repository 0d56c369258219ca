"""Read the headers of a layer tar into ``Members``, as fast as Python can.

v7, ustar, star, GNU and PAX headers and all GNU sparse formats are supported. The data
of members is skipped, not read. Archives that common readers interpret differently are
refused, since the tree would depend on the reader (CVE-2025-62518).

=========  ===============================================================
typeflag   read as
=========  ===============================================================
0 NUL 7    file (NUL with a trailing slash: directory, as before POSIX)
1 to 6     hard link, symlink, char, block, directory, FIFO; no data follows
S          sparse file, old GNU
D          directory, GNU incremental; its data is skipped
xXgLKV     not members: headers that describe members (``extended``)
=========  ===============================================================
"""

import re
import struct
import zlib
from typing import Final, NoReturn

from ..errors import FormatError, quoted
from . import extended, magic, wire
from .extended import Overrides
from .members import (
    DIRECTORY,
    FILE,
    LINK,
    MAX_NAME,
    NO_EXTRA,
    SYMLINK,
    Members,
)
from .read_header import (
    MAX_NUMBER,
    NO_DATA,
    Fields,
    HeaderBytes,
    parse_owner,
    read_header,
)
from .wire import BLOCK_SIZE, ZEROS, parse_number, remember

NEAR: Final = 1 << 13  # bytes to the next header, up to which several are read at once
READ_AHEAD: Final = 1 << 16
READ_ONE: Final = 1 << 11  # bytes read after skipping data: a header and its extensions

_FIELDS: Final = struct.Struct("100x24s12s12s8sB")
"""Mode, uid and gid; size; mtime; checksum; typeflag."""

# Bytes charged per PAX record, whether kept or not: parsing 4 million takes 10 seconds.
_PARSED: Final = 32

_PLAIN: Final = frozenset((FILE, LINK, SYMLINK, DIRECTORY))  # without extra fields
_SIZE: Final = "a size of {:,} bytes"
_MTIME: Final = "an mtime of {:,} seconds"
_DOT_SLASH: Final = frozenset(b"./")
_PAX: Final = ord("x")
_ONLY_PATH: Final = re.compile(rb"([0-9]{1,5}) path=([^\0]+)\n", re.DOTALL)
"""The most common PAX header: docker writes one for each name over 100 bytes."""


class TarReader:
    """Reads the headers of one tar stream, in archive order.

    Attributes:
        where: The stream's name in messages.
        paths: Paths of the members read so far.
        hidden: Rows whose paths contain ``.wh.``.
        ended: Whether an end-of-archive block was seen.
    """

    def __init__(self, source: HeaderBytes, where: str) -> None:
        """Prepare to read from the start of ``source``."""
        self.where = where
        self.paths: list[bytes] = []
        self.hidden: list[int] = []
        self.ended = False
        self._source = source
        self._offset = 0  # offset of the header that is being read
        self._overrides: Overrides | None = None
        self._defaults: dict[bytes, bytes] = {}
        # Values of header fields by their texts, of which there are few.
        self._sums: dict[bytes, int] = {}
        self._numbers: dict[bytes, int] = {}

    def fail(self, what: str, offset: int) -> NoReturn:
        """Raise FormatError at an offset."""
        raise FormatError(what, where=self.where, offset=offset)

    def read(self, into: Members) -> None:
        """Append all members to ``paths``, and to each column except ``layers``.

        Raises:
            FormatError: The stream breaks the format. Members before that are kept.
        """
        try:
            self._read(into)
        except ValueError as error:
            self.fail(str(error), self._offset)
        into.check_limit(0, where=self.where, offset=self._offset)

    def _read(self, into: Members) -> None:  # noqa: C901, PLR0912, PLR0915
        """Read all headers. This is the hot loop: ordinary headers are read inline.

        ``_read_any`` would give the same rows for these too. That is checked by
        tests/tar/test_headers.py::test_plain_headers_are_read_like_any_others.

        Numeric fields have few distinct texts, so their values are cached. A checksum's
        cached value is the low half of the Adler-32 of an ASCII block, which is 1 + the
        sum of its bytes and so the same for equal texts (bench/micro/headers.py).

        Whiteout names begin with a dot, so they are among the names that are checked.
        """
        read, adler32, paths = self._source.read, zlib.adler32, self.paths
        kinds, owners, sizes = into.kinds, into.owners, into.sizes
        places, mtimes = into.data, into.mtimes
        only_path = _ONLY_PATH.fullmatch
        fields, sums, numbers = _FIELDS.unpack_from, self._sums, self._numbers
        known: dict[bytes, int] = {}
        long: bytes | None = None  # the next member's path, if nothing else is set
        special = False  # whether more than that is set
        buffer, base, end = b"", 0, 0  # the bytes read last, their offset and length
        offset = reached = 0  # of the next header; end of the last data
        while True:
            at = offset - base
            if at + BLOCK_SIZE > end:
                into.check_limit(0, where=self.where, offset=offset)
                near = at - end < NEAR
                buffer, base = read(offset, READ_AHEAD if near else READ_ONE), offset
                at, end = 0, len(buffer)
                if end < BLOCK_SIZE:
                    self._offset = offset
                    self._check_end(buffer, reached, described=long is not None)
                    return
            block = buffer[at : at + BLOCK_SIZE]
            owner_text, size_text, mtime_text, checksum, flag = fields(block)
            self._offset = offset
            total = adler32(block) & 0xFFFF
            if total != sums.get(checksum) or not block.isascii():
                if block == ZEROS:
                    self._check_end(block, reached, described=long is not None)
                    return
                if wrong := wire.checksum_error(block):
                    start = b"" if offset else read(0, magic.START)
                    raise ValueError(_not_a_tar(start, wrong) if start else wrong)
                if block.isascii():
                    remember(checksum, total, sums)
            if flag == _PAX and long is None and not special:
                count = numbers.get(size_text)
                if count is None:
                    count = parse_number(size_text)
                    if 0 <= count < READ_ONE:
                        remember(size_text, count, numbers)
                body = buffer[at + BLOCK_SIZE : at + BLOCK_SIZE + count]
                found = only_path(body)
                if found is not None and int(found[1]) == count == len(body):
                    long = found[2]
                    reached = offset + BLOCK_SIZE + count
                    offset = reached + 511 & -512
                    continue
            if special or flag not in _PLAIN:
                if long is not None:
                    self._overrides, long = Overrides(records=[(b"path", long)]), None
                around = buffer[at + BLOCK_SIZE : at + READ_ONE]
                reached, offset = self._read_any(block, around, into)
                special = self._overrides is not None or bool(self._defaults)
                continue
            size = numbers.get(size_text)
            if size is None:
                size = self._number(size_text, _SIZE)
            mtime = numbers.get(mtime_text)
            if mtime is None:
                mtime = self._number(mtime_text, _MTIME)
            owner = known.get(owner_text)
            if owner is None:
                owner = known[owner_text] = into.owner(parse_owner(block, {}))
            if long is not None:
                into.allowance.take(len(long))
                name, long = long, None
            elif block[345]:
                name = wire.parse_name(block)
            else:
                nul = block.find(0, 0, 100)
                name = block[:nul] if nul >= 0 else block[:100]
            # Most names are already a path; "find" takes half the time of "in".
            if (
                name
                and name[0] not in _DOT_SLASH
                and name.find(b"/.") < 0
                and name.find(b"//") < 0
                and len(name) <= MAX_NAME
            ):
                paths.append(name[:-1] if name[-1] == 0x2F else name)
            else:
                self._add_path(name, len(kinds))
            if flag != FILE:
                if size and flag == SYMLINK:
                    raise ValueError(NO_DATA.format(size))
                size = 0  # no data follows, whatever the header says
                if flag == SYMLINK:
                    owner = into.owner((0o777, *into.owner_table[owner][1:]))
                if flag != DIRECTORY:
                    target = wire.text_field(block, 157, 257)
                    into.targets[len(kinds)] = _target(flag, target)
            elif size < 0:
                raise ValueError(_SIZE.format(size))
            kinds.append(flag)
            owners.append(owner)
            sizes.append(size)
            offset += BLOCK_SIZE
            places.append(offset)
            mtimes.append(mtime)
            reached = offset + size
            offset = reached + 511 & -512

    def _read_any(self, block: bytes, around: bytes, into: Members) -> tuple[int, int]:
        """Read a header of any kind, as extended headers override it.

        Args:
            block: The header.
            around: Some of the bytes after it.
            into: Receives a row, if the header is a member's.

        Returns:
            The end of its data, and the offset of the next header.
        """
        flag, data = block[156], self._offset + BLOCK_SIZE
        if flag in extended.LIMITS:
            size = parse_number(block[124:136])
            body = self._body(flag, size, around)
            if flag in extended.RECORDS:  # one line each; tools write at most 16
                into.allowance.take(_PARSED * body.count(b"\n"))
            if flag == extended.GLOBAL:
                self._defaults = extended.global_records(self._defaults, body[:size])
            elif flag != extended.LABEL:
                self._overrides = self._overrides or Overrides()
                self._overrides.take(flag, body, size)
            return data + size, data + wire.padded(size)
        fields = read_header(
            block,
            self._offset,
            self._overrides or Overrides(),
            self._defaults,
            self._source,
        )
        self._overrides = None
        into.allowance.take(_memory(fields))
        self._add(fields, into)
        return fields.data + fields.stored, fields.data + wire.padded(fields.stored)

    def _add(self, fields: Fields, into: Members) -> None:
        """Append one member's fields."""
        row = len(into.kinds)
        if fields.target is not None:
            into.targets[row] = _target(fields.kind, fields.target)
        if fields.extra is not None:
            into.extras[row] = fields.extra
        self._add_path(fields.name, row)
        into.kinds.append(fields.kind)
        into.owners.append(into.owner(fields.owner))
        into.sizes.append(fields.size)
        into.data.append(fields.data)
        into.mtimes.append(_in_range(fields.mtime, _MTIME))

    def _add_path(self, name: bytes, row: int) -> None:
        """Append the normalised path of a row."""
        path = _path(name)
        self.paths.append(path)
        if path.find(b".wh.") >= 0:
            self.hidden.append(row)

    def _number(self, text: bytes, what: str) -> int:
        """Read a numeric field, and cache its value."""
        number = _in_range(parse_number(text), what)
        remember(text, number, self._numbers)
        return number

    def _check_end(self, block: bytes, reached: int, *, described: bool) -> None:
        """Check that the archive may end here, at a zero block or the end of data.

        Args:
            block: A zero block, or the incomplete block at the end of the stream.
            reached: End of the last data.
            described: Whether an extended header is waiting for its member.
        """
        if not self._offset:
            self._check_zeros()
            self.ended = bool(block)
            return
        size = self._source.size()
        if reached > size:
            self._offset = size
            raise ValueError(
                f"truncated: {reached - size:,} bytes of the last member are missing"
            )
        if (described or self._overrides is not None) and not block:
            raise ValueError("truncated: an extended header without its member")
        if block.strip(b"\0"):
            raise ValueError(f"truncated: {len(block)} bytes of a header")
        self.ended = bool(block)
        # GNU tar, bsdtar and Python stop at a single zero block, Go refuses it.
        behind = self._source.read(self._offset + BLOCK_SIZE, BLOCK_SIZE)
        full = len(behind) == BLOCK_SIZE and behind != ZEROS
        if full and not wire.checksum_error(behind):
            raise ValueError("a single zero block, followed by more members")

    def _check_zeros(self) -> None:
        """Check that a stream without a first header is empty: that it is all zeros.

        File systems may begin with a KiB of zeros too.
        """
        data = start = self._source.read(0, magic.START)
        offset = 0
        while data:
            if data.strip(b"\0"):
                zeros = offset + len(data) - len(data.lstrip(b"\0"))
                why = f"not a tar: data after {zeros:,} zero bytes"
                raise ValueError(_not_a_tar(start, why))
            offset += len(data)
            data = self._source.read(offset, magic.START)

    def _body(self, flag: int, size: int, around: bytes) -> bytes:
        """Return an extended header's padded data, or nothing for a volume label."""
        extended.check_place(flag, self._overrides)
        if not 0 <= size <= extended.LIMITS[flag]:
            raise ValueError(
                f"{size:,} bytes of records, over the {extended.LIMITS[flag]:,} allowed"
            )
        count = 0 if flag == extended.LABEL else wire.padded(size)
        body = around[:count]
        if len(body) < count:
            body = self._source.read(self._offset + BLOCK_SIZE, count)
        if len(body) < min(size, count):
            raise ValueError(f"truncated: {len(body):,} of {size:,} bytes of records")
        return body


def _not_a_tar(start: bytes, why: str) -> str:
    """Return what a stream is by its ``start``, or ``why`` if that is unknown."""
    what = magic.recognise(start)
    return why if what is None else f"not a tar, but {what}"


def _in_range(number: int, what: str) -> int:
    """Check that a number fits a column."""
    if not -MAX_NUMBER < number < MAX_NUMBER:
        raise ValueError(what.format(number))
    return number


def _path(name: bytes) -> bytes:
    """Return the normalised path of a name; most names need no change."""
    special = not name or name[0] in _DOT_SLASH or len(name) > MAX_NAME
    # "find" takes half the time of "in".
    if special or name.find(b"/.") >= 0 or name.find(b"//") >= 0:
        return _checked_path(name)
    return name[:-1] if name[-1] == 0x2F else name


def _checked_path(name: bytes) -> bytes:
    """Return the normalised path of any name."""
    try:
        path = wire.normalise(name)
    except ValueError as error:
        raise ValueError(f"{error}: {quoted(name)}") from error
    if len(path) > MAX_NAME:
        raise ValueError(f"a name of {len(path):,} bytes, over {MAX_NAME:,}")
    return path


def _memory(fields: Fields) -> int:
    """Return roughly how many bytes a member takes outside the columns."""
    extra = fields.extra or NO_EXTRA
    return len(fields.name) + len(fields.target or b"") + extra.memory()


def _target(kind: int, target: bytes) -> bytes:
    """Return a symlink's text unchanged, or the normalised path of a hard link."""
    if kind == SYMLINK:
        if len(target) > MAX_NAME:
            raise ValueError(f"a symlink of {len(target):,} bytes, over {MAX_NAME:,}")
        return target
    try:
        return _path(target)
    except ValueError as error:
        raise ValueError(f"hard link to {error}") from error
