"""Rules 31 to 35 and 39: names, sparse files, records, the ends of tars, the root."""

from urllib.parse import quote

from ..layers import (
    END,
    GNU_MAGIC,
    V7_MAGIC,
    directory,
    hard_link,
    header,
    layer_tar,
    member,
    number,
    padded,
    pax,
    symlink,
)
from .case import (
    APPLYING,
    ATTRIBUTES,
    ENGINES,
    EXISTING,
    FORMAT,
    GNU,
    GNU_SPARSE,
    PAX,
    REFUSED,
    TAR_CVE,
    UMOCI_CVE,
    USTAR,
    case,
)

HOLE = "\0" * 1024
DATA = "d" * 512
SPARSE = HOLE + DATA + HOLE + DATA  # two extents, at 1,024 and at 2,560
STORED = DATA * 2
MAP = ((1024, 512), (2560, 512))


def old_gnu_sparse(name: str) -> bytes:
    """Return a sparse file of GNU tar's own format, typeflag S."""
    entries = b"".join(number(value, 12) for extent in MAP for value in extent)
    tail = bytes(41) + entries.ljust(96, b"\0") + b"\0"  # 41: times, offset, names
    tail += number(len(SPARSE), 12)
    return header(
        name.encode(), b"S", size=len(STORED), magic=GNU_MAGIC, tail=tail
    ) + padded(STORED.encode())  # fmt: skip


def pax_sparse_0_0(name: str) -> bytes:
    """Return a sparse file of version 0.0: a record for each number, repeated."""
    out = pax({"GNU.sparse.size": str(len(SPARSE)), "GNU.sparse.numblocks": "2"})
    body = out[512:].rstrip(b"\0")
    for offset, length in MAP:
        for key, value in (("offset", offset), ("numbytes", length)):
            body += pax({f"GNU.sparse.{key}": str(value)})[512:].rstrip(b"\0")
    return (
        header(b"PaxHeaders/x", b"x", size=len(body))
        + padded(body)
        + member(name, STORED)
    )


def pax_sparse_0_1(name: str) -> bytes:
    """Return a sparse file of version 0.1: the map in one record."""
    return member("GNUSparseFile.0/" + name, STORED, records={
        "GNU.sparse.size": str(len(SPARSE)),
        "GNU.sparse.numblocks": "2",
        "GNU.sparse.name": name,
        "GNU.sparse.map": ",".join(str(n) for extent in MAP for n in extent),
    })  # fmt: skip


def pax_sparse_1_0(name: str) -> bytes:
    """Return a sparse file of version 1.0: the map in front of the data."""
    numbers = [len(MAP), *(n for extent in MAP for n in extent)]
    table = padded("".join(f"{n}\n" for n in numbers).encode())
    return member("GNUSparseFile.0/" + name, table + STORED.encode(), records={
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": name,
        "GNU.sparse.realsize": str(len(SPARSE)),
    })  # fmt: skip


NAMES = {
    "bytes that are not UTF-8": "caf\udce9",
    "a newline": "new\nline",
    "a tab and a control character": "tab\t\x01",
    "a space at its start and its end": " a ",
    "a backslash": "a\\b",
    "quotes and a dollar sign": "'\"$a`",
    "a hyphen at its start": "-rf",
    "three dots": "...",
    "a tilde": "~",
    "a colon": "c:d",
    "characters beyond ASCII": "日本語",
    "100 bytes, which fill the field": "n" * 100,
    "101 bytes": "n" * 101,
    "255 bytes": "n" * 255,
}
LONG = "/".join(["component" * 5] * 20)
LONG_PARENTS = {
    "/".join(["component" * 5] * depth) + "/": "" for depth in range(1, 20)
}  # fmt: skip
SMUGGLED = layer_tar("smuggled", end=b"")
BOTH = {"a": "1", "b": "2"}

