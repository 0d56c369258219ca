"""What the corpora of other readers are about, in small: their formats and oddities.

Each archive of ``READ`` says what is in it, and which readers make something else of it:
the others make the same of it as the package (``readings``), or refuse it. About those
of ``REFUSED`` readers differ, or some refuse them, too.
The headers of each format, and sparse files, are in ``test_headers``.
"""

import pytest

import flatten
import listers
import readings
from builders import block, docker_archive, member, number, padded, pax, record
from headers import index, sparse_gnu

GNU = b"ustar  \0"
END = member("END", b"end") + bytes(10_240)
APPLE_DOUBLE = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        " + bytes(58)
SPARSE = {b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.name": b"x",
          b"GNU.sparse.realsize": b"2000"}  # fmt: skip
COMMENTS = {b"atime": b"1.5", b"ctime": b"2.5", b"LIBARCHIVE.creationtime": b"3",
            b"SCHILY.dev": b"1", b"SCHILY.ino": b"2", b"SCHILY.nlink": b"1",
            "käyttäjä".encode(): b"text"}  # fmt: skip


def summed(head):
    """Write a header's checksum, of signed bytes, as old tars do."""
    blank = head[:148] + b" " * 8 + head[156:]
    total = sum(byte - 256 * (byte > 127) for byte in blank)
    return head[:148] + b"%06o\0 " % total + head[156:]


READ = {
    # archive, some of what is read, who reads it otherwise
    "a name that is no UTF-8, said to be BINARY": (
        pax({b"hdrcharset": b"BINARY", b"path": b"\xff\xfe"}) + block(b"x"),
        {"\udcff\udcfe": {"type": "file"}}, {},
    ),
    "a PAX size with zeros before it": (
        pax({b"size": b"%024d" % 5}) + block(b"x") + padded(b"12345"),
        {"x": {"size": 5}}, {},
    ),
    "a PAX time with zeros before it": (
        pax({b"mtime": b"%024d.5" % 5}) + block(b"x"), {"x": {"mtime": 5}}, {},
    ),
    "PAX times before 1970": (
        pax({b"mtime": b"-2"}) + block(b"x"), {"x": {"mtime": -2}}, {},
    ),
    "records that are comments": (pax(COMMENTS) + block(b"x"), {"x": {"uid": 0}}, {}),
    "a PAX header of no records": (pax(b"") + block(b"x"), {"x": {"type": "file"}}, {}),
    "records with NULs after them": (
        pax(record(b"path", b"n") + bytes(20)) + block(b"x"), {"n": {}}, {},
    ),
    "a length of a record with a zero before it": (
        pax(b"011 path=n\n") + block(b"x"), {"n": {}}, {},
    ),
    "Solaris's X, which says when": (
        pax({b"mtime": b"100.5"}, b"X") + block(b"x"), {"x": {"mtime": 100}}, {},
    ),
    "Solaris's holes, with their zeros": (
        pax({b"SUN.holesdata": b" 0 512 1024"}) + block(b"x", size=1024)
        + b"d" * 512 + bytes(512), {"x": {"size": 1024}}, {},
    ),
    "an AppleDouble file next to its file": (
        member("._x", APPLE_DOUBLE) + member("x", b"data"),
        {"._x": {"size": 82}, "x": {"size": 4}}, {},
    ),
    "a label with data": (
        block(b"label", b"V", size=5) + padded(b"label") + block(b"x"),
        {"x": {}}, {},
    ),
    "a label, and x after it": (
        block(b"label", b"V") + pax({b"path": b"n"}) + block(b"x"), {"n": {}}, {},
    ),
    "a sparse file whose records give its size, too": (
        pax({**SPARSE, b"size": b"1024"}) + block(b"x", size=1024)
        + padded(b"2\n0\n512\n2000\n0\n") + b"d" * 512, {"x": {"size": 2000}}, {"python"},
    ),
    "a sparse file with no map, all hole": (
        sparse_gnu(b"x", [], 2000, b""), {"x": {"size": 2000}}, {"gnu_tar"},
    ),
    "a sparse file of no bytes": (sparse_gnu(b"x", [], 0, b""), {"x": {"size": 0}}, {}),
    "a checksum of signed bytes": (
        summed(block("käse".encode())), {"käse": {"type": "file"}}, {},
    ),
    "numbers of spaces, as of Plexus": (
        block(b"x", uid=b"       \0", size=b"          5 ", magic=b"ustar\0\0\0")
        + padded(b"12345"), {"x": {"uid": 0, "size": 5}}, {},
    ),
    "a device's numbers that are not valid, of a file": (
        summed(block(b"x")[:329] + b"junk" + block(b"x")[333:]), {"x": {"type": "file"}},
        {},
    ),
    "a v7 directory with a size": (
        block(b"d/", b"\0", size=1, magic=b"", mode=0o700) + block(b"x"),
        {"d": {"mode": "0700"}, "x": {}}, {},
    ),
    "a long name with a NUL in it": (
        block(b"././@LongLink", b"L", size=9, magic=GNU) + padded(b"name\0more")
        + block(b"x", magic=GNU), {"name": {}}, {},
    ),
    "a long name without a NUL": (
        block(b"././@LongLink", b"L", size=4, magic=GNU) + padded(b"name")
        + block(b"x", magic=GNU), {"name": {}}, {},
    ),
    "a slash after a PAX path, in a header of old tars": (
        pax({b"path": b"d" * 101 + b"/"}) + block(b"d" * 100, b"\0"),
        {"d" * 101: {"type": "dir"}}, {"python"},
    ),
    "times of GNU in octal and base-256, where others have a prefix": (
        block(b"x", magic=GNU, tail=number(2**31, 12) + number(2**40, 12)),
        {"x": {"type": "file"}}, {"python"},
    ),
    "numbers that fill their fields": (
        block(b"x", uid=b"77777777", gid=b"10000000", size=b"000000000005",
              mtime=b"100000000000") + padded(b"12345"),
        {"x": {"uid": 8**8 - 1, "gid": 8**7, "size": 5, "mtime": 8**11}}, {},
    ),
    "a name and a target that fill their fields": (
        member(b"t" * 100) + block(b"n" * 100, b"1", target=b"t" * 100),
        {"t" * 100: {"type": "hardlink", "linkname": "n" * 100}}, {},
    ),
    "owners and times in base-256": (
        block(b"x", uid=2**31, gid=2**32 - 2, mtime=-1, magic=GNU),
        {"x": {"uid": 2**31, "gid": 2**32 - 2, "mtime": -1}}, {},
    ),
}  # fmt: skip

