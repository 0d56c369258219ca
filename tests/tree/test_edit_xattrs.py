"""The choice of xattrs, for every output, and the xattrs that an output cannot hold."""

import tarfile

import pytest

import flatten
from builders import docker_archive, layers, member
from command import run
from flatten.outputs.job import Shape

ACL = b"user::rw-,user:5:r--,group::r--,mask::rw-,other::---"
RECORDS = {
    b"SCHILY.acl.access": ACL,
    b"RHT.security.selinux": b"label\0",
    b"SCHILY.xattr.user.one": b"1",
    b"SCHILY.xattr.user.two": b"",
    b"SCHILY.xattr.com.apple.quarantine": b"q",
}


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "i.tar"
    words = [member("a", b"a", records=RECORDS), member("b", b"b")]
    path.write_bytes(docker_archive(layers(words)))
    return path


CHOSEN = {
    "no option": ([], set(RECORDS)),
    "none": (["--no-xattrs"], set()),
    "a namespace": (
        ["--xattrs", "user.*"], {b"SCHILY.xattr.user.one", b"SCHILY.xattr.user.two"}
    ),
    "ACLs": (["--xattrs", "system.posix_acl_*"], {b"SCHILY.acl.access"}),
    "a label, and one more": (
        ["--xattrs", "security.selinux", "--xattrs", "*.one"],
        {b"RHT.security.selinux", b"SCHILY.xattr.user.one"},
    ),
    "a name that no file has": (["--xattrs", "user"], set()),
}  # fmt: skip


@pytest.mark.parametrize(("args", "want"), CHOSEN.values(), ids=CHOSEN)
@pytest.mark.parametrize("format", ["gnu", "pax"])
def test_xattrs_are_chosen_by_name(image, tmp_path, args, want, format):
    got = run(image, "-o", tmp_path / "o.tar", "--format", format, *args)

    assert (got.returncode, got.stderr) == (0, "")
    data = (tmp_path / "o.tar").read_bytes()
    assert {key for key in RECORDS if key + b"=" in data} == want
    with tarfile.open(tmp_path / "o.tar") as opened:
        assert [info.name for info in opened] == ["a", "b"]


def test_a_choice_together_with_none_is_refused(image):
    got = run(image, "--xattrs", "user.*", "--no-xattrs")

    assert got.returncode == 2
    assert "not allowed with argument --xattrs" in got.stderr


@pytest.mark.parametrize(("prefixes", "kept", "warnings"), [
    ((b"user.", b"system."), ["system.posix_acl_access", "user.one", "user.two"],
     [("2 xattrs (such as 'com.apple.quarantine') are left out: "
       "the output cannot hold them")]),
    ((b"user.", b"security.", b"com."),
     ["com.apple.quarantine", "security.selinux", "user.one", "user.two"],
     ["1 POSIX ACLs are left out: the output cannot hold them"]),
], ids=["an output without labels", "an output without ACLs"])  # fmt: skip
def test_one_warning_a_kind_that_an_output_cannot_hold(image, prefixes, kept, warnings):
    with flatten.open_image(str(image)) as opened:
        plan = flatten.plan_image(opened, shape=Shape(xattrs=prefixes))

    records = plan.members.extras[plan.inodes[0]].records
    assert [key.decode() for key, _ in records] == [f"SCHILY.xattr.{k}" for k in kept]
    assert plan.warnings == warnings


def test_an_invalid_acl_is_left_out_with_a_warning(tmp_path):
    records = {b"SCHILY.acl.access": b"nobody", b"SCHILY.xattr.user.k": b"v"}
    words = [member("a", b"a", records=records)]
    (tmp_path / "i.tar").write_bytes(docker_archive(layers(words)))
    with flatten.open_image(str(tmp_path / "i.tar")) as opened:
        plan = flatten.plan_image(opened, shape=Shape(xattrs=(b"user.", b"system.")))

    assert plan.members.extras[plan.inodes[0]].records == (
        (b"SCHILY.xattr.user.k", b"v"),
    )
    assert plan.warnings == ["1 invalid ACLs are left out: the output cannot hold them"]


def test_nfs_acls_that_only_a_tar_can_hold_are_counted(tmp_path):
    records = {b"SCHILY.acl.ace": b"owner@:rwx:allow"}
    words = [member("a", b"a", records=records), member("b", b"b", records=records)]
    (tmp_path / "i.tar").write_bytes(docker_archive(layers(words)))

    got = run(tmp_path / "i.tar", "-o", f"{tmp_path}/o/", "--ownership", "current")

    assert got.returncode == 0
    assert "2 ACLs of other systems are left out: the output cannot hold" in got.stderr


def test_times_at_the_end_of_a_range_have_no_fraction(tmp_path):
    words = [
        member("early", records={b"mtime": b"-0.000000001"}),
        member("inside", records={b"mtime": b"5.5"}),
        member("late", records={b"mtime": b"100.5"}),
    ]
    (tmp_path / "i.tar").write_bytes(docker_archive(layers(words)))
    found = []
    for fractions in (True, False):
        with flatten.open_image(str(tmp_path / "i.tar")) as opened:
            shape = Shape(times=(0, 99), fractions=fractions)
            plan = flatten.plan_image(opened, shape=shape)
        members = plan.members
        found.append([
            (members.mtimes[i], members.extras[i].nanoseconds if i in members.extras
             else 0) for i in plan.inodes
        ])  # fmt: skip

    assert found == [[(0, 0), (5, 500_000_000), (99, 0)], [(0, 0), (5, 0), (99, 0)]]
    assert plan.warnings == [
        "2 mtimes are outside the output's range and were moved to its nearest end",
        "1 mtimes have a fraction of a second, which the output cannot hold",
    ]
