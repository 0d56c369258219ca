"""The checks of ``--strict``: entries that endanger users who unpack or run an image.

==================  ===============================================================
devices             character and block devices
privileges          setuid and setgid files, and files with capabilities, unless
                    their path is in ``SETUID`` or is allowed
control characters  bytes below 0x20, and 0x7f, in names and symlink targets
links               symlinks that lead above the root, by ``..`` components of their
                    own or of symlinks on their way
==================  ===============================================================
"""

from collections.abc import Iterable, Iterator
from typing import Final

from ..errors import FormatError, quoted
from ..tar import xattrs
from ..tar.members import BLOCK, CHAR, FILE, MAX_LINKS, NO_EXTRA, SYMLINK, Members
from ..tree.tree import FOLLOWED, MAX_FOLLOWED
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

_CAPABILITY: Final = xattrs.PREFIX + b"security.capability"
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
    try:
        found = list(_offences(plan, SETUID.union(allowed)))
    except ValueError as error:
        raise FormatError(str(error), where=where) from error
    if found:
        more = f", and {len(found) - 1:,} more" if len(found) > 1 else ""
        path, what = found[0]
        raise FormatError(f"--strict: {quoted(path)} {what}{more}", where=where)


def _offences(plan: Plan, allowed: frozenset[bytes]) -> Iterator[tuple[bytes, str]]:
    members = plan.members
    links = _Links(plan)
    for path, inode in plan:
        kind = members.kinds[inode]
        text = members.targets.get(inode, b"") if kind == SYMLINK else b""
        if kind in (CHAR, BLOCK):
            yield path, "is a device"
        if kind == FILE and path not in allowed and _is_privileged(members, inode):
            yield path, "is setuid or setgid, or has capabilities"
        if any(byte in _CONTROL for byte in path + text):
            yield path, "has control characters in its name or target"
        if kind == SYMLINK and links.leaves(path):
            yield path, f"is a symlink that leaves the root, to {quoted(text)}"


def _is_privileged(members: Members, inode: int) -> bool:
    mode, _, _ = members.owner_table[members.owners[inode]]
    records = members.extras.get(inode, NO_EXTRA).records
    return bool(mode & 0o6000) or any(key == _CAPABILITY for key, _ in records)


class _Links:
    """The symlinks of a plan, followed as the kernel would from outside a chroot."""

    def __init__(self, plan: Plan) -> None:
        self._texts = {
            path: plan.members.targets[inode]
            for path, inode in plan
            if plan.members.kinds[inode] == SYMLINK
        }
        self._budget = MAX_FOLLOWED + FOLLOWED * len(plan)

    def leaves(self, path: bytes) -> bool:
        """Return True if a ``..`` component on the way of a symlink leaves the root.

        Raises:
            ValueError: The texts of all symlinks followed so far are over the limit.
        """
        trail = path.split(b"/")
        todo: list[bytes] = []
        for _ in range(MAX_LINKS):
            text = self._texts[b"/".join(trail)]
            self._budget -= len(text)
            if self._budget < 0:
                raise ValueError("symlinks too long to follow")
            trail = [] if text.startswith(b"/") else trail[:-1]
            todo.extend(reversed(text.split(b"/")))
            while todo:
                name = todo.pop()
                if name == b"..":
                    if not trail:
                        return True
                    trail.pop()
                elif name not in (b"", b"."):
                    trail.append(name)
                    if b"/".join(trail) in self._texts:
                        break
            else:
                return False
        return False  # a loop, or more symlinks than the kernel follows
