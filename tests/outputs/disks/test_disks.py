"""File systems, disks and cpio archives.

They are mounted and compared with a directory output of the same image.
"""

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

import flatten
from builders import docker_archive, layers, member
from command import FLATTEN, run
from disks import TOOLS, mounted, only
from everything import EVERYTHING, on_disk
from needs import PLACES, need, needs_user, root_only, run_as_user


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "i.tar"
    path.write_bytes(docker_archive(EVERYTHING))
    return path


def tree(top, *, least=0):
    """Describe a tree as ``on_disk`` does, without times before 1970 and lost+found."""
    rows = on_disk(top)
    rows.pop("lost+found", None)
    for row in rows.values():
        row["mtime"] = max(row["mtime"], least)
    return rows


@root_only
@pytest.mark.parametrize("kind", ["squashfs", "erofs", "ext4"])
def test_a_mounted_file_system_equals_the_directory(image, tmp_path, kind):
    need(*TOOLS[kind])
    flatten.export(image, f"{tmp_path}/dir/")
    flatten.export(image, tmp_path / f"o.{kind}")

    with mounted(tmp_path / f"o.{kind}", tmp_path / "mounted") as top:
        least = -(1 << 31) if kind == "ext4" else 0
        assert tree(top, least=least) == tree(tmp_path / "dir", least=least)
    assert {p.name for p in tmp_path.iterdir()} == {
        "i.tar",
        "dir",
        f"o.{kind}",
        "mounted",
    }


@root_only
def test_a_qcow2_disk_holds_the_same_ext4(image, tmp_path):
    need(*TOOLS["qcow2"])
    flatten.export(image, tmp_path / "o.ext4")
    flatten.export(image, tmp_path / "o.qcow2")
    subprocess.run(
        ["qemu-img", "convert", "-O", "raw", "o.qcow2", "o.raw"],
        cwd=tmp_path,
        check=True,
    )

    assert (tmp_path / "o.raw").read_bytes() == (tmp_path / "o.ext4").read_bytes()


