"""The tree that ``Image.root`` shows is the one that ``ls`` lists and ``cat`` prints."""

import json
import os
import stat
import tempfile
from base64 import b64encode
from pathlib import Path

import pytest
import xxhash
from hypothesis import given, settings

import flatten
from builders import (
    docker_archive,
    hybrid_archive,
    layer,
    layers,
    legacy_archive,
    member,
    podman_archive,
)
from fixtures import FIXTURES, unpacked_save
from headers import sparse_gnu, sparse_pax
from kinds import KINDS, run
from random_images import images, tar_member

DATA = Path(__file__).parents[1] / "data"
ACL = b"user::rw-,user:1000:r--,group::r--,mask::r--,other::---"

PLAIN = layers(
    ["etc/", member("etc/conf", b"1"), "d/e/f/implied", "bin->usr/bin", "usr/bin/tool",
     "gone", "loop->loop", "dangling->/no/such", "usr/bin/up->../../../etc/conf"],
    ["etc/", "etc/new", "e/", "link=etc/new", "e/other=link", "-gone", "e/x"],
    ["etc/conf", "e/*", "e/y", "-etc/new", member("big", bytes(range(256)) * 5000)],
)  # fmt: skip
ODD = layers(
    [
        member("./", type=b"5", mode=0o711, uid=7),
        member(b"caf\xe9\n", b"name"),
        member("n" * 300, b"long"),
        member("xattrs", b"x", records={b"SCHILY.xattr.user.b": b"\0\xff",
                                        b"SCHILY.xattr.security.capability": b"c"}),
        member("acl", b"x", records={b"SCHILY.acl.access": ACL}),
        member("named", b"x", records={b"SCHILY.acl.access": b"user:lisa:r--",
                                       b"SCHILY.xattr.user.a": b"1"}),
        member("fraction", b"x", records={b"mtime": b"-1.25"}),
        member("owner", b"x", uid=2**32 - 2, gid=8**7, mode=0o6755),
        member("null", type=b"3", device=(1, 3)),
        member("sda", type=b"4", device=(8, 0)),
        member("fifo", type=b"6", mode=0o600),
        "fifo2=fifo",
        "s->fifo",
        "s2=s",
    ],
    [
        sparse_gnu(b"hole", [], 5000, b""),
        sparse_gnu(b"ends", [(512, 1024), (9000, 0)], 9000, b"d" * 1024),
        sparse_gnu(b"gnu", [(n * 2048, 512) for n in range(6)], 12_000, b"e" * 3072),
        sparse_pax("1.0", b"pax", [(1024, 512), (4000, 8)], 5000, b"f" * 520),
        "pax2=pax",
    ],
)  # fmt: skip

IMAGES = {
    **{f"{kind}, plain names": (write, PLAIN) for kind, write in KINDS.items()},
    "every kind of member": (KINDS["docker-archive"], ODD),
    "every kind of member, in a layout": (KINDS["oci"], ODD),
    "no layers": (KINDS["oci"], []),
}
ARCHIVES = {
    "docker 25": hybrid_archive,
    "podman": podman_archive,
    "docker before 1.10": legacy_archive,
}
NEW = sorted(path.name for path in FIXTURES.glob("new/*.save.tar"))
SAVES = sorted(
    path.name
    for path in FIXTURES.glob("saves/*.tar.xz")
    if ".export." not in path.name  # those are root file systems, not images
)
ROOTS = sorted(path.name for path in FIXTURES.glob("roots/*.tar.xz"))


def rows(path, known=None):
    """Yield what ``ls --json --hash`` says of the paths below one, in its order."""
    known = {} if known is None else known
    if not path.parts and path.layer is not None:
        yield row(path, known)
    for child in path.iterdir():
        yield row(child, known)
        if child.is_dir() and not child.is_symlink():
            yield from rows(child, known)


TYPES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "dir",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFCHR: "chr",
    stat.S_IFBLK: "blk",
}


