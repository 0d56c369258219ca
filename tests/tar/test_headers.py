"""Header formats of every age, made by hand and by the tools that are here."""

import io
import subprocess
import tarfile

import pytest

import flatten
from builders import (
    block,
    docker_archive,
    layer,
    long_name,
    member,
    padded,
    pax,
)
from flatten.plan.make import MOST_ZEROS
from flatten.tar import kernel
from flatten.tar.layer import read_layer
from flatten.tar.members import Members
from headers import (
    GNU,
    KINDS,
    NAMES,
    Memory,
    index,
    rows_or_error,
    sparse_gnu,
    sparse_pax,
)
from listing import contents, listing


@pytest.fixture
def flat(tmp_path):
    def run(tar, **options):
        image, out = tmp_path / "image.tar", tmp_path / "rootfs.tar"
        image.write_bytes(docker_archive([tar]))
        flatten.export(image, out, **options)
        return out.read_bytes()

    return run


@pytest.mark.parametrize(("head", "want"), NAMES.values(), ids=NAMES)
def test_names(head, want):
    got, _ = index(head + bytes(1024))

    assert got.paths == [want]


@pytest.mark.parametrize(("head", "want"), KINDS.values(), ids=KINDS)
def test_kinds(flat, head, want):
    got = {row["path"]: row["type"] for row in listing(flat(head + bytes(1024)))}

    assert got["x"] == want


@pytest.mark.parametrize("type", [b"1", b"5"])
def test_no_data_follows_links_and_directories(flat, type):
    head = block(b"x", type, size=5000, target=b"a")
    got = contents(flat(member("a", b"1") + head + member("b", b"2") + bytes(1024)))

    assert got["b"] == "2"


def test_devices_keep_their_numbers(flat):
    star = {b"SCHILY.devmajor": b"300", b"SCHILY.devminor": b"70000"}
    got = listing(
        flat(
            layer(
                member("a", type=b"3", device=(1, 3)),
                member("b", type=b"4", device=(4095, 2**31)),
                member("c", type=b"4", records=star),
            )
        )
    )

    assert [row["rdev"] for row in got] == ["1:3", "4095:2147483648", "300:70000"]


