"""Convert ids on a disk to ids in an image, undoing a user namespace.

A user's engine runs in a user namespace in which the user is root: id 0 is the user's
own id on the disk, and ids from 1 on are a range that ``/etc/subuid`` grants to the
user. The store does not record where that range begins, but its layers show it: a
layer's tar has the ids of the image, and its directory has those of the disk. If no
layer shows it, this machine's ``/etc/subuid`` is used. A container may have a namespace
of its own inside the user's; the store records its map.

Reference: user_namespaces(7), subuid(5); containers/storage idtools.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from ...errors import FormatError
from ...host.beneath import Beneath
from ...image.directory import Owners
from ...image.union import in_initial_namespace
from ...tar.layer import read_layer
from ...tar.members import LINK, Members
from ...tar.read_header import HeaderBytes

OVERFLOW: Final = 65534
"""The id that the kernel shows for an id outside the map."""

_END: Final = 1 << 32
_KEYS: Final = ("container_id", "host_id", "size")


@dataclass(frozen=True, slots=True)
class Range:
    """``count`` ids: from ``inner`` on in a namespace, from ``outer`` on outside."""

    inner: int
    outer: int
    count: int


Ranges = tuple[Range, ...]
"""The id map of a namespace."""


def is_users(root: os.stat_result) -> bool:
    """Return True if an engine's root belongs to an ordinary user, by its status.

    Such an engine cannot set ``trusted.*`` xattrs. If this process is in a user
    namespace, as with ``podman unshare``, the user's files belong to root there, and
    root's to nobody.
    """
    return (root.st_uid != 0) is in_initial_namespace()


def inside(maps: Sequence[Ranges]) -> Owners:
    """Return the conversion of an id on the disk to an id in nested namespaces.

    Args:
        maps: The map of each namespace, the outermost first.

    >>> inside([(Range(0, 1001, 1), Range(1, 100000, 65536))])(100006)
    7
    """

    def turn(number: int) -> int:
        for ranges in maps:
            number = _inside_one(ranges, number)
        return number

    return turn


def _inside_one(ranges: Ranges, number: int) -> int:
    for each in ranges:
        if each.outer <= number < each.outer + each.count:
            return each.inner + number - each.outer
    return OVERFLOW


def parse_ranges(value: object, where: str) -> Ranges:
    """Read an id map of a layer's record.

    Raises:
        FormatError: The map is invalid.
    """
    ranges = []
    for item in value if isinstance(value, list) else []:
        numbers = [item.get(key) for key in _KEYS] if isinstance(item, dict) else []
        known = [n for n in numbers if type(n) is int and 0 <= n < _END]
        if len(known) < len(_KEYS):
            raise FormatError("invalid id map", where=where)
        ranges.append(Range(*known))
    return tuple(ranges)


Maps = tuple[Ranges, Ranges]
"""The maps of uids and of gids of one namespace; an empty one changes nothing."""

NO_MAPS: Final[Maps] = ((), ())


@dataclass(frozen=True, slots=True)
class Unpacked:
    """A layer whose tar has the ids of the image and whose directory those of the disk.

    Attributes:
        headers: The layer's tar, for reading headers.
        tree: The directory.
        maps: The namespace, inside the user's, that the directory was made for.
    """

    headers: HeaderBytes
    tree: Beneath
    maps: Maps = NO_MAPS


@dataclass(frozen=True, slots=True)
class Granted:
    """The uid and gid on the disk of id 1 in a user's namespace; None if unknown."""

    uid: int | None = None
    gid: int | None = None


def observe(layers: Iterable[Unpacked]) -> Granted:
    """Compare the ids in layers' tars with those of their directories.

    Layers are read until both ids are known.
    """
    found = Granted()
    for layer in layers:
        for path, uid, gid in _owners(layer):
            if not ((uid and found.uid is None) or (gid and found.gid is None)):
                continue
            with suppress(FileNotFoundError, NotADirectoryError):  # a device
                status = layer.tree.status(path)
                found = Granted(
                    status.st_uid - uid + 1 if uid and found.uid is None else found.uid,
                    status.st_gid - gid + 1 if gid and found.gid is None else found.gid,
                )
        if None not in (found.uid, found.gid):
            break
    return found


