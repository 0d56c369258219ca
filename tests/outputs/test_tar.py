"""The tar that comes out: its form, and what every reader makes of it."""

import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

import flatten
from builders import docker_archive, layers, member
from everything import ACL_TEXT, EVERYTHING, on_disk, promised
from listing import listing, open_tar
from needs import needs_bsdtar, root_only


@pytest.fixture(scope="module", params=["gnu", "pax"])
def output(request, tmp_path_factory):
    """Return the tar of an image that has everything, in each format."""
    folder = tmp_path_factory.mktemp("output")
    (folder / "image.tar").write_bytes(docker_archive(EVERYTHING))
    out = folder / f"{request.param}.tar"
    flatten.export(folder / "image.tar", out, format=request.param)
    return out


@root_only
def test_gnu_tar_unpacks_what_python_reads(output, tmp_path):
    subprocess.run(
        ["tar", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf", output],
        cwd=tmp_path, check=True,
    )  # fmt: skip

    assert on_disk(tmp_path) == promised(output)


@root_only
@needs_bsdtar
def test_bsdtar_unpacks_what_python_reads(output, tmp_path):
    subprocess.run(
        ["bsdtar", "--numeric-owner", "-xpf", output], cwd=tmp_path, check=True,
        env=os.environ | {"LC_ALL": "C.UTF-8"}, capture_output=True,
    )  # fmt: skip

    got, want = on_disk(tmp_path), promised(output)
    got[""]["mtime"] = want[""]["mtime"]  # bsdtar leaves that of where it unpacks
    assert got == want


ACL = bytes.fromhex(
    "02000000 01000600ffffffff 02000400e8030000 04000400ffffffff 10000400ffffffff"
    "20000000ffffffff"
)
UNPACKERS = {
    "tar with ACLs": ["tar", "--acls"],
    "tar with xattrs": ["tar", "--xattrs", "--xattrs-include=*"],
    "tar with both": ["tar", "--acls", "--xattrs", "--xattrs-include=*"],
    "bsdtar": ["bsdtar"],
}


@root_only
@pytest.mark.parametrize("unpacker", UNPACKERS.values(), ids=UNPACKERS)
def test_acls_are_restored_whichever_form_they_came_in(tmp_path, unpacker):
    if shutil.which(unpacker[0]) is None:
        pytest.skip(f"needs {unpacker[0]}")
    access, default = "system.posix_acl_access", "system.posix_acl_default"
    words = [
        member("f", b"x", mode=0o640, records={b"SCHILY.acl.access": ACL_TEXT}),
        member("g", b"x", mode=0o640, records={f"SCHILY.xattr.{access}".encode(): ACL}),
        member("d/", type=b"5", records={b"SCHILY.acl.default": ACL_TEXT}),
        member("e/", type=b"5", records={f"SCHILY.xattr.{default}".encode(): ACL}),
    ]
    (tmp_path / "i.tar").write_bytes(docker_archive(layers(words)))
    flatten.export(tmp_path / "i.tar", tmp_path / "o.tar")
    (tmp_path / "o").mkdir()
    subprocess.run([*unpacker, "-xpf", "../o.tar"], cwd=tmp_path / "o", check=True)

    assert [os.getxattr(tmp_path / "o" / name, access) for name in "fg"] == [ACL] * 2
    assert [os.getxattr(tmp_path / "o" / name, default) for name in "de"] == [ACL] * 2


def test_a_plain_tar_x_keeps_the_mtimes_of_directories(output, tmp_path):
    subprocess.run(
        ["tar", "--no-same-owner", "--exclude=dev", "-xf", output],
        cwd=tmp_path,
        check=True,
    )

    got = {name: int((tmp_path / name).stat().st_mtime) for name in ("bin", "etc", ".")}
    assert got == {"bin": 22, "etc": 33, ".": 11}


def test_every_reader_lists_the_same_names(output):
    with open_tar(output) as opened:
        names = [os.fsencode(info.name) for info in opened]
    commands = [["tar", "--quoting-style=literal", "-tf"]]
    if shutil.which("bsdtar"):
        commands.append(["bsdtar", "-tf"])
    for command in commands:
        shown = subprocess.run(
            [*command, output], capture_output=True, check=True,
            env=os.environ | {"LC_ALL": "C"},
        ).stdout  # fmt: skip
        shown = shown.replace(b"\\351", b"\xe9")  # bsdtar escapes what is not ASCII
        got = [
            line.removeprefix(b"./").rstrip(b"/") for line in shown.split(b"\n")[:-1]
        ]
        assert [name.removeprefix(b".") for name in names] == got


def test_an_empty_xattr_is_kept(output):
    """Python drops it when it reads, as POSIX says of records; GNU tar keeps it."""
    assert b"SCHILY.xattr.user.b=\n" in output.read_bytes()


def test_walk_order(output):
    paths = [row["path"].encode("utf-8", "surrogateescape") for row in listing(output)]

    assert paths == sorted(paths, key=lambda path: path.split(b"/"))
    assert len(paths) == len(set(paths))


def headers(path):
    """Yield the typeflag and magic of every header block, extensions too."""
    data = Path(path).read_bytes()
    at = 0
    while data[at : at + 512] != bytes(512):
        info = tarfile.TarInfo.frombuf(data[at : at + 512], "utf-8", "surrogateescape")
        flag = data[at + 156 : at + 157]
        yield flag, data[at + 257 : at + 265], info
        at += 512
        if flag == b"S":
            more = data[at - 30]
            while more:
                more, at = data[at + 504], at + 512
        if flag not in b"123456":
            at += info.size + 511 & -512
    assert len(data) - at >= 1024


def test_headers_are_of_one_format(output):
    want = b"ustar  \0" if output.name == "gnu.tar" else b"ustar\x0000"
    seen = list(headers(output))

    assert {magic for _, magic, _ in seen} == {want}
    flags = b"".join(sorted({flag for flag, _, _ in seen}))
    assert flags == (b"0123456KLx" if output.name == "gnu.tar" else b"0123456x")
    assert not any(info.uname or info.gname for _, _, info in seen)


def test_the_end_is_zeros_up_to_a_record(output):
    data = output.read_bytes()

    assert len(data) % 10_240 == 0
    assert data.endswith(bytes(1024))


def test_an_empty_image_is_an_empty_tar(tmp_path):
    (tmp_path / "i.tar").write_bytes(docker_archive([]))

    flatten.export(tmp_path / "i.tar", tmp_path / "o.tar")

    assert (tmp_path / "o.tar").read_bytes() == bytes(10_240)


def test_the_same_bytes_on_every_run_and_for_every_kind_of_output(tmp_path):
    (tmp_path / "i.tar").write_bytes(docker_archive(EVERYTHING))
    for name in ("a.tar", "b.tar"):
        flatten.export(tmp_path / "i.tar", tmp_path / name)
    with open(tmp_path / "c.tar", "wb") as out:
        flatten.export(tmp_path / "i.tar", out.fileno())
    piped = subprocess.run(
        ["python3", "-m", "flatten", tmp_path / "i.tar"], capture_output=True, check=True
    ).stdout  # fmt: skip

    first = (tmp_path / "a.tar").read_bytes()
    assert first == (tmp_path / "b.tar").read_bytes()
    assert first == (tmp_path / "c.tar").read_bytes()
    assert first == piped


SAME = {
    "a file split over layers": (
        [["a", member("b", b"0")]],
        [["a", member("b", b"junk")], [member("b", b"0")]],
    ),
    "removed and added again": (
        [["d/", "d/x"]],
        [["d/", "d/x", "d/y", "e/", "e/z"], ["-e", "-d/y"]],
    ),
    "another order in the layer": (
        [["a", "d/", "d/x", "z"]],
        [["z", "d/", "d/x", "a"]],
    ),
    "other spellings": ([["d/", "d/x"]], [["./d", "./d//x"][0:0] or ["./d/", "/d/x"]]),
    "links in the other direction": (
        [["a", "b=a", "c=a"]],
        [["b", "c=b", "a=c"]],
    ),
    "other padding, prefix and owner names": (
        [[member("p/q/n", b"12345", uname=b"")]],
        [[member("n", b"12345", tail=b"p/q")[:-507] + b"JUNK" * 126 + b"JUN"]],
    ),
}


@pytest.mark.parametrize(("one", "other"), SAME.values(), ids=SAME)
@pytest.mark.parametrize("format", ["gnu", "pax"])
def test_equal_trees_are_equal_bytes(tmp_path, one, other, format):
    outs = []
    for image in (one, other):
        tars = layers(*image)
        (tmp_path / "i.tar").write_bytes(docker_archive(tars))
        flatten.export(tmp_path / "i.tar", tmp_path / "o.tar", format=format)
        outs.append((tmp_path / "o.tar").read_bytes())

    assert outs[0] == outs[1]


def test_mtimes_are_clamped_not_set(tmp_path):
    tars = layers([
        member("old", mtime=50), member("new", mtime=150), "p/implied",
        member("fraction", records={b"mtime": b"100.5"}),
    ])  # fmt: skip
    (tmp_path / "i.tar").write_bytes(docker_archive(tars))

    flatten.export(tmp_path / "i.tar", tmp_path / "o.tar", mtime=100, format="pax")

    got = {row["path"]: row["mtime"] for row in listing(tmp_path / "o.tar")}
    assert got == {"old": 50, "new": 100, "p": 100, "p/implied": 100, "fraction": 100}
    assert b"100.5" not in (tmp_path / "o.tar").read_bytes()


SIZES = [0, 1, 511, 512, 513, 131_071, 131_072, 262_143, 262_144, 262_145, 1_000_000]


def test_contents_of_all_sizes_next_to_each_other(tmp_path):
    """Around the sizes at which spans merge, fill the buffer, or go by the kernel."""
    want = {f"{n:02}-{size}": os.urandom(size) for n, size in enumerate(SIZES * 2)}
    words = [member(name, data) for name, data in want.items()]
    tars = layers(words[::2], words[1::2])
    (tmp_path / "i.tar").write_bytes(docker_archive(tars))

    flatten.export(tmp_path / "i.tar", tmp_path / "o.tar")

    with tarfile.open(tmp_path / "o.tar") as opened:
        got = {info.name: opened.extractfile(info).read() for info in opened}
    assert got == want
