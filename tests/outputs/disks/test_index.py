"""Indexes: EROFS images whose contents stay in the files of the layers."""

import gzip
import json
import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings

import flatten
from builders import config, digest, docker_archive, layer, layers, member, oci_files
from command import run
from disks import HARD, by_kernel, by_reader
from everything import EVERYTHING
from flatten.host.mounts import mount
from headers import sparse_gnu
from indexes import extracted, indexed, mounted_index, mounts_indexes
from kinds import KINDS, ROOTS
from listing import disk_listing, listing
from needs import needs_user, root_only, run_as_user
from random_images import DEVICES, Image, images, tar_member

TREES = {"hard": HARD, "all": EVERYTHING, "empty": []}
TARS = layers(["a", "d/", "d/x", "l=a"], ["b", "d/y"], ["-a", "d/x"])


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "i.tar"
    path.write_bytes(docker_archive(TARS))
    return path


def packed(path, tars):
    """Write an archive of compressed layers; return the path."""
    data = [gzip.compress(tar, mtime=0) for tar in tars]
    path.write_bytes(docker_archive(data, config_document=config(tars)))
    return path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# --- the tree


@pytest.mark.parametrize("tars", TREES.values(), ids=TREES)
def test_it_holds_what_the_image_holds(tmp_path, tars):
    image = tmp_path / "i.tar"
    image.write_bytes(docker_archive(tars))
    index, devices = indexed(image, tmp_path / "o.erofs")
    flatten.export(image, tmp_path / "whole.erofs")
    flatten.export(image, tmp_path / "o.tar")

    assert [path["path"] for path in index.listing()][1:] == [
        row["path"] for row in listing(tmp_path / "o.tar") if row["path"]
    ]
    assert by_reader(tmp_path / "o.erofs") == by_reader(tmp_path / "whole.erofs")
    assert devices == ((str(image),) if tars else ())


@pytest.mark.parametrize("kind", KINDS)
def test_images_of_every_kind(tmp_path, kind):
    reference = KINDS[kind](tmp_path, TARS)
    flatten.export(reference, tmp_path / "o.tar")

    index, devices = indexed(reference, tmp_path / "o.erofs", layers=tmp_path / "store")

    tree = {path: node.content for path, node in index.tree().items()}
    assert (tree[b"b"], tree[b"d/x"], tree[b"d/y"], tree[b"l"]) == (
        b"1", b"2", b"1", b"0",
    )  # fmt: skip
    if kind in ROOTS:
        assert {Path(path).parent.parent for path in devices} <= {
            tmp_path / "store", tmp_path / "containerd/io.containerd.content.v1.content/blobs",
        }  # fmt: skip
    else:
        assert not (tmp_path / "store").exists()


