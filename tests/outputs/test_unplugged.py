"""A disk that disappears during a read or a write, in two real ways.

The disk is a file system in user space whose process is killed (bindfs: open files give
ENOTCONN), or an ext4 on a loop device whose file is truncated to nothing and cannot grow
again (EIO). Runs are held in the middle by a pipe that nobody reads, or by SIGSTOP.
"""

import os
import re
import shutil
import signal
import subprocess
import time

import pytest

from builders import docker_archive, docker_root, layers, member, oci_files
from command import FLATTEN

pytestmark = [
    pytest.mark.engines,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount"),
]

GONE = r"Input/output error|Transport endpoint is not connected|Software caused"


class Bindfs:
    """A directory behind a process; ``top`` is where it is mounted."""

    def __init__(self, folder):
        if shutil.which("bindfs") is None:
            pytest.skip("needs bindfs")
        self.behind, self.top = folder / "behind", folder / "disk"
        self.behind.mkdir()
        self.top.mkdir()
        self._process = subprocess.Popen(["bindfs", "-f", self.behind, self.top])
        while not os.path.ismount(self.top):
            time.sleep(0.01)

    def settle(self):
        """Forget what is in memory of it."""

    def unplug(self):
        self._process.kill()
        self._process.wait()

    def close(self):
        self.unplug()
        subprocess.run(["umount", "--lazy", self.top], check=True)


class Loop:
    """An ext4 in a file; ``top`` is where it is mounted."""

    def __init__(self, folder):
        if shutil.which("mke2fs") is None:
            pytest.skip("needs mke2fs")
        self._memory, self.top = folder / "memory", folder / "disk"
        self._memory.mkdir()
        self.top.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", self._memory], check=True)
        self._file = self._memory / "file"
        with self._file.open("wb") as file:
            file.truncate(200 << 20)
        subprocess.run(["mke2fs", "-q", "-t", "ext4", self._file], check=True)
        self._mount()

    def _mount(self):
        subprocess.run(["mount", "-o", "loop", self._file, self.top], check=True)

    def settle(self):
        subprocess.run(["umount", self.top], check=True)
        self._mount()

    def unplug(self):
        """Cut the file to nothing, where there is no room for another byte."""
        os.truncate(self._file, 0)
        options = "remount,size=4k"
        subprocess.run(["mount", "-o", options, self._memory], check=True)

    def close(self):
        subprocess.run(["umount", "--lazy", self.top, self._memory], check=True)


@pytest.fixture(params=[Bindfs, Loop])
def disk(request, tmp_path):
    found = request.param(tmp_path)
    yield found
    found.close()


def archive_on(top, tars):
    (top / "image.tar").write_bytes(docker_archive(tars))
    return top / "image.tar"


def layout_on(top, tars):
    for name, data in oci_files(tars).items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(data)
    return top


def docker_on(top, tars):
    docker_root(top, tars)
    return top


def tars():
    return layers([member(f"{n}", os.urandom(1_000_000)) for n in range(30)])


SOURCES = {"archive": archive_on, "layout": layout_on, "docker's root": docker_on}


@pytest.mark.parametrize("put", SOURCES.values(), ids=SOURCES)
@pytest.mark.parametrize("more", [[], ["--no-verify"]])
def test_the_disk_of_an_image(disk, put, more):
    source = put(disk.top, tars())
    disk.settle()
    with subprocess.Popen(
        [*FLATTEN, source, *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.read(100_000)  # it has begun to write, and waits
        disk.unplug()
        while process.stdout.read(1 << 20):
            pass
        said = process.stderr.read().decode()

    assert process.returncode == 1
    assert re.fullmatch(rf"flatten: .*/disk.*cannot read.*: ({GONE}).*\n", said), said


def test_the_disk_of_an_image_disappears_before_it_is_read(disk, tmp_path):
    source = archive_on(disk.top, tars())
    disk.settle()
    disk.unplug()

    got = subprocess.run(
        [*FLATTEN, source, "-o", tmp_path / "out.tar"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert got.returncode in (1, 3), got.stderr
    assert re.fullmatch(rf"flatten: .*({GONE}).*\n", got.stderr), got.stderr
    assert not (tmp_path / "out.tar").exists()


SMALL = [member(f"{n}", os.urandom(200)) for n in range(9_000)]
SLOW = {"new.tar.xz": [], "new.tar": ["--compress", "zstd:19"], "new/": []}
"""Outputs that take a second at least, with options."""


@pytest.mark.parametrize(("name", "more"), SLOW.items(), ids=SLOW)
def test_the_disk_of_the_output(disk, tmp_path, name, more):
    (tmp_path / "image").mkdir()
    source = archive_on(tmp_path / "image", layers(SMALL))
    disk.settle()
    out = disk.top / name
    with subprocess.Popen(
        [*FLATTEN, source, "-o", f"{disk.top}/{name}", *more],
        stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        while not [p for p in disk.top.iterdir() if p.name != "lost+found"]:
            time.sleep(0.0005)
        process.send_signal(signal.SIGSTOP)
        disk.unplug()
        process.send_signal(signal.SIGCONT)
        said = process.stderr.read()

    assert process.returncode == 1, said
    assert said.startswith("flatten: "), said
    assert said.count("\n") == 1, said
    assert re.search(rf"{GONE}|Read-only file system|No space left", said), said
    assert not (isinstance(disk, Bindfs) and (disk.behind / name).exists())
    assert not os.path.exists(out)
