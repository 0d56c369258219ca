"""Layer tars from words and members.

A word is one member:

==========  =======================================================
``a``       a file; its content is the number of its layer, from 1
``d/``      a directory
``b=a``     a hard link ``b`` to ``a``
``s->t``    a symlink
``-d/a``    the whiteout ``d/.wh.a``
``d/*``     the opaque whiteout ``d/.wh..wh..opq``; ``*`` is the root's
==========  =======================================================

``member`` writes what words cannot say: any header field, valid or not.
"""

from collections.abc import Mapping
from typing import Any

MTIME = 1_700_000_000
END = bytes(1024)
GNU_MAGIC = b"ustar  \0"
POSIX_MAGIC = b"ustar\x0000"
V7_MAGIC = bytes(8)

Fields = dict[str, Any]


def encoded(text: str | bytes) -> bytes:
    """Return the bytes of a name; surrogates stand for bytes that are not UTF-8."""
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")


def number(value: int | bytes, width: int) -> bytes:
    """Return a header's number: octal, or base-256 if the field is too narrow."""
    if isinstance(value, bytes):
        return value.ljust(width, b"\0")
    if 0 <= value < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, value)
    sign = 0xFF if value < 0 else 0x80
    return bytes([sign]) + (value % 256 ** (width - 1)).to_bytes(width - 1, "big")


def padded(data: bytes) -> bytes:
    """Fill up to whole blocks of 512 bytes."""
    return data + bytes(-len(data) % 512)


def header(
    name: bytes,
    type: bytes,
    *,
    mode: int | bytes = 0o644,
    uid: int | bytes = 0,
    gid: int | bytes = 0,
    size: int | bytes = 0,
    mtime: int | bytes = MTIME,
    target: bytes = b"",
    magic: bytes = POSIX_MAGIC,
    uname: bytes = b"",
    gname: bytes = b"",
    device: tuple[int, int] = (0, 0),
    tail: bytes = b"",
) -> bytes:
    """Write one header block; ``tail`` is what follows the device numbers."""
    before = name[:100].ljust(100, b"\0") + b"".join((
        number(mode, 8), number(uid, 8), number(gid, 8), number(size, 12),
        number(mtime, 12),
    ))  # fmt: skip
    after = b"".join((
        type, target[:100].ljust(100, b"\0"), magic, uname.ljust(32, b"\0"),
        gname.ljust(32, b"\0"), number(device[0], 8), number(device[1], 8), tail,
    )).ljust(512 - 156, b"\0")  # fmt: skip
    checksum = sum(before) + 8 * ord(" ") + sum(after)
    return before + b"%06o\0 " % checksum + after


def record(key: bytes, value: bytes) -> bytes:
    """Write a PAX record, whose length counts its own digits."""
    length = len(key) + len(value) + 3
    while len(line := b"%d %b=%b\n" % (length, key, value)) != length:
        length = len(line)
    return line


def pax(records: Mapping[str, str | bytes], type: bytes = b"x") -> bytes:
    """Write an extended header; ``g`` makes it a global one."""
    data = b"".join(record(encoded(k), encoded(v)) for k, v in records.items())
    return header(b"PaxHeaders/x", type, size=len(data)) + padded(data)


def long_name(name: bytes, type: bytes = b"L") -> bytes:
    """Write GNU's long name, or with ``K`` its long link target."""
    text = name + b"\0"
    return header(
        b"././@LongLink", type, size=len(text), magic=GNU_MAGIC
    ) + padded(text)  # fmt: skip


def member(
    name: str | bytes,
    data: str | bytes = b"",
    *,
    type: bytes = b"0",
    target: str | bytes = b"",
    records: Mapping[str, str | bytes] | None = None,
    **fields: Any,
) -> bytes:
    """Write a member: long names and records if it needs them, its header, its data."""
    name, data, target = encoded(name), encoded(data), encoded(target)
    out = long_name(target, b"K") if len(target) > 100 else b""
    out += long_name(name) if len(name) > 100 else b""
    out += pax(records) if records else b""
    fields.setdefault("size", len(data))
    return out + header(name, type, target=target, **fields) + padded(data)


def directory(name: str | bytes, **fields: Any) -> bytes:
    """Write a directory, with mode 0755 unless ``fields`` say otherwise."""
    return member(name, type=b"5", **{"mode": 0o755, **fields})


def symlink(name: str | bytes, target: str | bytes, **fields: Any) -> bytes:
    """Write a symlink."""
    return member(name, type=b"2", target=target, **{"mode": 0o777, **fields})


def hard_link(name: str | bytes, target: str | bytes, **fields: Any) -> bytes:
    """Write a hard link."""
    return member(name, type=b"1", target=target, **fields)


def word(text: str, number: int) -> bytes:
    """Write the member that a word says, for the layer of that number."""
    if text.startswith("-"):
        parent, slash, name = text[1:].rpartition("/")
        return member(f"{parent}{slash}.wh.{name}")
    if text.endswith("*"):
        return member(f"{text[:-1]}.wh..wh..opq")
    if "->" in text:
        return symlink(*text.split("->"))
    if "=" in text:
        return hard_link(*text.split("="))
    return directory(text) if text.endswith("/") else member(text, f"{number}")


def layer_tar(*words: str | bytes, number: int = 1, end: bytes = END) -> bytes:
    """Write a layer tar from words and members."""
    parts = [word(each, number) if isinstance(each, str) else each for each in words]
    return b"".join(parts) + end
