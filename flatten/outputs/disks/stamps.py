"""What file systems hold beside their files, made the same for the same image."""

import hashlib

from ..job import Job


def stamp(job: Job) -> int:
    """Return the time to give as the one of making: the latest mtime in the tree."""
    mtimes = job.plan.members.mtimes
    return max(0, max((mtimes[inode] for inode in job.plan.inodes), default=0))


def uuid(job: Job, kind: str) -> str:
    """Return a UUID of version 8: a hash of the image's id and the kind of output.

    It is the same whenever an image is written, and another for each image, so that
    two of them can be mounted beside each other.
    """
    digest = bytearray(
        hashlib.sha256(f"flatten {kind} {job.image.id}".encode()).digest()
    )
    digest[6] = digest[6] & 0x0F | 0x80
    digest[8] = digest[8] & 0x3F | 0x80
    text = digest[:16].hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
