"""Directory outputs: their contents, and that nothing is written outside them."""

import fcntl
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

import flatten
from builders import docker_archive, layers, member, pax
from command import FLATTEN, run
from everything import ACL, EVERYTHING, on_disk
from flatten.host.beneath import remove_tree
from flatten.outputs import write_dir
from flatten.outputs.check import compare
from flatten.outputs.choose import choose
from flatten.outputs.job import Job
from flatten.outputs.read_dir import HostTree
from needs import NOBODY, needs_user, root_only, run_as_user


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image.tar"
    path.write_bytes(docker_archive(EVERYTHING))
    return path


def inodes(top):
    """Describe a tree as ``on_disk`` does, with holes, and fractions of seconds."""
    rows = on_disk(top)
    for name, row in rows.items():
        status = (top / name).lstat()
        row["links"] = status.st_nlink
        row["mtime_ns"] = status.st_mtime_ns
        row["blocks"] = status.st_blocks
    return rows


@root_only
@pytest.mark.parametrize("format", ["gnu", "pax"])
def test_a_directory_equals_what_gnu_tar_unpacks(image, tmp_path, format):
    flatten.export(image, tmp_path / "o.tar", format=format, sparse=True)
    (tmp_path / "tar").mkdir()
    subprocess.run(
        ["tar", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf", "../o.tar"],
        cwd=tmp_path / "tar", check=True,
    )  # fmt: skip

    done = flatten.export(image, f"{tmp_path}/dir/", format=format)

    assert inodes(tmp_path / "dir") == inodes(tmp_path / "tar")
    assert done.warnings == ()


@root_only
def test_several_processes_write_the_same_directory(tmp_path, monkeypatch):
    many = [member(f"many/{n // 90}/{n:04}", b"x", mtime=n) for n in range(3000)]
    more = [member(f"z/{n}", type=b"1", target=f"many/{n // 90}/{n:04}")
            for n in range(0, 3000, 100)]  # fmt: skip
    image = tmp_path / "image.tar"
    image.write_bytes(docker_archive([*EVERYTHING, *layers([*many, *more])]))
    monkeypatch.setattr(write_dir, "MANY", 1000)

    for count in (1, 3):
        limits = flatten.Limits(processes=count)
        flatten.export(image, f"{tmp_path}/{count}/", limits=limits)

    assert inodes(tmp_path / "3") == inodes(tmp_path / "1")


@needs_user
def test_several_processes_count_what_they_cannot_set(theirs):
    words = [member(f"{n:04}", b"x", uid=3) for n in range(25_000)]
    devices = [
        member("z", type=b"3", device=(1, 3)),
        member("zz", type=b"1", target="z"),
    ]
    image = theirs / "image.tar"
    image.write_bytes(docker_archive(layers([*words, *devices])))

    done = run_as_user("image.tar", "-o", "o/", cwd=theirs)

    assert done.returncode == 0
    assert "could not set 2 devices, 25,001 owners without being root" in done.stderr


@root_only
@pytest.mark.parametrize("umask", [0, 0o022, 0o077, 0o777])
def test_owners_and_modes_do_not_depend_on_the_umask_or_the_folder(tmp_path, umask):
    modes = (0, 0o444, 0o600, 0o644, 0o666, 0o755, 0o777, 0o1644, 0o2755, 0o4755)
    expected = {
        f"{mode:04o} {uid}:{gid}": (mode, uid, gid)
        for mode in modes
        for uid, gid in ((0, 0), (0, 7), (7, 0), (7, 7))
    }
    (tmp_path / "i.tar").write_bytes(
        docker_archive(
            layers(
                [
                    member(name, b"x", mode=mode, uid=uid, gid=gid)
                    for name, (mode, uid, gid) in expected.items()
                ]
            )
        )
    )
    folder = tmp_path / "folder"
    folder.mkdir()
    os.chown(folder, 5, 7)
    folder.chmod(0o2755)
    os.setxattr(folder, "system.posix_acl_default", ACL[1])

    before = os.umask(umask)
    try:
        flatten.export(tmp_path / "i.tar", f"{folder}/o/")
    finally:
        os.umask(before)

    statuses = {path.name: path.stat() for path in (folder / "o").iterdir()}
    assert expected == {
        name: (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)
        for name, status in statuses.items()
    }


def test_contents_are_right_whatever_their_order_and_size(tmp_path):
    sizes = (0, 1, 511, 512, 513, 5000, (1 << 16) - 1, 1 << 16, 200_000, (1 << 20) + 1)
    contents = {
        f"d/{order:03}": bytes([order]) * sizes[order * 7 % len(sizes)]
        for order in range(60)
    }
    first = [member(name, data) for name, data in contents.items()]
    again = {name: contents[name][::-1] + b"end" for name in list(contents)[::3]}
    second = [member(name, data) for name, data in reversed(again.items())]
    contents |= again
    (tmp_path / "i.tar").write_bytes(docker_archive(layers(first, second)))

    flatten.export(tmp_path / "i.tar", f"{tmp_path}/o/", ownership="current")

    assert contents == {
        f"d/{path.name}": path.read_bytes() for path in (tmp_path / "o/d").iterdir()
    }


@root_only
def test_acls_and_fractions_of_seconds_are_kept(tmp_path):
    words = [
        member("d/", type=b"5", mode=0o755, records={b"SCHILY.acl.default": ACL[0]}),
        member("d/f", b"x", records={b"SCHILY.acl.access": ACL[0], b"mtime": b"5.25"}),
    ]  # fmt: skip
    (tmp_path / "i.tar").write_bytes(docker_archive(layers(words)))

    flatten.export(tmp_path / "i.tar", f"{tmp_path}/o/")

    got = os.getxattr(tmp_path / "o/d/f", "system.posix_acl_access")
    assert got == ACL[1] == os.getxattr(tmp_path / "o/d", "system.posix_acl_default")
    assert (tmp_path / "o/d/f").stat().st_mtime_ns == 5_250_000_000


def test_xattrs_that_are_too_large_are_counted(tmp_path):
    words = [
        member("for ext4", records={b"SCHILY.xattr.user.a": bytes(1 << 14)}),
        member("for Linux", records={b"SCHILY.xattr.user.a": bytes((1 << 16) + 1)}),
    ]
    (tmp_path / "i.tar").write_bytes(docker_archive(layers(words)))

    got = run("i.tar", "-o", "o/", "--ownership", "current", cwd=tmp_path)

    assert got.returncode == 0
    ours = (
        1 if os.listxattr(tmp_path / "o" / "for ext4") else 2
    )  # XFS and btrfs hold it
    assert f"could not set {ours} xattrs" in got.stderr
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == [
        "for Linux",
        "for ext4",
    ]


@pytest.fixture
def seconds_until_2038(tmp_path):
    """Mount an ext4 file system whose inodes hold whole seconds from 1901 to 2038."""
    if os.geteuid() != 0 or shutil.which("mke2fs") is None:
        pytest.skip("needs root and mke2fs")
    disk, folder = tmp_path / "disk", tmp_path / "mounted"
    with open(disk, "wb") as opened:
        opened.truncate(8 << 20)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-I", "128", disk],
                   check=True, capture_output=True)  # fmt: skip
    folder.mkdir()
    done = subprocess.run(["mount", "-o", "loop", disk, folder], check=False)
    if done.returncode:
        pytest.skip("needs to be allowed to mount")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_times_that_the_file_system_changes_are_counted(seconds_until_2038, tmp_path):
    words = [
        member("kept", mtime=2**31 - 1),
        member("too late", mtime=2**31),
        member("too early", mtime=-(2**31) - 1),
        member("with a fraction", records={b"mtime": b"5.25"}),
        member("a link that is too late", type=b"2", target=b"kept", mtime=2**33),
        member("a directory that is too late", type=b"5", mtime=2**33),
        member("./", type=b"5", mtime=2**33),
    ]
    (tmp_path / "i.tar").write_bytes(docker_archive(layers(words)))

    got = run(tmp_path / "i.tar", "-o", f"{seconds_until_2038}/o/")

    assert got.returncode == 0
    assert got.stderr == (
        f"flatten: warning: {seconds_until_2038}/o/: could not set 6 times; "
        "a tar keeps everything\n"
    )


