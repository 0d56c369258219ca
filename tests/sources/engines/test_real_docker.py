"""Real dockerd of every storage driver: roots, docker save and docker export agree.

Run by ``make check-engines``, as root; each driver has its own daemon and data root.
"""

import io
import os
import shutil
import stat
import subprocess
import tarfile
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

import flatten
from builders import docker_archive, layers, member
from listing import disk_listing, listing

NEEDED = ("dockerd", "docker", "busybox", "mkfs.btrfs")
MISSING = [tool for tool in NEEDED if shutil.which(tool) is None]

pytestmark = [
    pytest.mark.engines,
    pytest.mark.skipif(bool(MISSING), reason=f"needs {' '.join(MISSING)}"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to run dockerd"),
]

DRIVERS = ("overlay2", "vfs", "overlay", "btrfs", "fuse-overlayfs", "aufs")

ODD = layers(
    ["d/", "d/sub/", "d/a", "d/b", "d/sub/c", "keep/", "keep/k", "gone/", "gone/g",
     "h=d/a", "s->d/b", "e/", "e/1", member("big", b"B" * 300_000),
     member("x", b"x", records={b"SCHILY.xattr.user.x": b"\0\n"}),
     member("setuid", b"s", mode=0o6755, uid=7, gid=60_000),
     member("fifo", type=b"6"), member("null", type=b"3", device=(1, 3)),
     member("n" * 120, b"long"), member("caf\xe9".encode("latin-1"), b"bytes"),
     member("nanos", b"n", records={b"mtime": b"1500000000.123456789"})],
    ["d/", "d/sub/", "-d/a", "d/sub/*", "d/sub/new", "-gone", "e/", "-e/1", "e/2"],
    b"",
    ["keep/", "keep/deep/", "keep/deep/er/", "keep/deep/er/file"],
)  # fmt: skip

DOCKERFILE = """\
FROM scratch
ADD base.tar /
ADD busybox /bin/busybox
RUN ["/bin/busybox", "mkdir", "-p", "/usr/bin", "/e/deep", "/f"]
RUN ["/bin/busybox", "--install", "-s", "/usr/bin"]
ENV PATH=/usr/bin:/bin
RUN rm -r /d/sub && echo new > /d/new && chmod 4711 /d/b && ln /d/b /f/linked
RUN rm -r /e && mkdir -p /e && echo again > /e/again
LABEL a=b
COPY Dockerfile /f/
"""

CHANGES = """\
rm -r /usr/bin/zcat /keep; echo changed > /f/Dockerfile; mkdir -p /new/deep
mv /e /moved; ln /d/b /new/link; ln -s ../d /new/sym; mkfifo /new/pipe
chown 5:6 /d/new; chmod 600 /d/b; touch /new/deep/empty; rm -r /d/other; mkdir /d/other
"""


class Docker:
    """A daemon of its own, on a data root of its own."""

    def __init__(self, folder, *options):
        self.root = folder / "data"
        self.socket = f"unix://{folder}/d.sock"
        self.log = folder / "log"
        self.log.touch()
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                ["dockerd", "--data-root", self.root, "--exec-root", folder / "exec",
                 "-H", self.socket, "-p", folder / "pid", "--iptables=false",
                 "--ip6tables=false", "--bridge=none", *options],
                stdout=log, stderr=log,
            )  # fmt: skip
        for _ in range(100):
            if self.process.poll() is not None:
                last = self.log.read_text().strip().splitlines()[-1]
                pytest.skip(f"dockerd does not start: {last}")
            if self.run("info", check=False).returncode == 0:
                return
            time.sleep(0.2)
        self.stop()
        pytest.fail(f"dockerd does not answer: {self.log.read_text()[-500:]}")

    def run(self, *arguments, check=True, **more):
        environment = os.environ | {"DOCKER_HOST": self.socket, "DOCKER_BUILDKIT": "0"}
        done = subprocess.run(
            ["docker", *map(str, arguments)],
            check=False, capture_output=True, env=environment, **more,
        )  # fmt: skip
        assert not check or done.returncode == 0, done.stderr.decode()
        return done

    def stop(self):
        self.process.terminate()
        self.process.wait(60)


