r"""Extended attributes, from the PAX records that carry them.

================================  ===============================================
record                            attribute
================================  ===============================================
``SCHILY.xattr.NAME``             ``NAME``, byte for byte
``RHT.security.selinux``          ``security.selinux``
``SCHILY.acl.access|default``     ``system.posix_acl_access|default``, from text
================================  ===============================================

An ACL is kept as the xattr and written as both records, so that equal trees give equal
bytes and every reader restores it: GNU tar with ``--acls`` and bsdtar read only the
text, GNU tar with ``--xattrs`` alone and container engines only the xattr.

Reference: star(5), "POSIX.1-2001 extensions"; acl(5); linux/posix_acl_xattr.h.
"""

import re
import struct
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

PREFIX: Final = b"SCHILY.xattr."  # of the records that star introduced
ACL: Final = b"system.posix_acl_"
ACL_ACCESS: Final = ACL + b"access"
ACL_DEFAULT: Final = ACL + b"default"
_RENAMED: Final = {b"RHT.security.selinux": b"security.selinux"}
_ACLS: Final = {
    b"SCHILY.acl.access": ACL_ACCESS,
    b"SCHILY.acl.default": ACL_DEFAULT,
}
_VERSION: Final = struct.pack("<I", 2)  # of the kernel's form, before the entries
_PERMISSIONS: Final = struct.Struct("<HHI")  # an entry: tag, permissions, id
_NOBODY: Final = 0xFFFFFFFF  # the id in ACL entries that name no user or group
_TAGS: Final = {  # ACL tags of entries without and with a qualifier
    b"user": (0x01, 0x02),
    b"group": (0x04, 0x08),
    b"mask": (0x10, 0x10),
    b"other": (0x20, 0x20),
}
_KINDS: Final = {tag: kind for kind, tags in _TAGS.items() for tag in tags}
_QUALIFIED: Final = (0x02, 0x08)
MINIMAL_ACL: Final = 4 + 3 * 8  # bytes of an ACL that only repeats the mode
_ENTRY: Final = re.compile(
    rb"(user|group|mask|other):([^:,\n]*):([r-][w-][x-])(?::([0-9]{1,10}))?"
)


def from_records(records: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Return the xattrs in PAX records by name; other records are ignored.

    Raises:
        ValueError: An ACL is not valid, or names a user or group without its id.
    """
    found: dict[bytes, bytes] = {}
    for key, value in records:
        if key.startswith(PREFIX):
            found[key.removeprefix(PREFIX)] = value
        elif key in _RENAMED:
            found.setdefault(_RENAMED[key], value)
        elif key in _ACLS:
            found.setdefault(_ACLS[key], parse_acl(value))
    return found


def to_records(xattrs: dict[bytes, bytes]) -> tuple[tuple[bytes, bytes], ...]:
    """Return the PAX records that carry xattrs byte for byte, sorted by keyword."""
    return tuple(sorted((PREFIX + name, value) for name, value in xattrs.items()))


def name_of(key: bytes) -> bytes | None:
    """Return the name of the xattr that a PAX record carries, or None."""
    if key.startswith(PREFIX):
        return key.removeprefix(PREFIX)
    return _RENAMED.get(key) or _ACLS.get(key)


def parse_acl(text: bytes) -> bytes:
    r"""Convert an ACL's text into the kernel's binary form.

    >>> parse_acl(b"user::rw-,group::r--,other::---").hex(" ", 4)
    '02000000 01000600 ffffffff 04000400 ffffffff 20000000 ffffffff'
    """
    entries = []
    for line in filter(None, re.split(rb"[,\n]", text)):
        found = _ENTRY.fullmatch(line.split(b"#")[0].strip())
        if found is None:
            raise ValueError("invalid ACL entry")
        kind, name, letters, number = found.groups()
        bits = sum(
            bit
            for bit, set_ in zip((4, 2, 1), letters, strict=True)
            if set_ != ord("-")
        )
        tag = _TAGS[kind][bool(name)]
        who = int(number or name) if name else _NOBODY
        entries.append((tag, who, bits))
    return _VERSION + b"".join(
        _PERMISSIONS.pack(tag, bits, who) for tag, who, bits in sorted(entries)
    )


def format_acl(value: bytes) -> bytes:
    """Convert an ACL's binary form into text, with ids instead of names.

    Raises:
        ValueError: The value is not a valid ACL.

    >>> format_acl(parse_acl(b"other::---,user:7:r-x,user::rw-,group::r--"))
    b'user::rw-,user:7:r-x,group::r--,other::---'
    """
    if not value.startswith(_VERSION) or len(value) % _PERMISSIONS.size != 4:
        raise ValueError("invalid ACL")
    entries = []
    for tag, bits, who in _PERMISSIONS.iter_unpack(value[len(_VERSION) :]):
        if tag not in _KINDS or bits > 7:
            raise ValueError("invalid ACL entry")
        name = b"%d" % who if tag in _QUALIFIED else b""
        letters = bytes(
            letter if bits & bit else ord("-")
            for letter, bit in zip(b"rwx", (4, 2, 1), strict=True)
        )
        entries.append(b"%b:%b:%b" % (_KINDS[tag], name, letters))
    return b",".join(entries)


def acls_as_xattrs(records: dict[bytes, bytes]) -> None:
    """Replace the texts of ACLs by xattrs in canonical form; keep invalid ones.

    Where both records are present, the xattr is used, as by ``from_records``. An ACL
    without entries is removed: the kernel takes it for none.
    """
    for key, name in _ACLS.items():
        text, value = records.get(key), records.get(PREFIX + name)
        with suppress(ValueError):
            if value is not None:
                value = parse_acl(format_acl(value))
            elif text is not None:
                value = parse_acl(text)
        if value is not None:
            records.pop(key, None)
            records[PREFIX + name] = value
        if value == _VERSION:
            del records[PREFIX + name]


def with_acl_texts(records: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Return records with the texts of valid ACLs along with their xattrs."""
    found = dict(records)
    for key, name in _ACLS.items():
        value = found.get(PREFIX + name)
        if value is not None:
            with suppress(ValueError):
                found[key] = format_acl(value)
    return found


def acl_mode(acl: bytes) -> int:
    r"""Return the permission bits that a file gets with an access ACL.

    The group bits are the mask's, if there is a mask.

    Reference: acl(5), "Correspondence between ACL entries and file permission bits".

    >>> acl = parse_acl(b"user::rwx,user:5:r--,group::---,mask::r-x,other::--x")
    >>> f"{acl_mode(acl):o}"
    '751'
    """
    bits: dict[int, int] = {
        tag: bits for tag, bits, _ in struct.iter_unpack("<HHI", acl[4:])
    }
    group = bits.get(0x10, bits.get(0x04, 0))
    return bits.get(0x01, 0) << 6 | group << 3 | bits.get(0x20, 0)
