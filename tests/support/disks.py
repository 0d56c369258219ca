"""File systems in a file: the programs that make each, and mounting one."""

import contextlib
import shutil
import subprocess

import pytest

TOOLS = {
    "squashfs": ("tar2sqfs",),
    "erofs": ("mkfs.erofs",),
    "ext4": ("mke2fs", "debugfs"),
    "qcow2": ("mke2fs", "debugfs", "qemu-img"),
    "cpio": ("cpio",),
    "cpio.gz": (),
}


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
