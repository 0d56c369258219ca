"""Write a member's header blocks, in GNU format or entirely in POSIX format.

Pure functions that return bytes. The form is canonical, so equal fields give equal
bytes: numbers in octal if they fit, else in base-256; no user or group names; records
sorted by keyword.

Reference: GNU tar manual, "Basic Tar Format"; POSIX.1-2017 pax(1).
"""

from typing import Final

from .members import (
    BLOCK,
    CHAR,
    DIRECTORY,
    FIFO,
    LINK,
    NO_EXTRA,
    SYMLINK,
    Extra,
    Owner,
    SparseMap,
)
from .wire import BLOCK_SIZE, MAX_RECORDS, format_number, format_records
from .xattrs import with_acl_texts

RECORD_SIZE: Final = 10_240  # bytes: tar's blocking factor of 20; outputs fill the last
LONG_LINK: Final = b"././@LongLink"  # the name of L and K members
GNU_MAGIC: Final = b"ustar  \0"
POSIX_MAGIC: Final = b"ustar\x0000"

_DATALESS: Final = frozenset((LINK, SYMLINK, CHAR, BLOCK, DIRECTORY, FIFO))


def finish(block: bytes) -> bytes:
    """Put the checksum into a header block whose field for it holds spaces."""
    return b"%b%06o\0 %b" % (block[:148], sum(block), block[156:])


def header(  # noqa: PLR0913 - the fields of a header
    name: bytes,
    typeflag: int,
    *,
    owner: bytes = b"0000000\0" * 3,
    size: int = 0,
    mtime: int = 0,
    target: bytes = b"",
    magic: bytes = GNU_MAGIC,
    device: tuple[int, int] | None = None,
    tail: bytes = b"",
) -> bytes:
    """Write one header block; a name or target that is too long is truncated.

    ``owner`` is the mode, uid and gid fields, as ``owner_fields`` makes them;
    ``tail`` is the bytes from offset 345 on.
    """
    return finish(
        b"%b%b%b%b        %c%b%b%b%b%b%b"
        % (
            name[:100].ljust(100, b"\0"),
            owner,
            format_number(size, 12),
            format_number(mtime, 12),
            typeflag,
            target[:100].ljust(100, b"\0"),
            magic,
            bytes(64),
            bytes(16)
            if device is None
            else format_number(device[0], 8) + format_number(device[1], 8),
            tail,
            bytes(167 - len(tail)),
        )
    )


def owner_fields(owner: Owner) -> bytes:
    """Write the mode, uid and gid fields: 24 bytes."""
    return b"".join(format_number(number, 8) for number in owner)


def record_member(name: bytes, typeflag: int, body: bytes, magic: bytes) -> bytes:
    """Write an extended header for the next member: header, body, padding."""
    block = header(name, typeflag, size=len(body), magic=magic)
    return block + body + bytes(-len(body) % BLOCK_SIZE)


def long_name(typeflag: bytes, text: bytes) -> bytes:
    """Write a GNU ``L`` or ``K`` member: a name or target over 100 bytes."""
    return record_member(LONG_LINK, typeflag[0], text + b"\0", GNU_MAGIC)


def pax_header(records: list[tuple[bytes, bytes]], magic: bytes) -> bytes:
    """Write a PAX ``x`` member.

    Raises:
        ValueError: The header would be larger than readers accept.
    """
    body = format_records(records)
    if len(body) > MAX_RECORDS:
        raise ValueError(
            f"{len(body):,} bytes of records for one member, over {MAX_RECORDS:,}"
        )
    return record_member(b"././@PaxHeader", ord("x"), body, magic)


def _with_end(regions: SparseMap, size: int) -> list[tuple[int, int]]:
    """Add the empty region with which GNU tar marks a hole at the end."""
    out = list(regions)
    if not out or sum(out[-1]) < size:
        out.append((size, 0))
    return out


def gnu_sparse_header(regions: SparseMap, size: int) -> tuple[bytes, bytes]:
    """Write an old GNU sparse map: the header's tail, and the extension blocks."""
    entries = [
        format_number(offset, 12) + format_number(length, 12)
        for offset, length in _with_end(regions, size)
    ]
    head, rest = entries[:4], entries[4:]
    tail = bytes(41) + b"".join(head).ljust(96, b"\0")
    tail += (b"\1" if rest else b"\0") + format_number(size, 12)
    blocks = []
    for start in range(0, len(rest), 21):
        block = b"".join(rest[start : start + 21]).ljust(504, b"\0")
        block += b"\1" if start + 21 < len(rest) else b"\0"
        blocks.append(block.ljust(BLOCK_SIZE, b"\0"))
    return tail, b"".join(blocks)


