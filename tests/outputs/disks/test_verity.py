"""dm-verity hash trees, which veritysetup checks and writes likewise."""

import json
import os
import subprocess
import uuid

import pytest

import flatten
from builders import docker_archive, layers, member
from command import run
from disks import HARD, TOOLS
from flatten.outputs.disks.verity import BLOCK, write_tree
from needs import PLACES, need, root_only

SIZES = [1, 4096, 4097, 128 * 4096, 129 * 4096, 128 * 128 * 4096 + 1]


def setup(*args):
    return subprocess.run(
        ["veritysetup", *map(str, args)], check=True, capture_output=True, text=True,
        env=os.environ | {"PATH": PLACES},
    ).stdout  # fmt: skip


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "i.tar"
    path.write_bytes(docker_archive(layers([member("a", os.urandom(700_000))])))
    return path


@pytest.mark.parametrize("size", SIZES)
def test_veritysetup_writes_the_same_bytes(tmp_path, size):
    need("veritysetup")
    data, tree, again, root = (tmp_path / name for name in ("d", "t", "again", "root"))
    data.write_bytes(os.urandom(min(size, 200_000)))
    os.truncate(data, size)
    with open(data, "r+b") as file, open(tree, "w+b") as out:
        root_hash = write_tree(file.fileno(), out.fileno())
    head = tree.read_bytes()[:512]

    setup("format", data, again, f"--salt={head[88:120].hex()}",
          f"--uuid={uuid.UUID(bytes=head[16:32])}", f"--root-hash-file={root}")  # fmt: skip

    assert again.read_bytes() == tree.read_bytes()
    assert root.read_text() == root_hash
    assert data.stat().st_size % BLOCK == 0


@root_only
@pytest.mark.parametrize("kind", ["erofs", "lz4hc", "squashfs", "ext4", "qcow2"])
def test_every_file_system_is_verified(tmp_path, kind):
    suffix = "erofs" if kind == "lz4hc" else kind
    need("veritysetup", *TOOLS[suffix], *(["mkfs.erofs"] if kind == "lz4hc" else []))
    (tmp_path / "i.tar").write_bytes(docker_archive(HARD))
    out, tree = tmp_path / f"o.{suffix}", tmp_path / "o.verity"
    how = {"compress": kind} if kind == "lz4hc" else {}

    done = flatten.export(tmp_path / "i.tar", out, verity=tree, **how)

    if kind == "qcow2":
        subprocess.run(
            ["qemu-img", "convert", "-O", "raw", out, tmp_path / "raw"], check=True
        )
        out = tmp_path / "raw"
    root = (tmp_path / "o.verity.roothash").read_text()
    assert root == done.root_hash
    setup("verify", out, tree, root)
    with open(out, "r+b") as file:
        file.seek(5000)
        file.write(b"changed")
    with pytest.raises(subprocess.CalledProcessError):
        setup("verify", out, tree, root)


def test_the_tree_is_the_same_every_time(image, tmp_path):
    trees = []
    for name in "12":
        flatten.export(image, tmp_path / f"{name}.erofs", verity=tmp_path / name)
        trees.append((tmp_path / name).read_bytes())

    assert trees[0] == trees[1]


def test_blocks_that_are_smaller_are_padded_to_whole_ones(image, tmp_path):
    out = tmp_path / "o.erofs"

    flatten.export(image, out, block_size=512, verity=tmp_path / "v")

    assert out.stat().st_size % BLOCK == 0


@pytest.mark.parametrize("more", [[], ["--json"], ["--config-out", "-"]])
def test_where_the_root_hash_is_printed(image, tmp_path, more):
    done = run(
        image, "-o", tmp_path / "o.erofs", "--verity", tmp_path / "v", "-v", *more
    )

    root = (tmp_path / "v.roothash").read_text()
    if more == ["--json"]:
        assert json.loads(done.stdout)["root_hash"] == root
    elif more:
        assert isinstance(json.loads(done.stdout), dict)
    else:
        assert done.stdout == f"{root}\n"


REFUSED = {
    "an index": (
        ["-o", "o.erofs", "--index", "--verity", "v"],
        "--verity would not protect what --index points at",
    ),
    "a tar": (
        ["-o", "o.tar", "--verity", "v"],
        "--verity has no effect on this output; it is for .squashfs, .sqfs, .sqsh, .erofs, .ext4, .qcow2",
    ),
    "the output": (
        ["-o", "o.erofs", "--verity", "o.erofs"], "'o.erofs' is named for two outputs",
    ),
    "the file of the root hash": (
        ["-o", "o.erofs", "--verity", "v", "--config-out", "v.roothash"],
        "'v.roothash' is named for two outputs",
    ),
    "the image": (
        ["-o", "o.erofs", "--verity", "i.tar"], "'i.tar' is the image; write elsewhere",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("args", "why"), REFUSED.values(), ids=REFUSED)
def test_refused(image, tmp_path, args, why):
    done = run(image.name, *args, cwd=tmp_path)

    assert (done.returncode, done.stderr) == (2, f"flatten: {why}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["i.tar"]


@root_only
def test_a_full_disk_leaves_nothing(image, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    image.write_bytes(docker_archive(layers([member("a", os.urandom(3 << 20))])))
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", small], check=True
    )
    try:
        done = run(image, "-o", tmp_path / "o.erofs", "--verity", small / "v")

        assert (done.returncode, done.stderr) == (
            1, f"flatten: '{small}/v': cannot write: No space left on device\n",
        )  # fmt: skip
        assert list(small.iterdir()) == []
        assert sorted(path.name for path in tmp_path.iterdir()) == ["i.tar", "small"]
    finally:
        subprocess.run(["umount", "--lazy", small], check=True)


def test_an_image_that_does_not_verify_leaves_nothing(image, tmp_path):
    data = bytearray(image.read_bytes())
    data[2000] ^= 1
    image.write_bytes(data)

    done = run(image, "-o", tmp_path / "o.erofs", "--verity", tmp_path / "v")

    assert done.returncode == 5
    assert [path.name for path in tmp_path.iterdir()] == ["i.tar"]
