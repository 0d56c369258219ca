"""Encode extended attributes for EROFS: after their inode, or once for several.

An xattr that several inodes have is stored once, in the *shared area*, if that is
smaller; each inode then has its number, which counts 4 bytes from the start of the
area.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Final

from ...errors import FlattenError, quoted
from ...plan.plan import Plan
from ...tar.members import NO_EXTRA
from ...tar.xattrs import from_records
from .erofs_fs import (
    MAX_NAME,
    MAX_SHARED,
    MAX_VALUE,
    XATTR_ENTRY,
    XATTR_HEADER,
    XATTR_PREFIXES,
    XATTR_UNIT,
)


class Xattrs:
    """The xattrs of a plan.

    Attributes:
        area: The bytes of the shared area: entries in the order of their first inodes.
    """

    def __init__(self, plan: Plan) -> None:
        """Choose which xattrs are shared.

        Raises:
            FlattenError: The name or the value of an xattr is too long.
        """
        self._extras = plan.members.extras
        counts: Counter[bytes] = Counter()
        links = plan.links
        for position, (path, inode) in enumerate(plan):
            if inode in self._extras and position not in links:
                try:
                    counts.update(self._entries(inode))
                except ValueError as error:
                    raise FlattenError(f"{quoted(path)}: {error}") from error
        self._shared: dict[bytes, int] = {}
        area = bytearray()
        for entry, count in counts.items():
            if (count - 1) * len(entry) > count * XATTR_UNIT:
                self._shared[entry] = len(area) // XATTR_UNIT
                area += entry
        self.area: Final = bytes(area)

    def after(self, inode: int) -> bytes:
        """Return what follows an inode: a header, numbers and entries, or nothing."""
        numbers: list[bytes] = []
        own: list[bytes] = []
        for entry in self._entries(inode):
            number = self._shared.get(entry)
            if number is None or len(numbers) == MAX_SHARED:
                own.append(entry)
            else:
                numbers.append(number.to_bytes(XATTR_UNIT, "little"))
        if not numbers and not own:
            return b""
        return b"".join((XATTR_HEADER.pack(0, len(numbers)), *numbers, *own))

    def _entries(self, inode: int) -> Iterator[bytes]:
        """Yield the encoded xattrs of an inode, in the order of their names.

        Raises:
            ValueError: A name or a value is too long.
        """
        found = from_records(self._extras.get(inode, NO_EXTRA).records)
        for name in sorted(found):
            yield _entry(name, found[name])


def _entry(name: bytes, value: bytes) -> bytes:
    """Return an encoded xattr.

    Raises:
        ValueError: The name or the value is too long.

    >>> _entry(b"user.a", b"bc").hex(" ", 1)
    '01 01 02 00 61 62 63 00'
    """
    if len(name) > MAX_NAME:
        raise ValueError(
            f"an xattr with a name of {len(name):,} bytes; Linux reads at most "
            f"{MAX_NAME}"
        )
    if len(value) > MAX_VALUE:
        raise ValueError(
            f"the xattr {quoted(name)} has {len(value):,} bytes; EROFS holds at most "
            f"{MAX_VALUE:,}"
        )
    prefix = next(start for start in XATTR_PREFIXES if name.startswith(start))
    rest = name.removeprefix(prefix)
    entry = XATTR_ENTRY.pack(len(rest), XATTR_PREFIXES[prefix], len(value))
    entry += rest + value
    return entry + bytes(-len(entry) % XATTR_UNIT)
