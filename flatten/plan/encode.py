"""Encode the header blocks of planned members."""

import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final

from ..errors import FormatError, quoted
from ..tar import write_header
from ..tar.members import (
    FILE,
    LINK,
    NO_EXTRA,
    Extra,
)
from ..tar.wire import BLOCK_SIZE, Known, padded
from .plan import FULL, Plan

_GNU_REST: Final = write_header.header(b"", FILE)[257:]  # the bytes after the target


_START: Final = struct.Struct("100s24s12s12s")  # the fields before the checksum


def encode_header(plan: Plan, position: int, path: bytes, inode: int) -> bytes:
    """Return all header blocks of a member."""
    members = plan.members
    first = plan.links.get(position)
    write = write_header.posix_member if plan.posix else write_header.gnu_member
    extra = members.extras.get(inode, NO_EXTRA)
    if extra.sparse is not None and not plan.sparse:
        extra = replace(extra, sparse=None)
    try:
        return write(
            path,
            members.kinds[inode] if first is None else LINK,
            owner=members.owner_table[members.owners[inode]],
            size=members.sizes[inode],
            mtime=members.mtimes[inode],
            target=members.targets.get(inode, b"") if first is None else first,
            extra=extra if first is None else Extra(nanoseconds=extra.nanoseconds),
        )
    except ValueError as error:
        raise FormatError(str(error), where=quoted(path)) from error


def _long_name(path: bytes, blocks: int = 0) -> bytes:
    """Write a GNU ``L`` header of ``blocks`` blocks of name, or as many as needed."""
    size = len(path) + 1
    if blocks:
        size = max(size, blocks * BLOCK_SIZE - 1)
    return _long_header(size) + path + bytes(padded(size) - len(path))


@lru_cache
def _long_header(size: int) -> bytes:
    return write_header.header(write_header.LONG_LINK, ord("L"), size=size)


def columns(plan: Plan) -> tuple[Any, ...]:
    """Return the plan's columns for the kernel; see ``flatten/_headers.pyi``."""
    members = plan.members
    return (
        plan.paths,
        members.targets,
        plan.inodes,
        plan.special,
        members.kinds,
        members.layers,
        members.owners,
        members.sizes,
        members.data,
        members.mtimes,
        b"".join(map(write_header.owner_fields, members.owner_table)),
    )


_Encode = Callable[[bytes, int, int, tuple[bytes, int]], bytes]


def plain_encoder(plan: Plan) -> _Encode:
    """Return a function that encodes a plain member from path, inode, size and rest.

    A header's parts are: name; mode, uid and gid; size; mtime; checksum; the rest, from
    the typeflag on. Most members share most of them. The checksum is the sum of the
    parts' sums; for so few bytes, the low half of Adler-32 is 1 + the sum.
    """
    members = plan.members
    owners, mtimes = members.owners, members.mtimes
    owner_fields = [write_header.owner_fields(owner) for owner in members.owner_table]
    numbers, checksums = Known(b"%011o\0".__mod__), Known(b"%06o\0 ".__mod__)
    adler32, pack = zlib.adler32, _START.pack

    def encode(path: bytes, inode: int, size: int, rest: tuple[bytes, int]) -> bytes:
        start = pack(
            path, owner_fields[owners[inode]], numbers[size], numbers[mtimes[inode]]
        )
        behind, total = rest
        head = start + checksums[total + (adler32(start) & 0xFFFF)] + behind
        return head if len(path) <= 100 else _long_name(path) + head

    return encode


def encode_special(plan: Plan, encode: _Encode, position: int, special: int) -> bytes:
    """Return the header blocks of a member that is not plain."""
    path, inode = plan.paths[position], plan.inodes[position]
    if special == FULL:
        return encode_header(plan, position, path, inode)
    if position in plan.links:
        return encode(path, inode, 0, header_rest(LINK, plan.links[position]))
    head = encode(path[:100], inode, plan.members.sizes[inode], header_rest(FILE, b""))
    return _long_name(path, plan.name_blocks[position]) + head


def header_rest(kind: int, target: bytes) -> tuple[bytes, int]:
    """Return a header from its typeflag on, and its sum with 8 spaces, less 1.

    The 1 is subtracted because the Adler-32 of the part before is 1 too high.
    """
    rest = b"%c%b%b" % (kind, target.ljust(100, b"\0"), _GNU_REST)
    return rest, (zlib.adler32(rest) & 0xFFFF) - 2 + 8 * 0x20
