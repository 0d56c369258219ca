"""Reading file systems back: the readers, and what the check finds.

The readers are compared with the kernel. Every difference that the check looks for is
made by comparing a file system with the plan of another image.
"""

import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import flatten
from builders import docker_archive, layers, member
from command import run
from disks import (
    HARD,
    READERS,
    TOOLS,
    by_kernel,
    by_reader,
    found,
    mounted,
    only,
    plan_for,
)
from everything import EVERYTHING
from flatten.outputs import check
from needs import PLACES, need, needs_user, root_only, run_as_user

STAGED = {
    "erofs": (["mkfs.erofs"], ["--compress", "lz4"]),
}
"""Outputs that a program makes from a directory, and the options with which it does."""

IMAGES = {"hard": HARD, "everything": EVERYTHING, "empty": []}


def write(path, tars):
    path.write_bytes(docker_archive(tars))
    return path


@root_only
@pytest.mark.parametrize("tars", IMAGES.values(), ids=IMAGES)
@pytest.mark.parametrize("kind", READERS)
def test_the_readers_agree_with_the_kernel(tmp_path, kind, tars):
    need(*TOOLS[kind])
    image, disk = write(tmp_path / "i.tar", tars), tmp_path / f"o.{kind}"

    flatten.export(image, disk, check=False)

    with mounted(disk, tmp_path / "mounted") as top:
        want = by_kernel(top)
    assert by_reader(disk) == want


@root_only
@pytest.mark.parametrize("compress", ["gzip", "xz", "lz4", "zstd", "zstd:19"])
def test_the_squashfs_reader_reads_every_compression(tmp_path, compress):
    need(*TOOLS["squashfs"])
    image, disk = write(tmp_path / "i.tar", HARD), tmp_path / "o.squashfs"

    flatten.export(image, disk, compress=compress)

    with mounted(disk, tmp_path / "mounted") as top:
        assert by_reader(disk) == by_kernel(top)


@root_only
@pytest.mark.parametrize("tars", IMAGES.values(), ids=IMAGES)
@pytest.mark.parametrize("kind", READERS)
def test_file_systems_hold_what_the_plan_says(tmp_path, kind, tars):
    """The export succeeds, so its check has found no difference."""
    need(*TOOLS[kind])
    image, disk = write(tmp_path / "i.tar", tars), tmp_path / f"o.{kind}"

    flatten.export(image, disk)

    assert found(disk).keys() == {
        path.rstrip(b"/") for path in plan_for(image, disk).paths
    }


@needs_user
@pytest.mark.parametrize("kind", READERS)
def test_an_ordinary_user_makes_the_same_hard_tree(tmp_path, theirs, kind):
    need(*TOOLS[kind])
    image, disk = write(tmp_path / "i.tar", HARD), tmp_path / f"o.{kind}"
    flatten.export(image, disk)
    shutil.copy(image, theirs / "i.tar")

    done = run_as_user("i.tar", "-o", f"o.{kind}", "--quiet", cwd=theirs)

    assert (done.returncode, done.stderr) == (0, "")
    assert by_reader(theirs / f"o.{kind}") == by_reader(disk)


@needs_user
@pytest.mark.parametrize("kind", STAGED)
def test_a_missing_fakeroot_is_named_before_the_image_is_read(theirs, kind):
    tools, options = STAGED[kind]
    need(*tools)
    (theirs / "bin").mkdir()
    for tool in tools:
        (theirs / "bin" / tool).symlink_to(shutil.which(tool, path=PLACES))

    paths = [str(Path(flatten.__file__).parents[1]), *filter(None, sys.path)]
    env = {"PYTHONPATH": ":".join(paths), "PATH": str(theirs / "bin")}
    command = ["/usr/bin/python3", "-m", "flatten", "missing.tar", "-o", f"o.{kind}"]
    done = subprocess.run(
        [*command, *options], cwd=theirs, user=65_534, group=65_534, extra_groups=[], env=env,
        check=False, capture_output=True, text=True,
    )  # fmt: skip

    assert done.returncode == 1
    assert "needs fakeroot (fakeroot)" in done.stderr


@needs_user
@pytest.mark.parametrize("kind", STAGED)
def test_an_xattr_that_fakeroot_cannot_set_is_a_warning(theirs, kind):
    tools, options = STAGED[kind]
    need(*tools, "fakeroot")
    record = {b"SCHILY.xattr.user.large": b"v" * 3000}
    write(theirs / "i.tar", layers([member("a", b"a", records=record)]))

    done = run_as_user("i.tar", "-o", f"o.{kind}", *options, cwd=theirs)

    held = found(theirs / f"o.{kind}")[b"a"].xattrs  # fakeroot 1.31 cannot, 1.37 can
    why = "could not set 1 xattrs in the directory that it was made from"
    assert done.returncode == 0
    assert done.stderr == ("" if held else f"flatten: warning: o.{kind}: {why}\n")
    assert held in ({}, {b"user.large": b"v" * 3000})


@root_only
def test_xattrs_that_do_not_fit_in_ext4_are_left_out_with_a_warning(tmp_path):
    need(*TOOLS["ext4"])
    key = b"SCHILY.xattr.user."
    sizes = {b"most": {key + b"a": 4000}, b"over": {key + b"a": 4060},
             b"two": {key + b"a": 2000, key + b"b": 3000, key + b"c": 1000}}  # fmt: skip
    words = [
        member(name, records={k: b"v" * n for k, n in records.items()})
        for name, records in sizes.items()
    ]
    image = write(tmp_path / "i.tar", layers(words))

    done = flatten.export(image, tmp_path / "o.ext4")

    assert done.warnings == (
        "2 xattrs that are too large are left out: the output cannot hold them",
    )
    nodes = found(tmp_path / "o.ext4")
    held = {name: sorted(nodes[name].xattrs) for name in sizes}
    assert held == {b"most": [b"user.a"], b"over": [], b"two": [b"user.a", b"user.c"]}