@contextmanager
def running(driver, *options):
    """Run a daemon with a driver; for btrfs, on a file system of its own.

    Its directory has a short name, for sockets, and others may enter it.
    """
    with ExitStack() as stack:
        above = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fl")))
        above.chmod(0o711)
        folder = above / "docker"
        folder.mkdir()
        if driver == "btrfs":
            image = above / "btrfs.img"
            with image.open("wb") as file:
                file.truncate(1 << 30)
            subprocess.run(["mkfs.btrfs", "-q", image], check=True)
            subprocess.run(["mount", "-o", "loop", image, folder], check=True)
            stack.callback(subprocess.run, ["umount", folder], check=True)
        unmount = ["umount", folder / "data"]  # left when it could not start
        stack.callback(subprocess.run, unmount, check=False, capture_output=True)
        docker = Docker(folder, "--storage-driver", driver, *options)
        stack.callback(docker.stop)
        prepare(docker, above)
        yield docker


def prepare(docker, folder):
    """Load an image of odd layers, build another, and make containers of it."""
    odd = folder / "odd.tar"
    odd.write_bytes(docker_archive(ODD, tags=["fx/odd:1"]))
    docker.run("load", "-i", odd)
    context = folder / "context"
    context.mkdir()
    with tarfile.open(context / "base.tar", "w") as base:
        for name in ("bin", "d", "d/sub", "d/other", "e", "keep"):
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.mtime = tarfile.DIRTYPE, 0o755, 1_600_000_000
            base.addfile(info)
        shell = tarfile.TarInfo("bin/sh")
        shell.type, shell.linkname, shell.mode = tarfile.SYMTYPE, "busybox", 0o777
        base.addfile(shell)
        for name in ("d/b", "d/sub/c", "d/other/o", "e/old", "keep/k"):
            info = tarfile.TarInfo(name)
            info.size, info.mtime = 5, 1_600_000_000
            base.addfile(info, io.BytesIO(b"12345"))
    shutil.copy(shutil.which("busybox"), context / "busybox")
    (context / "Dockerfile").write_text(DOCKERFILE)
    docker.run("build", "--network", "none", "-t", "fx/built:1", context)
    docker.run("create", "--name", "idle", "fx/built:1", "sh")
    docker.run("run", "--network", "none", "--name", "ran", "fx/built:1",
               "sh", "-ec", CHANGES)  # fmt: skip
    docker.run("commit", "ran", "fx/commit:1")


@pytest.fixture(scope="module", params=DRIVERS)
def docker(request):
    """A prepared daemon of each driver."""
    known = Path("/proc/filesystems").read_text().split()
    if request.param == "aufs" not in known:
        pytest.skip("needs a kernel with aufs")
    with running(request.param) as daemon:
        yield daemon


@pytest.mark.parametrize("name", ["fx/odd:1", "fx/built:1", "fx/commit:1"])
def test_the_root_gives_the_bytes_of_docker_save(docker, tmp_path, name):
    docker.run("save", "-o", tmp_path / "save.tar", name)

    from_save = flatten.export(f"{tmp_path}/save.tar", tmp_path / "a.tar")
    from_root = flatten.export(f"{docker.root}#{name}", tmp_path / "b.tar")

    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    assert from_root == from_save
    assert from_root.verified == from_root.layers


