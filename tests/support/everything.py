"""An image that has everything, and its tree as other programs unpack it."""

import base64
import hashlib
import os

from builders import layers, member
from headers import sparse_gnu
from listing import listing

CAPABILITY = bytes.fromhex("0100000200200000" + "00" * 12)
LONG = "l" * 120
EVERYTHING = layers(
    [
        member("./", type=b"5", mode=0o755, mtime=11),
        member("bin/", type=b"5", mode=0o755, mtime=22),
        member("bin/su", b"setuid", mode=0o4755, uid=0, gid=7),
        member("bin/ping", b"caps", mode=0o755,
               records={b"SCHILY.xattr.security.capability": CAPABILITY}),
        member("etc/", type=b"5", mode=0o750, uid=3, gid=4, mtime=33),
        member("etc/old", b"goes", mtime=1),
        member("etc/conf", b"c" * 3000, mode=0o600, uid=1000, gid=1000),
        member("etc/copy", type=b"1", target="etc/conf"),
        member("etc/second", type=b"1", target="etc/conf"),
        member("dev/null", type=b"3", device=(1, 3), mode=0o666),
        member("dev/loop", type=b"4", device=(7, 300), mode=0o660, gid=6),
        member("run/fifo", type=b"6", mode=0o600),
        member(f"{LONG}/{LONG}/{LONG}", b"long"),
        member("link", type=b"2", target=LONG * 2, uid=5),
        member("tmp/", type=b"5", mode=0o1777),
        member(b"caf\xe9", b"latin"),
        member("owner", b"big", uid=3_000_000, gid=3_000_001),
        member("before", b"1960", mtime=-315_619_200),
        member("xattr", b"x", records={
            b"SCHILY.xattr.user.a": b"\0\xff\n", b"SCHILY.xattr.user.b": b""}),
        member("large", os.urandom(700_001)),
        sparse_gnu(b"sparse", [(8192, 512), (1 << 20, 0)], 1 << 20, b"s" * 512),
    ],
    [
        "-etc/old",
        member("etc/conf", b"new", mode=0o640, mtime=44),
        member("bin/zz", b"late"),
    ],
)  # fmt: skip
STEPS = [
    {"created_by": "base", "created": "2020-01-01T00:00:00Z"},
    {"created_by": "ENV A=1", "empty_layer": True},
    {"created_by": "COPY b", "created": "2021-01-01T00:00:00Z"},
    {"created_by": "RUN rm a", "created": "2022-01-01T00:00:00Z"},
]
SETTINGS = {
    "Env": ["A=1"], "Entrypoint": ["/e"], "Cmd": ["c"], "User": "7:8",
    "Labels": {"l": "1"}, "WorkingDir": "/w", "ExposedPorts": {"80/tcp": {}},
}  # fmt: skip
ACL_TEXT = b"user::rw-,user:1000:r--,group::r--,mask::r--,other::---"
ACL = (
    b"user::rw-,user:lisa:r--:1000,group::r--,mask::r--,other::---",
    bytes.fromhex(
        "02000000 01000600ffffffff 02000400e8030000 04000400ffffffff"
        "10000400ffffffff 20000000ffffffff"
    ),
)


def on_disk(top):
    """Describe what a reader unpacked, by path, as ``listing`` does."""
    found, inodes = {}, {}
    for path in sorted([top, *top.rglob("*")]):
        name = os.fsencode(path.relative_to(top)).decode("utf-8", "surrogateescape")
        name = "" if name == "." else name
        status = path.lstat()
        kind = {0o04: "dir", 0o10: "file", 0o12: "symlink", 0o01: "fifo", 0o02: "chr",
                0o06: "blk"}[status.st_mode >> 12]  # fmt: skip
        row = {
            "path": name, "type": kind, "mode": f"{status.st_mode & 0o7777:04o}",
            "uid": status.st_uid, "gid": status.st_gid,
            "mtime": status.st_mtime_ns // 10**9,
        }  # fmt: skip
        if kind == "symlink":
            row["linkname"] = os.readlink(path)
        if kind == "file":
            row["size"] = status.st_size
            row["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
            row["first"] = inodes.setdefault(status.st_ino, name)
        if kind in ("chr", "blk"):
            row["rdev"] = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
        names = os.listxattr(path, follow_symlinks=False)
        row["xattrs"] = {
            key: os.getxattr(path, key, follow_symlinks=False)
            for key in names
            if key != "security.selinux"
        }
        found[name] = row
    return found


def promised(out):
    """Describe what our tar says, by path, as ``on_disk`` does."""
    rows = {}
    for row in listing(out):
        if row["type"] in ("file", "hardlink"):
            row["first"] = row.pop("linkname", row["path"])
            row["type"] = "file"
        xattrs = row.get("xattrs", {}).items()
        row["xattrs"] = {key: base64.b64decode(value) for key, value in xattrs}
        if row["path"] == "xattr":
            row["xattrs"]["user.b"] = b""  # which Python does not report
        rows[row["path"]] = row
    return rows
