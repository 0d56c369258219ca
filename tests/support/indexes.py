"""EROFS images and indexes, as the tests' own reader, Linux and fsck.erofs read them."""

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

import flatten
from erofs_reader import Image
from flatten.host.mounts import mount
from listing import disk_listing
from needs import PLACES

KERNEL = tuple(map(int, os.uname().release.split(".")[:2]))
can_mount = os.geteuid() == 0 and KERNEL >= (6, 4)
mounts_indexes = pytest.mark.skipif(
    not can_mount,
    reason="needs root, to mount, and Linux 6.4 or later",
)


def indexed(reference, out, **options):
    """Write an index of an image, and read it with the files that it points at."""
    done = flatten.export(reference, out, index=True, **options)
    devices = [Path(path).read_bytes() for path in done.devices]
    return Image(Path(out).read_bytes(), devices), done.devices


@contextlib.contextmanager
def mounted_index(index, devices, where):
    """Mount an index."""
    where.mkdir()
    mount(index, devices, where)
    try:
        yield where
    finally:
        subprocess.run(["umount", where], check=True)


def extracted(disk, devices, folder):
    """Return the rows that fsck.erofs extracts; None if it reads no such blocks.

    Those of 1.5 have no hard links, and no xattrs.
    """
    fsck = shutil.which("fsck.erofs", path=PLACES)
    if fsck is None:
        return None
    options = [f"--device={path}" for path in devices]
    done = subprocess.run(
        [fsck, *options, f"--extract={folder}", disk], capture_output=True, check=False
    )
    if b"superblock" in done.stderr:
        return None
    assert (done.returncode, done.stderr) == (0, b"")
    return disk_listing(folder)