@pytest.mark.parametrize("name", ["idle", "ran"])
def test_a_container_is_what_docker_export_writes(docker, tmp_path, name):
    docker.run("export", "-o", tmp_path / "export.tar", name)

    flatten.export(
        f"{docker.root}#container:{name}", tmp_path / "out.tar", with_init=True
    )

    want, got = rows(tmp_path / "export.tar"), rows(tmp_path / "out.tar")
    got.pop("", None)
    if "etc/mtab" not in want:  # docker made it for the host's root, and cannot map it
        links = docker.root.glob("*/overlay2/*-init/diff/etc/mtab")
        assert {link.lstat().st_uid for link in links} == {0}
        del got["etc/mtab"]
    for path, row in got.items():
        if row["type"] == "dir":  # one that no layer lists has the disk's time there
            row["mtime"] = want.get(path, row)["mtime"]
    assert got == want


def rows(tar):
    """List a tar; docker writes file types into modes."""
    out = {row["path"]: row for row in listing(tar)}
    for row in out.values():
        row["mode"] = row["mode"][-4:]
    return out


@pytest.mark.parametrize("name", ["fx/built:1", "fx/commit:1"])
def test_without_records_an_image_is_the_tree_that_the_driver_mounts(
    docker, tmp_path, name
):
    """Compared with a container's mount: the image and docker's init layer."""
    docker.run("create", "--name", "shown", name, "sh")
    mount = inspect(docker, "shown", "{{.GraphDriver.Name}} {{.Id}}")
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-a", "--reflink=auto", docker.root, copy], check=True)
    for path in copy.glob("image/*/layerdb/sha256/*/tar-split.json.gz"):
        path.unlink()
    docker.run("export", "-o", tmp_path / "export.tar", "shown")
    docker.run("rm", "shown")

    done = flatten.export(
        f"{copy}#container:shown", tmp_path / "out.tar", with_init=True
    )

    want, got = rows(tmp_path / "export.tar"), rows(tmp_path / "out.tar")
    del got[""]
    assert got == want, mount
    assert done.verified == 0
    assert done.warnings


def inspect(docker, name, what):
    return docker.run("inspect", "-f", what, name).stdout.decode().strip()


def test_the_live_mount_of_a_running_container(docker, tmp_path):
    """Its changes are there, and docker's init layer is not."""
    docker.run("run", "-d", "--network", "none", "--name", "live", "fx/built:1",
               "sh", "-c", "rm -r /keep; echo 1 > /one; sleep 100")  # fmt: skip
    try:
        time.sleep(1)
        flatten.export(f"{docker.root}#container:live", tmp_path / "out.tar")
    finally:
        docker.run("rm", "-f", "live")

    got = rows(tmp_path / "out.tar")
    assert "one" in got
    assert "keep" not in got


def test_a_daemon_in_a_user_namespace(tmp_path):
    """Its root is a subdirectory of the usual one; owners on the disk are shifted."""
    users = [line.split(":")[0] for line in Path("/etc/subuid").read_text().split()]
    if not users:
        pytest.skip("needs a user in /etc/subuid")
    option = f"--userns-remap={users[0]}"
    with running("overlay2", option) as docker:
        test_the_root_gives_the_bytes_of_docker_save(docker, tmp_path, "fx/commit:1")
        test_a_container_is_what_docker_export_writes(docker, tmp_path, "ran")


def test_a_running_container_is_the_tree_of_its_overlay_mount(tmp_path):
    """The kernel's own view of overlay2, mounted, against the walk of its parts."""
    with running("overlay2") as docker:
        docker.run("run", "-d", "--network", "none", "--name", "live", "fx/built:1",
                   "sh", "-c", f"{CHANGES}\nsleep 100")  # fmt: skip
        try:
            time.sleep(1)
            merged = Path(inspect(docker, "live", "{{.GraphDriver.Data.MergedDir}}"))
            want = [row for row in disk_listing(merged) if not skipped(row)]
            for path in docker.root.glob("image/*/layerdb/sha256/*/tar-split.json.gz"):
                path.unlink()
            flatten.export(
                f"{docker.root}#container:live", tmp_path / "o.tar", with_init=True
            )
        finally:
            docker.run("rm", "-f", "live")

    assert listing(tmp_path / "o.tar") == want


def skipped(row):
    return stat.S_ISSOCK(int(row["mode"], 8))
