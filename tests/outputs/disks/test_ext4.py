"""ext4 file systems: what e2fsck, the kernel and our reader find in them."""

import os
import subprocess
import sys

import pytest

import flatten
from builders import docker_archive, layers, member
from command import run
from disks import HARD, TOOLS, found, mounted, only
from flatten.outputs.disks import ext4_fs
from headers import sparse_pax
from needs import PLACES, need, root_only

MIB = 1 << 20


@pytest.fixture
def make(tmp_path):
    """Return a function that makes an ext4 of an image, which e2fsck has checked."""
    need(*TOOLS["ext4"], "e2fsck")

    def made(words, **options):
        image, disk = tmp_path / "i.tar", tmp_path / "o.ext4"
        image.write_bytes(docker_archive(layers(words)))
        flatten.export(image, disk, **options)
        done = subprocess.run(
            ["e2fsck", "-fn", disk], capture_output=True, check=False,
            env={"PATH": PLACES},
        )  # fmt: skip
        assert done.returncode == 0, done
        return disk

    return made


def test_every_kind_of_member_is_consistent(tmp_path):
    need(*TOOLS["ext4"], "e2fsck")
    (tmp_path / "i.tar").write_bytes(docker_archive(HARD))
    flatten.export(tmp_path / "i.tar", tmp_path / "o.ext4")

    done = subprocess.run(
        ["e2fsck", "-fn", tmp_path / "o.ext4"], capture_output=True, check=False,
        env={"PATH": PLACES},
    )  # fmt: skip

    assert done.returncode == 0, done


def holes(count, step, *, start=0, length=512):
    """Return a sparse file's regions, and its content without holes."""
    regions = [(start + n * step, length) for n in range(count)]
    size = start + count * step
    content = bytearray(size)
    for number, (offset, _) in enumerate(regions):
        content[offset : offset + length] = bytes([number % 255 + 1]) * length
    data = b"".join(bytes(content[at : at + length]) for at, length in regions)
    return regions, size, data, bytes(content)


FILES = {
    "a hole in front": holes(1, 20_000, start=70_001),
    "parts that share a block": holes(40, 1536),
    "parts that end where a block does": holes(9, 8192, length=4096),
    "more extents than an inode has": holes(5, 8192),
    "more extents than a block has": holes(700, 8192),
}


@root_only
@pytest.mark.parametrize("file", FILES.values(), ids=FILES)
def test_sparse_files_have_their_holes_and_contents(make, tmp_path, file):
    regions, size, data, content = file
    disk = make([sparse_pax("1.0", b"sparse", regions, size, data)])

    with mounted(disk, tmp_path / "mounted") as top:
        got = top / "sparse"
        blocks = {at // 4096 for start, n in regions for at in (start, start + n - 1)}
        assert got.read_bytes() == content
        assert got.stat().st_blocks * 512 - len(blocks) * 4096 in (0, 4096, 3 * 4096)


@root_only
def test_contents_are_right_in_more_than_one_block_group(make, tmp_path):
    large = os.urandom(MIB) * 150  # a group has 128 MiB
    disk = make([member("a", b"a"), member("b", large), member("c", b"c")])

    with mounted(disk, tmp_path / "mounted") as top:
        assert [(top / n).read_bytes() for n in "abc"] == [b"a", large, b"c"]


def test_a_directory_of_many_names_has_as_many_blocks_as_it_needs(make):
    names = [member(f"d/{n:05}{'n' * (n % 90)}") for n in range(20_000)]
    disk = make([*names, *(f"e/{n}/" for n in range(3_000))])

    nodes = found(disk)
    assert len(nodes) == 23_003
    assert nodes[b"e"].links == 3_002


def test_a_directory_of_more_than_65_000_others_counts_none(make):
    disk = make([f"e/{n}/" for n in range(65_000)])

    assert found(disk)[b"e"].links == 1


def test_a_lost_and_found_of_the_image_is_the_one_of_the_file_system(make):
    disk = make([member("lost+found/", type=b"5", mode=0o1711, uid=3), "lost+found/x"])

    with_mode = subprocess.run(
        ["debugfs", "-R", "stat <11>", disk], capture_output=True, text=True,
        check=True, env={"PATH": PLACES},
    ).stdout  # fmt: skip
    assert "Mode:  01711" in with_mode
    assert b"lost+found/x" in found(disk)


NAMES = {
    "a line feed": b"b\nrm a",
    "a carriage return": b"b\rrm a",
    "quotes": b'b" "a"',
    "not UTF-8": b"caf\xe9",
    "the longest": b"n" * 255,
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_names_of_hard_links_can_be_anything(make, name):
    disk = make(
        [member("a", type=b"2", target="t"), member(name, type=b"1", target="a")]
    )

    assert found(disk)[name].number == found(disk)[b"a"].number


def test_it_is_made_without_fakeroot_and_debugfs(tmp_path):
    need(*TOOLS["ext4"])
    (tmp_path / "i.tar").write_bytes(docker_archive(HARD))

    env = os.environ | only(tmp_path, "mke2fs")
    got = run("i.tar", "-q", "-o", "o.ext4", cwd=tmp_path, env=env)

    assert (got.returncode, got.stderr) == (0, "")


def test_other_features_of_mke2fs_are_refused(tmp_path):
    need(*TOOLS["ext4"])
    (tmp_path / "i.tar").write_bytes(docker_archive(layers(["a"])))
    env = os.environ | only(tmp_path)
    tool = tmp_path / "bin" / "mke2fs"
    tool.write_text(
        f"#!{sys.executable}\nimport os, sys\n"
        "argv = [text.replace('flex_bg,', '') for text in sys.argv]\n"
        "os.execv('/sbin/mke2fs', argv)\n"
    )
    tool.chmod(0o755)

    got = run("i.tar", "-o", "o.ext4", cwd=tmp_path, env=env)

    why = "flatten: mke2fs made a file system with other features\n"
    assert (got.returncode, got.stderr) == (1, why)
    assert {p.name for p in tmp_path.iterdir()} == {"i.tar", "bin"}


@pytest.mark.parametrize("count", [0, 4, 5, 340, 1_360, 1_361, 500_000])
def test_an_extent_tree_takes_the_blocks_that_are_counted(count):
    extents = [(2 * n, 9 * n, 1) for n in range(count)]
    blocks = list(range(ext4_fs.tree_blocks(count)))

    head, nodes = ext4_fs.extent_tree(extents, blocks, 0)

    assert len(head) == 60
    assert [number for number, _ in nodes] == blocks
    assert {len(node) for _, node in nodes} <= {4096}