@root_only
@pytest.mark.parametrize("kind", READERS)
def test_hard_trees_give_the_same_bytes_at_any_time(tmp_path, kind):
    need(*TOOLS[kind])
    image = write(tmp_path / "i.tar", HARD)
    flatten.export(image, tmp_path / f"a.{kind}")
    started = int(time.time())
    while int(time.time()) == started:
        time.sleep(0.05)

    flatten.export(image, tmp_path / f"b.{kind}")

    one, other = tmp_path / f"a.{kind}", tmp_path / f"b.{kind}"
    assert one.read_bytes() == other.read_bytes()


SAME = member("a", b"abc")
OTHERS = {
    "names": (SAME, member("b", b"abc")),
    "types": (SAME, member("a", type=b"2", target="t")),
    "owners": (SAME, member("a", b"abc", uid=7)),
    "modes": (SAME, member("a", b"abc", mode=0o600)),
    "times": (SAME, member("a", b"abc", mtime=7)),
    "sizes": (SAME, member("a", b"abcd")),
    "symlink targets": (
        member("a", type=b"2", target="t"),
        member("a", type=b"2", target="u"),
    ),
    "devices": (
        member("a", type=b"3", device=(1, 3)),
        member("a", type=b"3", device=(1, 4)),
    ),
    "xattrs": (SAME, member("a", b"abc", records={b"SCHILY.xattr.user.k": b"v"})),
    "hard links": (
        SAME + member("b", b"abc"),
        SAME + member("b", type=b"1", target="a"),
    ),
}


@root_only
@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("what", OTHERS)
@pytest.mark.parametrize("swapped", [False, True])
def test_every_difference_is_found(tmp_path, kind, what, swapped):
    need(*TOOLS[kind])
    one, other = OTHERS[what][::-1] if swapped else OTHERS[what]
    disk = tmp_path / f"o.{kind}"
    flatten.export(write(tmp_path / "i.tar", layers([one])), disk)
    plan = plan_for(write(tmp_path / "i.tar", layers([other])), disk)

    with check.reading(disk, disk, READERS[kind]) as files:
        kinds = {row[0] for row in check.differences(plan, files)}

    if what == "hard links":
        assert kinds == {"link counts"} if swapped else {"hard links", "link counts"}
    elif what == "types":
        assert what in kinds
    else:
        assert kinds == {what}


WRONG = {
    "squashfs": (TOOLS["squashfs"], [], "tar2sqfs", 'exec {} --no-xattr "$@"',
                 "xattrs (1)"),
    "erofs": (*STAGED["erofs"], "mkfs.erofs", 'exec {} -x-1 "$@"', "xattrs (1)"),
}  # fmt: skip


@root_only
@pytest.mark.parametrize("kind", WRONG)
def test_a_program_that_makes_another_tree_is_an_error(tmp_path, kind):
    programs, options, name, script, why = WRONG[kind]
    need(*programs)
    record = {b"SCHILY.xattr.user.k": b"v"}
    words = [member("./", type=b"5", mode=0o700), member("a", b"a", records=record),
             member("b", mtime=1 << 31)]  # fmt: skip
    write(tmp_path / "i.tar", layers(words))
    env = only(tmp_path, "cat")
    for tool in programs:
        (tmp_path / "bin" / tool).unlink(missing_ok=True)
        real = shutil.which(tool, path=f"{os.environ['PATH']}:/usr/sbin")
        text = script.format(real) if tool == name else f'exec {real} "$@"'
        (tmp_path / "bin" / tool).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "bin" / tool).chmod(0o755)

    got = run(tmp_path / "i.tar", "-o", tmp_path / f"o.{kind}", *options, env=env)
    unchecked = run(
        tmp_path / "i.tar", "-o", tmp_path / f"p.{kind}", "--no-check", *options,
        env=env,
    )  # fmt: skip

    assert got.returncode == 1
    assert got.stderr.count("\n") == 1
    assert f"differs from the image in {why}, first at '" in got.stderr
    assert (unchecked.returncode, unchecked.stderr) == (0, "")
    assert {p.name for p in tmp_path.iterdir()} == {"i.tar", "bin", f"p.{kind}"}


@root_only
@pytest.mark.parametrize("kind", READERS)
def test_damaged_file_systems_end_in_one_error(tmp_path, kind):
    need(*TOOLS[kind])
    disk = tmp_path / f"o.{kind}"
    image = write(tmp_path / "i.tar", EVERYTHING)
    flatten.export(image, disk)
    plan, whole, rng = plan_for(image, disk), disk.read_bytes(), random.Random(7)
    failed = 0
    places = range(len(whole)) if kind != "ext4" else range(1024, 1 << 20)
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(rng.choice((1, 4, 64))):
            data[rng.choice(places) % len(data)] = rng.randrange(256)
        if rng.random() < 0.2:
            del data[rng.randrange(1, len(data)) :]
        disk.write_bytes(data)
        try:
            check.check(plan, disk, disk, READERS[kind], lambda *_: False)
        except flatten.FlattenError as error:
            failed += 1
            assert "\n" not in str(error)  # noqa: PT017 - some changes do no harm
    assert failed