def pax_sparse_map(regions: SparseMap, size: int) -> bytes:
    """Write the padded map that starts the data of a PAX 1.0 sparse file."""
    entries = _with_end(regions, size)
    lines = [len(entries), *(number for entry in entries for number in entry)]
    text = b"".join(b"%d\n" % line for line in lines)
    return text + bytes(-len(text) % BLOCK_SIZE)


def gnu_member(  # noqa: PLR0913 - the fields of a member
    name: bytes,
    kind: int,
    *,
    owner: Owner,
    size: int,
    mtime: int,
    target: bytes = b"",
    extra: Extra = NO_EXTRA,
) -> bytes:
    """Write all blocks of a member before its data, in GNU format.

    Fields that a GNU header cannot hold (xattrs, ACLs) go into one PAX header just
    before it, a mix that GNU tar, bsdtar, Python and Go all read.
    """
    out = []
    if len(target) > 100:
        out.append(long_name(b"K", target))
    if len(name) > 100:
        out.append(long_name(b"L", name))
    if extra.records:
        records = sorted(with_acl_texts(extra.records).items())
        out.append(pax_header(records, GNU_MAGIC))
    tail = blocks = b""
    typeflag = kind
    if extra.sparse is not None:
        typeflag = ord("S")
        tail, blocks = gnu_sparse_header(extra.sparse, size)
        size = sum(length for _, length in extra.sparse)
    device = extra.device if kind in (CHAR, BLOCK) else None
    fields = owner_fields(owner)
    out.append(
        header(
            name,
            typeflag,
            owner=fields,
            size=0 if kind in _DATALESS else size,
            mtime=mtime,
            target=target,
            device=device,
            tail=tail,
        )
    )
    out.append(blocks)
    return b"".join(out)


def posix_member(  # noqa: PLR0913 - the fields of a member
    name: bytes,
    kind: int,
    *,
    owner: Owner,
    size: int,
    mtime: int,
    target: bytes = b"",
    extra: Extra = NO_EXTRA,
) -> bytes:
    """Write all blocks of a member before its data, in POSIX format (pax).

    Sparse files use GNU's PAX 1.0 format, whose map starts the data.
    """
    mode, uid, gid = owner
    size = 0 if kind in _DATALESS else size
    records = with_acl_texts(extra.records)
    data_map = b""
    shown = name
    if extra.sparse is not None:
        data_map = pax_sparse_map(extra.sparse, size)
        records |= _sparse_records(name, size)
        size = len(data_map) + sum(length for _, length in extra.sparse)
        # Truncated, not in a record: Python would use the record as the name.
        shown = (b"GNUSparseFile.0/" + name.rpartition(b"/")[2])[:100]
    texts = {b"path": shown, b"linkpath": target}
    records |= {key: text for key, text in texts.items() if len(text) > 100}
    numbers = {b"uid": (uid, 8), b"gid": (gid, 8), b"size": (size, 12)}
    for key, (number, width) in numbers.items():
        if number >= 8 ** (width - 1):
            records[key] = b"%d" % number
    if extra.nanoseconds or not 0 <= mtime < 8**11:
        records[b"mtime"] = _format_time(mtime, extra.nanoseconds)
    ordered = sorted(records.items())
    if any(not _is_utf8(records.get(key, b"")) for key in (*texts, b"GNU.sparse.name")):
        ordered.insert(0, (b"hdrcharset", b"BINARY"))
    device = extra.device if kind in (CHAR, BLOCK) else (0, 0)
    block = header(
        shown,
        kind,
        owner=owner_fields((mode, uid % 8**7, gid % 8**7)),
        size=size % 8**11,
        mtime=min(max(mtime, 0), 8**11 - 1),
        target=target,
        magic=POSIX_MAGIC,
        device=device,
    )
    extended = pax_header(ordered, POSIX_MAGIC) if ordered else b""
    return extended + block + data_map


def _sparse_records(name: bytes, size: int) -> dict[bytes, bytes]:
    """Return the records that mark a member as a PAX 1.0 sparse file."""
    return {
        b"GNU.sparse.major": b"1",
        b"GNU.sparse.minor": b"0",
        b"GNU.sparse.name": name,
        b"GNU.sparse.realsize": b"%d" % size,
    }


def _format_time(seconds: int, nanoseconds: int) -> bytes:
    """Write a PAX time; ``seconds`` is floored, so negative times need a borrow."""
    sign = b""
    if seconds < 0:
        sign = b"-"
        seconds = -seconds - bool(nanoseconds)
        nanoseconds = (10**9 - nanoseconds) % 10**9
    fraction = b".%09d" % nanoseconds if nanoseconds else b""
    return b"%b%d%b" % (sign, seconds, fraction.rstrip(b"0"))


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
