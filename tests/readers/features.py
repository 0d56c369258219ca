"""The features that are measured: a layer with each, and the tree it must become.

Words of layers and of trees are those of ``tests.conformance``. Each layer has a file
before and one behind the feature, which show whether a reader goes on as it should.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.conformance.cases.tars import SPARSE, old_gnu_sparse
from tests.conformance.layers import MTIME, directory, member, symlink

LONG = "long" * 40
LARGE = "large" * 16_000
FORMATS = {
    "gnu": ("--format", "gnu"),
    "pax": ("--format", "pax"),
    "reflink": ("--reflink", "always"),
}
ALIGNED = {"plain", "large", "long name"}  # the features that --reflink may change


@dataclass(frozen=True)
class Feature:
    """Something that a tar can hold in more than one way.

    Attributes:
        title: The head of its column.
        layer: The words and members of a layer that has it.
        tree: The tree that they become.
        options: The options of flatten that it needs.
    """

    title: str
    layer: Sequence[str | bytes]
    tree: Mapping[str, str]
    options: tuple[str, ...] = ()


def capability(bit: int) -> bytes:
    """Return a file capability of revision 2, as the kernel stores it."""
    return b"\1\0\0\2" + (1 << bit).to_bytes(4, "little") + bytes(12)


def percent(data: bytes) -> str:
    """Return bytes in the words of a tree."""
    return "".join(f"%{byte:02x}" for byte in data)


SETUID = capability(7)  # CAP_SETUID, as newuidmap has it: a byte that is not UTF-8
FEATURES = {
    "plain": Feature(
        "files, directories, symlinks",
        [directory("d", mode=0o1777, mtime=5), member("d/f", "x", mode=0o4711), "s->d/f"],
        {"d/": " mode=1777 mtime=5", "d/f": f"x mode=4711 mtime={MTIME}", "s": "->d/f"},
    ),
    "large": Feature("a file of 80,000 bytes", [member("f", LARGE)], {"f": LARGE}),
    "links": Feature("hard links", ["f", "g=f"], {"f": "1", "g": "=f"}),
    "devices": Feature(
        "devices, FIFOs",
        [member("c", type=b"3", device=(1, 3)), member("p", type=b"6")],
        {"c": "<chr:1:3>", "p": "<fifo>"},
    ),
    "long name": Feature(
        "a name of 160 bytes", [member(LONG, LARGE)], {LONG: LARGE}
    ),
    "long target": Feature(
        "a target of 160 bytes", [symlink("s", LONG)], {"s": f"->{LONG}"}
    ),
    "bytes": Feature(
        "a name that is not UTF-8", [member("caf\udce9", "x")], {"caf\udce9": "x"}
    ),
    "past": Feature("a time before 1970", [member("f", mtime=-86_400)],
                    {"f": " mtime=-86400"}),
    "future": Feature("a time after 2242", [member("f", mtime=2**33 + 5)],
                      {"f": f" mtime={2**33 + 5}"}),
    "owner": Feature("an owner above 2,097,151", [member("f", uid=2**21 + 5, gid=2**31)],
                     {"f": f" uid={2**21 + 5} gid={2**31}"}),
    "xattr": Feature(
        "extended attributes",
        [member("f", records={"SCHILY.xattr.user.k": b"\xff\0v"})],
        {"f": " xattr:user.k=%ff%00v"},
    ),
    "capability": Feature(
        "file capabilities",
        [member("f", records={"SCHILY.xattr.security.capability": SETUID})],
        {"f": f" xattr:security.capability={percent(SETUID)}"},
    ),
    "sparse": Feature("sparse files", [old_gnu_sparse("f")], {"f": SPARSE}),
    "members": Feature(
        "sparse members, with --sparse", [old_gnu_sparse("f")], {"f": SPARSE},
        ("--sparse",),
    ),
}  # fmt: skip
BEFORE, BEHIND = ("0-before", "0-before"), ("~behind", "~behind")


def layer_of(feature: Feature) -> list[str | bytes]:
    """Return the layer with a file before and behind the feature, in walk order."""
    return [member(*BEFORE), *feature.layer, member(*BEHIND)]


def tree_of(feature: Feature) -> dict[str, str]:
    """Return the tree that the layer becomes."""
    return {**dict([BEFORE]), **feature.tree, **dict([BEHIND])}