REFUSED = {
    "a global path": (pax({b"path": b"n"}, b"g") + block(b"x"), "'path': a record that"),
    "a global target": (pax({b"linkpath": b"n"}, b"g") + block(b"x"), "'linkpath': a "),
    "a global size": (pax({b"size": b"5"}, b"g") + block(b"x"), "'size': a record that"),
    "a global path that is taken away": (
        pax({b"path": b""}, b"g") + block(b"x"),
        "'path': a record that some readers ignore here",
    ),
    "a global sparse map": (
        pax({b"GNU.sparse.major": b"1"}, b"g") + block(b"x"),
        "'GNU.sparse.major': a record that some readers ignore here",
    ),
    "a global header between a member and its records": (
        pax({b"path": b"n"}) + pax({b"uid": b"5"}, b"g") + block(b"x"),
        "typeflag 'g' between an extended header and its member",
    ),
    "a label between a member and its records": (
        pax({b"size": b"5"}) + block(b"label", b"V") + block(b"x"),
        "typeflag 'V' between an extended header and its member",
    ),
    "Solaris's X between a member and its long name": (
        block(b"././@LongLink", b"L", size=2, magic=GNU) + padded(b"n\0")
        + pax({b"mtime": b"5"}, b"X") + block(b"x"),
        "typeflag 'X' between an extended header and its member",
    ),
    "Solaris's X, which says a size": (
        pax({b"size": b"512"}, b"X") + block(b"x") + bytes(512), "'size': a record that",
    ),
    "Solaris's A, an ACL": (
        block(b"x", b"A", size=20) + padded(b"1000003\0user::rw-\0") + block(b"x"),
        "unknown typeflag 'A' of member 'x'",
    ),
    "N, the long names of old GNU tars": (
        block(b"x", b"N"), "unknown typeflag 'N' of member 'x'",
    ),
    "a label of a negative size": (
        block(b"x", b"V", size=number(-512, 12)), "-512 bytes of records",
    ),
    "times of GNU that are not valid": (
        block(b"x", magic=GNU, tail=b"142145 2131 12345670000 "),
        "a prefix in a header format without prefixes",
    ),
    "times of GNU beyond 64 bits": (
        block(b"x", magic=GNU, tail=b"\x80\1" + bytes(22)),
        "a prefix in a header format without prefixes",
    ),
    "an empty long name": (
        block(b"././@LongLink", b"L", size=5, magic=GNU) + padded(b"\0name") + block(b"x"),
        "a long name that is empty",
    ),
    "an empty long target": (
        block(b"././@LongLink", b"K", size=1, magic=GNU) + padded(b"\0")
        + block(b"x", b"2", target=b"t"), "a long name that is empty",
    ),
    "a long name of no bytes": (
        block(b"././@LongLink", b"L", magic=GNU) + block(b"x"), "a long name that is empty",
    ),
    "a long name that goes on after its size": (
        block(b"././@LongLink", b"L", size=4, magic=GNU) + padded(b"name.txt\0")
        + block(b"x"), "or longer than its size",
    ),
    "a checksum with something after it": (
        block(b"x")[:155] + b"(" + block(b"x")[156:], "header checksum is",
    ),
    "a size after many NULs": (
        block(b"x", size=bytes(7) + b"0016\0") + padded(b"data"), "is not a number",
    ),
    "a size after spaces and a NUL": (
        block(b"x", size=b"  \x000000016\0") + padded(b"data"), "is not a number",
    ),
    "an owner after spaces that is not valid": (block(b"x", uid=b"  x"), "is not a number"),
    "a time after a NUL, as AIX writes it": (
        block(b"x", mtime=b"\x001722000726 "), "is not a number",
    ),
    "a header of records of 2**88 bytes": (
        block(b"x", b"x", size=b"\x80" + b"\1" + bytes(10)), "bytes of records, over",
    ),
    "a PAX time with a letter": (
        pax({b"mtime": b"1748089464.95a"}) + block(b"x"), "is not a time",
    ),
    "a NUL in a PAX path": (pax({b"path": b"a\0b"}) + block(b"x"), "a NUL in the PAX"),
    "a NUL in a keyword": (pax({b"a\0b": b"v"}) + block(b"x"), "starts with b"),
    "a record of no keyword": (pax(b"5 =v\n") + block(b"x"), "starts with b"),
    "a record of no equals sign": (pax(b"5 kv\n") + block(b"x"), "starts with b"),
    "a record of no line's end": (
        pax(b"6 k=vv") + block(b"x"),
        "a PAX record of 6 bytes does not end in a newline",
    ),
    "a record of no bytes": (
        pax(b"0 k=v\n") + block(b"x"),
        "a PAX record of 0 bytes does not end in a newline",
    ),
    "a record that ends before its value": (
        pax(b"2 k=v\n") + block(b"x"),
        "a PAX record of 2 bytes does not end in a newline",
    ),
    "a record of a negative length": (pax(b"-6 k=v\n") + block(b"x"), "starts with b'-6"),
    "a record of a length with a sign": (pax(b"+6 k=v\n") + block(b"x"), "starts with"),
    "a record after a space": (pax(b" 6 k=v\n") + block(b"x"), "starts with b' 6"),
    "a record whose length ends in a tab": (pax(b"6\tk=v\n") + block(b"x"), "starts wi"),
    "a hard link with data, as cpio's": (
        member("x", b"1") + block(b"y", b"1", size=5, target=b"x") + padded(b"12345"),
        "header checksum",
    ),
    "a sparse file whose regions are bytes": (
        sparse_gnu(b"x", [(1, 1), (3, 1)], 9, b"Go"),
        "a sparse region, not the last, that ends inside a block",
    ),
    "a sparse file in a header of POSIX's": (
        sparse_gnu(b"x", [(512, 512)], 2048, bytes(512), magic=b"ustar\x0000"),
        "a sparse member in a header format without sparse files",
    ),
    "a sparse file of star": (
        block(b"x", b"S", size=512, tail=(bytes(11) + number(512, 12) * 2).ljust(107, b"\0")
              + number(2048, 12) + bytes(44) + b"tar\0") + bytes(512),
        "a sparse member in a header format without sparse files",
    ),
    "a PAX sparse file in a header of GNU's": (
        pax(SPARSE) + block(b"x", size=1024, magic=GNU) + padded(b"1\n0\n512\n")
        + bytes(512), "a sparse member in a header format without sparse files",
    ),
    "a PAX sparse file in a header of star's": (
        pax(SPARSE) + block(b"x", size=1024, tail=bytes(131) + b"00000000001 " * 2)
        + padded(b"1\n0\n512\n") + bytes(512),
        "a sparse member in a header format without sparse files",
    ),
    "two PAX headers, though they are equal": (
        pax({b"path": b"n"}) * 2 + block(b"x"), "two PAX headers for one member",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("head", "why"), REFUSED.values(), ids=REFUSED)
def test_refused(head, why):
    with pytest.raises(flatten.FormatError, match=r"^layer: .* at byte [0-9,]+$") as it:
        index(head + END)

    assert why in str(it.value)


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    """Return what each reader that is here makes of each archive of ``READ``."""
    folder = tmp_path_factory.mktemp("formats")
    paths = [folder / f"{number}.tar" for number, _ in enumerate(READ)]
    for path, (head, _, _) in zip(paths, READ.values(), strict=True):
        path.write_bytes(head + END)
    found = {"python": [readings.python(path) for path in paths]}
    program = listers.go_program(folder)
    if program is not None:
        found["go"] = readings.go(paths, program)
    for name, command in readings.unpackers().items():
        found[name] = []
        for path in paths:
            into = folder / f"{path.stem}-{name}"
            into.mkdir()
            found[name].append(readings.unpacked(command, path, into))
    return {
        case: {reader: trees[number] for reader, trees in found.items()}
        for number, case in enumerate(READ)
    }


@pytest.mark.parametrize("case", READ)
def test_read_as_others_read_it(case, read, tmp_path):
    head, want, otherwise = READ[case]
    (tmp_path / "image.tar").write_bytes(docker_archive([head + END]))
    flatten.export(tmp_path / "image.tar", tmp_path / "out.tar", sync=False)
    got = readings.python(tmp_path / "out.tar")

    assert want.keys() <= got.keys()
    for path, fields in want.items():
        assert fields.items() <= got[path].items()
    different = {
        reader for reader, rows in read[case].items()
        if rows is not None and rows != (readings.on_disk(got) if reader in readings.UNPACKERS else got)
    }  # fmt: skip
    assert different == set(otherwise) & read[case].keys()
