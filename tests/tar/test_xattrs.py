"""Extended attributes from PAX records, and ACLs from their text."""

import subprocess

import pytest

from everything import ACL
from flatten.tar.xattrs import from_records, parse_acl

ACLS = {
    "a number after a name": ACL,
    "a number for a name": (ACL[0].replace(b"lisa:r--:1000", b"1000:r--"), ACL[1]),
    "a line an entry": (ACL[0].replace(b",", b"\n") + b"\n", ACL[1]),
    "comments, as getfacl writes them": (
        ACL[0].replace(b"mask::r--", b"mask::r--  #effective:r--"), ACL[1]
    ),
    "another order": (b",".join(sorted(ACL[0].split(b","), reverse=True)), ACL[1]),
}  # fmt: skip


@pytest.mark.parametrize(("text", "want"), ACLS.values(), ids=ACLS)
def test_acl(text, want):
    assert parse_acl(text) == want


@pytest.mark.parametrize(
    "text", [b"nobody::r--", b"user:lisa:r--", b"user::xwr", b"user:1:r--:2:3", b"r--"]
)
def test_no_acl(text):
    with pytest.raises(ValueError, match=r"."):
        parse_acl(text)


def test_the_kernel_takes_what_setfacl_would_write(tmp_path):
    (tmp_path / "f").touch()
    import os

    os.setxattr(tmp_path / "f", "system.posix_acl_access", ACL[1])

    assert os.getxattr(tmp_path / "f", "system.posix_acl_access") == ACL[1]
    assert subprocess.run(["true"], check=True).returncode == 0


RECORDS = {
    "byte for byte": ({b"SCHILY.xattr.user.a": b"\0\xff"}, {b"user.a": b"\0\xff"}),
    "a label of Red Hat's": (
        {b"RHT.security.selinux": b"l"},
        {b"security.selinux": b"l"},
    ),
    "a label said twice": (
        {b"RHT.security.selinux": b"l", b"SCHILY.xattr.security.selinux": b"l\0"},
        {b"security.selinux": b"l\0"},
    ),
    "an ACL": ({b"SCHILY.acl.default": ACL[0]}, {b"system.posix_acl_default": ACL[1]}),
    "what is none": ({b"comment": b"x"}, {}),
}


@pytest.mark.parametrize(("records", "want"), RECORDS.values(), ids=RECORDS)
def test_from_records(records, want):
    assert from_records(sorted(records.items(), reverse=True)) == want