@root_only
@pytest.mark.parametrize("owner", [{"uid": 2**32 - 1}, {"gid": 2**32 - 1}])
def test_the_owner_that_no_file_of_linux_has_is_counted(tmp_path, owner):
    """To chown the number means that nothing changes."""
    words = [member("a", mode=0o6755, **owner), member("b", uid=2**32 - 2)]
    (tmp_path / "i.tar").write_bytes(docker_archive(layers(words)))

    got = run("i.tar", "-o", "o/", cwd=tmp_path)

    assert got.returncode == 0
    assert "could not set 1 owners, 1 setuid bits" in got.stderr
    assert (tmp_path / "o/a").stat().st_mode & 0o7777 == 0o755
    assert (tmp_path / "o/b").stat().st_uid == 2**32 - 2


def test_a_hole_of_60_gb_takes_no_space(tmp_path):
    records = {b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0",
               b"GNU.sparse.name": b"f", b"GNU.sparse.realsize": b"%d" % (60 << 30)}  # fmt: skip
    sparse_map = b"2\n%d\n4\n%d\n0\n" % (1 << 35, 60 << 30)
    words = [member("f", sparse_map.ljust(512, b"\0") + b"data", records=records)]
    (tmp_path / "i.tar").write_bytes(docker_archive(layers(words)))

    flatten.export(tmp_path / "i.tar", f"{tmp_path}/o/", ownership="current")

    with open(tmp_path / "o/f", "rb") as file:
        assert file.seek(1 << 35) == file.seek(0, os.SEEK_DATA)
        assert file.read(5) == b"data\0"
    status = (tmp_path / "o/f").stat()
    assert (status.st_size, status.st_blocks < 100) == (60 << 30, True)


