"""Read the headers of a layer tar into ``Members``.

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

from typing import Final, NoReturn

from ..errors import FormatError, quoted
from . import extended, kernel, magic, wire
from .extended import Overrides
from .kernel import MOST, Scanner
from .members import MAX_NAME, NO_EXTRA, SYMLINK, Members
from .plain import PlainScanner
from .read_header import MAX_NUMBER, Fields, HeaderBytes, read_header
from .wire import BLOCK_SIZE, ZEROS, parse_number

NEAR: Final = 1 << 13  # bytes to the next header, up to which several are read at once
READ_AHEAD: Final = MOST
READ_ONE: Final = 1 << 11  # bytes read after skipping data: a header and its extensions
_ENOUGH: Final = 3 * BLOCK_SIZE  # bytes of a header after a PAX header with a path

# Bytes charged per PAX record, whether kept or not: parsing 4 million takes 10 seconds.
_PARSED: Final = 32

_MTIME: Final = "an mtime of {:,} seconds"


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
        self._reached = 0  # end of the data before it
        self._overrides: Overrides | None = None
        self._defaults: dict[bytes, bytes] = {}

    def fail(self, what: str, offset: int) -> NoReturn:
        """Raise FormatError at an offset."""
        raise FormatError(what, where=self.where, offset=offset)

    def read(self, into: Members) -> None:
        """Append all members to ``paths``, and to each column except ``layers``.

        Raises:
            FormatError: The stream breaks the format. Members before that are kept.
        """
        scanner = (
            Scanner(kernel.scan, into, self.paths)
            if kernel.scan
            else PlainScanner(into, self.paths, self.hidden)
        )
        try:
            self._read(into, scanner)
        except ValueError as error:
            self.fail(str(error), self._offset)
        finally:
            scanner.flush()

    def _read(self, into: Members, scanner: Scanner | PlainScanner) -> None:
        """Read all headers; the scanner reads the plain ones."""
        buffer, base = b"", -1  # the bytes read last, and their offset
        while True:
            at = self._offset - base
            if at and at + _ENOUGH > len(buffer):
                count = READ_AHEAD if at - len(buffer) < NEAR else READ_ONE
                buffer, base = self._source.read(self._offset, count), self._offset
                at = 0
            if self._overrides is None and not self._defaults:
                self._offset, self._reached = scanner.scan(
                    buffer, base, self._offset, self._reached
                )
                if len(into) + scanner.kept() > into.limit:
                    scanner.flush()
                    self._refuse_last(into)
                at = self._offset - base
                if at and at + _ENOUGH > len(buffer):
                    continue
                scanner.flush()
            block = buffer[at : at + BLOCK_SIZE]
            if len(block) < BLOCK_SIZE or block == ZEROS:
                self._check_end(block)
                return
            if wrong := wire.checksum_error(block):
                raise ValueError(self._what_is_wrong(wrong))
            if block[156] in extended.LIMITS:
                after = buffer[at + BLOCK_SIZE : at + READ_ONE]
                self._read_extended(block, after, into)
            else:
                self._read_member(block, into)
                if len(into.kinds) > into.limit:
                    self._refuse_last(into)

    def _refuse_last(self, into: Members) -> None:
        """Refuse the first member over the limit, at its header.

        Rows before those of this stream may be over it too: directories that an earlier
        layer implies.
        """
        first = len(into) - len(self.paths)
        offset = into.data[max(into.limit, first)] - BLOCK_SIZE
        into.check_limit(0, where=self.where, offset=offset)

    def _what_is_wrong(self, wrong: str) -> str:
        """Return what the stream is instead of a tar, or else what is wrong in it."""
        start = b"" if self._offset else self._source.read(0, magic.START)
        return _not_a_tar(start, wrong) if start else wrong

    def _read_extended(self, block: bytes, after: bytes, into: Members) -> None:
        """Read a header that describes members, and the data after it.

        Args:
            block: The header.
            after: Some of the bytes after it.
            into: Its allowance is charged.
        """
        flag, size = block[156], parse_number(block[124:136])
        body = self._body(flag, size, after)
        if flag in extended.RECORDS:  # one line each; tools write at most 16
            into.allowance.take(_PARSED * body.count(b"\n"))
        if flag == extended.GLOBAL:
            self._defaults = extended.global_records(self._defaults, body[:size])
        elif flag != extended.LABEL:
            self._overrides = self._overrides or Overrides()
            self._overrides.take(flag, body, size)
        self._skip(self._offset + BLOCK_SIZE, size)

    def _read_member(self, block: bytes, into: Members) -> None:
        """Read a member's header, as records and long names override it."""
        overrides, self._overrides = self._overrides or Overrides(), None
        fields = read_header(
            block, self._offset, overrides, self._defaults, self._source
        )
        into.allowance.take(_memory(fields))
        self._add(fields, into)
        self._skip(fields.data, fields.stored)

    def _skip(self, data: int, stored: int) -> None:
        """Go to the header after ``stored`` bytes of data."""
        self._reached = data + stored
        self._offset = data + wire.padded(stored)

    def _add(self, fields: Fields, into: Members) -> None:
        """Append one member's fields."""
        name, kind, owner, mtime, size, data, _, target, extra = fields
        row, path = len(into.kinds), _path(name)
        if not -MAX_NUMBER < mtime < MAX_NUMBER:
            raise ValueError(_MTIME.format(mtime))
        if target is not None:
            into.targets[row] = _target(kind, target)
        if extra is not None:
            into.extras[row] = extra
        if path.find(b".wh.") >= 0:  # "find" takes half the time of "in"
            self.hidden.append(row)
        self.paths.append(path)
        into.kinds.append(kind)
        into.owners.append(into.owner(owner))
        into.sizes.append(size)
        into.data.append(data)
        into.mtimes.append(mtime)

    def _check_end(self, block: bytes) -> None:
        """Check that the archive may end here, at a zero block or the end of data.

        Args:
            block: A zero block, or the incomplete block at the end of the stream.
        """
        if not self._offset:
            self._check_zeros()
            self.ended = bool(block)
            return
        size = self._source.size()
        if self._reached > size:
            self._offset = size
            missing = self._reached - size
            raise ValueError(
                f"truncated: {missing:,} bytes of the last member are missing"
            )
        if self._overrides is not None and not block:
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

    def _body(self, flag: int, size: int, after: bytes) -> bytes:
        """Return an extended header's padded data, or nothing for a volume label."""
        extended.check_place(flag, self._overrides)
        if not 0 <= size <= extended.LIMITS[flag]:
            raise ValueError(
                f"{size:,} bytes of records, over the {extended.LIMITS[flag]:,} allowed"
            )
        count = 0 if flag == extended.LABEL else wire.padded(size)
        body = after[:count]
        if len(body) < count:
            body = self._source.read(self._offset + BLOCK_SIZE, count)
        if len(body) < min(size, count):
            raise ValueError(f"truncated: {len(body):,} of {size:,} bytes of records")
        return body


def _not_a_tar(start: bytes, why: str) -> str:
    """Return what a stream is by its ``start``, or ``why`` if that is unknown."""
    what = magic.recognise(start)
    return why if what is None else f"not a tar, but {what}"


def _path(name: bytes) -> bytes:
    """Return the normalised path of a name."""
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
