r"""The tar wire format: fields of 512-byte header blocks, PAX records, sparse maps.

Pure functions over ``bytes``; nothing here opens files, seeks or knows about layers.
Format errors raise ValueError with a message; callers add the position.

Field offsets:   0 name[100]  100 mode[8]  108 uid[8]  116 gid[8]  124 size[12]
               136 mtime[12]  148 chksum[8]  156 typeflag  157 linkname[100]
               257 magic[8]  265 uname[32]  297 gname[32]  329 devmajor[8]
               337 devminor[8]  345 prefix[155]

GNU headers have the magic "ustar  \0" and no prefix. Sparse headers (S) also have:
               386 four regions of offset[12] length[12]  482 extended  483 size[12]
Each extension block has 21 regions and, at 504, a flag that another block follows.

Reference: POSIX.1-2017 pax(1), "ustar Interchange Format" and "pax Extended
Header"; GNU tar manual, "Basic Tar Format" and "Storing Sparse Files".
"""

import re
import zlib
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Final, TypeVar

from .members import SparseMap

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")

BLOCK_SIZE: Final = 512
ZEROS: Final = bytes(BLOCK_SIZE)

MAX_SPARSE_REGIONS: Final = 1 << 18  # Go's archive/tar stops at 2**20 (CVE-2025-58183)
MAX_KNOWN: Final = 1 << 15  # entries of some 100 bytes
MAX_CACHED: Final = 1 << 10  # results of a function, of some 250 bytes
MAX_RECORDS: Final = 1 << 20  # bytes of PAX records for one member, as Go, libarchive

_OCTAL: Final = re.compile(rb" *([0-7]+)(?:[ \0].*)?|[ \x000]*", re.DOTALL)
_TIME_FIELD: Final = re.compile(
    rb" *[0-7]*(?:[ \0]*|\0.*)|\x80\0{3}[\0-\x7f].*|\xff{4}[\x80-\xff].*", re.DOTALL
)
"""Times in a GNU header that Go accepts; it reads any other bytes there as a prefix."""
_RECORD: Final = re.compile(rb"([0-9]{1,19}) ([^=\0]+)=")
_DECIMAL: Final = re.compile(rb"0*([0-9]{1,19})")
_TIME: Final = re.compile(rb"(-?)0*([0-9]{1,19})(?:\.([0-9]*))?")


class Known(dict[_Key, _Value]):
    """The values of a function by its arguments; it is cleared when it is full.

    An image has many headers, but few distinct values in them.
    """

    def __init__(self, function: Callable[[_Key], _Value]) -> None:
        super().__init__()
        self._function = function

    def __missing__(self, key: _Key) -> _Value:
        if len(self) >= MAX_KNOWN:
            self.clear()
        value = self[key] = self._function(key)
        return value


def padded(size: int) -> int:
    """Round a size up to whole blocks.

    >>> padded(0), padded(1), padded(512)
    (0, 512, 512)
    """
    return size + 511 & -512


@lru_cache(MAX_CACHED)
def parse_number(field: bytes) -> int:
    r"""Read a numeric header field: octal text, or base-256 (GNU, star).

    Octal may have leading spaces, ends at a space or NUL, and is 0 when empty, as in
    GNU tar and Go. Digits after NULs are refused: Go skips all the NULs, GNU tar one
    (an old tar overflowed), while Python and bsdtar read 0.

    >>> parse_number(b"0000644\0"), parse_number(b"  755 \0"), parse_number(bytes(8))
    (420, 493, 0)
    >>> parse_number(b"\x80\0\0\0\0\0\0\x0a"), parse_number(b"\xff" * 8)
    (10, -1)
    """
    digits = field[:-1]
    if digits.isdigit() and field[-1] in b" \0":  # the usual form
        try:
            return int(digits, 8)
        except ValueError:
            raise ValueError(f"the header field {field!r} is not octal") from None
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") & ~(0xC0 << 8 * (len(field) - 1))
        if field[0] & 0x40:
            value -= 1 << 8 * len(field) - 2
        return value
    found = _OCTAL.fullmatch(field)
    if found is None:
        raise ValueError(f"the header field {field!r} is not a number")
    return int(found[1] or b"0", 8)


