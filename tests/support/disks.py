"""File systems in a file: the programs that make each, mounting one, and what is in it.

``HARD`` is an image of everything that a format may not hold.
"""

import contextlib
import errno
import os
import shutil
import stat
import subprocess
from itertools import chain
from mmap import ACCESS_READ, mmap
from pathlib import Path

import pytest

import flatten
from builders import layers, member
from flatten.outputs import inode
from flatten.outputs.choose import choose
from flatten.outputs.disks.read_erofs import Erofs
from flatten.outputs.disks.read_ext4 import Ext4
from flatten.outputs.disks.read_squashfs import Squashfs
from flatten.sources.open import open_image

TOOLS = {
    "squashfs": ("tar2sqfs",),
    "erofs": (),
    "ext4": ("mke2fs",),
    "qcow2": ("mke2fs", "qemu-img"),
    "cpio": ("cpio",),
    "cpio.gz": (),
}


READERS = {"squashfs": Squashfs, "erofs": Erofs, "ext4": Ext4}
ACL = b"user::rw-,user:5:r--,group::r--,mask::rw-,other::---"
LONG = "n" * 200

HARD = layers([
    member("./", type=b"5", mode=0o1751, mtime=11, uid=5, gid=6,
           records={b"SCHILY.xattr.user.root": b"r"}),
    member(f"x/{LONG}/{LONG}", b"x", records={b"SCHILY.xattr.user.k": b"v"}),
    member(f"x/link{LONG}", type=b"2", target="t/" * 90,
           records={b"SCHILY.xattr.trusted.k": b"v"}),
    member("x/acl", b"x", mode=0o660, records={b"SCHILY.acl.access": ACL}),
    member("x/default", type=b"5", records={b"SCHILY.acl.default": ACL}),
    member("x/plain acl", b"x", mode=0o640, records={
        b"SCHILY.acl.access": b"user::rw-,group::r--,other::---"}),
    member("x/other acl", b"x", mode=0o4777, records={b"SCHILY.acl.access": ACL}),
    member("x/label", b"x", records={b"RHT.security.selinux": b"a:b:c\0"}),
    member("x/large", b"x", records={b"SCHILY.xattr.user.large": b"v" * 600}),
    *(member(f"x/same{n}", b"x", records={b"SCHILY.xattr.user.s": b"same" * 40})
      for n in range(5)),
    member("t/1969", b"x", mtime=-86_400),
    member("t/-1", b"x", mtime=-1),
    member("t/-1ns", b"x", records={b"mtime": b"-0.000000001"}),
    member("t/2038", b"x", mtime=(1 << 31) + 5),
    member("t/2106", b"x", mtime=(1 << 32) + 5),
    member("t/2400", b"x", mtime=13_569_465_600),
    member("t/half", b"x", records={b"mtime": b"1700000000.5"}),
    member("t/late", b"x", records={b"mtime": b"13569465600.25"}),
    member("h/file", b"hh"),
    member("h/file 2", type=b"1", target="h/file"),
    member("h/short", type=b"2", target="f"),
    member('h/short "2"', type=b"1", target="h/short"),
    member("h/short\\3\t#", type=b"1", target="h/short"),
    member(b"h/caf\xe9", type=b"1", target="h/short"),
    member("h/long", type=b"2", target="f" * 80),
    member("h/long 2", type=b"1", target="h/long"),
    member("h/fifo", type=b"6", mode=0o600),
    member("h/fifo 2", type=b"1", target="h/fifo"),
    member("h/chr", type=b"3", device=(1, 3), mode=0o600),
    member("h/chr 2", type=b"1", target="h/chr"),
    member("h/blk", type=b"4", device=(259, 70_000), mode=0o600),
    member("h/blk 2", type=b"1", target="h/blk"),
    member("set", b"s", mode=0o6755, uid=3_000_000, gid=2_999_999),
    *(member(f"many/{n:04}-{'m' * 90}", b"x", mtime=n) for n in range(700)),
])  # fmt: skip


@contextlib.contextmanager
def mounted(disk, where):
    """Mount a file system, or skip the test where that is impossible."""
    where.mkdir()
    done = subprocess.run(
        ["mount", "-o", "loop,ro", disk, where],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"needs to mount {disk.suffix} on a loop device: {done.stderr}")
    try:
        yield where
    finally:
        subprocess.run(["umount", where], check=True)


def only(tmp_path, *tools):
    """Return a PATH that has these programs only, and what they need."""
    (tmp_path / "bin").mkdir()
    for tool in tools:
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool))
    return {"PATH": str(tmp_path / "bin")}


def plan_for(image, out):
    """Return the plan that an output of this name is written from."""
    with open_image(str(image)) as opened:
        shape = choose(out, flatten.Options()).shape(opened)
        return flatten.plan_image(opened, shape=shape)


def found(disk):
    """Return what the reader finds, by path."""
    reader = READERS[disk.suffix[1:]]
    with open(disk, "rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        return {
            path.rstrip(b"/"): node
            for path, node in inode.walk(reader(data))
            if path != b"lost+found/"
        }


def xattrs(path):
    """Return a file's xattrs; Linux reads none where no file of a SquashFS has any."""
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        assert error.errno == errno.EOPNOTSUPP  # noqa: PT017 - others are failures
        return {}
    return {
        os.fsencode(key): os.getxattr(path, key, follow_symlinks=False) for key in names
    }


def by_kernel(top):
    """Return what the kernel says of each path, and the first path of its inode."""
    rows, firsts = {}, {}
    walk = os.walk(top)  # rglob of Python 3.11.2 fails at targets of 4,095 bytes
    paths = [Path(folder, name) for folder, *names in walk for name in chain(*names)]
    for path in sorted([top, *paths], key=os.fsencode):
        name = os.fsencode(path.relative_to(top))
        status = path.lstat()
        rows[name] = [
            status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns,
            0 if stat.S_ISDIR(status.st_mode) else status.st_nlink,
            status.st_size if stat.S_ISREG(status.st_mode) else 0,
            (os.major(status.st_rdev), os.minor(status.st_rdev)),
            os.readlink(os.fsencode(path)) if path.is_symlink() else b"",
            xattrs(path),
            firsts.setdefault(status.st_ino, name),
        ]  # fmt: skip
    rows.pop(b"lost+found", None)
    return rows


def by_reader(disk):
    """Return what the reader says, as ``by_kernel`` does."""
    firsts = {}
    nodes = sorted(found(disk).items())
    return {
        name: [
            node.mode, node.uid, node.gid, node.mtime * 10**9 + node.nanoseconds,
            0 if stat.S_ISDIR(node.mode) else node.links,
            node.size if stat.S_ISREG(node.mode) else 0, node.device, node.target,
            node.xattrs, firsts.setdefault(node.number, name),
        ]
        for name, node in nodes
    }  # fmt: skip