# --- attacks: those of containerd's TestBreakouts (archive/tar_test.go, 5fdf55e), and more

INSIDE = [member("etc/", type=b"5", mode=0o770), member("/etc/passwd", b"inside")]
FROM_BELOW = ["etc/", member("etc/passwd", b"all users")]


OUT = "../../outside"  # as seen from the directory that is written


def same(one, other):
    return lambda top: (top / one).samefile(top / other)


def holds(name, text):
    return lambda top: (top / name).read_text() == text


def gone(name):
    return lambda top: not os.path.lexists(top / name)


UNBROKEN = holds("etc/unbroken", "unbroken")
REFUSED = None
BREAKOUTS = {
    "SymlinkAbsolute": ([[
        "etc/", "localetc->/etc", member("/localetc/unbroken", b"unbroken")]], UNBROKEN),
    "SymlinkUpAndOut": ([[
        "etc/", "dummy/", "localetc->/dummy/../etc",
        member("/localetc/unbroken", b"unbroken")]], UNBROKEN),
    "SymlinkMultipleAbsolute": ([[
        "etc/", "dummy/", "/dummy/etc->/etc", "localetc->/dummy/etc",
        member("/dummy/etc/unbroken", b"unbroken")]], UNBROKEN),
    "SymlinkMultipleRelative": ([[
        "etc/", "dummy/", "/dummy/etc->/etc", "localetc->./dummy/etc",
        member("/dummy/etc/unbroken", b"unbroken")]], UNBROKEN),
    "SymlinkEmptyFile": ([[
        "etc/", member("etc/emptied", b"notempty"), "localetc->/etc",
        member("/localetc/emptied")]], holds("etc/emptied", "")),
    "HardlinkRelative": ([[
        *INSIDE, "breakouts/", "breakouts/d1->../../etc",
        "breakouts/mypasswd=/breakouts/d1/passwd"]],
        same("breakouts/mypasswd", "etc/passwd")),
    "HardlinkDownAndOut": ([[
        *INSIDE, "breakouts/", "downandout/", "breakouts/d1->../downandout/../../etc",
        "breakouts/mypasswd=/breakouts/d1/passwd"]],
        same("breakouts/mypasswd", "etc/passwd")),
    "HardlinkAbsolute": ([[
        *INSIDE, "localetc->/etc", "localpasswd=/localetc/passwd"]],
        same("localpasswd", "etc/passwd")),
    "HardlinkRelativeLong": ([[
        *INSIDE, "localetc->../../../../../../../etc", "localpasswd=/localetc/passwd"]],
        same("localpasswd", "etc/passwd")),
    "HardlinkRelativeUpAndOut": ([[
        *INSIDE, "localetc->upandout/../../../etc", "localpasswd=/localetc/passwd"]],
        REFUSED),  # there is no upandout; containerd takes it for a directory
    "HardlinkDirectRelative": ([[
        *INSIDE, "localpasswd=../../../../../etc/passwd"]], REFUSED),
    "HardlinkDirectAbsolute": ([[
        *INSIDE, "localpasswd=/etc/passwd"]], same("localpasswd", "etc/passwd")),
    "SymlinkParentDirectory": ([[
        *INSIDE, "..->/etc/", "localpasswd=/etc/passwd"]], REFUSED),
    "SymlinkEmptyFilename": ([[
        *INSIDE, "->/etc/", "localpasswd=/etc/passwd"]], REFUSED),
    "SymlinkParentRelative": ([[
        *INSIDE, "localetc/sub/..->/etc/", "/localetc/localpasswd=/etc/passwd"]],
        same("etc/localpasswd", "etc/passwd")),
    "SymlinkSlashEnded": ([[
        *INSIDE, "localetc/", "/localetc/localpasswd=/etc/passwd"]],
        same("localetc/localpasswd", "etc/passwd")),
    "SymlinkOverrideDirectory": ([
        ["/etc/", member("/etc/passwd", b"inside"), "/localetc/"],
        ["localetc->/etc", "/localetc/localpasswd=/etc/passwd"]],
        same("etc/localpasswd", "etc/passwd")),
    "SymlinkOverrideDirectoryRelative": ([
        ["/etc/", member("/etc/passwd", b"inside"), "/localetc/"],
        ["localetc->../../etc", "/localetc/localpasswd=/etc/passwd"]],
        same("etc/localpasswd", "etc/passwd")),
    "DirectoryOverrideSymlink": ([
        ["/etc/", member("/etc/passwd", b"inside"), "localetc->/etc"],
        ["/localetc/", "/localetc/localpasswd=/etc/passwd"]],
        same("localetc/localpasswd", "etc/passwd")),
    "DirectoryOverrideSymlinkAndHardlink": ([
        ["/etc/", member("/etc/passwd", b"inside"), "localetc->etc",
         "/localetc/localpasswd=/etc/passwd"],
        ["/localetc/", member("/localetc/localpasswd", b"different")]],
        holds("localetc/localpasswd", "different")),
    "WhiteoutRootParent": ([FROM_BELOW, [member(".wh...")]], REFUSED),
    "WhiteoutParent": ([FROM_BELOW, [member("etc/.wh...")]], REFUSED),
    "WhiteoutRoot": ([FROM_BELOW, [member(".wh..")]], REFUSED),
    "WhiteoutCurrentDirectory": ([FROM_BELOW, [member("etc/.wh..")]], REFUSED),
    "WhiteoutSymlink": ([[*FROM_BELOW, "localetc->/etc"], ["-localetc"]],
        gone("localetc")),
    "WhiteoutSymlinkPath": ([
        [*FROM_BELOW, "etc/whitedout", "localetc->/etc"], ["-localetc/whitedout"]],
        gone("etc/whitedout")),
    "WhiteoutDirectoryName": ([
        [*FROM_BELOW, "localetc->/etc"], [member(".wh.etc/somefile", b"non-empty")]],
        REFUSED),
    "WhiteoutDeadSymlinkParent": ([
        [*FROM_BELOW, "localetc->/dne"], ["-localetc/etc"]],
        holds("etc/passwd", "all users")),
    "WhiteoutRelativePath": ([
        [*FROM_BELOW, "localetc->/dne"], [member("dne/../.wh.etc")]], gone("etc")),
    "HardlinkSymlinkBeforeCreateTarget": ([[
        "etc/", "localpasswd->/etc/passwd", "localpasswd-dup=localpasswd",
        member("/etc/passwd", b"after")]],
        lambda top: (top / "localpasswd-dup").readlink() == Path("/etc/passwd")),
    "HardlinkSymlinkRelative": ([[
        *INSIDE, "passwdlink->../../../../../etc/passwd", "localpasswd=/passwdlink"]],
        lambda top: (top / "localpasswd").lstat().st_ino
        == (top / "passwdlink").lstat().st_ino),
    "HardlinkSymlinkAbsolute": ([[
        *INSIDE, "passwdlink->/etc/passwd", "localpasswd=/passwdlink"]],
        lambda top: (top / "localpasswd").lstat().st_ino
        == (top / "passwdlink").lstat().st_ino),
    "HardlinkSymlinkChmod": ([[
        f"also->{OUT}", member("sketchylink", type=b"1", target="also", mode=0o777)]],
        lambda top: (top / "sketchylink").is_symlink()),
    # and ours
    "a file through a symlink out": ([[f"x->{OUT}", member("x/victim", b"bad")]],
        lambda _: True),
    "a file over a lower layer's symlink out": (
        [[f"x->{OUT}"], [member("x", b"good", mode=0o4777)]], holds("x", "good")),
    "metadata for a symlink out": ([[
        member("x", type=b"2", target=OUT, mode=0o7777, uid=12, mtime=12,
               records={b"SCHILY.xattr.user.bad": b"1"})]],
        lambda top: (top / "x").is_symlink()),
    "a directory over a symlink out": (
        [[f"x->{OUT}"], ["x/", member("x/victim", b"bad")]],
        holds("x/victim", "bad")),
    "a name that climbs with ..": ([[member("a/../../../victim", b"bad")]], REFUSED),
    "a path record that climbs with ..": ([[
        pax({b"path": b"../victim"}) + member("x", b"bad")]], REFUSED),
}  # fmt: skip