def format_number(value: int, width: int) -> bytes:
    r"""Write a numeric header field: octal with a NUL if it fits, else base-256.

    >>> format_number(0o644, 8), format_number(-1, 12) == b"\xff" * 12
    (b'0000644\x00', True)
    """
    if 0 <= value < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, value)
    if value < 0:
        return (value + (1 << 8 * width)).to_bytes(width, "big")
    return (value | 0x80 << 8 * (width - 1)).to_bytes(width, "big")


def checksum_error(block: bytes) -> str:
    """Compare a header's checksum with its bytes; return the error message, or "".

    The checksum is the sum of the bytes, with the field itself as spaces; some old tars
    summed signed bytes. The low half of Adler-32 is 1 + the sum modulo 65521, at a
    fifth of the cost of ``sum`` in Python; 512 ASCII bytes stay below that. Bytes other
    than digits, spaces and NULs are refused: bsdtar drops such members.
    """
    field = block[148:156]
    if zlib.adler32(block) & 0xFFFF == expected_sum(field) and block.isascii():
        return ""
    spaces = 256 - sum(field)
    stored = -1
    if not field.strip(b"01234567 \0"):
        with suppress(ValueError):
            stored = parse_number(field)
    total = sum(block) + spaces
    if stored == total:
        return ""
    if stored == total - 256 * sum(byte > 127 for byte in block[:148] + block[156:]):
        return ""
    return f"header checksum is {quoted_field(field)}, but its bytes sum to {total:#o}"


@lru_cache(MAX_CACHED)
def expected_sum(field: bytes) -> int:
    r"""Return 1 + the sum of a header's bytes that fits its checksum field.

    Return -1 if the field is not in the usual form, "%06o\0 ".
    """
    if field[6:] != b"\0 " or field[:6].strip(b"01234567"):
        return -1
    return int(field[:6], 8) + 1 - 256 + sum(field)


def quoted_field(field: bytes) -> str:
    r"""Show a header field in a message.

    >>> quoted_field(b"0012345\0")
    "'0012345'"
    """
    return repr(field.rstrip(b"\0 ").decode("ascii", "backslashreplace"))


def text_field(block: bytes, start: int, stop: int) -> bytes:
    """Return the bytes of a text field, up to its first NUL."""
    end = block.find(b"\0", start, stop)
    return block[start : stop if end < 0 else end]


def parse_name(block: bytes) -> bytes:
    """Return a header's name, with the prefix if its format has one.

    GNU headers have two times in place of the prefix, v7 headers nothing; Python and Go
    may still read those bytes as a prefix.
    """
    name = text_field(block, 0, 100)
    if not block[345]:
        return name
    if block[257:263] == b"ustar\0":
        prefix = text_field(block, 345, 500)
        if len(prefix) > 130 and block[508:512] == b"tar\0":
            # star keeps two times after 131 bytes of prefix; others read them as prefix
            raise ValueError("a star header whose prefix fills the whole field")
        return prefix + b"/" + name
    times = block[345:357], block[357:369]
    if block[257:265] != b"ustar  \0" or not all(map(_TIME_FIELD.fullmatch, times)):
        raise ValueError("a prefix in a header format without prefixes")
    return name


def normalise(name: bytes) -> bytes:
    """Return the normalised path of a member's name or a hard link's target.

    Raises:
        ValueError: The name leaves the root, is too long, or contains a NUL.

    >>> [normalise(n) for n in (b"./x", b"/x", b"x/", b"a//x", b"a/../x", b"./")]
    [b'x', b'x', b'x', b'a/x', b'x', b'']
    """
    if b"\0" in name:
        raise ValueError("a name with a NUL in it")
    rooted = b"/" + name
    if rooted.find(b"/.") < 0 and rooted.find(b"//") < 0:  # as most; faster than "in"
        return name.removesuffix(b"/")
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            if not parts:
                raise ValueError("a name that leaves the root")
            parts.pop()
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/".join(parts)


# --- PAX records