CASES = (
    # 31: names
    *(case(31, f"a name: {what}", APPLYING, [[member(name, "1")]], {name: "1"})
      for what, name in NAMES.items()),
    case(31, "a path of 900 bytes, in GNU's long name", GNU,
         [[member(LONG, "1")]], {**LONG_PARENTS, LONG: "1"}),
    case(31, "a path of 900 bytes, in a record", PAX,
         [[member("short", "1", records={"path": LONG})]], {**LONG_PARENTS, LONG: "1"}),
    case(31, "a path in the prefix field", USTAR,
         [[header(b"c" * 90, b"0", size=1, tail=b"p" * 90) + padded(b"1")]],
         {"p" * 90 + "/": "", "p" * 90 + "/" + "c" * 90: "1"}),
    case(31, "a long target of a hard link", GNU,
         [[member(LONG, "1"), hard_link("b", LONG)]],
         {**LONG_PARENTS, LONG: "1", "b": "=" + LONG}),
    case(31, "a long target of a symlink, in a record", PAX,
         [[symlink("s", "short", records={"linkpath": "t" * 300})]],
         {"s": "->" + "t" * 300}),
    case(31, "a long name of a directory", GNU,
         [["d" * 150 + "/", "d" * 150 + "/x"]],
         {"d" * 150 + "/": "", "d" * 150 + "/x": "1"}),
    case(31, "a composed and a decomposed name are two", APPLYING,
         [["\u00e9"], ["e\u0301"]], {"\u00e9": "1", "e\u0301": "2"}),
    case(31, "names that differ in case are two", APPLYING,
         [["a"], ["A"]], {"a": "1", "A": "2"}),
    case(31, "a directory and a file whose name sorts between it and its child",
         APPLYING, [["a/", "a/x", "a-b", "a.b"]],
         {"a/": "", "a/x": "1", "a-b": "1", "a.b": "1"}),
    # 32: sparse files
    *(case(32, f"a sparse file, {what}", GNU_SPARSE,
           [[sparse("f"), "k"]], {"f": SPARSE, "k": "1"}, REFUSED)
      for what, sparse in {
          "GNU tar's own format": old_gnu_sparse, "version 0.0": pax_sparse_0_0,
          "version 0.1": pax_sparse_0_1, "version 1.0": pax_sparse_1_0}.items()),
    case(32, "a sparse file that a plain one replaces", EXISTING,
         [[old_gnu_sparse("f")], ["f"]], {"f": "2"}, REFUSED),
    case(32, "a file of zeros that is stored as such", ATTRIBUTES,
         [[member("f", "\0" * 5000)]], {"f": "\0" * 5000}),
    # 33: records
    case(33, "a global header with a comment, as git archive writes it", PAX,
         [[pax({"comment": "0123456789abcdef"}, b"g"), "a"], ["b"]], BOTH),
    case(33, "a global mtime", PAX,
         [[pax({"mtime": "100"}, b"g"), "a", "b"]],
         {"a": "1 mtime=100", "b": "1 mtime=100"}),
    case(33, "a global owner that a member's own record replaces", PAX,
         [[pax({"uid": "7"}, b"g"), member("a", "1", records={"uid": "8"}), "b"]],
         {"a": "1 uid=8", "b": "1 uid=7"}),
    case(33, "a global header that a second one replaces", PAX,
         [[pax({"mtime": "100"}, b"g"), "a", pax({"mtime": "300"}, b"g"), "b"]],
         {"a": "1 mtime=100", "b": "1 mtime=300"}),
    case(33, "a global header ends with its layer", PAX,
         [[pax({"mtime": "100"}, b"g"), "a"], [member("b", "2", mtime=200)]],
         {"a": "1 mtime=100", "b": "2 mtime=200"}),
    case(33, "a record overrides the header's owner and mtime", PAX,
         [[member("a", "1", uid=1, gid=1, mtime=1,
                  records={"uid": "12", "gid": "13", "mtime": "14"})]],
         {"a": "1 uid=12 gid=13 mtime=14"}),
    case(33, "a record overrides the header's name", PAX,
         [[member("x", "1", records={"path": "d/a"})]], {"d/": "", "d/a": "1"}),
    case(33, "a record names a whiteout", PAX,
         [["a", "b"], [member("x", records={"path": ".wh.a"})]], {"b": "1"}),
    case(33, "a record overrides the header's size", TAR_CVE,
         [[member("a", SMUGGLED, size=0,
                  records={"size": "1024"}), "b"]],
         {"a": quote(SMUGGLED), "b": "1"}),
    case(33, "records end with their member", PAX,
         [[member("a", "1", records={"uid": "12"}), "b"]],
         {"a": "1 uid=12", "b": "1 uid=0"}),
    case(33, "unknown records are ignored", PAX,
         [[member("a", "1", records={"VENDOR.key": "value", "atime": "1"}), "b"]],
         {"a": "1", "b": "1"}),
    case(33, "an atime and a ctime leave the mtime alone", PAX,
         [[member("a", "1", mtime=77, records={"atime": "1", "ctime": "2"})]],
         {"a": "1 mtime=77"}),
    # 34: the formats and the ends of tars
    case(34, "a header without magic, as Unix V7 writes it", USTAR,
         [[member("a", "1", magic=V7_MAGIC), member("b", "1", magic=V7_MAGIC)]],
         {"a": "1", "b": "1"}),
    case(34, "a file of typeflag NUL", USTAR,
         [[member("a", "1", type=b"\0")]], {"a": "1"}),
    case(34, "a directory of typeflag NUL and a slash at its end", USTAR,
         [[member("d/", type=b"\0", magic=V7_MAGIC, mode=0o755), "d/x"]],
         {"d/": "", "d/x": "1"}),
    case(34, "a contiguous file, typeflag 7, is a file", USTAR,
         [[member("a", "1", type=b"7")]], {"a": "1"}),
    case(34, "a GNU header", GNU,
         [[member("a", "1", magic=GNU_MAGIC, uid=5)]], {"a": "1 uid=5"}),
    case(34, "a tar padded to 10,240 bytes", USTAR,
         [layer_tar("a", end=bytes(10240 - 1024)), ["b"]], BOTH),
    case(34, "a tar padded to a megabyte", USTAR,
         [layer_tar("a", end=bytes(2**20 - 1024)), ["b"]], BOTH),
    case(34, "a tar without end blocks", USTAR,
         [layer_tar("a", end=b""), ["b"]], BOTH, REFUSED),
    case(34, "a tar with one end block", USTAR,
         [layer_tar("a", end=bytes(512)), ["b"]], BOTH, REFUSED),
    case(34, "a tar whose last content is not padded", USTAR,
         [layer_tar("a", end=b"")[:-500], ["b"]], BOTH, REFUSED),
    case(34, "junk behind the end of a tar", USTAR,
         [layer_tar("a", end=END + b"junk" * 999), ["b"]], BOTH, REFUSED),
    case(34, "members behind the end of a tar", USTAR,
         [layer_tar("a") + layer_tar("hidden"), ["b"]],
         BOTH, {"a": "1", "b": "2", "hidden": "1"}, REFUSED),
    case(34, "junk behind a lone zero block", USTAR,
         [layer_tar("a", end=bytes(512) + b"junk" * 999), ["b"]], BOTH, REFUSED),
    case(34, "members behind a lone zero block", USTAR,
         [layer_tar("a", end=bytes(512)) + layer_tar("hidden"), ["b"]],
         REFUSED, BOTH, {"a": "1", "b": "2", "hidden": "1"}),
    case(34, "a header with a wrong checksum", USTAR,
         [["a"], member("b", "2").replace(b"0000644", b"0000600") + END], REFUSED),
    case(34, "a tar that ends within a content", USTAR,
         [["a"], member("b", "2" * 5000)[:2000]], REFUSED),
    case(34, "a tar that ends within a header", USTAR,
         [["a"], member("b", "2")[:300]], REFUSED),
    case(34, "a layer that is not a tar", FORMAT,
         [["a"], b"<html>" * 1000], REFUSED),
    case(34, "a size that is not a number", USTAR,
         [["a"], [member("b", size=b"12x45678901")]], REFUSED),
    case(34, "a member of an unknown typeflag", USTAR,
         [["a", member("b", "1", type=b"Z")]],
         REFUSED, {"a": "1", "b": "1"}, {"a": "1"}),
    case(34, "an empty file at the end of a tar", USTAR,
         [["a", member("b")]], {"a": "1", "b": " size=0"}),
    case(34, "a file of 512 bytes, which needs no padding", USTAR,
         [[member("a", "x" * 512), "b"]], {"a": "x" * 512, "b": "1"}),
    case(34, "a file of 200,000 bytes", USTAR,
         [[member("a", "x" * 200_000), "b"]], {"a": "x" * 200_000, "b": "1"}),
    # 35: layers without members
    case(35, "a layer of two zero blocks adds nothing", FORMAT,
         [["a"], END, ["a"]], {"a": "3"}),
    case(35, "the lowest layer is empty", FORMAT, [END, ["a"]], {"a": "2"}),
    case(35, "the top layer is empty", FORMAT, [["a"], END], {"a": "1"}),
    case(35, "a layer of 10,240 zeros, as GNU tar writes it", FORMAT,
         [["a"], bytes(10240)], {"a": "1"}),
    case(35, "a layer of no bytes", FORMAT, [["a"], b"", ["b"]],
         {"a": "1", "b": "3"}, REFUSED),
    case(35, "an image of an empty layer only", FORMAT, [END], {}),
    case(35, "an image without layers", FORMAT, [], {}, REFUSED),
    # 39: the root
    case(39, "the root's mode and owner", EXISTING,
         [[directory("./", mode=0o700, uid=9, gid=8), "a"]],
         {"./": " mode=700 uid=9 gid=8", "a": "1"}),
    case(39, "an upper layer's root replaces the mode", EXISTING,
         [[directory("./", mode=0o700), "a"], [directory("./", mode=0o750)]],
         {"./": " mode=750", "a": "1"}),
    case(39, "an upper layer without a root keeps the lower one's mode", EXISTING,
         [[directory("./", mode=0o711, uid=9), "a"], ["b"]],
         {"./": " mode=711 uid=9", "a": "1", "b": "2"}),
    case(39, "a root that is named /", EXISTING,
         [[directory("/", mode=0o711), "a"]], {"./": " mode=711", "a": "1"}),
    case(39, "a root that is a symlink", UMOCI_CVE,
         [[symlink("./", "outside"), "a"]], REFUSED, {"a": "1"}),
    case(39, "a root that is a file", ENGINES,
         [[member("./", "1"), "a"]], REFUSED, {"a": "1"}),
)  # fmt: skip