@pytest.mark.parametrize(("words", "check"), BREAKOUTS.values(), ids=BREAKOUTS)
def test_breakouts(tmp_path, words, check):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "victim").write_text("unharmed")
    outside.chmod(0o711)
    os.utime(outside, (77, 77))
    work = tmp_path / "work"
    work.mkdir()
    (work / "i.tar").write_bytes(docker_archive(layers(*words)))
    before = on_disk(outside)

    try:
        flatten.export(work / "i.tar", f"{work}/o/")
        refused = False
    except flatten.FormatError:
        refused = True

    assert on_disk(outside) == before
    assert {p.name for p in tmp_path.iterdir()} == {"outside", "work"}
    assert {p.name for p in work.iterdir()} == (
        {"i.tar"} if refused else {"i.tar", "o"}
    )
    assert check is REFUSED if refused else check(work / "o")


# --- where it goes

TARGETS = {
    "a directory that is not empty": (
        ["full/"],
        2,
        "is not empty; --force replaces it",
    ),
    "a file": (["file/"], 2, "is not a directory"),
    "the current directory": (["./"], 2, "is or contains the current directory"),
    "a parent of the current directory": (
        ["../"],
        2,
        "is or contains the current directory",
    ),
    "a mount point": (["/proc/"], 2, "is a mount point"),
    "a directory that contains the image, with --force": (
        ["--force", "holder/"],
        2,
        "contains the image",
    ),
    "nowhere": (["no/such/"], 1, "No such file or directory"),
    "without its slash": (["full"], 2, "full/"),
    "a kind of output that there is not": (["o.vmdk"], 2, "cannot write this format"),
    "such a kind, over a file": (["file.img"], 2, "does not say which file system"),
    "a disk that would be compressed": (["o.ext4.gz"], 2, "cannot write this format"),
    "a cpio that Linux could not read": (["o.cpio.xz"], 2, "cannot write this format"),
}


