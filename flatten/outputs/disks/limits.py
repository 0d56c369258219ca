"""What a disk cannot have: names, symlinks and devices that Linux does not read."""

from typing import Final

from ...errors import FlattenError, quoted
from ...plan.plan import Plan
from ...tar.members import BLOCK, CHAR, NO_EXTRA, SYMLINK, Members
from ..inode import MAX_MAJOR, MAX_MINOR

MAX_NAME: Final = 255  # bytes
MAX_TARGET: Final = 4095  # bytes; Linux reads one page of a symlink


def check_limits(plan: Plan, *, names: str = "Linux reads", where: str = "") -> None:
    """Refuse what Linux could not read.

    Args:
        plan: The plan of the file system.
        names: What limits names, and how, in messages.
        where: The output in messages, with what separates it from the rest.

    Raises:
        FlattenError: A name, a symlink's target or a device number is too large.
    """
    members = plan.members
    for path, inode in plan:
        kind = members.kinds[inode]
        if len(path) > MAX_NAME or kind == SYMLINK:
            check_texts(path, members, inode, names=names, where=where)
        if kind in (CHAR, BLOCK):
            major, minor = members.extras.get(inode, NO_EXTRA).device
            if major > MAX_MAJOR or minor > MAX_MINOR:
                raise FlattenError(
                    f"{where}the device {quoted(path)} has the number "
                    f"{major:,}:{minor:,}; Linux has at most "
                    f"{MAX_MAJOR:,}:{MAX_MINOR:,}"
                )


def check_texts(  # noqa: PLR0913 - the words of messages, by keyword
    path: bytes,
    members: Members,
    inode: int,
    *,
    names: str = "Linux reads",
    targets: str = "Linux reads",
    where: str = "",
) -> None:
    """Refuse a member whose name or symlink's target is too long.

    Args:
        path: Its path.
        members: The columns.
        inode: Its row.
        names: What limits names, and how, in messages.
        targets: What limits targets, and how.
        where: The output in messages, with what separates it from the rest.

    Raises:
        FlattenError: One of them is too long.
    """
    if len(path) > MAX_NAME:
        longest = max(map(len, path.split(b"/")))
        if longest > MAX_NAME:
            raise FlattenError(
                f"{where}{quoted(path)} has a name of {longest:,} bytes; {names} at "
                f"most {MAX_NAME}"
            )
    if members.kinds[inode] == SYMLINK:
        length = len(members.targets[inode])
        if length > MAX_TARGET:
            raise FlattenError(
                f"{where}the symlink {quoted(path)} has a target of {length:,} bytes; "
                f"{targets} at most {MAX_TARGET:,}"
            )
