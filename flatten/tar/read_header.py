"""Read headers into fields, as extended headers override them.

Precedence, highest first: the member's own PAX records, GNU long name and link target,
global PAX records, the header. A size from a record also determines where the next
header is.

======================  ==========================================================
sparse format           location of the map
======================  ==========================================================
typeflag S              four regions in the header, 21 in each block that extends it
PAX 0.0                 ``GNU.sparse.offset`` and ``.numbytes``, once per region
PAX 0.1                 ``GNU.sparse.map``, all numbers separated by commas
PAX 1.0                 one number per line, in the first blocks of the data
======================  ==========================================================

Invalid headers raise ValueError; the reader of the stream adds the position.
"""

from typing import Final, NamedTuple, Protocol

from ..errors import quoted
from . import wire
from .extended import Overrides, Records, kept_records, meant
from .members import BLOCK, CHAR, DIRECTORY, FILE, LINK, SYMLINK, Extra, Owner
from .wire import BLOCK_SIZE, parse_decimal, parse_number

MAX_NUMBER: Final = 1 << 62  # for sizes and times: the sum of two still fits a column
MAX_OWNER: Final = 1 << 32  # Linux's limit for ids; GNU tar fails on larger ones

_OTHER_FLAGS: Final = frozenset(b"123456")

Regions = list[tuple[int, int]]


class HeaderBytes(Protocol):
    """A tar stream whose headers are read from first to last."""

    def read(self, offset: int, count: int) -> bytes:
        """Return ``count`` bytes; fewer only at the end of the stream."""

    def size(self) -> int:
        """Return the length of the stream."""


class Fields(NamedTuple):
    """The fields of a header, with all overrides applied.

    Attributes:
        name: The name as stored, not normalised.
        size: Bytes of content as unpacked; 0 for all but files.
        data: Offset of the first content byte.
        stored: Bytes that the member takes from ``data`` on.
        target: The target of a link; None for other kinds.
        extra: Rare fields; None if there are none.
    """

    name: bytes
    kind: int
    owner: Owner
    mtime: int
    size: int
    data: int
    stored: int
    target: bytes | None
    extra: Extra | None


def read_header(
    block: bytes,
    offset: int,
    overrides: Overrides,
    defaults: Records,
    source: HeaderBytes,
) -> Fields:
    """Read a header with everything that overrides it.

    Args:
        block: The header block.
        offset: Where it is in ``source``.
        overrides: The fields that the extended headers before it set.
        defaults: The global PAX records.
        source: The stream, for the maps of sparse files.

    Raises:
        ValueError: The header breaks the format, or has impossible values.
    """
    records = _merged(defaults, overrides.records)
    name = _text(b"path", wire.parse_name(block), overrides.name, records)
    target = _text(
        b"linkpath", wire.text_field(block, 157, 257), overrides.target, records
    )
    kind = _kind(block[156], name)
    if kind not in (LINK, SYMLINK) and (overrides.target or records.get(b"linkpath")):
        # A hard link for libarchive 3.8; all others ignore the target.
        raise ValueError(
            "an extended header with a link target on a member that is no link"
        )
    owner = parse_owner(block[100:124], records)
    mtime, nanoseconds = parse_number(block[136:148]), 0
    if b"mtime" in records:
        mtime, nanoseconds = wire.parse_time(records[b"mtime"])
    size = _size(block, records)
    data = offset + BLOCK_SIZE
    stored = size if kind == FILE or block[156] == ord("D") else 0
    sparse = found = None
    if kind == FILE:
        found = _sparse(block, data, stored, overrides.records, records, source)
        if found is not None:
            regions, size, data, stored = found
            _check_format(block)
            sparse = wire.sparse_map(regions, size, stored)
            name = _text(b"GNU.sparse.name", name, None, records)
    if found is None:
        _check_plain(kind, size, records)
    extra = None
    kept = kept_records(records)
    if kept or sparse is not None or nanoseconds or kind in (CHAR, BLOCK):
        device = _device(block, records) if kind in (CHAR, BLOCK) else (0, 0)
        extra = Extra(kept, sparse, device, nanoseconds)
    return Fields(
        name,
        kind,
        owner if kind != SYMLINK else (0o777, *owner[1:]),  # a link has no mode
        mtime,
        size if kind == FILE else 0,
        data,
        stored,
        target if kind in (LINK, SYMLINK) else None,
        extra,
    )