@settings(max_examples=max(settings().max_examples // 4, 20))
@given(images())
def test_random_images(image: Image):
    drawn = [
        layer(*(tar_member(entry) for entry in each if entry.device not in DEVICES[2:]))
        for each in image
    ]
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "i.tar")
        path.write_bytes(docker_archive(drawn))
        try:
            flatten.export(path, Path(scratch, "whole.erofs"))
        except flatten.FormatError:
            with pytest.raises(flatten.FormatError):
                indexed(path, Path(scratch, "o.erofs"))
            return
        index, _ = indexed(path, Path(scratch, "o.erofs"))
        whole, _ = indexed(path, Path(scratch, "w.erofs"), block_size=4096)

        rows = index.listing()
        assert rows == whole.listing()
        assert by_reader(Path(scratch, "o.erofs")) == by_reader(
            Path(scratch, "whole.erofs")
        )


@mounts_indexes
@pytest.mark.parametrize("tars", TREES.values(), ids=TREES)
def test_linux_reads_the_same(tmp_path, tars):
    image = tmp_path / "i.tar"
    image.write_bytes(docker_archive(tars))
    index, devices = indexed(image, tmp_path / "o.erofs")

    with mounted_index(tmp_path / "o.erofs", devices, tmp_path / "mounted") as top:
        assert by_kernel(top) == by_reader(tmp_path / "o.erofs")
        hashes = {row["path"]: row.get("sha256") for row in disk_listing(top)}
    assert hashes == {row["path"]: row.get("sha256") for row in index.listing()}


@root_only
@pytest.mark.parametrize("tars", TREES.values(), ids=TREES)
def test_fsck_finds_no_fault_and_extracts_the_same(tmp_path, tars):
    image = tmp_path / "i.tar"
    image.write_bytes(docker_archive(tars))
    index, devices = indexed(image, tmp_path / "o.erofs")

    rows = extracted(tmp_path / "o.erofs", devices, tmp_path / "out")

    if rows is None:
        pytest.skip("needs an fsck.erofs that reads blocks of 512 bytes")
    hashes = {row["path"]: row.get("sha256") for row in rows}
    assert hashes.keys() == {row["path"] for row in index.listing()}
    assert all(
        hashes[row["path"]] == row["sha256"]
        for row in index.listing()
        if row["type"] == "file"
    )


# --- what is where


def test_contents_stay_in_the_archive(tmp_path):
    content = os.urandom(3_000_000)
    tars = layers([member("large", content), member("empty"), member("a", b"a")])
    (tmp_path / "i.tar").write_bytes(docker_archive(tars))

    index, _ = indexed(tmp_path / "i.tar", tmp_path / "o.erofs")

    assert len(index.data) == 4 * 512  # three for the superblock, one for the rest
    assert index.tree()[b"large"].content == content
    with flatten.open_image(str(tmp_path / "i.tar")) as opened:
        assert index.tags == [opened.id.encode()]


def test_layers_of_a_layout_are_devices_by_digest(tmp_path):
    for name, data in oci_files(TARS).items():
        path = tmp_path / "layout" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    index, devices = indexed(tmp_path / "layout", tmp_path / "o.erofs")

    assert index.tags == [digest(tar).encode() for tar in TARS]
    assert devices == tuple(
        str(tmp_path / "layout/blobs/sha256" / digest(tar)) for tar in TARS
    )


def test_compressed_layers_are_kept_once_for_all_images(tmp_path):
    packed(tmp_path / "1.tar", TARS)
    packed(tmp_path / "2.tar", TARS[:2])
    store = tmp_path / "store"

    one, devices = indexed(tmp_path / "1.tar", tmp_path / "1.erofs", layers=store)
    other, again = indexed(tmp_path / "2.tar", tmp_path / "2.erofs", layers=store)

    assert devices == tuple(str(store / "sha256" / digest(tar)) for tar in TARS)
    assert again == devices[:2]
    assert names(store / "sha256") == sorted(map(digest, TARS))
    assert one.tree()[b"d/x"].content == b"2"
    assert other.tree()[b"d/x"].content == b"0"


def test_only_layers_that_have_contents_of_the_tree_are_devices(tmp_path):
    tars = layers(["gone"], ["-gone", "d/", "s->t"], ["a"])
    for name, data in oci_files(tars).items():
        path = tmp_path / "layout" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    index, _ = indexed(tmp_path / "layout", tmp_path / "o.erofs")

    assert index.tags == [digest(tars[2]).encode()]


def test_what_cannot_be_pointed_at_is_copied(tmp_path, image):
    tars = layers(
        ["a", sparse_gnu(b"s", [(8192, 512), (1 << 20, 0)], 1 << 20, b"s" * 512)]
    )
    image.write_bytes(docker_archive(tars))

    index, _ = indexed(image, tmp_path / "o.erofs")
    assert index.tree()[b"s"].content == bytes(8192) + b"s" * 512 + bytes(
        (1 << 20) - 8704
    )
    assert index.tree()[b"a"].content == b"0"


def test_host_files_are_copied(tmp_path, image):
    (tmp_path / "host").write_bytes(b"host" * 1024)

    done = run(image, "-o", tmp_path / "o.erofs", "--index", "--add",
               f"{tmp_path}/host:h")  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert b"host" * 1024 in (tmp_path / "o.erofs").read_bytes()


def test_contents_that_start_within_a_block_are_copied(tmp_path, image):
    index, _ = indexed(image, tmp_path / "o.erofs", block_size=4096)

    assert index.listing() == indexed(image, tmp_path / "p.erofs")[0].listing()
    assert b"1" in {node.content for node in index.tree().values() if node.layout == 2}


def test_a_content_whose_last_block_is_not_whole_is_copied(tmp_path):
    tar = layers([member("a", b"a" * 600)])[0]
    files = oci_files([tar[:1112]])  # no padding, no end
    for name, data in files.items():
        path = tmp_path / "layout" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    index, devices = indexed(tmp_path / "layout", tmp_path / "o.erofs")

    assert index.tree()[b"a"].content == b"a" * 600
    assert len(devices) == 1


# --- the same bytes


def test_the_bytes_are_the_same_every_time_and_everywhere(tmp_path, image):
    indexed(image, tmp_path / "1.erofs")
    (tmp_path / "other").mkdir()
    shutil.copy(image, tmp_path / "other/renamed.tar")
    indexed(tmp_path / "other/renamed.tar", tmp_path / "2.erofs")

    assert (tmp_path / "1.erofs").read_bytes() == (tmp_path / "2.erofs").read_bytes()


@needs_user
def test_an_ordinary_user_writes_the_same_bytes(tmp_path, theirs):
    packed(tmp_path / "i.tar", HARD)
    shutil.copy(tmp_path / "i.tar", theirs / "i.tar")
    indexed(tmp_path / "i.tar", tmp_path / "o.erofs", layers=tmp_path / "layers")

    done = run_as_user("i.tar", "-o", "o.erofs", "--index", "--layers", "l", cwd=theirs)

    assert done.returncode == 0, done.stderr
    assert (theirs / "o.erofs").read_bytes() == (tmp_path / "o.erofs").read_bytes()


# --- the command that mounts it


@mounts_indexes
def test_the_command_that_mounts_it_is_printed(tmp_path, image):
    done = run(image, "-o", "o.erofs", "--index", "--json", "-v", cwd=tmp_path)

    command = json.loads(done.stdout)["mount"]
    assert command == ["mount", "-t", "erofs", "-o", f"ro,device={image}",
                       str(tmp_path / "o.erofs")]  # fmt: skip
    assert f"flatten: mount it by: {shlex.join(command)} DIRECTORY\n" in done.stderr


@mounts_indexes
@pytest.mark.parametrize("temporary", ["disk", "tmpfs"])
def test_an_image_is_mounted_and_unmounted(tmp_path, temporary):
    image = packed(tmp_path / "i.tar", TARS)
    top, scratch = tmp_path / "a\\ b,c", tmp_path / "scratch"
    top.mkdir()
    scratch.mkdir()
    if temporary == "tmpfs":
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", scratch], check=True)
    try:
        done = run("mount", image, top, env=os.environ | {"TMPDIR": str(scratch)})

        assert (done.returncode, done.stderr) == (0, "")
        assert sorted(path.name for path in top.iterdir()) == ["b", "d", "l"]
        assert (top / "d/x").read_bytes() == b"2"
        assert run("verify", top, image).returncode == 0
        assert names(scratch) == [], "the kernel keeps what it has opened"
        with open(top / "b"):
            busy = run("mount", "-u", top)
        assert (busy.returncode, busy.stderr) == (
            1, f"flatten: '{shown(top)}': cannot unmount: Device or resource busy\n",
        )  # fmt: skip
        assert run("mount", "-u", top).returncode == 0
        assert list(top.iterdir()) == []
        again = run("mount", "-u", top)
        assert again.stderr.endswith(": no EROFS is mounted here\n")
    finally:
        if temporary == "tmpfs":
            subprocess.run(["umount", scratch], check=True)


def shown(path):
    return str(path).replace("\\", "\\\\")


@mounts_indexes
def test_a_mounted_image_leaves_the_layers_in_the_directory_that_is_named(tmp_path):
    image = packed(tmp_path / "i.tar", TARS)
    (tmp_path / "top").mkdir()

    assert run("mount", image, tmp_path / "top", "--layers", tmp_path / "store",
               ).returncode == 0  # fmt: skip
    try:
        assert names(tmp_path / "store/sha256") == sorted(map(digest, TARS))
        assert (tmp_path / "top/d/y").read_bytes() == b"1"
    finally:
        assert run("mount", "-u", tmp_path / "top").returncode == 0


@mounts_indexes
def test_a_source_that_changed_is_found_by_verify(tmp_path):
    content = os.urandom(100_000)
    image, top = tmp_path / "i.tar", tmp_path / "top"
    image.write_bytes(docker_archive(layers([member("a", content)])))
    shutil.copy(image, tmp_path / "copy.tar")
    top.mkdir()
    assert run("mount", image, top).returncode == 0
    try:
        data = image.read_bytes()
        with open(image, "r+b") as file:
            file.seek(data.index(content) + 50_000)
            file.write(b"changed")
        subprocess.run(["sysctl", "-qw", "vm.drop_caches=3"], check=False)

        done = run("verify", top, tmp_path / "copy.tar")
    finally:
        assert run("mount", "-u", top).returncode == 0

    assert done.returncode == 5
    assert "changed: a: xxh3" in done.stdout


# --- refusals


@mounts_indexes
def test_a_source_that_was_moved_cannot_be_mounted(tmp_path, image):
    _, devices = indexed(image, tmp_path / "o.erofs")
    image.rename(tmp_path / "moved.tar")
    top = tmp_path / "top"
    top.mkdir()

    with pytest.raises(flatten.FlattenError, match="top': cannot mount: No such file"):
        mount(tmp_path / "o.erofs", devices, top)


REFUSED = {
    "compressed layers": (
        ["packed.tar", "-o", "o.erofs", "--index"],
        "packed.tar, layer 1 of 3 (0000000000000000000000000000000000000000000000000000000000000000/layer.tar): not a plain tar in a file, which an index could point at; name a directory to keep one in with --layers DIR",
    ),
    "compression": (
        ["i.tar", "-o", "o.erofs", "--index", "--compress", "lz4hc"],
        "--index: it holds no contents that could be compressed",
    ),
    "another output": (
        ["i.tar", "-o", "o.ext4", "--index"],
        "--index has no effect on this output; it is for .erofs",
    ),
    "nothing to mount": (
        ["mount", "i.tar"], "give IMAGE and DIR to mount, or only -u DIR to unmount",
    ),
    "too much to unmount": (
        ["mount", "-u", "a", "b"], "give IMAGE and DIR to mount, or only -u DIR to unmount",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("args", "why"), REFUSED.values(), ids=REFUSED)
@pytest.mark.usefixtures("image")
def test_refused(tmp_path, args, why):
    packed(tmp_path / "packed.tar", TARS)

    done = run(*args, cwd=tmp_path)

    assert (done.returncode, done.stderr) == (2, f"flatten: {why}\n")
    assert names(tmp_path) == ["i.tar", "packed.tar"]


@root_only
@pytest.mark.parametrize("folder", ["i.tar", "missing"])
def test_the_directory_to_mount_on_is_checked_first(folder, tmp_path):
    done = run("mount", "no-image.tar", folder, cwd=tmp_path)

    why = f"flatten: '{folder}': not a directory to mount on\n"
    assert (done.returncode, done.stderr) == (2, why)


@needs_user
def test_mounting_needs_root(theirs):
    done = run_as_user("mount", "i.tar", "d", cwd=theirs)

    assert (done.returncode, done.stderr) == (1, "flatten: mounting needs root\n")


@root_only
@pytest.mark.parametrize("full", ["output", "layers"])
def test_a_full_disk_leaves_nothing(tmp_path, full):
    words = [member(f"{n:04}{'n' * 90}", os.urandom(900)) for n in range(3000)]
    packed(tmp_path / "i.tar", layers(words))
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", small], check=True
    )
    try:
        places = {"output": tmp_path, "layers": tmp_path, full: small}
        done = run(tmp_path / "i.tar", "-o", places["output"] / "o.erofs", "--index",
                   "--layers", places["layers"] / "store")  # fmt: skip

        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert "cannot write: No space left on device" in done.stderr
        assert [path for path in small.rglob("*") if path.is_file()] == []
        assert not (tmp_path / "o.erofs").exists()
    finally:
        subprocess.run(["umount", "--lazy", small], check=True)