def row(path, known):
    status = path.lstat()
    out = {
        "path": "/".join(path.parts),
        "type": TYPES[stat.S_IFMT(status.st_mode)],
        "mode": f"{stat.S_IMODE(status.st_mode):04o}",
        "uid": status.st_uid,
        "gid": status.st_gid,
        "mtime": status.st_mtime_ns // 10**9,
        "layer": path.layer,
    }
    first = known.setdefault(status.st_ino, out["path"])
    if first != out["path"]:
        assert status.st_nlink > 1
        return out | {"type": "hardlink", "linkname": first}
    if out["type"] == "file":
        content = path.read_bytes()
        assert len(content) == status.st_size
        out |= {"size": status.st_size, "xxh3": xxhash.xxh3_128_hexdigest(content)}
    elif out["type"] == "symlink":
        out["linkname"] = path.readlink()
        assert status.st_size == len(os.fsencode(path.readlink()))
    elif out["type"] in ("chr", "blk"):
        out["rdev"] = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    xattrs = path.xattrs(follow_symlinks=False)
    if xattrs:
        out["xattrs"] = {n: b64encode(v).decode() for n, v in xattrs.items()}
    return out


def rows_of(listing):
    """Return the rows of a listing, without whether its layers were verified."""
    rows = [json.loads(line) for line in listing.splitlines()]
    return [{k: v for k, v in row.items() if k != "verified"} for row in rows]


def listed(*arguments):
    done = run("ls", *arguments, "--json", "--hash", "--no-cache")
    assert done.returncode == 0, done.stderr
    return rows_of(done.stdout)


def check(reference):
    """Compare the tree of an image with ``ls`` and its largest file with ``cat``."""
    want = listed(reference)
    with flatten.open_image(str(reference)) as image:
        assert list(rows(image.root)) == want

        files = [each for each in want if each["type"] == "file"]
        if files:
            name = max(files, key=lambda each: each["size"])["path"]
            done = run("cat", reference, name, "--no-cache")
            assert image.root.joinpath(name).read_bytes() == os.fsencode(done.stdout)
    return want


@pytest.mark.parametrize(("write", "tars"), IMAGES.values(), ids=IMAGES)
def test_images_built_here(tmp_path, write, tars):
    assert bool(check(write(tmp_path, tars))) == bool(tars)


@pytest.mark.parametrize("write", ARCHIVES.values(), ids=ARCHIVES)
def test_archives_of_other_tools(tmp_path, write):
    (tmp_path / "image.tar").write_bytes(write(PLAIN))

    assert check(tmp_path / "image.tar")


@pytest.mark.parametrize("path", sorted(DATA.glob("*.tar.gz")), ids=lambda p: p.name)
def test_archives_of_real_tools(path):
    assert check(path)


def names(source):
    """Return a reference to each image of a source."""
    found = json.loads(run("images", source, "--json").stdout)
    return [f"{source}#@{position}" for position in range(len(found))]


@pytest.mark.skipif(not SAVES, reason="needs the fixtures in saves/")
@pytest.mark.parametrize("name", SAVES)
def test_saves(tmp_path, name):
    path = unpacked_save(name.removesuffix(".tar.xz"), tmp_path)

    assert [check(reference) for reference in names(path)]


@pytest.mark.skipif(not NEW, reason="needs the fixtures in new/")
@pytest.mark.parametrize("name", NEW)
def test_saves_of_new_engines(name):
    assert [check(reference) for reference in names(FIXTURES / "new" / name)]


@pytest.mark.skipif(not ROOTS, reason="needs the fixtures in roots/")
@pytest.mark.parametrize("name", ROOTS)
def test_engine_roots(data_root, name):
    root = data_root(name.removesuffix(".tar.xz"))

    assert [check(reference) for reference in names(root)]


@settings(max_examples=60)
@given(images())
def test_random_images(image):
    tars = [layer(*map(tar_member, each)) for each in image]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "image.tar")
        path.write_bytes(docker_archive(tars))
        done = run("ls", path, "--json", "--hash", "--no-cache")
        with flatten.open_image(path) as opened:
            if done.returncode == 0:
                listed = rows_of(done.stdout)
                assert list(rows(opened.root)) == listed
            else:
                with pytest.raises(flatten.FormatError) as caught:
                    opened.root  # noqa: B018 - the access is the test
                assert done.stderr == f"flatten: {caught.value}\n"