def _size(block: bytes, records: Records) -> int:
    """Return a member's effective size."""
    size = parse_number(block[124:136])
    if b"size" in records:
        size = parse_decimal(records[b"size"])
    if not 0 <= size < MAX_NUMBER:
        raise ValueError(f"a size of {size:,} bytes")
    return size


def _merged(defaults: Records, records: list[tuple[bytes, bytes]]) -> Records:
    """Return a member's effective records: its own over the global ones."""
    merged = defaults | dict(records)
    for key in (b"path", b"linkpath", b"size"):
        if merged.get(key) == b"":  # readers differ: unset, or an empty name
            raise ValueError(f"an empty PAX record {key.decode()!r}")
    return meant(merged)


NO_DATA: Final = "a size of {:,} bytes on a member that cannot have data"
"""GNU tar skips such data, other readers do not."""


def _check_plain(kind: int, size: int, records: Records) -> None:
    """Refuse fields of a non-sparse member that only some readers use."""
    if size and kind not in (FILE, LINK, DIRECTORY):
        raise ValueError(NO_DATA.format(size))
    if kind != FILE and records.get(b"size", b"0").strip(b"0"):  # bsdtar skips data
        raise ValueError("a PAX size record on a member that is not a file")
    for key in records:
        if key.startswith(b"GNU.sparse."):
            raise ValueError(f"{quoted(key)}: a sparse record on a non-sparse member")


def parse_owner(fields: bytes, records: Records) -> Owner:
    """Read mode, uid and gid; the mode's file type bits are dropped."""
    mode = parse_number(fields[:8]) & 0o7777
    uid, gid = parse_number(fields[8:16]), parse_number(fields[16:])
    if b"uid" in records:
        uid = parse_decimal(records[b"uid"])
    if b"gid" in records:
        gid = parse_decimal(records[b"gid"])
    if not (0 <= uid < MAX_OWNER and 0 <= gid < MAX_OWNER):
        raise ValueError(f"owner out of range: {uid}:{gid}")
    return mode, uid, gid


def _kind(flag: int, name: bytes) -> int:
    """Return the kind of member that a typeflag stands for."""
    if flag == 0 and name.endswith(b"/"):
        return DIRECTORY
    if flag in b"0\x007S":
        return FILE
    if flag in _OTHER_FLAGS:
        return flag
    if flag == ord("D"):
        return DIRECTORY
    raise ValueError(f"unknown typeflag {chr(flag)!r} of member {quoted(name)}")


def _text(key: bytes, short: bytes, long: bytes | None, records: Records) -> bytes:
    """Choose between a header's text, a GNU long name and a PAX record."""
    record = records.get(key)
    if record is None:
        return short if long is None else long
    if long is not None and long != record:  # Go uses the long name, GNU tar the record
        raise ValueError(f"two names for one member: {quoted(long)}, {quoted(record)}")
    if b"\0" in record:
        raise ValueError(f"a NUL in the PAX record {key.decode()!r}")
    return record


def _device(block: bytes, records: Records) -> tuple[int, int]:
    """Read a device's numbers; star and libarchive have records for large ones."""
    major, minor = parse_number(block[329:337]), parse_number(block[337:345])
    if b"SCHILY.devmajor" in records:
        major = parse_decimal(records[b"SCHILY.devmajor"])
    if b"SCHILY.devminor" in records:
        minor = parse_decimal(records[b"SCHILY.devminor"])
    if not (0 <= major < 1 << 32 and 0 <= minor < 1 << 32):
        raise ValueError(f"device number out of range: {major}, {minor}")
    return major, minor


# --- sparse files