@pytest.mark.parametrize("mode", [0o1777, 0o700, 0o755])
def test_ext4_keeps_the_mode_of_the_root(tmp_path, mode):
    need("mke2fs", "debugfs")
    root = member(".", type=b"5", mode=mode)
    (tmp_path / "i.tar").write_bytes(docker_archive(layers([root, "a"])))

    flatten.export(tmp_path / "i.tar", tmp_path / "o.ext4")

    shown = subprocess.run(
        ["/usr/sbin/debugfs", "-R", "stat <2>", tmp_path / "o.ext4"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert re.search(r"Mode: +([0-7]+)", shown)[1] == f"0{mode:o}"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a directory with two outputs of each kind, made in different seconds."""
    folder = tmp_path_factory.mktemp("twice")
    (folder / "i.tar").write_bytes(docker_archive(EVERYTHING))
    places = {"path": PLACES}
    kinds = [
        kind
        for kind, tools in TOOLS.items()
        if all(shutil.which(tool, **places) for tool in tools)
    ]
    for name in "ab":
        started = int(time.time())
        for kind in kinds:
            flatten.export(folder / "i.tar", folder / f"{name}.{kind}")
        while int(time.time()) == started:
            time.sleep(0.05)
    return folder


@pytest.mark.parametrize("kind", TOOLS)
def test_outputs_do_not_depend_on_the_time(made, kind):
    need(*TOOLS[kind])
    assert (made / f"a.{kind}").read_bytes() == (made / f"b.{kind}").read_bytes()


CHECKS = {
    "squashfs": ["unsquashfs", "-s"],
    "erofs": ["fsck.erofs"],
    "ext4": ["e2fsck", "-fn"],
    "qcow2": ["qemu-img", "check"],
    "cpio": ["sh", "-c", 'cpio -t < "$0" | grep -x bin/su'],
    "cpio.gz": ["gzip", "-t"],
}


@pytest.mark.parametrize("kind", CHECKS)
def test_the_checkers_of_each_format_find_no_error(made, kind):
    need(*TOOLS[kind], CHECKS[kind][0])
    done = subprocess.run(
        [*CHECKS[kind], f"a.{kind}"], cwd=made, capture_output=True, check=False,
        env=os.environ | {"PATH": PLACES},
    )  # fmt: skip
    assert done.returncode == 0, done


@needs_user
@pytest.mark.parametrize("kind", ["squashfs", "erofs", "ext4"])
def test_an_ordinary_user_makes_the_same(image, tmp_path, theirs, kind):
    need(*TOOLS[kind])
    flatten.export(image, f"{tmp_path}/dir/")
    shutil.copy(image, theirs / "i.tar")

    done = run_as_user("i.tar", "-o", f"o.{kind}", cwd=theirs)

    assert done.returncode == 0, done.stderr
    assert {p.name for p in theirs.iterdir()} == {"i.tar", f"o.{kind}"}
    with mounted(theirs / f"o.{kind}", tmp_path / "mounted") as top:
        assert tree(top) == tree(tmp_path / "dir")


@root_only
def test_sqfstar_makes_the_same_where_tar2sqfs_is_missing(image, tmp_path, monkeypatch):
    need("sqfstar")
    flatten.export(image, f"{tmp_path}/dir/")
    monkeypatch.setenv("PATH", only(tmp_path, "sqfstar")["PATH"])
    done = flatten.export(image, tmp_path / "o.squashfs")
    monkeypatch.undo()

    want = tree(tmp_path / "dir")
    with mounted(tmp_path / "o.squashfs", tmp_path / "mounted") as top:
        got = tree(top)
    if got[""] != want[""]:
        assert done.warnings[-1].endswith(
            "sqfstar did not keep the root directory's times; tar2sqfs does"
        )
        got[""]["mtime"] = want[""]["mtime"]  # 4.5 ignores its -root-time
    assert got == want


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two processors")
@pytest.mark.parametrize("tool", ["tar2sqfs", "sqfstar"])
def test_a_squashfs_does_not_depend_on_the_processors(image, tmp_path, tool):
    need(tool)
    env = {**os.environ, **only(tmp_path, tool)}
    (first, *_) = allowed = os.sched_getaffinity(0)

    for name, processors in (("one", {first}), ("all", allowed)):
        subprocess.run(
            [*FLATTEN, image, "-o", f"{name}.squashfs"], cwd=tmp_path, check=True,
            env=env, capture_output=True,
            preexec_fn=lambda which=processors: os.sched_setaffinity(0, which),
        )  # fmt: skip

    one, all_ = ((tmp_path / f"{name}.squashfs") for name in ("one", "all"))
    assert one.read_bytes() == all_.read_bytes()


MISSING = {
    "squashfs": "needs tar2sqfs (squashfs-tools-ng) or sqfstar (squashfs-tools); on "
    "Debian: apt-get install squashfs-tools-ng",
    "erofs": "needs mkfs.erofs (erofs-utils); on Debian: apt-get install erofs-utils",
    "qcow2": "needs qemu-img (qemu-utils); on Debian: apt-get install qemu-utils",
}
PACKED = {"erofs": ["--compress", "lz4hc"]}
"""The options with which a program is needed."""


@pytest.mark.parametrize(("kind", "why"), MISSING.items(), ids=MISSING)
def test_a_missing_program_is_named_with_its_package(image, tmp_path, kind, why):
    got = run(
        image, "-o", tmp_path / f"o.{kind}", *PACKED.get(kind, []), env=only(tmp_path)
    )

    assert (got.returncode, got.stderr) == (1, f"flatten: {why}\n")


def test_a_failing_program_is_quoted_and_nothing_is_left(image, tmp_path):
    env = only(tmp_path, "head")
    tool = tmp_path / "bin" / "tar2sqfs"
    tool.write_text(
        '#!/bin/sh\nhead -c 1000 >/dev/null; for last; do :; done; echo half > "$last"\n'
        'echo "no luck" >&2; echo "today" >&2; exit 3\n'
    )
    tool.chmod(0o755)

    got = run(image, "-o", tmp_path / "o.squashfs", env=env)

    assert got.returncode == 1
    assert got.stderr == "flatten: tar2sqfs failed (exit code 3): no luck; today\n"
    assert {p.name for p in tmp_path.iterdir()} == {"i.tar", "bin"}


def test_a_signal_stops_a_running_program(image, tmp_path):
    env = only(tmp_path, "sleep", "touch")
    tool = tmp_path / "bin" / "tar2sqfs"
    tool.write_text("#!/bin/sh\ntouch started; exec sleep 60 >/dev/null 2>&1\n")
    tool.chmod(0o755)
    with subprocess.Popen(
        [*FLATTEN, image, "-o", "o.squashfs"], cwd=tmp_path, env=env
    ) as got:
        deadline = time.monotonic() + 60
        while not (tmp_path / "started").exists():
            assert time.monotonic() < deadline, "the program was not started"
            time.sleep(0.01)
        got.send_signal(signal.SIGTERM)

    assert got.returncode == 128 + signal.SIGTERM
    assert {p.name for p in tmp_path.iterdir()} == {"i.tar", "bin", "started"}


@root_only
@pytest.mark.parametrize("kind", ["squashfs", "erofs", "ext4", "qcow2", "cpio", "dir/"])
def test_a_full_disk_leaves_nothing(image, tmp_path, kind):
    need(*TOOLS.get(kind, ()))
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=500k", "small", small], check=True
    )
    try:
        got = run(image, "-o", f"{small}/o.{kind}")
        left = list(small.iterdir())
    finally:
        subprocess.run(["umount", small], check=True)

    assert (got.returncode, got.stderr.count("\n")) == (1, 1), got.stderr
    assert "Traceback" not in got.stderr
    assert "o space left" in got.stderr
    assert left == []


LIMITS = {
    "SquashFS, a name": ("squashfs", [member("n" * 256)],
                         "has a name of 256 bytes; Linux reads at most 255"),
    "SquashFS, a target": ("squashfs", [member("a", type=b"2", target="t" * 4096)],
                           "has a target of 4,096 bytes; Linux reads at most 4,095"),
    "SquashFS, a device": (
        "squashfs", [member("a", type=b"3", device=(300_000, 7))],
        "'a' has the number 300,000:7; Linux has at most 4,095:1,048,575",
    ),
    "EROFS, a name": ("erofs", [member("n" * 256)],
                      "has a name of 256 bytes; EROFS holds at most 255"),
    "EROFS, a target": ("erofs", [member("a", type=b"2", target="t" * 4096)],
                        "has a target of 4,096 bytes; Linux reads at most 4,095"),
    "ext4, a name": ("ext4", [member("n" * 256)],
                     "has a name of 256 bytes; ext4 holds at most 255"),
    "ext4, a target": ("ext4", [member("a", type=b"2", target="t" * 4096)],
                       "has a target of 4,096 bytes; ext4 holds at most 4,095"),
    "ext4, a device": ("ext4", [member("a", type=b"3", device=(4096, 0))],
                       "'a': a device with the number 4096:0; Linux has at most"),
    "ext4, the name of an xattr": (
        "ext4", [member("a", records={b"SCHILY.xattr.user." + b"n" * 251: b"v"})],
        "'a': an xattr with a name of 256 bytes; ext4 holds at most 255",
    ),
    "ext4, a file in the place of a directory": ("ext4", ["lost+found"],
                       "lost+found is a directory in ext4; leave it out"),
    "ext4, links": (
        "ext4",
        [member("a"), *(member(f"{n}", type=b"1", target="a") for n in range(65_000))],
        "'0' has 65,001 names; ext4 holds at most 65,000 hard links to a file",
    ),
}  # fmt: skip


@root_only
@pytest.mark.parametrize(("kind", "words", "why"), LIMITS.values(), ids=LIMITS)
def test_what_a_format_cannot_hold_is_refused(tmp_path, kind, words, why):
    need(*TOOLS[kind])
    (tmp_path / "i.tar").write_bytes(docker_archive(layers(words)))

    got = run("i.tar", "-o", f"o.{kind}", cwd=tmp_path)

    assert (got.returncode, got.stderr.count("\n")) == (1, 1), got.stderr
    assert why in got.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["i.tar"]


@root_only
@pytest.mark.parametrize("kind", ["squashfs", "erofs", "ext4"])
def test_the_longest_names_and_targets_are_held(tmp_path, kind):
    need(*TOOLS[kind])
    words = [
        member("n" * 255),
        member("a", type=b"2", target="t" * 4095),
        member("d", type=b"4", device=(4095, 1_048_575)),
    ]
    (tmp_path / "i.tar").write_bytes(docker_archive(layers(words)))

    got = run("i.tar", "-o", f"o.{kind}", cwd=tmp_path)

    assert (got.returncode, got.stderr) == (0, "")
    with mounted(tmp_path / f"o.{kind}", tmp_path / "mounted") as top:
        assert (top / ("n" * 255)).exists()
        assert len(os.readlink(top / "a")) == 4095


SHAPES = {
    "nothing": [],
    "many small files": [member(f"{n:05}", b"x") for n in range(1200)],
    "long names": [member(f"d/{'n' * 200}{n}") for n in range(700)],
    "long symlinks": [member(f"{n}", type=b"2", target="t" * 300) for n in range(500)],
    "many directories": [f"{n % 50}/{n}/" for n in range(600)],
    "one large file": [member("large", os.urandom(1 << 20) * 30)],
    "many xattrs": [
        member(
            f"{n}",
            records={b"SCHILY.xattr.user.a": bytes([n % 250 + 1, n // 250]) * 400},
        )
        for n in range(300)
    ],
}


@root_only
@pytest.mark.parametrize("words", SHAPES.values(), ids=SHAPES)
def test_the_computed_size_of_an_ext4_is_enough(tmp_path, words):
    need(*TOOLS["ext4"], "e2fsck")
    (tmp_path / "i.tar").write_bytes(docker_archive(layers(words)))

    flatten.export(tmp_path / "i.tar", tmp_path / "o.ext4", size="+0")

    done = subprocess.run(["e2fsck", "-fn", "o.ext4"], cwd=tmp_path, check=False,
                          env={"PATH": PLACES}, capture_output=True)  # fmt: skip
    assert done.returncode == 0, done


SIZES = {"64M": 64 << 20, "+100M": None, "100001K": 100_000 << 10}


@root_only
@pytest.mark.parametrize(("size", "want"), SIZES.items(), ids=SIZES)
def test_sizes(image, tmp_path, size, want):
    need(*TOOLS["ext4"])

    assert run(image, "-o", tmp_path / "o.ext4", "--size", size).returncode == 0

    got = (tmp_path / "o.ext4").stat().st_size
    if want is None:
        with mounted(tmp_path / "o.ext4", tmp_path / "mounted") as top:
            status = os.statvfs(top)
            assert 100 << 20 <= status.f_bfree * status.f_frsize <= 110 << 20
    else:
        assert got == want


@root_only
def test_the_label_and_the_uuid_of_an_ext4(image, tmp_path):
    need("blkid", *TOOLS["ext4"])
    uuid = "01234567-89ab-cdef-0123-456789abcdef"

    flatten.export(image, tmp_path / "o.ext4", label="sixteen bytes...", uuid=uuid)

    said = subprocess.run(
        ["blkid", "-o", "export", tmp_path / "o.ext4"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "LABEL=sixteen\\ bytes...\n" in said
    assert f"UUID={uuid}\n" in said


REFUSED = {
    "a disk that is too small": (["o.ext4", "--size", "3M"], "--size 3M is too small, it needs"),
    "a compressed ext4": (["o.ext4", "--compress", "zstd"], "write .squashfs or .erofs"),
    "an unknown compressor": (["o.squashfs", "--compress", "lzma"], "not one of zstd, gzip"),
    "a level for a compressor without levels": (["o.squashfs", "--compress", "xz:9"], "has no levels here"),
    "a directory": (["dir.squashfs"], "is not a regular file"),
    "a label that ext4 cannot hold": (["o.ext4", "--label", "n" * 17], "17 bytes; ext4 holds at most 16"),
    "a label that an EROFS cannot hold": (["o.erofs", "--label", "n" * 16], "16 bytes; EROFS holds at most 15"),
    "a UUID that is none": (["o.ext4", "--uuid", "0123"], "'0123' is not a valid uuid; write it as 01234567-"),
    "blocks of another size": (["o.erofs", "--block-size", "3K"], "--block-size: 3072 is not one of 512, 1024"),
    "an invalid size": (["o.ext4", "--size", "large"], "is not a valid size"),
    "a size that no file has": (["o.ext4", "--size", "+9000000T"], "is over 1048576T"),
}  # fmt: skip


@root_only
@pytest.mark.parametrize(("args", "why"), REFUSED.values(), ids=REFUSED)
def test_refused(image, tmp_path, args, why):
    need("tar2sqfs", *TOOLS["ext4"])
    (tmp_path / "dir.squashfs").mkdir()

    got = run(image.name, "-o", *args, cwd=tmp_path)

    assert got.returncode == 2, got.stderr
    assert why in got.stderr
    assert {p.name for p in tmp_path.iterdir()} == {"i.tar", "dir.squashfs"}


@root_only
def test_a_size_that_the_file_system_refuses(image, tmp_path):
    need(*TOOLS["ext4"])
    limit = ["prlimit", f"--fsize={1 << 30}"]

    got = subprocess.run(
        [*limit, *FLATTEN, image.name, "-o", "o.ext4", "--size", "2G"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert (got.returncode, got.stderr) == (
        1, "flatten: 'o.ext4': cannot make a disk of 2,048M here: File too large\n",
    )  # fmt: skip
    assert [p.name for p in tmp_path.iterdir()] == ["i.tar"]


# --- cpio


@root_only
@pytest.mark.parametrize("reader", ["cpio", "bsdtar"])
def test_readers_of_cpio_unpack_the_directory(image, tmp_path, reader):
    need(reader)
    commands = {
        "cpio": [
            "cpio",
            "--quiet",
            "-idm",
            "--no-absolute-filenames",
            "-F",
            "../o.cpio",
        ],
        "bsdtar": ["bsdtar", "--numeric-owner", "-xpf", "../o.cpio"],
    }
    done = flatten.export(image, tmp_path / "o.cpio")
    flatten.export(image, f"{tmp_path}/dir/")
    (tmp_path / "out").mkdir()
    subprocess.run(
        commands[reader], cwd=tmp_path / "out", check=True, stderr=subprocess.DEVNULL
    )

    got, want = tree(tmp_path / "out"), tree(tmp_path / "dir")
    for rows in (got, want):
        for row in rows.values():
            row["xattrs"] = {}
            if (reader == "cpio" and row["type"] in ("dir", "symlink")) or not row[
                "path"
            ]:
                row["mtime"] = 0  # which it leaves
    assert got == want
    assert done.warnings[-1].endswith("o.cpio: cpio holds no xattrs; 2 files had some")


def test_a_file_too_large_for_cpio_is_refused(tmp_path):
    sparse = b"1\n%d\n0\n" % (5 << 30)
    records = {b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0",
               b"GNU.sparse.name": b"f", b"GNU.sparse.realsize": b"%d" % (5 << 30)}  # fmt: skip
    words = [member("f", sparse.ljust(512, b"\0"), records=records)]
    (tmp_path / "i.tar").write_bytes(docker_archive(layers(words)))

    got = run("i.tar", "-o", "o.cpio", cwd=tmp_path)

    assert got.returncode == 1
    assert "'f': 5,368,709,120 is more than a cpio can hold" in got.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["i.tar"]


def test_cpio_holds_holes_as_zeros(tmp_path):
    from headers import sparse_gnu

    words = [sparse_gnu(b"s", [(600_000, 512), (1 << 20, 0)], 1 << 20, b"s" * 512)]
    (tmp_path / "i.tar").write_bytes(docker_archive(layers(words)))
    flatten.export(tmp_path / "i.tar", tmp_path / "o.cpio")

    data = (tmp_path / "o.cpio").read_bytes()
    at = data.index(b"s" * 512)
    assert data[at - 600_000 : at] == bytes(600_000)
    assert len(data) % 512 == 0
    assert Path(tmp_path / "o.cpio").stat().st_size > 1 << 20


def test_xattrs_that_tar2sqfs_does_not_take_are_left_out(tmp_path):
    need("tar2sqfs")
    records = {b"SCHILY.xattr.user.%d" % n: bytes([n]) * 30_000 for n in range(4)}
    records[b"SCHILY.xattr.user."] = b"a name that Linux refuses"
    words = [member("p" * 90 + "/f", b"x", records=records)]
    (tmp_path / "i.tar").write_bytes(docker_archive(layers(words)))

    got = run("i.tar", "-o", "o.squashfs", cwd=tmp_path)

    assert got.returncode == 0, got.stderr
    assert "1 xattrs (such as 'user.') are left out" in got.stderr
    assert "3 xattrs that are too large are left out" in got.stderr
