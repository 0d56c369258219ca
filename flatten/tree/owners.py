"""Owner maps: replace ranges of user and group ids.

Each line of a map is ``[uid|gid] FROM TO [COUNT]``: the COUNT ids (default 1) from FROM
on become the ids from TO on. Without ``uid`` or ``gid`` the line applies to both. The
first line that contains an id applies; ids in no line are unchanged. Text after a ``#``
is a comment.
"""

import re
from dataclasses import dataclass
from typing import Final

from ..errors import UsageError, quoted
from ..tar.members import Owner

MAX_ID: Final = (1 << 32) - 2  # the highest id in Linux; one more means "no id"

_LINE: Final = r"(?:(uid|gid)\s+)?([0-9]{1,10})\s+([0-9]{1,10})(?:\s+([0-9]{1,10}))?"
_Ranges = tuple[tuple[int, int, int], ...]  # from, to, count


@dataclass(frozen=True, slots=True)
class OwnerMap:
    """The ranges of ids to replace.

    Attributes:
        users: Ranges of uids: from, to, count.
        groups: Ranges of gids, likewise.
    """

    users: _Ranges
    groups: _Ranges

    def apply(self, owner: Owner) -> Owner:
        """Return an owner with its ids replaced.

        >>> parse_owner_map("0 100000 65536").apply((0o755, 0, 65536))
        (493, 100000, 65536)
        """
        mode, uid, gid = owner
        return mode, _moved(uid, self.users), _moved(gid, self.groups)


def parse_owner_map(text: str, where: str = "owner map") -> OwnerMap:
    """Parse an owner map.

    Raises:
        UsageError: A line is not valid.
    """
    users: list[tuple[int, int, int]] = []
    groups: list[tuple[int, int, int]] = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.partition("#")[0].strip()
        if not line:
            continue
        found = re.fullmatch(_LINE, line)
        if found is None:
            raise UsageError(
                f"{where}, line {number}: {quoted(line)} is not [uid|gid] FROM TO "
                "[COUNT]"
            )
        start, to, count = int(found[2]), int(found[3]), int(found[4] or 1)
        if to + count - 1 > MAX_ID:
            raise UsageError(f"{where}, line {number}: an id is over {MAX_ID:,}")
        if found[1] != "gid":
            users.append((start, to, count))
        if found[1] != "uid":
            groups.append((start, to, count))
    return OwnerMap(tuple(users), tuple(groups))


def _moved(id_: int, ranges: _Ranges) -> int:
    for start, to, count in ranges:
        if start <= id_ < start + count:
            return to + id_ - start
    return id_
