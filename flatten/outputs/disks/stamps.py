"""The times, UUIDs and labels of file systems; equal images give equal bytes."""

import hashlib
import os

from ...errors import UsageError, quoted
from ...options import Options
from ..job import Job


def stamp(job: Job) -> int:
    """Return the time at which a file system was made, in seconds since the epoch.

    It is the latest mtime in the tree, rounded up.
    """
    members = job.plan.members
    extras, mtimes = members.extras, members.mtimes
    latest = max((mtimes[i] for i in job.plan.inodes), default=0)
    fraction = any(
        mtimes[i] == latest and i in extras and extras[i].nanoseconds
        for i in job.plan.inodes
    )
    return max(0, latest + fraction)


def uuid(job: Job, kind: str) -> str:
    """Return a UUID of version 8: a hash of the image's id and the kind of output.

    It is the same whenever an image is written, and differs between images, so that
    two of them can be mounted at the same time.
    """
    digest = hashlib.sha256(f"flatten {kind} {job.image.id}".encode()).digest()
    text = version_8(digest).hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def version_8(digest: bytes) -> bytes:
    """Return the UUID of version 8 that starts with the bytes of a digest.

    Reference: RFC 9562, section 5.8.
    """
    found = bytearray(digest[:16])
    found[6] = found[6] & 0x0F | 0x80
    found[8] = found[8] & 0x3F | 0x80
    return bytes(found)


def label(options: Options, format: str, most: int, default: str = "") -> str:
    """Return the label of a file system: the option's value, or a default.

    Args:
        options: The options.
        format: The name of the file system, for messages.
        most: The number of bytes that it holds.
        default: The label without an option.

    Raises:
        UsageError: The label has more bytes.
    """
    found = default if options.label is None else options.label
    size = len(os.fsencode(found))
    if size > most:
        raise UsageError(
            f"--label: {quoted(found)} has {size} bytes; {format} holds at most {most}"
        )
    return found