REFUSED = {
    "a prefix in a v7 header": (
        block(b"x", magic=b"", tail=b"p/q"), "a prefix in a header format without prefixes",
    ),
    "a prefix in a GNU header": (
        block(b"x", magic=GNU, tail=b"p/q"), "a prefix in a header format without prefixes",
    ),
    "a size with digits after a NUL": (
        block(b"x", size=b"\x00" + b"0000000005\0"), "is not a number",
    ),
    "a PAX size of a hard link": (
        pax({b"size": b"5"}) + block(b"x", b"1", target=b"y"),
        "a PAX size record on a member that is not a file",
    ),
    "a symlink with data": (
        block(b"x", b"2", size=5, target=b"y"), "a size of 5 bytes on a member that cannot have data",
    ),
    "a FIFO with data": (
        block(b"x", b"6", size=5), "a size of 5 bytes on a member that cannot have data",
    ),
    "a device with data": (
        block(b"x", b"3", size=5), "a size of 5 bytes on a member that cannot have data",
    ),
    "a sparse file's name, of a member that is not sparse": (
        pax({b"GNU.sparse.name": b"n"}) + block(b"x"),
        "'GNU.sparse.name': a sparse record on a non-sparse member",
    ),
    "a sparse file's size, of a member that is not sparse": (
        pax({b"GNU.sparse.realsize": b"5"}) + block(b"x"),
        "'GNU.sparse.realsize': a sparse record on a non-sparse member",
    ),
    "a sparse map that is not as long as it says": (
        pax({b"GNU.sparse.size": b"5", b"GNU.sparse.numblocks": b"1"}) + block(b"x"),
        "a sparse map with more or fewer regions than it states",
    ),
    "a star prefix with times right after it": (
        block(b"b", tail=(b"p" * 131 + b"12345670000 12345670000 ").ljust(163, b"\0")
              + b"tar\0"), "a star header whose prefix fills the whole field",
    ),
    "two long names": (
        long_name(b"m" * 300) + long_name(b"n" * 300) + block(b"x"), "two long names",
    ),
    "two long targets": (
        long_name(b"m" * 300, b"K") + long_name(b"n" * 300, b"K") + block(b"x", b"2"),
        "two long names",
    ),
    "an empty PAX path": (pax({b"path": b""}) + block(b"x"), "an empty PAX record 'path'"),
    "an empty PAX target": (pax({b"linkpath": b""}) + block(b"x", b"2"), "an empty PAX"),
    "an empty PAX size": (pax({b"size": b""}) + block(b"x"), "an empty PAX"),
    "X, which Solaris means x by, and Go a file": (
        pax({b"path": b"n"}, b"X") + block(b"x"),
        "'path': a record that some readers ignore here",
    ),
    "a bad checksum": (block(b"x", checksum=b"012345\0 "), "header checksum"),
    "a checksum that is not a number": (block(b"x", checksum=b"zzzzzz\0 "), "checksum"),
    "no tar at all": (b"not a tar " * 100, "not a tar, but text"),
    "a size that is not a number": (block(b"x", size=b"12a"), "not a number"),
    "a size with a decimal digit": (block(b"x", size=b"00000000008\0"), "not octal"),
    "a mode that is not a number": (block(b"x", mode=b"rwx"), "not a number"),
    "a negative size": (block(b"x", size=-512), "a size of -512 bytes"),
    "a size beyond all sense": (block(b"x", size=2**80), "a size of"),
    "a negative uid": (block(b"x", uid=-1), "owner out of range: -1:0"),
    "a uid that Linux has not": (
        block(b"x", uid=2**32), "owner out of range: 4294967296:0",
    ),
    "a sparse name with a NUL": (
        pax({b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0",
             b"GNU.sparse.realsize": b"0", b"GNU.sparse.name": b"a\0b"})
        + block(b"x", size=512) + padded(b"0\n"), "a NUL in the PAX record",
    ),
    "an xattr that no record can name": (
        pax({b"LIBARCHIVE.xattr.user.a%3Db": b"AAAA"}) + block(b"x"),
        "an xattr name that PAX cannot represent: 'user.a=b'",
    ),
    "a symlink over 64 KiB": (
        pax({b"linkpath": b"t" * 65537}) + block(b"x", b"2"), "a symlink of 65,537",
    ),
    "an mtime beyond all sense": (block(b"x", mtime=2**80), "an mtime of"),
    "a negative device": (
        block(b"x", b"3", device=(-1, 0)), "device number out of range: -1, 0",
    ),
    "an unknown typeflag": (block(b"x", b"Z"), "unknown typeflag 'Z' of member 'x'"),
    "a part of another volume": (block(b"x", b"M"), "unknown typeflag 'M' of member 'x'"),
    "data that ends too soon": (
        block(b"x", size=2000) + bytes(512),
        "truncated: 1,488 bytes of the last member are missing at byte 1,024",
    ),
    "a part of a header": (member("x") + b"y" * 100, "truncated: 100 bytes"),
    "records that end too soon": (block(b"x", b"x", size=600) + bytes(512), "truncated"),
    "records over the limit": (block(b"x", b"x", size=2**20 + 1), "over the 1,048,576"),
    "a long name over the limit": (block(b"x", b"L", size=2**17), "over the"),
    "records, and then the end of the stream": (
        pax({b"a": b"b"}), "truncated: an extended header without its member",
    ),
    "a path, and then the end of the stream": (
        pax({b"path": b"b"}), "truncated: an extended header without its member",
    ),
    "a long name, and then the end of the stream": (
        long_name(b"n"), "truncated: an extended header without its member",
    ),
    "a long link name before a file": (
        long_name(b"t" * 120, b"K") + block(b"x"), "a link target on a member that is no link",
    ),
    "a linkpath record before a directory": (
        pax({b"linkpath": b"t"}) + block(b"x", b"5"), "a link target on a member",
    ),
    "two PAX headers for one member": (
        pax({b"a": b"b"}) + pax({b"a": b"c"}) + block(b"x"), "two PAX headers",
    ),
    "two names for one member": (
        long_name(b"n") + pax({b"path": b"m"}) + block(b"x"), "two names for one member",
    ),
    "a broken record": (pax(b"99 path=x\n") + block(b"x"), "a PAX record"),
    "a PAX size that is not a number": (pax({b"size": b"-1"}) + block(b"x"), "not a number"),
    "a PAX uid that is not a number": (pax({b"uid": b"root"}) + block(b"x"), "not a number"),
    "a PAX time that is not a time": (pax({b"mtime": b"now"}) + block(b"x"), "not a time"),
    "a libarchive xattr that is not base64": (
        pax({b"LIBARCHIVE.xattr.user.x": b"A"}) + block(b"x"), "base64",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("tar", "why"), REFUSED.values(), ids=REFUSED)
def test_refused(tar, why):
    with pytest.raises(
        flatten.FormatError, match=r"^layer: .* at byte [0-9,]+$"
    ) as caught:
        index(tar)

    assert why in str(caught.value)


REGIONS = {
    "one": [(0, 600)],
    "a hole at both ends": [(512, 1024), (9000, 0)],
    "six, so that a block extends the header": [(n * 2048, 512) for n in range(6)],
    "sixty, so that three do": [(n * 2048, 512) for n in range(60)],
    "nothing but a hole": [(200_000, 0)],
}


@pytest.mark.parametrize("regions", REGIONS.values(), ids=REGIONS)
@pytest.mark.parametrize("format", ["gnu", "pax"])
@pytest.mark.parametrize("sparse", [True, False])
def test_32_sparse_files_of_all_kinds_are_one(flat, regions, format, sparse):
    size = 200_000
    data = bytes(range(1, 252)) * (sum(n for _, n in regions) // 251 + 1)
    data = data[: sum(n for _, n in regions)]
    kinds = [sparse_gnu(b"x", regions, size, data)]
    kinds += [sparse_pax(v, b"x", regions, size, data) for v in ("0.0", "0.1", "1.0")]

    tars = [
        flat(kind + member("y", b"after") + bytes(1024), format=format, sparse=sparse)
        for kind in kinds
    ]

    want = bytearray(size)
    at = 0
    for offset, length in regions:
        want[offset : offset + length] = data[at : at + length]
        at += length
    plain = flat(member("x", bytes(want)) + member("y", b"after"), format=format)
    assert len(set(tars)) == 1
    assert (tars[0] == plain) == (not sparse)
    with tarfile.open(fileobj=io.BytesIO(tars[0])) as opened:
        assert opened.extractfile("x").read() == want
        assert opened.extractfile("y").read() == b"after"
        assert (opened.getmember("x").sparse is not None) == sparse


@pytest.mark.parametrize("format", ["gnu", "pax"])
def test_32_a_sparse_file_of_a_long_name(flat, format):
    name = b"d/" + b"n" * 150
    tar = flat(
        long_name(name) + sparse_gnu(name, [(512, 5)], 9000, b"data!"), format=format
    )

    (row,) = [row for row in listing(tar) if row["type"] == "file"]
    assert (row["path"], row["size"]) == (name.decode(), 9000)


def test_32_holes_count_against_the_size_of_the_output(flat):
    size = 10**8
    limits = flatten.Limits(size=10**7)

    with pytest.raises(flatten.FormatError, match=r"a tar of 100,.* over 10,000,000"):
        flat(sparse_gnu(b"x", [(size - 1, 1)], size, b"!") + bytes(1024), limits=limits)


def test_32_a_sparse_map_without_holes_is_a_plain_file(flat):
    plain = flat(member("x", b"data" * 300) + bytes(1024))
    sparse = flat(sparse_gnu(b"x", [(0, 512), (512, 688)], 1200, b"data" * 300))

    assert plain == sparse


def test_32_a_hole_of_60_gb_takes_no_room(flat, tmp_path):
    size = 60 * 10**9
    layer = sparse_gnu(b"x", [(size - 1, 1)], size, b"!") + bytes(1024)
    tar = flat(layer)

    assert len(tar) == 10240
    assert tar == flat(layer, sparse=True)
    (tmp_path / "t.tar").write_bytes(tar)
    shown = subprocess.run(
        ["tar", "-tvf", tmp_path / "t.tar"], capture_output=True, text=True, check=True
    ).stdout
    assert f" {size} " in shown


def test_32_a_warning_says_that_large_holes_are_kept(tmp_path):
    size = MOST_ZEROS + 1024
    layers = [
        sparse_gnu(b"x", [(size - 512, 512)], size, b"x" * 512)
        + sparse_gnu(b"y", [(512, 512)], 1024, b"y" * 512)
        + bytes(1024)
    ]
    (tmp_path / "i.tar").write_bytes(docker_archive(layers))

    done = flatten.export(tmp_path / "i.tar", tmp_path / "o.tar")

    (warning,) = done.warnings
    assert warning.startswith(
        "2 sparse files have holes of 268,436,480 bytes, too many"
    )
    assert done.size == 10240


BAD_SPARSE = {
    "regions that overlap": sparse_gnu(b"x", [(0, 600), (500, 100)], 9000, b"d" * 700),
    "a region beyond the file": sparse_gnu(b"x", [(9000, 600)], 9000, b"d" * 600),
    "more regions than data": sparse_gnu(b"x", [(0, 600)], 9000, b"d" * 500),
    "an odd number of values": pax({b"GNU.sparse.size": b"9", b"GNU.sparse.map": b"0"})
    + block(b"x"),
    "a version from the future": pax({b"GNU.sparse.major": b"2"}) + block(b"x"),
    "version 1.0 without a size": pax({
        b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0"}) + block(b"x"),
    "version 1.0 without a map": pax({
        b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0",
        b"GNU.sparse.realsize": b"9"}) + block(b"x"),
    "a map that goes on for ever": pax({
        b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0",
        b"GNU.sparse.realsize": b"9"}) + block(b"x", size=2048) + b"1" * 2048,
    "a map of too many regions": pax({
        b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0",
        b"GNU.sparse.realsize": b"9"})
    + block(b"x", size=512) + padded(b"9999999999\n"),
    "an extension that is not there": sparse_gnu(
        b"x", [(n * 512, 0) for n in range(9)], 9000, b"")[:512],
}  # fmt: skip


@pytest.mark.parametrize("tar", BAD_SPARSE.values(), ids=BAD_SPARSE)
def test_32_broken_sparse_files_are_refused(tar):
    with pytest.raises(flatten.FormatError):
        index(tar)


@pytest.mark.parametrize("format", ["v7", "oldgnu", "gnu", "ustar", "posix"])
def test_what_gnu_tar_writes_is_read(flat, tmp_path, format):
    tree = tmp_path / "tree"
    (tree / "d" / ("e" * 90)).mkdir(parents=True)
    (tree / "d" / ("e" * 90) / "f").write_bytes(b"data")
    (tree / "s").symlink_to("d")
    (tree / "h").hardlink_to(tree / "d" / ("e" * 90) / "f")
    tar = subprocess.run(
        ["tar", f"--format={format}", "-C", tree, "-cf", "-", "--sort=name", "."],
        capture_output=True, check=True,
    ).stdout  # fmt: skip

    got = contents(flat(tar))

    assert got == {
        "./": "", "d/": "", f"d/{'e' * 90}/": "", f"d/{'e' * 90}/f": "data",
        "h": "data", "s": "->d",
    }  # fmt: skip


@pytest.mark.parametrize(
    "format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
)
def test_what_python_writes_is_read(flat, format):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=format) as tar:
        info = tarfile.TarInfo("p" * 60 + "/" + "n" * 60)
        info.size = 4
        tar.addfile(info, io.BytesIO(b"data"))

    got = contents(flat(stream.getvalue()))

    assert got["p" * 60 + "/" + "n" * 60] == "data"


def test_the_data_of_members_is_not_read():
    big = bytes(8_000_000)
    source = Memory(layer(member("a", big), member("b", big), "c"))

    read_layer(source, "layer", 0, Members())

    assert source.was_read < 600_000


def test_a_path_of_more_than_is_read_at_once_is_read_whole():
    """The first 1,536 bytes of the record, all that is there at first, end a line."""
    name = b"a" * (1536 - len(b"2000 path=") - 1) + b"\n" + b"b" * 463
    assert pax({b"path": name})[512:].index(b"\n") == 1535
    tar = layer(member("big", bytes(200_000)), pax({b"path": name}) + block(b"short"))

    found, _ = index(tar)

    assert found.paths == [b"big", name]


@pytest.mark.parametrize(
    "tar",
    [layer(head) for head, _ in NAMES.values()]
    + [layer(head) for head, _ in KINDS.values()]
    + [tar for tar, _ in REFUSED.values()],
    ids=[*NAMES, *KINDS, *REFUSED],
)
def test_plain_headers_are_read_like_any_others(tar, monkeypatch):
    """All ways to read a plain header give the same rows, and the same errors."""
    plain = rows_or_error(tar)
    monkeypatch.setattr(kernel, "scan", None)
    monkeypatch.setattr("flatten.tar.plain._KINDS", frozenset())

    assert rows_or_error(tar) == plain