@pytest.mark.parametrize(("args", "code", "why"), TARGETS.values(), ids=TARGETS)
def test_refused_targets(image, tmp_path, args, code, why):
    work = tmp_path / "work"
    for name in ("full", "holder"):
        (work / name).mkdir(parents=True)
    image = image.rename(work / "holder" / "image.tar")
    for name in ("full/file", "file", "file.img"):
        (work / name).write_text("precious")
    before = sorted(tmp_path.rglob("*"))

    got = run("holder/image.tar", *args[:-1], "-o", args[-1], cwd=work)

    assert (got.returncode, got.stderr.count("\n")) == (code, 1), got.stderr
    assert why in got.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_an_empty_directory_is_filled_and_force_replaces_a_full_one(image, tmp_path):
    (tmp_path / "o").mkdir()
    args = [image, "--ownership", "current", "-o", f"{tmp_path}/o/"]
    assert run(*args).returncode == 0
    (tmp_path / "o" / "mine").write_text("x")
    assert run(*args).returncode == 2
    assert (tmp_path / "o" / "mine").exists()

    assert run(*args, "--force").returncode == 0

    assert not (tmp_path / "o" / "mine").exists()
    assert (tmp_path / "o" / "bin" / "su").exists()
    assert {p.name for p in tmp_path.iterdir()} == {"image.tar", "o"}


