"""Random images, as a hypothesis strategy, and what flatten makes of one.

The paths of an image come from a small pool, so that its layers hide, replace and link
one another's names all the time.
"""

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import strategies as st

import flatten
from builders import MTIME, docker_archive, layer, member
from oracle import Entry, Refused, flattened

Image = list[list[Entry]]
Draw = st.DrawFn
T = TypeVar("T")
TYPEFLAGS = {
    "file": b"0",
    "hardlink": b"1",
    "symlink": b"2",
    "chr": b"3",
    "blk": b"4",
    "dir": b"5",
    "fifo": b"6",
}
NAMES = [b"a", b"b", b"c", b"d"]
ODD_NAMES = [
    b"a-", b"a.b", b"ab", b"a.wh.b", b".w", b"wh.", b"...", b" ", b"\\", b"\n",
    b"\xff\xfe", "é".encode(), b"n" * 120,
]  # fmt: skip
PLNKS = [b".wh..wh.plnk/1.2"] * 4 + [
    b".wh..wh.plnk/3.4",
    b"./.wh..wh.plnk//1.2",
    b".wh..wh.plnk",
]
AUFS = [
    *PLNKS, b".wh..wh.aufs", b".wh..wh.orph/x", b".wh..wh.orph/d/.wh.x",
    b".wh..wh.orph/d/.wh..wh..opq",
]  # fmt: skip
MALFORMED = [b".wh.", b".wh..", b".wh...", b".wh.a/b", b"../../../a"]
SPELLINGS: list[Callable[[bytes], bytes]] = [
    *[lambda path: path] * 12,
    lambda path: b"./" + path,
    lambda path: b"/" + path,
    lambda path: path + b"/",
    lambda path: b".//" + path.replace(b"/", b"//") + b"//.",
    lambda path: path.replace(b"/", b"/./"),
    lambda path: b"a/../" + path,
    lambda path: path.replace(b"/", b"/b/../"),
    lambda path: b"a/b/../../" + path,
]
TEXTS: list[Callable[[bytes], bytes]] = [
    *[lambda path: path] * 4,
    *[lambda path: b"/" + path] * 3,
    *[lambda path: b"../" + path] * 3,
    lambda path: b"./" + path + b"/",
    lambda path: b"../../../" + path,
    lambda path: b"//a/.././" + path,
    lambda path: b"nowhere/../" + path,
    lambda path: path + b"/nowhere",
    lambda path: path + b"/..",
    lambda path: b".wh." + path,
    lambda path: b"l" * 110 + b"/" + path,
]
XATTRS = (
    (b"user.b", b"\0\n\xff=5 x"),
    (b"user.a", b"1"),
    (b"user.z", b""),
    (b"security.capability", b"\1\0\0\2\0\4" + bytes(14)),
    (b"system.posix_acl_access", b"\2\0\0\0\1\0\6\0\xff\xff\xff\xff"),
    (b"security.selinux", b"system_u:object_r:etc_t:s0\0"),
)
DRIVERS_OWN = (
    (b"trusted.overlay.opaque", b"y"),
    (b"user.overlay.origin", b"x"),
    (b"user.fuseoverlayfs.opaque", b"y"),
)
PLAIN = Entry(b"", mtime=MTIME)
METADATA = [PLAIN] * 24 + [
    *[replace(PLAIN, mode=m) for m in (0o755, 0o4755, 0o2755, 0o1777, 0o7777, 0)],
    *[replace(PLAIN, mode=m) for m in (0o100644, 0o40700)],
    *[replace(PLAIN, uid=i) for i in (1, 8**7 - 1, 8**7, 2**31, 2**32 - 2)],
    *[replace(PLAIN, gid=i) for i in (1, 8**7 - 1, 8**7, 2**31, 2**32 - 2)],
    *[replace(PLAIN, mtime=t) for t in (0, 1, -1, -(2**31) - 1, -(2**35))],
    *[replace(PLAIN, mtime=t) for t in (8**11 - 1, 8**11, 1.5, -1.5, -0.25)],
    *[replace(PLAIN, xattrs=pairs) for pairs in (XATTRS, XATTRS[::-1], XATTRS[1:2])],
    *[replace(PLAIN, xattrs=pairs) for pairs in (DRIVERS_OWN, XATTRS + DRIVERS_OWN)],
    replace(PLAIN, mode=0o6711, uid=8**7, gid=7, mtime=-7.5, xattrs=XATTRS[:2]),
]
DEVICES = [(0, 0), (1, 3), (8**7 - 1, 0), (8**7, 8**7 + 1)]
KINDS = (
    ["file"] * 7 + ["dir"] * 5 + ["symlink"] * 5 + ["hardlink"] * 6 + ["whiteout"] * 4
    + ["opaque"] * 2 + ["device", "fifo", "plnk", "aufs", "aufs", "root", "malformed"]
)  # fmt: skip
Pick = tuple[bytes, int]  # a path, and a number that picks a form of it


@st.composite
def pools(draw: Draw) -> list[bytes]:
    """Draw the few paths an image is about; all their parents are among them."""
    path = st.lists(st.sampled_from(NAMES * 6 + ODD_NAMES), min_size=1, max_size=3)
    paths = draw(st.lists(path, min_size=2, max_size=6))
    prefixes = {b"/".join(p[:n]) for p in paths for n in range(1, len(p) + 1)}
    return sorted(prefixes, key=lambda path: (len(path), path))


def entries(pool: list[bytes]) -> st.SearchStrategy[Entry]:
    """Draw entries that are about the pool's paths."""
    forms = range(len(SPELLINGS) * len(TEXTS))
    picks = st.tuples(st.sampled_from(pool), st.sampled_from(forms))
    return st.builds(
        make_entry, st.sampled_from(KINDS), picks, picks, st.sampled_from(METADATA)
    )