def parse_records(body: bytes) -> list[tuple[bytes, bytes]]:
    r"""Read PAX records, ``"%d %s=%s\n" % (length, keyword, value)``, in order.

    >>> parse_records(b"11 path=ab\n")
    [(b'path', b'ab')]
    """
    records: list[tuple[bytes, bytes]] = []
    match, start, end = _RECORD.match, 0, len(body)
    while start < end:
        found = match(body, start)
        if found is None:
            if not body[start:].strip(b"\0"):
                break  # NUL padding within its size: GNU tar and Python allow that
            raise ValueError(
                f"a PAX record that starts with {body[start : start + 20]!r}, "
                "without a length or without a keyword"
            )
        stop = start + int(found[1])
        if not found.end() < stop <= end or body[stop - 1] != 0x0A:
            raise ValueError(
                f"a PAX record of {int(found[1]):,} bytes does not end in a newline"
            )
        records.append((found[2], body[found.end() : stop - 1]))
        start = stop
    return records


def format_records(records: list[tuple[bytes, bytes]]) -> bytes:
    r"""Write PAX records; each record's length includes its own digits.

    >>> format_records([(b"path", b"ab"), (b"x", b"")])
    b'11 path=ab\n5 x=\n'
    """
    out = []
    for keyword, value in records:
        rest = len(keyword) + len(value) + 3
        length = rest + len(str(rest))
        length = rest + len(str(length))
        out.append(b"%d %b=%b\n" % (length, keyword, value))
    return b"".join(out)


def parse_decimal(value: bytes) -> int:
    """Read a non-negative PAX number, with any number of leading zeros."""
    found = _DECIMAL.fullmatch(value)
    if found is None:
        raise ValueError(f"{value[:40]!r} is not a number")
    return int(found[1])


def parse_time(value: bytes) -> tuple[int, int]:
    """Read a PAX time as floored seconds, and the nanoseconds above them.

    >>> parse_time(b"1.5"), parse_time(b"-1.5"), parse_time(b"-7")
    ((1, 500000000), (-2, 500000000), (-7, 0))
    """
    found = _TIME.fullmatch(value)
    if found is None:
        raise ValueError(f"{value[:40]!r} is not a time")
    seconds, fraction = int(found[2]), int((found[3] or b"").ljust(9, b"0")[:9])
    if not found[1]:
        return seconds, fraction
    return (-seconds - 1, 10**9 - fraction) if fraction else (-seconds, 0)


# --- sparse files


def parse_regions(block: bytes, start: int, count: int) -> list[tuple[int, int]]:
    """Read the regions of a sparse header or extension block, up to an empty entry."""
    regions = []
    for at in range(start, start + 24 * count, 24):
        if block[at] == 0:
            break
        regions.append(
            (parse_number(block[at : at + 12]), parse_number(block[at + 12 : at + 24]))
        )
    return regions


def sparse_map(
    regions: list[tuple[int, int]], size: int, stored: int
) -> SparseMap | None:
    """Check and normalise a sparse file's regions; return None if it has no holes.

    Adjacent regions are joined and empty ones dropped, so that the four sparse formats
    give the same map.

    Args:
        regions: (offset, length) pairs in archive order.
        size: The file's size, including holes.
        stored: Bytes of data in the archive.

    Raises:
        ValueError: The regions overlap, exceed the file, or do not sum to ``stored``.
    """
    joined: list[tuple[int, int]] = []
    end = total = 0
    for offset, length in regions:
        if length and total % BLOCK_SIZE:  # GNU tar would read it from the next block
            raise ValueError("a sparse region, not the last, that ends inside a block")
        if offset < end or length < 0 or offset + length > size:
            raise ValueError(
                f"a sparse region of {length:,} bytes at {offset:,}, "
                f"in a file of {size:,} bytes whose last region ended at {end:,}"
            )
        if length and joined and offset == end:
            joined[-1] = (joined[-1][0], joined[-1][1] + length)
        elif length:
            joined.append((offset, length))
        end = offset + length
        total += length
    if len(joined) >= MAX_SPARSE_REGIONS:
        raise ValueError("a sparse file with too many regions")
    if total != stored:
        raise ValueError(
            f"sparse regions of {total:,} bytes, but {stored:,} bytes are stored"
        )
    return None if total == size else tuple(joined)
