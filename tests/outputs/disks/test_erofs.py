"""EROFS images that flatten writes, read by the tests' own reader and by Linux."""

import os
import random
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings

import flatten
from builders import MTIME, docker_archive, layer, layers, member
from command import run
from disks import HARD, by_kernel, by_reader, found, mounted, plan_for
from erofs_reader import Image as Erofs
from everything import EVERYTHING
from flatten.outputs.disks.erofs_chunks import choose_chunks
from flatten.outputs.disks.tools import offers
from headers import sparse_gnu
from listing import listing
from needs import PLACES, need, needs_user, root_only, run_as_user
from random_images import DEVICES, Image, images, tar_member

INLINE, PLAIN, CHUNKED = 2, 0, 4  # layouts of contents
ACL = "system.posix_acl_access"


def made(folder, tars, **options):
    """Return the image that flatten writes of these layers."""
    (folder / "i.tar").write_bytes(docker_archive(tars))
    flatten.export(folder / "i.tar", folder / "o.erofs", **options)
    return Erofs((folder / "o.erofs").read_bytes())


def refused(folder, words, *options):
    """Return the message with which an image is refused; nothing is left."""
    (folder / "i.tar").write_bytes(docker_archive(layers(words)))

    got = run("i.tar", "-o", "o.erofs", *options, cwd=folder)

    assert got.stderr.count("\n") == 1
    assert [path.name for path in folder.iterdir()] == ["i.tar"]
    return got.returncode, got.stderr.removeprefix("flatten: ").rstrip()


def without_acls(rows):
    """Return rows without ACLs and the modes that follow from them (docs/machines.md)."""
    out = []
    for row in rows:
        if row["path"]:
            others = {k: v for k, v in row.get("xattrs", {}).items() if k != ACL}
            lost = ("xattrs", "mode") if ACL in row.get("xattrs", {}) else ("xattrs",)
            out.append({k: row[k] for k in row.keys() - {*lost}} | {"xattrs": others})
    return out


# --- whole trees


def test_it_holds_what_the_tar_holds(tmp_path):
    image = made(tmp_path, EVERYTHING)
    flatten.export(tmp_path / "i.tar", tmp_path / "o.tar")

    assert image.listing() == listing(tmp_path / "o.tar")


