"""Ids on a disk to ids in an image: what a user namespace did, undone.

A user's engine runs in a namespace where the user is root: id 0 there is the user's on
the disk, and 1, 2, ... are those that ``/etc/subuid`` grants, from some start on. The
store does not say which, but its layers do: a layer's tar has the ids of the image,
its directory those of the disk. Where no layer shows it, this machine's ``/etc/subuid``
is asked. A container may have a namespace of its own inside, which the store records.

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
"""What the kernel shows where an id is in no map."""

_END: Final = 1 << 32
_KEYS: Final = ("container_id", "host_id", "size")


@dataclass(frozen=True, slots=True)
class Range:
    """Ids inside a namespace from ``inner`` on, and those outside from ``outer`` on."""

    inner: int
    outer: int
    count: int


Ranges = tuple[Range, ...]
"""The map of a namespace."""


def is_users(root: os.stat_result) -> bool:
    """Say whether an engine's root is an ordinary user's, by its status.

    Such an engine has no xattrs called ``trusted.``. In a user namespace, as in
    ``podman unshare``, its user is root, and root is nobody.
    """
    return (root.st_uid != 0) is in_initial_namespace()


def inside(maps: Sequence[Ranges]) -> Owners:
    """Return what turns an id of the disk into one inside namespaces in namespaces.

    Args:
        maps: The ranges of each namespace, the outermost first.

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
    """Read a map of a record of the store's.

    Raises:
        FormatError: It is none.
    """
    ranges = []
    for item in value if isinstance(value, list) else []:
        numbers = [item.get(key) for key in _KEYS] if isinstance(item, dict) else []
        known = [n for n in numbers if type(n) is int and 0 <= n < _END]
        if len(known) < len(_KEYS):
            raise FormatError("an id map that is none", where=where)
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
    """Where a user's uids and gids beyond root's begin on the disk; None: unknown."""

    uid: int | None = None
    gid: int | None = None


def observe(layers: Iterable[Unpacked]) -> Granted:
    """Compare ids in layers' tars with those of their directories.

    No more layers are read than are needed.
    """
    found = Granted()
    for layer in layers:
        for path, uid, gid in _owners(layer):
            if not ((uid and found.uid is None) or (gid and found.gid is None)):
                continue
            with suppress(FileNotFoundError, NotADirectoryError):  # devices
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
    """Return where the ids begin that a file such as ``/etc/subuid`` grants a user."""
    import pwd  # noqa: PLC0415 - only where no layer shows it

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
    """Return what turns uids and gids of a disk into those of an image or container.

    Args:
        user: The status of the root, which belongs to the user whose engine it is.
        layers: Those that may show where the user's ids begin.
        maps: The namespace of a container, inside the user's.
        warnings: Receives a sentence when an id is turned that had to be guessed.
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
    """A user whose engine it was.

    Attributes:
        uid: The user's.
        id: That uid, or the gid.
        grants: The file that would say which others there are.
    """

    uid: int
    id: int
    grants: str

    def owners(
        self, seen: int | None, maps: Sequence[Ranges], warnings: list[str]
    ) -> Owners:
        """Return what turns ids of the disk into those in the user's namespaces.

        Args:
            seen: Where granted ids begin, as layers show it.
            maps: Those of the namespaces in the user's.
            warnings: Receives a sentence when an id is turned that had to be guessed.
        """
        start = granted(self.grants, self.uid) if seen is None else seen
        if start is None:
            rest = Range(0, 0, _END)
            how = "they are left as they are on the disk"
        else:
            rest = Range(1, start, _END)
            how = f"those of this machine's {self.grants} are taken"
        turn = inside([(Range(0, self.id, 1), rest), *maps])

        def guess(number: int) -> int:
            warning = f"no layer shows which ids user {self.uid} was granted; {how}"
            if number != self.id and warning not in warnings:
                warnings.append(warning)
            return turn(number)

        return guess if seen is None else turn
