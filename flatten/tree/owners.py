"""Owners that are not those of the image: ranges of ids, moved.

Each line of a map is ``[uid|gid] FROM TO [COUNT]``: the COUNT ids (1 if not given) that
begin with FROM become those that begin with TO; without a word, for users and groups
alike. The first line that has an id decides; an id that none has stays as it is. Text
behind a ``#`` is a comment.
"""

import re
from dataclasses import dataclass
from typing import Final

from ..errors import UsageError, quoted
from ..tar.members import Owner

MAX_ID: Final = (1 << 32) - 2  # the highest that Linux has; one more means no id

_LINE: Final = r"(?:(uid|gid)\s+)?([0-9]{1,10})\s+([0-9]{1,10})(?:\s+([0-9]{1,10}))?"
_Ranges = tuple[tuple[int, int, int], ...]  # from, to, count


@dataclass(frozen=True, slots=True)
class OwnerMap:
    """Where ids go.

    Attributes:
        users: Ranges of users: from, to, count.
        groups: Likewise, of groups.
    """

    users: _Ranges
    groups: _Ranges

    def apply(self, owner: Owner) -> Owner:
        """Return an owner with other ids.

        >>> parse_owner_map("0 100000 65536").apply((0o755, 0, 65536))
        (493, 100000, 65536)
        """
        mode, uid, gid = owner
        return mode, _moved(uid, self.users), _moved(gid, self.groups)


def parse_owner_map(text: str, where: str = "owner map") -> OwnerMap:
    """Read a map.

    Raises:
        UsageError: A line is none.
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
            raise UsageError(f"{where}, line {number}: ids over {MAX_ID:,}")
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