def test_a_symlink_to_the_target_is_followed(image, tmp_path):
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "real").mkdir()

    assert run(image, "-o", f"{tmp_path}/link/").returncode == 0
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "bin").is_dir()


def test_a_wrong_digest_leaves_nothing(image, tmp_path):
    image.write_bytes(image.read_bytes().replace(b"c" * 3000, b"d" * 3000))

    got = run(image, "-o", f"{tmp_path}/o/")

    assert got.returncode == 5
    assert [p.name for p in tmp_path.iterdir()] == ["image.tar"]


def temporary(folder):
    """Return the temporary directories of an output called "o"."""
    return list(folder.glob(".o.*.flatten-made"))


def test_a_killed_run_leaves_a_part_that_the_next_run_removes(tmp_path):
    words = [member(f"{n}", bytes(1 << 20)) for n in range(80)]
    (tmp_path / "i.tar").write_bytes(docker_archive(layers(["d/", *words])))
    with subprocess.Popen([*FLATTEN, "i.tar", "-o", "o/"], cwd=tmp_path) as running:
        while not any((path / "1").exists() for path in temporary(tmp_path)):
            assert running.poll() is None
            time.sleep(0.01)
        running.send_signal(signal.SIGSTOP)
        meanwhile = run("i.tar", "-o", "o/", cwd=tmp_path)
        parts = temporary(tmp_path)
        running.kill()
    last = run("i.tar", "-o", "o/", "--force", cwd=tmp_path)

    assert (meanwhile.returncode, len(parts), last.returncode) == (0, 1, 0)
    assert {p.name for p in tmp_path.iterdir()} == {"i.tar", "o"}


@pytest.fixture
def mounted(tmp_path):
    """Return a directory "o" in which another one is mounted, with a file in it."""
    precious = tmp_path / "elsewhere" / "precious"
    precious.parent.mkdir()
    precious.write_text("data")
    point = tmp_path / "o" / "a b" / "point"
    point.mkdir(parents=True)
    bind = subprocess.run(["mount", "--bind", precious.parent, point], check=False)
    if bind.returncode != 0:
        pytest.skip("needs to be allowed to mount")
    yield precious
    subprocess.run(["umount", point], check=False)
    for old in tmp_path.glob(".o.*.flatten-old"):  # where a test has failed
        subprocess.run(["umount", old / "a b" / "point"], check=False)


@root_only
def test_force_does_not_delete_through_a_mount(image, mounted, tmp_path):
    got = run(image, "-o", f"{tmp_path}/o/", "--force")

    assert got.returncode == 2
    assert got.stderr == (
        f"flatten: '{tmp_path}/o' has mount points below it, such as "
        f"'{tmp_path}/o/a b/point'; unmount them, or name another directory\n"
    )
    assert mounted.read_text() == "data"


@root_only
def test_a_tree_with_a_mount_in_it_is_not_removed(mounted, tmp_path):
    with pytest.raises(OSError, match="a b/point' is a mount point"):
        remove_tree(tmp_path / "o")

    assert mounted.read_text() == "data"


def test_a_directory_called_part_is_left_alone(image, tmp_path):
    own = tmp_path / "o.part"
    own.mkdir()
    (own / "precious").write_text("data")

    assert run(image, "-o", f"{tmp_path}/o/").returncode == 0
    assert (own / "precious").read_text() == "data"


def test_a_name_of_250_bytes_is_accepted(image, tmp_path):
    out = tmp_path / ("\u00e9" * 125)  # 250 bytes

    for force in ([], ["--force"]):
        assert run(image, "-o", f"{out}/", *force).returncode == 0
    assert {path.name for path in tmp_path.iterdir()} == {"image.tar", out.name}


@pytest.mark.parametrize(("locked", "stays"), [(True, True), (False, False)])
def test_a_leftover_is_removed_unless_a_run_holds_its_lock(
    image, tmp_path, locked, stays
):
    part = tmp_path / f".o.{'0' * 12}.flatten-part"
    made = part.with_suffix(".flatten-made")
    (made / "below").mkdir(parents=True)
    with part.open("w") as file:
        if locked:
            fcntl.flock(file, fcntl.LOCK_EX)
        assert run(image, "-o", f"{tmp_path}/o/").returncode == 0

    assert (part.exists(), made.exists()) == (stays, stays)