def _sparse(  # noqa: PLR0913, PLR0917 - all locations of a map
    block: bytes,
    data: int,
    stored: int,
    ordered: list[tuple[bytes, bytes]],
    records: Records,
    source: HeaderBytes,
) -> tuple[Regions, int, int, int] | None:
    """Read a sparse map: regions, size with holes, data offset, stored size."""
    if block[156] == ord("S"):
        regions, data = _gnu_regions(block, data, source)
        size = parse_number(block[483:495])
    elif records.get(b"GNU.sparse.major", b"0") != b"0":
        version = records[b"GNU.sparse.major"], records.get(b"GNU.sparse.minor")
        if version != (b"1", b"0"):
            raise ValueError("unsupported PAX sparse format: expected version 1.0")
        size = parse_decimal(records.get(b"GNU.sparse.realsize", b""))
        start = data
        regions, data = _pax_regions(start, stored, source)
        stored -= data - start  # the map is part of the content
    elif b"GNU.sparse.size" in records:
        size = parse_decimal(records[b"GNU.sparse.size"])
        texts = [
            value
            for key, value in ordered
            if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes")
        ]
        if b"GNU.sparse.map" in records:
            texts = (
                records[b"GNU.sparse.map"].split(b",")
                if (records[b"GNU.sparse.map"])
                else []
            )
        regions = _pairs([parse_decimal(text) for text in texts])
        if records.get(b"GNU.sparse.numblocks") != b"%d" % len(regions):
            raise ValueError("a sparse map with more or fewer regions than it states")
    else:
        return None
    if not 0 <= size < MAX_NUMBER:
        raise ValueError(f"a sparse file of {size:,} bytes")
    return regions, size, data, stored


def _check_format(block: bytes) -> None:
    """Refuse sparse members in headers where GNU tar would read another size.

    GNU tar recognises star headers by their times, not by their second magic.
    """
    posix = block[257:263] == b"ustar\0" and (block[475] or not block[476])
    gnu = block[257:265] == b"ustar  \0"
    if not (gnu if block[156] == ord("S") else posix):
        raise ValueError("a sparse member in a header format without sparse files")


def _gnu_regions(block: bytes, data: int, source: HeaderBytes) -> tuple[Regions, int]:
    """Read the regions in an S header and its extension blocks."""
    regions = wire.parse_regions(block, 386, 4)
    more = block[482]
    while more:
        block = source.read(data, BLOCK_SIZE)
        if len(block) < BLOCK_SIZE:
            raise ValueError("truncated: the map of a sparse file")
        regions += wire.parse_regions(block, 0, 21)
        if len(regions) > wire.MAX_SPARSE_REGIONS:
            raise ValueError("a sparse file with too many regions")
        more = block[504]
        data += BLOCK_SIZE
    return regions, data


def _pax_regions(data: int, stored: int, source: HeaderBytes) -> tuple[Regions, int]:
    """Read the map that starts the data of a PAX 1.0 sparse file."""
    numbers: list[int] = []
    text, end = b"", data + stored
    wanted = 1
    while len(numbers) < wanted:
        block = source.read(data, BLOCK_SIZE)
        data += BLOCK_SIZE
        if len(block) < BLOCK_SIZE or data > end:
            raise ValueError("truncated: the map of a sparse file")
        *lines, text = (text + block).split(b"\n")
        if len(text) > BLOCK_SIZE:
            raise ValueError("a sparse map without line breaks")
        for line in lines:
            if len(numbers) == wanted:
                break
            numbers.append(parse_decimal(line))
            wanted = 1 + 2 * numbers[0]
        if wanted > 2 * wire.MAX_SPARSE_REGIONS + 1:
            raise ValueError("a sparse file with too many regions")
    return _pairs(numbers[1:]), data


def _pairs(numbers: list[int]) -> Regions:
    if len(numbers) % 2 or len(numbers) > 2 * wire.MAX_SPARSE_REGIONS:
        raise ValueError("a sparse map with an odd number of values, or too many")
    return list(zip(numbers[::2], numbers[1::2], strict=True))
