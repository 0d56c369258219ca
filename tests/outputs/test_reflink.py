"""Contents shared with the image's file: placed for it, and on file systems that can."""

import filecmp
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import flatten
from builders import docker_archive, layers, member
from everything import promised
from flatten.outputs.job import Shape
from flatten.plan import make as plans
from flatten.plan.pieces import pieces
from flatten.tar.layer import read_layer
from flatten.tar.members import Members
from flatten.tree.tree import Tree
from listing import listing, open_tar

SIZES = [65_535, 65_536, 70_001, 131_072, 300_000, 1_048_577]
NAMES = [
    "s",
    "m" * 100,
    "l" * 101,
    "/".join("x" * 9) * 30,
    "/".join(["y" * 250] * 12),
    "z",
]
TARS = layers(
    [member(name, os.urandom(size)) for name, size in zip(NAMES, SIZES, strict=True)],
    [member(f"d/{n}", os.urandom(size), mode=0o600) for n, size in enumerate(SIZES)],
    [member("small", b"small"), "d/link=d/3", member("caps", os.urandom(90_000), records={
        b"SCHILY.xattr.user.x": b"y"})],
)  # fmt: skip


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image.tar"
    path.write_bytes(docker_archive(TARS))
    return path


def test_large_contents_are_at_the_offset_of_their_source(image):
    """In both files, modulo the block size; and the plan still knows its size."""
    with flatten.open_image(str(image)) as opened:
        members = Members()
        tree = Tree(members)
        streams = [layer.open() for layer in opened.layers]
        for position, stream in enumerate(streams):
            tree.apply(read_layer(stream, "layer", position, members))
        origins = [stream.origin for stream in streams]
        plan = plans.make_plan(tree, placement=plans.Placement(4096, origins))
        at = shared = 0
        for piece in pieces(plan):
            if isinstance(piece, bytes):
                at += len(piece)
                continue
            if piece.length >= plans.SHARED and not piece.patches:
                source = origins[piece.layer](piece.offset)
                shared += (source - at) % 4096 == 0
            at += piece.length

    assert at == plan.size
    assert shared == 9  # not the longest name's content, nor what has xattrs


def test_names_stay_short_enough_for_busybox(image):
    with flatten.open_image(str(image)) as opened:
        plan = flatten.plan_image(opened, shape=Shape(share=4096))
        heads = b"".join(p for p in pieces(plan) if isinstance(p, bytes))

    sizes = [
        int(size, 8) for size in re.findall(rb"@LongLink\0+.{24}([0-7]{11})", heads)
    ]
    assert len(sizes) >= 5
    assert max(sizes) <= 4095


def test_without_reflink_contents_are_copied_or_the_reason_is_given(image, tmp_path):
    """No tmpfs can share extents."""
    memory = Path("/dev/shm")
    if not memory.is_dir():
        pytest.skip("needs /dev/shm")
    out = memory / f"flatten-test-{os.getpid()}.tar"
    try:
        flatten.export(image, tmp_path / "never.tar")
        flatten.export(image, out, reflink="auto")
        assert (tmp_path / "never.tar").read_bytes() == out.read_bytes()
        with pytest.raises(flatten.FlattenError, match=r"cannot share extents: .*XFS"):
            flatten.export(image, out, reflink="always")
    finally:
        out.unlink()


WHY_NOT = {
    "compressed output": (
        {"compress": "zstd"},
        "output is not an uncompressed GNU tar",
    ),
    "POSIX headers": ({"format": "pax"}, "output is not an uncompressed GNU tar"),
}


@pytest.mark.parametrize(("options", "why"), WHY_NOT.values(), ids=WHY_NOT)
def test_outputs_that_can_never_share_give_the_reason(image, tmp_path, options, why):
    with pytest.raises(flatten.FlattenError, match=why):
        flatten.export(image, tmp_path / "o.tar", reflink="always", **options)
    flatten.export(image, tmp_path / "o.tar", reflink="auto", **options)