def test_a_leftover_without_its_locked_file_is_removed(image, tmp_path):
    made = tmp_path / f".o.{'0' * 12}.flatten-made"
    (made / "below").mkdir(parents=True)

    assert run(image, "-o", f"{tmp_path}/o/").returncode == 0
    assert not made.exists()


@root_only
def test_a_leftover_of_another_user_is_not_removed(image, tmp_path):
    left = tmp_path / f".o.{'0' * 12}.flatten-made"
    left.mkdir()
    (left / "precious").write_text("data")
    os.chown(left, NOBODY, NOBODY)

    assert run(image, "-o", f"{tmp_path}/o/").returncode == 0
    assert (left / "precious").read_text() == "data"


def test_a_directory_that_was_exchanged_is_not_published(image, tmp_path):
    with flatten.open_image(str(image)) as opened:
        output = choose(f"{tmp_path}/o/", flatten.Options())
        shape = output.shape(opened)
        job = Job(opened, flatten.plan_image(opened, shape=shape), shape)

        def exchange():
            with output.writing(job):
                (part,) = temporary(tmp_path)
                part.rename(tmp_path / "ours")
                part.mkdir()

        with pytest.raises(flatten.FlattenError, match="took its place"):
            exchange()

    assert not (tmp_path / "o").exists()


DOCUMENTS = {
    "config": ["--config-out", "image.tar", "-o", "o.tar"],
    "list": ["--list-out", "image.tar", "-o", "o.tar"],
    "list and output": ["--list-out", "same.tar", "-o", "same.tar"],
    "list and directory": ["--list-out", "same", "-o", "same/"],
    "list and config": ["--list-out", "same", "--config-out", "same", "-o", "o.tar"],
}


@pytest.mark.parametrize("words", DOCUMENTS.values(), ids=DOCUMENTS)
def test_no_document_overwrites_the_image_or_an_output(image, tmp_path, words):
    before = image.read_bytes()

    got = run("image.tar", *words, cwd=tmp_path)

    assert got.returncode == 2
    assert [path.name for path in tmp_path.iterdir()] == ["image.tar"]
    assert image.read_bytes() == before


def test_a_report_does_not_overwrite_the_image(image, tmp_path):
    before = image.read_bytes()

    assert run("report", "image.tar", "-o", "./image.tar", cwd=tmp_path).returncode == 2
    assert image.read_bytes() == before


def test_nobody_enters_before_the_digests_are_checked(tmp_path):
    image = tmp_path / "i.tar"
    root = member(".", type=b"5", mode=0o755)
    image.write_bytes(docker_archive(layers([root, member("tool", mode=0o4755)])))
    modes = []

    def look():
        (part,) = temporary(tmp_path)
        modes.append(stat.S_IMODE(part.stat().st_mode))

    with flatten.open_image(str(image)) as opened:
        output = choose(f"{tmp_path}/o/", flatten.Options())
        shape = output.shape(opened)
        job = Job(opened, flatten.plan_image(opened, shape=shape), shape)
        with output.writing(job):
            look()  # here the caller waits for the digests

    assert modes == [0o700]
    assert stat.S_IMODE((tmp_path / "o").stat().st_mode) == 0o755


def test_a_full_disk_leaves_nothing(image, tmp_path):
    limit = "ulimit -f 1; exec"  # files of 512 bytes
    got = subprocess.run(
        ["sh", "-c", f"trap '' XFSZ; {limit} {sys.executable} -m flatten i.tar -o o/"],
        cwd=image.rename(tmp_path / "i.tar").parent, capture_output=True, text=True,
        check=False,
    )  # fmt: skip

    assert got.returncode == 1
    assert re.fullmatch(r"flatten: cannot write '.*': File too large\n", got.stderr)
    assert [p.name for p in tmp_path.iterdir()] == ["i.tar"]


def test_a_path_that_is_too_long_for_linux_is_refused(tmp_path):
    (tmp_path / "i.tar").write_bytes(docker_archive(layers(["d/" * 2500 + "x"])))

    got = run("i.tar", "-o", "o/", cwd=tmp_path)

    assert got.returncode == 1
    assert "Linux takes at most 4,095, so write a tar" in got.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["i.tar"]


