"""The checks of ``--strict``: entries that endanger users who unpack or run an image.

==================  ===============================================================
devices             character and block devices
privileges          setuid and setgid files, and files with capabilities, unless
                    their path is in ``SETUID`` or is allowed
control characters  bytes below 0x20, and 0x7f, in names and symlink targets
links               symlinks whose ``..`` components lead above the root
==================  ===============================================================
"""

from collections.abc import Iterable, Iterator
from typing import Final

from ..errors import FormatError, quoted
from ..tar.members import BLOCK, CHAR, FILE, NO_EXTRA, SYMLINK, Members
from .plan import Plan

SETUID: Final = frozenset(
    f"{folder}/{name}".encode()
    for folder in ("bin", "sbin", "usr/bin", "usr/sbin")
    for name in (
        "chage", "chfn", "chsh", "crontab", "expiry", "fusermount", "fusermount3",
        "gpasswd", "mount", "newgidmap", "newgrp", "newuidmap", "passwd",
        "pam_extrausers_chkpwd", "ping", "pkexec", "ssh-agent", "su", "sudo",
        "sudoedit", "umount", "unix_chkpwd", "wall", "write",
    )
)  # fmt: skip
"""Programs of util-linux, shadow, sudo, iputils and others, in all distributions."""

_CAPABILITY: Final = b"SCHILY.xattr.security.capability"
_CONTROL: Final = frozenset((*range(0x20), 0x7F))


def check_strict(plan: Plan, allowed: Iterable[bytes], where: str) -> None:
    """Check that a plan has no entry that ``--strict`` refuses.

    Args:
        plan: The plan to check.
        allowed: Paths that may be setuid or setgid, or have capabilities.
        where: The image's name in messages.

    Raises:
        FormatError: There are such entries. The message shows one, and their number.
    """
    found = list(_offences(plan, SETUID.union(allowed)))
    if found:
        more = f", and {len(found) - 1:,} more" if len(found) > 1 else ""
        path, what = found[0]
        raise FormatError(f"--strict: {quoted(path)} {what}{more}", where=where)


def _offences(plan: Plan, allowed: frozenset[bytes]) -> Iterator[tuple[bytes, str]]:
    members = plan.members
    for path, inode in plan:
        kind = members.kinds[inode]
        text = members.targets.get(inode, b"") if kind == SYMLINK else b""
        if kind in (CHAR, BLOCK):
            yield path, "is a device"
        if kind == FILE and path not in allowed and _is_privileged(members, inode):
            yield path, "is setuid or setgid, or has capabilities"
        if any(byte in _CONTROL for byte in path + text):
            yield path, "has control characters in its name or target"
        if kind == SYMLINK and _leaves(path, text):
            yield path, f"is a symlink that leaves the root, to {quoted(text)}"


def _is_privileged(members: Members, inode: int) -> bool:
    mode, _, _ = members.owner_table[members.owners[inode]]
    records = members.extras.get(inode, NO_EXTRA).records
    return bool(mode & 0o6000) or any(key == _CAPABILITY for key, _ in records)


def _leaves(path: bytes, text: bytes) -> bool:
    """Return True if a symlink's text has ``..`` components that leave the root."""
    depth = 0 if text.startswith(b"/") else path.count(b"/")
    for part in text.split(b"/"):
        if part == b"..":
            depth -= 1
            if depth < 0:
                return True
        elif part not in (b"", b"."):
            depth += 1
    return False