def make_entry(kind: str, name: Pick, target: Pick, plain: Entry) -> Entry:
    """Make an entry from what was drawn."""
    path, form = name
    if kind in ("whiteout", "opaque", "aufs", "malformed"):
        return make_mark(kind, path, target, plain)
    entry = replace(plain, name=chosen(SPELLINGS, form)(path), type=kind)
    if kind == "dir" and form % 7:
        return replace(entry, name=entry.name + b"/")
    if kind == "hardlink":
        return replace(entry, target=chosen(SPELLINGS, target[1])(target[0]))
    if kind == "symlink":
        return replace(entry, target=chosen(TEXTS, target[1])(target[0]))
    if kind == "plnk":
        return replace(entry, type="hardlink", target=chosen(PLNKS, target[1]))
    if kind == "device":
        type = "chr" if form % 2 else "blk"
        return replace(entry, type=type, device=chosen(DEVICES, target[1]))
    if kind == "root":
        type = "dir" if target[1] % 4 else "file"
        return replace(entry, name=chosen([b"./", b"/", b"a/.."], form), type=type)
    return entry


def make_mark(kind: str, path: bytes, pick: Pick, plain: Entry) -> Entry:
    """Make a whiteout, an opaque mark, or AUFS's bookkeeping, of some type."""
    target, form = pick
    parent, slash, name = path.rpartition(b"/")
    type = chosen(["file"] * 4 + ["hardlink", "dir", "symlink"], form)
    entry = replace(plain, type=type, target=b".wh..wh.aufs")
    if kind == "whiteout":
        path = parent + slash + b".wh." + name
        return replace(entry, name=chosen(SPELLINGS, form)(path))
    if kind == "opaque":
        directory = chosen([path + b"/"] * 9 + [b"", b"./"], form)
        return replace(entry, name=directory + b".wh..wh..opq")
    if kind == "malformed":
        return replace(entry, name=parent + slash + chosen(MALFORMED, form))
    path = chosen(AUFS, form)
    if path in PLNKS and form % 3 == 0:
        return replace(entry, name=path, type="hardlink", target=target)
    inside = parent + slash if form % 11 == 0 and path not in PLNKS else b""
    return replace(entry, name=inside + path, type=type.replace("hardlink", "file"))


def chosen(options: Sequence[T], number: int) -> T:
    """Choose by a number, however large."""
    return options[number % len(options)]


def numbered(image: Image, repeat: int) -> Image:
    """Give each entry content of its own, and an mtime where it has a plain one."""
    return [
        [
            replace(entry, **own(entry, upper, number, repeat))
            for number, entry in enumerate(each)
        ]
        for upper, each in enumerate(image)
    ]


def own(entry: Entry, upper: int, number: int, repeat: int) -> dict[str, Any]:
    """Say what an entry has that no other has."""
    fields: dict[str, Any] = {}
    if entry.mtime == MTIME:
        fields["mtime"] = MTIME + 100 * upper + number
    if entry.type in ("file", "hardlink"):
        fields["content"] = b"%d.%d " % (upper, number) * (number % 4 and repeat)
    return fields


def faults(image: Image) -> list[Entry]:
    """Find what must go, one by one, till the model makes a tree of an image."""
    out: list[Entry] = []
    while True:
        try:
            flattened(without(image, out))
        except Refused as refusal:
            out.append(refusal.entry)
        else:
            return out


def without(image: Image, entries: list[Entry]) -> Image:
    """Take entries out of an image."""
    return [[entry for entry in each if entry not in entries] for each in image]


def repaired(image: Image) -> Image:
    """Take out of an image what is wrong with it."""
    return without(image, faults(image))


@st.composite
def images(draw: Draw) -> Image:
    """Draw an image; most make a tree, some have one fault, few have many."""
    pool = draw(pools())
    layers = st.lists(st.lists(entries(pool), max_size=12), min_size=1, max_size=5)
    image = numbered(draw(layers), draw(st.sampled_from([1, 1, 103, 200])))
    if draw(st.integers(0, 7)) == 7:
        image = [*image[:4], image[0]]  # one blob, listed twice
    found = faults(image)
    one = found[len(found) // 2 :][:1]
    left = draw(st.sampled_from([[]] * 16 + [found[:1], one, found[-1:], found]))
    return without(image, [entry for entry in found if entry not in left])


def tar_member(entry: Entry) -> bytes:
    """Write an entry; a hard link's header pretends to a size that has no data."""
    whole = math.floor(entry.mtime)
    pax = {b"SCHILY.xattr." + key: value for key, value in entry.xattrs}
    if whole != entry.mtime:
        pax[b"mtime"] = b"%f" % entry.mtime
    has_data = entry.type == "file"
    return member(
        entry.name,
        entry.content if has_data else b"",
        records=pax,
        type=TYPEFLAGS[entry.type],
        target=entry.target,
        mode=entry.mode,
        uid=entry.uid,
        gid=entry.gid,
        size=len(entry.content) if has_data or entry.type == "hardlink" else 0,
        mtime=whole,
        device=entry.device,
    )


def exported(image: Sequence[Sequence[Entry]]) -> bytes | None:
    """Flatten an image; None if it is refused, and then nothing may be left."""
    tars = [layer(*map(tar_member, each)) for each in image]
    with tempfile.TemporaryDirectory() as scratch:
        source, out = Path(scratch, "image.tar"), Path(scratch, "rootfs.tar")
        source.write_bytes(docker_archive(tars))
        try:
            flatten.export(source, out)
        except flatten.FormatError:
            assert list(Path(scratch).iterdir()) == [source], "something is left"
            return None
        return out.read_bytes()