def test_the_root_has_metadata_even_if_no_layer_lists_it(tmp_path):
    tars = layers([member("old", mtime=5), member("new", mtime=9)])
    (tmp_path / "i.tar").write_bytes(docker_archive(tars))

    flatten.export(tmp_path / "i.tar", f"{tmp_path}/o/")

    status = (tmp_path / "o").stat()
    assert (status.st_mode & 0o7777, int(status.st_mtime)) == (0o755, 9)


# --- without being root


@needs_user
def test_an_ordinary_user_learns_what_could_not_be_set(image, theirs):
    shutil.copy(image, theirs / "i.tar")

    got = run_as_user("i.tar", "-o", "o/", cwd=theirs)

    assert got.returncode == 0
    assert got.stderr == (
        "flatten: warning: o/: could not set 2 devices, 22 owners, 1 setuid bits, "
        "1 xattrs without being root; --ownership current does not set owners; "
        "a tar keeps everything\n"
    )
    rows = on_disk(theirs / "o")
    assert rows["bin/su"]["mode"] == "0755"  # not somebody else's setuid program
    assert rows["etc/conf"]["mode"] == "0640"
    assert rows["xattr"]["xattrs"] == {"user.a": b"\0\xff\n", "user.b": b""}
    assert rows["bin"]["mtime"] == 22
    assert "dev/null" not in rows


@needs_user
def test_current_ownership_sets_no_owners(image, theirs):
    shutil.copy(image, theirs / "i.tar")

    got = run_as_user("i.tar", "-o", "o/", "--ownership", "current", cwd=theirs)

    assert "2 devices, 1 setuid bits, 1 xattrs without being root; a tar" in got.stderr
    assert {row["uid"] for row in on_disk(theirs / "o").values()} == {NOBODY}


@needs_user
def test_directories_without_permissions_are_filled(theirs):
    words = [
        member("d/", type=b"5", mode=0), member("d/e/", type=b"5", mode=0o500),
        member("d/e/f", b"x", mode=0), "g=d/e/f",
    ]  # fmt: skip
    (theirs / "i.tar").write_bytes(docker_archive(layers(words)))

    assert run_as_user("i.tar", "-o", "o/", "-q", cwd=theirs).returncode == 0

    rows = on_disk(theirs / "o")
    assert [rows[p]["mode"] for p in ("d", "d/e", "d/e/f")] == ["0000", "0500", "0000"]
    assert (theirs / "o/g").stat().st_nlink == 2


# --- read back

CHANGES = {
    "a mode": (lambda top: (top / "d/f").chmod(0o600), "modes"),
    "a time": (lambda top: os.utime(top / "d/f", (1, 1)), "times"),
    "a file that is not there": (lambda top: (top / "d/l").unlink(), "names"),
    "a file too many": (lambda top: (top / "x").touch(), "names"),
    "a content of another size": (lambda top: (top / "d/f").write_bytes(b"xy"), "sizes"),
    "a hard link that is a copy": (
        lambda top: shutil.copy2(top / "d/f", top / "g.new") and (top / "g.new").rename(top / "g"),
        "hard links",
    ),
    "another target": (
        lambda top: ((top / "s").unlink(), (top / "s").symlink_to("other")), "symlink targets",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "what"), CHANGES.values(), ids=CHANGES)
def test_a_directory_is_compared_with_the_plan(tmp_path, change, what):
    words = [
        member("./", type=b"5", mode=0o755), "d/", member("d/f", b"x", mode=0o644), "d/l", "g=d/f",
        "s->d/f",
    ]  # fmt: skip
    (tmp_path / "i.tar").write_bytes(docker_archive(layers(words)))
    flatten.export(tmp_path / "i.tar", f"{tmp_path}/o/", ownership="current")

    def compared():
        with flatten.open_image(tmp_path / "i.tar") as image:
            root = os.open(tmp_path / "o", os.O_RDONLY)
            try:
                excused = {"owners", *({"times"} - {what})}
                with HostTree(root) as tree:
                    compare(flatten.plan_image(image), tree, tmp_path / "o",
                            lambda kind, _: kind in excused)  # fmt: skip
            finally:
                os.close(root)

    compared()
    change(tmp_path / "o")
    with pytest.raises(
        flatten.FlattenError, match=f"differs from the image in .*{what}"
    ):
        compared()