@settings(max_examples=max(settings().max_examples // 4, 20))
@given(images())
def test_random_images_hold_what_the_tar_holds(image: Image):
    drawn = [
        layer(*(tar_member(entry) for entry in each if entry.device not in DEVICES[2:]))
        for each in image
    ]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "i.tar").write_bytes(docker_archive(drawn))
        try:
            flatten.export(folder / "i.tar", folder / "o.tar")
        except flatten.FormatError:
            with pytest.raises(flatten.FormatError):
                flatten.export(folder / "i.tar", folder / "o.erofs")
            return
        rows = made(folder, drawn).listing()

        assert without_acls(rows) == without_acls(listing(folder / "o.tar"))


@root_only
def test_linux_reads_the_same_contents(tmp_path):
    image = made(tmp_path, layers([member(f"{size}", os.urandom(size))
                                   for size in SIZES]))  # fmt: skip

    with mounted(tmp_path / "o.erofs", tmp_path / "mounted") as top:
        for path, node in image.tree().items():
            if node.type() == "file":
                assert (top / os.fsdecode(path)).read_bytes() == node.content


@root_only
def test_compressed_ones_hold_the_same(tmp_path):
    need("mkfs.erofs")
    image = tmp_path / "i.tar"
    image.write_bytes(docker_archive(HARD))
    for name in ("none", "lz4hc:9", "lz4"):
        flatten.export(image, tmp_path / f"{name}.erofs", compress=name)

    plain, best, fast = (
        {path: rows[:3] + rows[4:] for path, rows in by_reader(disk).items()}
        for disk in (tmp_path / "none.erofs", tmp_path / "lz4hc:9.erofs",
                     tmp_path / "lz4.erofs")
    )  # fmt: skip

    assert plain == best == fast
    with mounted(tmp_path / "lz4.erofs", tmp_path / "mounted") as top:
        assert by_kernel(top) == by_reader(tmp_path / "lz4.erofs")


@root_only
@pytest.mark.parametrize("how", ["zstd", "zstd:9", "lzma", "deflate", "libdeflate:3"])
def test_compressors_of_later_releases(tmp_path, how):
    image = tmp_path / "i.tar"
    image.write_bytes(docker_archive(HARD))
    name = how.partition(":")[0]
    mkfs = shutil.which("mkfs.erofs", path=PLACES)
    if mkfs is None or not offers(mkfs, name):
        pytest.skip(f"needs an mkfs.erofs that compresses with {name}")

    for out in ("1.erofs", "2.erofs"):
        flatten.export(
            image, tmp_path / out, compress=how, label="abc", block_size=4096
        )

    flatten.export(image, tmp_path / "best.erofs", compress="lz4hc")
    assert (tmp_path / "1.erofs").read_bytes() == (tmp_path / "2.erofs").read_bytes()
    got, want = by_reader(tmp_path / "1.erofs"), by_reader(tmp_path / "best.erofs")
    assert got == want


@root_only
def test_sparse_files_in_compressed_ones(tmp_path):
    need("mkfs.erofs")
    image = tmp_path / "i.tar"
    hole = sparse_gnu(b"s", [(8192, 512), (1 << 20, 0)], 1 << 20, b"s" * 512)
    image.write_bytes(docker_archive(layers([hole, member("a", b"a")])))

    flatten.export(image, tmp_path / "o.erofs", compress="lz4hc")

    with mounted(tmp_path / "o.erofs", tmp_path / "mounted") as top:
        assert (top / "s").read_bytes() == bytes(8192) + b"s" * 512 + bytes(
            (1 << 20) - 8704
        )
        assert (top / "a").read_bytes() == b"a"


# --- the same bytes


def test_the_bytes_do_not_depend_on_the_layers(tmp_path):
    words = [member("d/", type=b"5"), member("d/a", b"a" * 5000),
             member("d/b", b"b", records={b"SCHILY.xattr.user.k": b"v"}),
             member("e", type=b"2", target="d/a"), member("f", type=b"1", target="d/b")]  # fmt: skip
    root = member("./", type=b"5")
    (tmp_path / "1.tar").write_bytes(docker_archive(layers([root, *words])))
    (tmp_path / "2.tar").write_bytes(docker_archive(
        layers([root, *words[:2]], [member("gone"), *words[2:4]],
               ["-gone", words[0], *words[2:]])
    ))  # fmt: skip

    for name in "12":
        flatten.export(tmp_path / f"{name}.tar", tmp_path / f"{name}.erofs")

    one, other = (tmp_path / f"{name}.erofs" for name in "12")
    assert one.read_bytes() == other.read_bytes()


def test_the_uuid_depends_on_the_tree(tmp_path):
    trees = ([member("a")], [member("b")], [member("a", uid=1)], [member("a", b"1")])

    uuids = {made(tmp_path, layers(words)).uuid for words in trees}

    assert len(uuids) == len(trees)
    assert {(uuid[6] >> 4, uuid[8] >> 6) for uuid in uuids} == {(8, 2)}


@needs_user
def test_an_ordinary_user_writes_the_same_bytes_without_fakeroot(tmp_path, theirs):
    made(tmp_path, HARD)
    shutil.copy(tmp_path / "i.tar", theirs / "i.tar")

    done = run_as_user("i.tar", "-o", "o.erofs", cwd=theirs)

    assert done.returncode == 0, done.stderr
    assert (theirs / "o.erofs").read_bytes() == (tmp_path / "o.erofs").read_bytes()


# --- the superblock


def test_the_superblock(tmp_path):
    image = made(tmp_path, layers([member("./", type=b"5", mtime=1),
                                   member("a", mtime=MTIME)]))  # fmt: skip

    assert (image.root, image.inodes, image.time) == (128, 2, MTIME)
    assert (image.compat, image.incompat) == (3, 0)
    assert image.label == b"rootfs".ljust(16, b"\0")


def test_only_files_in_chunks_need_a_newer_kernel(tmp_path):
    hole = sparse_gnu(b"s", [(1 << 20, 512)], 2 << 20, b"s" * 512)
    small = sparse_gnu(b"s", [(0, 512), (1024, 512)], 1536, b"s" * 1024)

    assert made(tmp_path, layers([hole])).incompat == 4
    assert made(tmp_path, layers([small])).incompat == 0


def test_the_label_and_the_uuid_can_be_chosen(tmp_path):
    uuid = "01234567-89AB-cdef-0123-456789abcdef"

    image = made(tmp_path, layers(["a"]), label="fifteen bytes..", uuid=uuid)

    assert image.label == b"fifteen bytes..\0"
    assert image.uuid.hex() == uuid.replace("-", "").lower()


@pytest.mark.parametrize("block", [512, 1024, 2048, 4096, 8192, 65_536])
@pytest.mark.parametrize("tars", [HARD, EVERYTHING, []], ids=["hard", "all", "empty"])
def test_blocks_of_every_size(tmp_path, tars, block):
    image = made(tmp_path, tars, block_size=block)

    assert image.block == block
    assert image.listing() == made(tmp_path, tars).listing()


@root_only
@pytest.mark.parametrize("block", [512, 1024, 2048])
def test_linux_reads_blocks_that_are_smaller_than_a_page(tmp_path, block):
    words = [member(f"{size}", os.urandom(size)) for size in SIZES]
    words += [member(f"d/{n:04}{'n' * 200}", b"n") for n in range(99)]
    words += [with_xattrs(f"x{n}", pairs) for n, pairs in enumerate(XATTRS.values())]
    words += [member("t", type=b"2", target="t" * 4095)]
    image = made(tmp_path, layers(words), block_size=block)

    with mounted(tmp_path / "o.erofs", tmp_path / "mounted") as top:
        assert by_kernel(top) == by_reader(tmp_path / "o.erofs")
        for path, node in image.tree().items():
            if node.type() == "file":
                assert (top / os.fsdecode(path)).read_bytes() == node.content


@root_only
def test_linux_verifies_the_checksum(tmp_path):
    made(tmp_path, layers(["a"]))
    disk = tmp_path / "o.erofs"
    with mounted(disk, tmp_path / "mounted"):
        pass
    data = bytearray(disk.read_bytes())
    data[1024 + 64] ^= 1  # of the label
    disk.write_bytes(data)

    done = subprocess.run(["mount", "-o", "loop,ro", disk, tmp_path / "mounted"],
                          check=False, capture_output=True)  # fmt: skip

    assert done.returncode


@pytest.mark.parametrize("tars", [HARD, EVERYTHING, []], ids=["hard", "all", "empty"])
def test_fsck_finds_no_fault(tmp_path, tars):
    need("fsck.erofs")
    made(tmp_path, tars)
    out = tmp_path / "out"

    done = subprocess.run(
        ["fsck.erofs", f"--extract={out}", tmp_path / "o.erofs"], check=False,
        capture_output=True, env=os.environ | {"PATH": PLACES},
    )  # fmt: skip

    assert (done.returncode, done.stderr) == (0, b"")
    assert len(list(out.rglob("*"))) == len(found(tmp_path / "o.erofs")) - 1


# --- contents

SIZES = [0, 1, 4031, 4032, 4033, 4095, 4096, 4097, 8128, 8129, 8191, 8192, 1_000_000]


@pytest.mark.parametrize("size", SIZES)
def test_the_end_of_a_content_is_after_the_inode_where_it_fits(tmp_path, size):
    content = random.Random(size).randbytes(size)

    node = made(tmp_path, layers([member("a", content)])).tree()[b"a"]

    assert node.content == content
    assert node.layout == (INLINE if 0 < size % 4096 <= 4032 else PLAIN)


@pytest.mark.parametrize("size", [1, 60, 4031, 4032, 4033, 4095])
def test_symlinks_of_any_length(tmp_path, size):
    node = made(tmp_path, layers([member("a", type=b"2", target="t" * size)]))

    assert node.tree()[b"a"].content == b"t" * size


def test_small_files_take_no_block_of_their_own(tmp_path):
    words = [member(f"{n:04}", b"x" * 100) for n in range(1000)]

    image = made(tmp_path, layers(words))

    assert len(image.data) < 1000 * (64 + 100 + 28 + 16) + 4 * 4096


SPARSE = {
    "a hole at the end": ([(0, 512)], 1 << 20),
    "a hole at the start": ([(1 << 20, 512)], (1 << 20) + 512),
    "holes between": ([(n << 16, 512) for n in range(0, 9, 2)], 9 << 16),
    "a hole only": ([], 100_000),
    "data across a block": ([(4000, 512), (20_000, 512)], 30_000),
    "holes smaller than a block": ([(0, 512), (4096, 512)], 8192),
    "a hole of a block, unaligned": ([(0, 512), (512 + 4096, 512)], 9000),
    "empty": ([], 0),
}  # fmt: skip


@pytest.mark.parametrize(("regions", "size"), SPARSE.values(), ids=SPARSE)
def test_sparse_files(tmp_path, regions, size):
    data = random.Random(size).randbytes(512 * len(regions))
    want = bytearray(size)
    for number, (start, length) in enumerate(regions):
        want[start : start + length] = data[512 * number : 512 * (number + 1)]
    words = [sparse_gnu(b"s", [*regions, (size, 0)], size, data), member("t", b"t")]

    tree = made(tmp_path, layers(words)).tree()

    assert tree[b"s"].content == want
    assert tree[b"t"].content == b"t"


@root_only
def test_linux_reads_sparse_files(tmp_path):
    words = [
        sparse_gnu(b"%d" % n, [*regions, (size, 0)], size, b"s" * 512 * len(regions))
        for n, (regions, size) in enumerate(SPARSE.values())
    ]
    tree = made(tmp_path, layers(words)).tree()

    with mounted(tmp_path / "o.erofs", tmp_path / "mounted") as top:
        for n in range(len(words)):
            path = top / f"{n}"
            assert path.read_bytes() == tree[path.name.encode()].content


def test_a_file_of_a_tebibyte_with_a_hole_takes_four_mebibytes(tmp_path):
    size = 1 << 40
    words = [sparse_gnu(b"s", [(1 << 39, 512), (size, 0)], size, b"s" * 512)]
    (tmp_path / "i.tar").write_bytes(docker_archive(layers(words)))

    flatten.export(tmp_path / "i.tar", tmp_path / "o.erofs")

    assert (tmp_path / "o.erofs").stat().st_size < 7 << 20


def test_chunks_are_stored_where_there_is_data():
    chunks = choose_chunks(
        10 * 4096, [(0, 1), (4096, 4096), (5 * 4096 + 1, 4096)], 4096
    )

    assert (chunks.bits, chunks.count, chunks.blocks) == (0, 10, 5)
    assert chunks.runs == ((0, 2), (5, 7), (9, 10))
    hole = b"\xff" * 4
    numbers = [n.to_bytes(4, "little") for n in range(70, 75)]
    assert b"".join(chunks.table(70)) == b"".join(
        [*numbers[:2], hole * 3, *numbers[2:4], hole * 2, numbers[4]]
    )


def test_files_without_a_hole_of_a_block_are_not_in_chunks():
    assert choose_chunks(0, [], 4096) is None
    assert choose_chunks(8192, [(0, 8192)], 4096) is None
    assert choose_chunks(8192, [(0, 100), (4096, 100)], 4096) is None


# --- directories

FOLDERS = {
    "names around the dots": ["!", "-", ".-", "...", "..a", ".a", "/"[:0] + "0", "~"],
    "one full block": ["n" * 248 + f"{n}" for n in range(15)],
    "a block and a name": [f"{n:03}" + "n" * 240 for n in range(17)],
    "many": [f"{n * 7919 % 20_011}" for n in range(20_000)],
    "long names": [f"{n:03}" + "n" * 252 for n in range(400)],
}  # fmt: skip


@root_only
@pytest.mark.parametrize("names", FOLDERS.values(), ids=FOLDERS)
def test_every_name_is_found(tmp_path, names):
    words = [member(f"d/{name}", name.encode()[:9]) for name in names]
    image = made(tmp_path, layers(words))
    folder = image.tree()[b"d"]

    assert sorted(name for name, _ in image.entries(folder)) == sorted(
        [b".", b"..", *map(os.fsencode, names)]
    )
    with mounted(tmp_path / "o.erofs", tmp_path / "mounted") as top:
        assert sorted(os.listdir(top / "d")) == sorted(names)
        for name in names:
            assert (top / "d" / name).read_bytes() == name.encode()[:9]
        assert not (top / "d" / "missing").exists()


def test_a_deep_tree(tmp_path):
    path = "/".join("d" * 100)

    tree = made(tmp_path, layers([f"{path}/", f"{path}/a"])).tree()

    assert tree[f"{path}/a".encode()].content == b"0"
    assert len(tree) == 102


# --- xattrs


def with_xattrs(name, pairs):
    return member(name, name.encode(), records={
        b"SCHILY.xattr." + key: value for key, value in pairs.items()})  # fmt: skip


def test_an_xattr_of_many_files_is_stored_once(tmp_path):
    label = b"system_u:object_r:etc_t:s0\0"
    pairs = {b"security.selinux": label, b"user.one": b"1"}
    words = [with_xattrs(f"{n:03}", pairs | {b"user.n": b"%d" % n}) for n in range(99)]

    image = made(tmp_path, layers(words))

    assert image.data.count(label) == 1
    for n in range(99):
        got = image.tree()[b"%03d" % n].xattrs
        assert got == pairs | {b"user.n": b"%d" % n}


XATTRS = {
    "more than can be shared": {b"user.%04d" % n: b"v" * 9 for n in range(300)},
    "more than a block": {b"user.%d" % n: bytes([n]) * 1000 for n in range(9)},
    "the largest value": {b"user.v": b"v" * 65_535},
    "a value that leaves room for a part of the content": {b"user.v": b"v" * 4000},
    "the longest name": {b"user." + b"n" * 250: b"v"},
    "an empty value": {b"user.v": b""},
}


@root_only
@pytest.mark.parametrize("pairs", XATTRS.values(), ids=XATTRS)
@pytest.mark.parametrize("count", [1, 3])
def test_xattrs(tmp_path, pairs, count):
    words = [with_xattrs(f"{n}", pairs) for n in range(count)]

    tree = made(tmp_path, layers(words)).tree()

    with mounted(tmp_path / "o.erofs", tmp_path / "mounted") as top:
        for name in map(str, range(count)):
            node = tree[name.encode()]
            assert (node.xattrs, node.content) == (pairs, name.encode())
            assert (top / name).read_bytes() == name.encode()
            for key, value in pairs.items():
                assert os.getxattr(top / name, key) == value


# --- what EROFS cannot hold

LIMITS = {
    "a large xattr": (
        with_xattrs("a", {b"user.v": b"v" * 65_536}),
        "'a': the xattr 'user.v' has 65,536 bytes; EROFS holds at most 65,535",
    ),
    "a long name of an xattr": (
        with_xattrs("a", {b"user." + b"n" * 251: b"v"}),
        "'a': an xattr with a name of 256 bytes; Linux reads at most 255",
    ),
    "large xattrs": (
        with_xattrs("a", {b"user.%d" % n: b"v" * 65_000 for n in range(5)}),
        "'a': its xattrs take 325,052 bytes; EROFS holds at most 262,148",
    ),
    "a device number": (
        member("a", type=b"3", device=(4096, 0)),
        "the device 'a' has the number 4,096:0; Linux has at most 4,095:1,048,575",
    ),
}


@pytest.mark.parametrize(("word", "why"), LIMITS.values(), ids=LIMITS)
def test_what_it_cannot_hold_is_refused(tmp_path, word, why):
    assert refused(tmp_path, [word]) == (1, why)


def test_an_image_over_the_limit_is_refused(tmp_path):
    size = 1 << 55
    word = sparse_gnu(b"s", [(1 << 54, 512), (size, 0)], size, b"s" * 512)

    code, why = refused(tmp_path, [word], "--max-size", "1M")

    assert code == 4
    assert "makes an EROFS image of" in why
    assert why.endswith("if that is right, allow more with --max-size")


def test_the_plan_may_have_any_time(tmp_path):
    times = [-(1 << 50), -1, 0, 1 << 31, 1 << 50]
    tree = made(tmp_path, layers([member(f"{n}", mtime=n) for n in times])).tree()

    assert [tree[b"%d" % n].mtime for n in times] == times
    assert plan_for(tmp_path / "i.tar", tmp_path / "o.erofs").warnings == []