def _owners(layer: Unpacked) -> Iterator[tuple[bytes, int, int]]:
    """Yield paths with the uid and gid that they have in the user's namespace.

    The last one is the directory itself, which the engine makes for root. In a copy of
    a layer that it made for a container's namespace, there may be nothing else.
    """
    uids, gids = layer.maps
    members = Members()
    index = read_layer(layer.headers, layer.tree.name, 0, members)
    for member, path in enumerate(index.paths):
        if members.kinds[member] != LINK:
            _, uid, gid = members.owner_table[members.owners[member]]
            yield path, _outside(uids, uid), _outside(gids, gid)
    if b"" not in index.paths:
        yield b"", _outside(uids, 0), _outside(gids, 0)


def _outside(ranges: Ranges, number: int) -> int:
    """Return an id outside a namespace; 0 for one that is in no range."""
    if not ranges:
        return number
    for each in ranges:
        if each.inner <= number < each.inner + each.count:
            return each.outer + number - each.inner
    return 0


def granted(path: str, owner: int) -> int | None:
    """Return the first id that a file such as ``/etc/subuid`` grants to a user."""
    import pwd  # only if no layer shows it

    names = {str(owner)}
    with suppress(KeyError):
        names.add(pwd.getpwuid(owner).pw_name)
    with suppress(OSError), open(path, encoding="utf-8", errors="replace") as text:
        for line in text:
            name, _, grant = line.partition(":")
            start, _, _ = grant.partition(":")
            if name in names and start.isdecimal():
                return int(start)
    return None


def user_owners(
    user: os.stat_result, layers: Iterable[Unpacked], maps: Maps, warnings: list[str]
) -> tuple[Owners, Owners]:
    """Return the conversions of uids and gids on the disk to those in an image.

    Args:
        user: The status of the engine's root, which belongs to the engine's user.
        layers: The layers that may show which ids the user was granted.
        maps: The namespace of a container, inside the user's.
        warnings: Receives one sentence if the ids of a file had to be guessed.
    """
    inner = [(ranges,) if ranges else () for ranges in maps]
    if not user.st_uid:  # root's engine needs no namespace
        return inside(inner[0]), inside(inner[1])
    seen = observe(layers)
    uids = _User(user.st_uid, user.st_uid, "/etc/subuid")
    gids = _User(user.st_uid, user.st_gid, "/etc/subgid")
    return (
        uids.owners(seen.uid, inner[0], warnings),
        gids.owners(seen.gid, inner[1], warnings),
    )


@dataclass(frozen=True, slots=True)
class _User:
    """The user of an engine.

    Attributes:
        uid: The user's uid.
        id: That uid, or the user's gid.
        grants: The file that grants other ids to users.
    """

    uid: int
    id: int
    grants: str

    def owners(
        self, seen: int | None, maps: Sequence[Ranges], warnings: list[str]
    ) -> Owners:
        """Return the conversion of an id on the disk to an id in the namespaces.

        Args:
            seen: The first granted id, if a layer shows it.
            maps: The maps of the namespaces inside the user's.
            warnings: Receives one sentence if an id had to be guessed.
        """
        start = granted(self.grants, self.uid) if seen is None else seen
        if start is None:
            rest = Range(0, 0, _END)
            how = "owners stay as they are on the disk"
        else:
            rest = Range(1, start, _END)
            how = f"this machine's {self.grants} is used"
        turn = inside([(Range(0, self.id, 1), rest), *maps])

        def guess(number: int) -> int:
            warning = f"no layer shows which ids user {self.uid} was granted; {how}"
            if number != self.id and warning not in warnings:
                warnings.append(warning)
            return turn(number)

        return guess if seen is None else turn