def test_an_unknown_mode_is_refused(image, tmp_path):
    with pytest.raises(
        flatten.UsageError,
        match="'maybe' is not a valid reflink; choose from auto, always, never",
    ):
        flatten.export(image, tmp_path / "o.tar", reflink="maybe")


@pytest.fixture(params=["xfs", "btrfs"])
def mounted(request, tmp_path):
    """Mount a new file system of a kind that shares extents, on a loop device."""
    kind = request.param
    if os.geteuid() != 0 or shutil.which(f"mkfs.{kind}") is None:
        pytest.skip(f"needs root and mkfs.{kind}")
    disk, folder = tmp_path / "disk", tmp_path / "mounted"
    with open(disk, "wb") as opened:
        opened.truncate(400 << 20)
    subprocess.run([f"mkfs.{kind}", "-q", disk], check=True, capture_output=True)
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-o", "loop", disk, folder], check=False, capture_output=True
    )
    if done.returncode:
        pytest.skip(f"cannot mount {kind} here: {done.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def used(folder):
    os.sync()
    status = os.statvfs(folder)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


def test_contents_take_no_space_twice(mounted):
    size = 40 << 20
    words = [member(f"{n}", os.urandom(size)) for n in range(3)]
    (mounted / "image.tar").write_bytes(docker_archive(layers(words[:2], words[2:])))
    before = used(mounted)

    flatten.export(mounted / "image.tar", mounted / "out.tar", reflink="always")

    assert used(mounted) - before < 8 << 20
    shown = subprocess.run(
        ["filefrag", "-v", mounted / "out.tar"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "shared" in shown
    with open_tar(mounted / "out.tar") as opened:
        for info, word in zip(opened, words, strict=True):
            assert opened.extractfile(info).read() == word[512 : 512 + size]


def test_every_reader_reads_an_aligned_tar(mounted, tmp_path):
    (mounted / "image.tar").write_bytes(docker_archive(TARS))
    flatten.export(mounted / "image.tar", mounted / "out.tar", reflink="auto")
    flatten.export(mounted / "image.tar", mounted / "plain.tar")

    assert promised(mounted / "out.tar") == promised(mounted / "plain.tar")
    assert (mounted / "out.tar").stat().st_size > (mounted / "plain.tar").stat().st_size
    names = [row["path"] for row in listing(mounted / "out.tar")]
    for command in (["tar"], ["bsdtar"], ["busybox", "tar"]):
        if shutil.which(command[0]):
            folder = tmp_path / command[0]
            folder.mkdir()
            unpack = [*command, "-xf", mounted / "out.tar"]
            subprocess.run(unpack, cwd=folder, check=True, capture_output=True)
            for name, size in zip(NAMES, SIZES, strict=True):
                assert (folder / name).stat().st_size == size
    assert len(names) == len(set(names))


def test_sections_written_by_several_processes_share_extents_too(mounted, monkeypatch):
    """Cut at every member that can be: what each shares is at its own offset."""
    words = [member(f"{n}", os.urandom(300_000 + n)) for n in range(60)]
    image = docker_archive(layers(words[::2], words[1::2]))
    (mounted / "image.tar").write_bytes(image)
    flatten.export(mounted / "image.tar", mounted / "one.tar", reflink="always")
    before = used(mounted)

    monkeypatch.setattr("flatten.outputs.tar.MANY", 0)
    monkeypatch.setattr("flatten.plan.make.CHECKPOINT", 1)
    monkeypatch.setattr("flatten.plan.pieces.CHECKPOINT", 1)
    monkeypatch.setattr("flatten.host.processes.processes", lambda: 4)
    flatten.export(mounted / "image.tar", mounted / "out.tar", reflink="always")

    assert used(mounted) - before < 4 << 20
    assert filecmp.cmp(mounted / "one.tar", mounted / "out.tar", shallow=False)
