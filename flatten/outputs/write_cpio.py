"""Encode a plan as the pieces of a cpio archive, in the format of a Linux initramfs.

A member is a header of 110 bytes, its name and a NUL, padded to 4 bytes, and its
content, also padded to 4 bytes. The header is "070701" and 13 numbers of 8 hex digits:
inode, mode, uid, gid, links, mtime, size, device that the file is on (major, minor),
device that a device file is for (major, minor), length of the name with its NUL, and
checksum (0). The names of one inode share its number; the last of them has the content,
as in GNU cpio. Holes are written as zeros.

Reference: Linux, Documentation/driver-api/early-userspace/buffer-format.rst.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Final

from ..errors import FlattenError, quoted
from ..plan.pieces import content
from ..plan.plan import Piece, Plan
from ..tar.members import BLOCK, CHAR, DIRECTORY, FILE_TYPES, NO_EXTRA, SYMLINK

MAX_NUMBER: Final = (1 << 32) - 1  # eight hex digits
TRAILER: Final = b"TRAILER!!!"
RECORD: Final = 512  # bytes; an archive is padded to a multiple of it


def cpio_pieces(plan: Plan) -> Iterator[Piece]:
    """Yield the pieces of the archive, in order.

    Raises:
        FlattenError: A number is too large for the format, such as the size of a file
            of 4 GiB, or a member has the name of the trailer.
    """
    written = 0
    for piece in _member_pieces(plan):
        written += len(piece) if isinstance(piece, bytes) else piece.length
        yield piece
    yield bytes(-written % RECORD)


def _member_pieces(plan: Plan) -> Iterator[Piece]:
    left = Counter(plan.inodes)  # names that are still to come
    links = dict(left)
    for path, inode in plan:
        left[inode] -= 1
        name = path.rstrip(b"/")
        if name == TRAILER:
            raise FlattenError(
                f"{quoted(name)}: a cpio archive ends at a member with this name; "
                "leave it out with --exclude, or write a tar"
            )
        kind = plan.members.kinds[inode]
        text = plan.members.targets[inode] if kind == SYMLINK else b""
        size = 0 if left[inode] else plan.members.sizes[inode]
        yield _header(plan, name, inode, size=size or len(text), links=links[inode])
        if text:
            yield text
        elif size:
            yield from content(plan, inode)
        yield bytes(-(size or len(text)) % 4)
    yield _format((0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0), TRAILER)


def _header(plan: Plan, name: bytes, inode: int, *, size: int, links: int) -> bytes:
    members = plan.members
    kind = members.kinds[inode]
    mode, uid, gid = members.owner_table[members.owners[inode]]
    device = members.extras.get(inode, NO_EXTRA).device
    device = device if kind in (CHAR, BLOCK) else (0, 0)
    links = 2 if kind == DIRECTORY else links
    numbers = (
        inode + 1,
        FILE_TYPES[kind] | mode,
        uid,
        gid,
        links,
        members.mtimes[inode],
        size,
        0,
        0,
        *device,
    )
    if max(numbers) > MAX_NUMBER:
        raise FlattenError(
            f"{quoted(name)}: {max(numbers):,} is more than a cpio can hold "
            f"({MAX_NUMBER:,}): its size, owner or mtime"
        )
    return _format(numbers, name)


def _format(numbers: tuple[int, ...], name: bytes) -> bytes:
    """Return a header, and the name after it, padded.

    >>> _format((1, 0o100644, 0, 0, 1, 9, 5, 0, 0, 0, 0), b"a")[:62]
    b'07070100000001000081A40000000000000000000000010000000900000005'
    """
    fields = b"".join(b"%08X" % number for number in (*numbers, len(name) + 1, 0))
    head = b"070701" + fields + name + b"\0"
    return head + bytes(-len(head) % 4)
