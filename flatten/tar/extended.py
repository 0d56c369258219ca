"""Headers that describe other members: PAX records, GNU long names, volume labels.

========  ===========================================================  ==============
typeflag  meaning                                                      maximum bytes
========  ===========================================================  ==============
x         PAX records for the next member                              1 MiB
X         the same in Solaris's form: times, but no names or sizes     1 MiB
g         PAX records for all members that follow, no names or sizes   1 MiB
L, K      GNU long name, long link target                              64.5 KiB
V         GNU volume label; skipped, with its data                     any
========  ===========================================================  ==============

Headers that readers interpret differently are refused with a ValueError.
"""

from base64 import b64decode
from dataclasses import dataclass, field
from typing import Final

from ..errors import quoted
from . import wire, xattrs
from .members import MAX_NAME
from .wire import BLOCK_SIZE, MAX_RECORDS

MAX_GLOBAL: Final = 1 << 16  # bytes of global PAX records

LABEL: Final = ord("V")
GLOBAL: Final = ord("g")
RECORDS: Final = b"xXg"
LIMITS: Final = {
    **dict.fromkeys(RECORDS, MAX_RECORDS),
    **dict.fromkeys(b"LK", MAX_NAME + BLOCK_SIZE),
    LABEL: 1 << 62,
}
"""Typeflags of headers that are not members, and the maximum bytes of their data."""

_SOLARIS: Final = ord("X")
_MEMBERS_TO_GO: Final = frozenset((_SOLARIS, GLOBAL, LABEL))
_KEPT_PREFIXES: Final = (xattrs.PREFIX, b"SCHILY.acl.", b"RHT.security.selinux")
_DROPPED_PREFIXES: Final = (
    xattrs.PREFIX + b"trusted.overlay.",
    xattrs.PREFIX + b"user.overlay.",
    xattrs.PREFIX + b"user.fuseoverlayfs.",
)
_LIBARCHIVE_XATTR: Final = b"LIBARCHIVE.xattr."
_READ: Final = frozenset(
    (
        b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime",
        b"SCHILY.devmajor", b"SCHILY.devminor",
    )
)  # fmt: skip
_READ_PREFIXES: Final = (*_KEPT_PREFIXES, _LIBARCHIVE_XATTR, b"GNU.sparse.")

Records = dict[bytes, bytes]


@dataclass(slots=True)
class Overrides:
    """The fields that L, K and x headers set for the member after them."""

    name: bytes | None = None
    target: bytes | None = None
    records: list[tuple[bytes, bytes]] = field(default_factory=list)

    def take(self, flag: int, body: bytes, size: int) -> None:
        """Add such a header; ``body`` includes the padding after its ``size`` bytes."""
        if flag in b"LK":
            text = body.split(b"\0", 1)[0]
            if not 0 < len(text) <= size:  # Go uses the short one; GNU tar reads on
                raise ValueError("a long name that is empty, or longer than its size")
            known = self.name if flag == ord("L") else self.target
            if known is not None:  # GNU tar uses the last one, Python the first
                raise ValueError("two long names for one member")
            if flag == ord("L"):
                self.name = text
            else:
                self.target = text
            return
        if self.records:
            raise ValueError("two PAX headers for one member")
        self.records = wire.parse_records(body[:size])
        if flag == _SOLARIS:
            _check_attributes(self.records)


def check_place(flag: int, overrides: Overrides | None) -> None:
    """Refuse a header between an extended header and its member, as Go misreads it."""
    if flag in _MEMBERS_TO_GO and overrides is not None:
        raise ValueError(
            f"typeflag {chr(flag)!r} between an extended header and its member"
        )


def global_records(defaults: Records, body: bytes) -> Records:
    """Return the global records, updated with those of one more g header."""
    records = wire.parse_records(body)
    _check_attributes(records)
    merged = meant(defaults | dict(records))
    total = sum(len(key) + len(value) for key, value in merged.items())
    if total > MAX_GLOBAL:
        raise ValueError(f"global records of {total:,} bytes, over {MAX_GLOBAL:,}")
    return merged


def _check_attributes(records: list[tuple[bytes, bytes]]) -> None:
    """Refuse records of names and sizes in headers that some readers ignore.

    Go and bsdtar ignore global records, and Go ignores Solaris's: those readers would
    see other names, or other ends of members.
    """
    for key, _ in records:
        if key in (b"path", b"linkpath", b"size") or key.startswith(b"GNU.sparse."):
            raise ValueError(f"{quoted(key)}: a record that some readers ignore here")


def meant(records: Records) -> Records:
    """Return the records without comments, unused keywords and empty values.

    An empty value unsets its keyword, except that an xattr may be empty.
    """
    return {
        key: value
        for key, value in records.items()
        if (value and (key in _READ or key.startswith(_READ_PREFIXES)))
        or key.startswith(_KEPT_PREFIXES)
    }


def kept_records(records: Records) -> tuple[tuple[bytes, bytes], ...]:
    """Return the xattrs, ACLs and labels among PAX records, sorted by keyword.

    ACLs are xattrs, except texts that cannot be converted (``xattrs``).

    Overlay's own xattrs are dropped: they would take effect if the output were
    unpacked under an overlay mount.
    """
    kept = {
        key: value
        for key, value in records.items()
        if key.startswith(_KEPT_PREFIXES) and not key.startswith(_DROPPED_PREFIXES)
    }
    for key, value in records.items():
        if key.startswith(_LIBARCHIVE_XATTR):  # old bsdtar writes only these
            name, decoded = _libarchive_xattr(key, value)
            if name not in records and not name.startswith(_DROPPED_PREFIXES):
                kept[name] = decoded
    if kept:
        xattrs.acls_as_xattrs(kept)
    return tuple(sorted(kept.items()))


def _libarchive_xattr(key: bytes, value: bytes) -> tuple[bytes, bytes]:
    """Decode libarchive's own record: name URL-encoded, value in base64."""
    head, *rest = key.removeprefix(_LIBARCHIVE_XATTR).split(b"%")
    name = head + b"".join(bytes.fromhex(part[:2].decode()) + part[2:] for part in rest)
    if b"=" in name or b"\0" in name:
        raise ValueError(f"an xattr name that PAX cannot represent: {quoted(name)}")
    return xattrs.PREFIX + name, b64decode(value + b"=" * (-len(value) % 4))
