"""Docker and podman of Debian forky: their stores against their saves and exports.

FLATTEN_ENGINES_ROOT is a root file system that has them. The tests add two users to it,
and write /etc/subuid and /etc/subgid::

    debootstrap --variant=minbase --include=docker.io,docker-cli,docker-buildx,podman,\
uidmap,containerd,busybox-static forky DIRECTORY
"""

import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pytest

import flatten
from kinds import run
from listing import listing

ROOT = os.environ.get("FLATTEN_ENGINES_ROOT", "")
pytestmark = [
    pytest.mark.engines,
    pytest.mark.skipif(not ROOT, reason="needs FLATTEN_ENGINES_ROOT"),
    pytest.mark.skipif(os.geteuid() != 0, reason="engines need root"),
]

ENTER = """
set -e
mount --bind "$0" "$0"
cd "$0"
mount -t proc proc proc
mount -t sysfs sys sys
mount --rbind /dev dev
mount --rbind /sys/fs/cgroup sys/fs/cgroup
mount -t tmpfs run run
mkdir -p run/shared run/old
mount --bind "$1" run/shared
pivot_root . run/old
umount -l /run/old
cd /run/shared
exec sh -ec "$2"
"""
"""Runs a script in a root file system of its own; user namespaces need pivot_root."""

DOCKER = r"""
echo 'dockremap:300000:65536' > /etc/subuid
echo 'dockremap:400000:65536' > /etc/subgid
id dockremap > /dev/null 2>&1 || useradd -r dockremap
if [ "$SYSTEM" ]; then
  printf 'version = 3\nroot = "/run/shared/containerd"\nstate = "/run/c"\n%s\n%s\n' \
    '[grpc]' 'address = "/run/c.sock"' > /run/config.toml
  containerd -c /run/config.toml > containerd.log 2>&1 &
  until [ -S /run/c.sock ]; do sleep 0.2; done
fi
dockerd --data-root /run/shared/docker --exec-root /run/exec -H unix:///run/d.sock \
  -p /run/d.pid --iptables=false --ip6tables=false --bridge=none $OPTIONS \
  > dockerd.log 2>&1 &
export DOCKER_HOST=unix:///run/d.sock
for i in $(seq 100); do docker info > /dev/null 2>&1 && break; sleep 0.2; done
if [ "$LOAD" ]; then
  docker load -i "$LOAD"
else
  docker build -q --network none -t app:1 build
fi
docker create --name created --network none app:1
docker run --name stopped --network none app:1 /bin/sh -c \
  'echo s > /s; rm /built; mv /x /moved; ln /d/n /new; chown 5:6 /s'
docker run -d --name running --network none app:1 /bin/sh -c \
  'rm -r /d; echo r > /r; exec sleep 1000'
until docker exec running test -e /r; do sleep 0.2; done
for name in created stopped running; do docker export $name -o $name.tar; done
docker save app:1 -o save.tar
cp -a docker live
[ ! "$SYSTEM" ] || cp -a containerd live-containerd
docker rm -f running
kill $(cat /run/d.pid)
wait %% 2> /dev/null || true
"""

DOCKERFILE = """\
FROM scratch
COPY root/ /
RUN ["/bin/busybox", "sh", "-c", "echo built > /built; rm /d/m; mkdir /x"]
RUN ["/bin/busybox", "sh", "-c", "chown 7:8 /x; echo y > /x/y"]
CMD ["/bin/sh"]
"""

REMAP = "--userns-remap=dockremap"
STORE = "--feature=containerd-snapshotter=true"
DAEMONS = {
    "overlay2": "--storage-driver=overlay2",
    "vfs": "--storage-driver=vfs",
    "overlay2 with userns-remap": f"--storage-driver=overlay2 {REMAP}",
    "its own containerd": STORE,
    "its own containerd with userns-remap": f"{STORE} {REMAP}",
    "the system's containerd": f"{STORE} --containerd=/run/c.sock",
}


def inside(folder, script, **environment):
    """Run a script in the root file system; the folder is its working directory."""
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
    done = subprocess.run(
        [*command, "sh", "-c", ENTER, ROOT, folder, script],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", **environment},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    logs = "".join(path.read_text()[-2000:] for path in folder.glob("*.log"))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    return done.stdout


def tree(folder):
    """Write the files of an image: busybox, and a directory."""
    (folder / "bin").mkdir(parents=True)
    shutil.copy(Path(ROOT) / "usr/bin/busybox", folder / "bin/busybox")
    for name in ("sh", "cat", "chown", "ln", "mv", "rm", "sleep", "test"):
        (folder / "bin" / name).symlink_to("busybox")
    (folder / "d").mkdir()
    (folder / "d" / "m").write_text("m")
    (folder / "d" / "n").write_text("n")


@pytest.fixture
def folder():
    """Return a directory that other users may enter, unlike pytest's."""
    path = Path(tempfile.mkdtemp(prefix="flatten-engines-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def rows(tar):
    """List a tar without its root; docker writes file types into modes."""
    return {
        row["path"]: row | {"mode": row["mode"][-4:]}
        for row in listing(tar)
        if row["path"]
    }


def built(folder):
    """Build an image with docker's default options, and return its archive."""
    inside(folder, DOCKER, OPTIONS=DAEMONS["overlay2"], LOAD="", SYSTEM="")
    archive = folder / "load.tar"
    (folder / "save.tar").rename(archive)
    for name in ("docker", "live"):
        shutil.rmtree(folder / name)
    return archive


@pytest.mark.parametrize("name", DAEMONS)
def test_docker(folder, tmp_path, name):
    (folder / "build").mkdir()
    (folder / "build" / "Dockerfile").write_text(DOCKERFILE)
    tree(folder / "build" / "root")
    options = DAEMONS[name]
    # BuildKit cannot run steps for the containerd image store in a user namespace.
    load = built(folder).name if {STORE, REMAP} <= {*options.split()} else ""
    system = "yes" if "--containerd" in options else ""

    inside(folder, DOCKER, OPTIONS=options, LOAD=load, SYSTEM=system)

    root, live = folder / "docker", folder / "live"
    want, got = tmp_path / "want.tar", tmp_path / "got.tar"
    flatten.export(folder / "save.tar", want)
    done = flatten.export(f"{root}#app:1", got)
    assert got.read_bytes() == want.read_bytes()
    assert (done.verified, done.warnings) == (done.layers, ())
    if system:  # it is found next to docker's data root under this name
        above = folder / "copy"
        above.mkdir()
        live = live.rename(above / "docker")
        (folder / "live-containerd").rename(above / "containerd")
    for container, source in (("created", root), ("stopped", root), ("running", live)):
        flatten.export(
            f"{source}#container:{container}", got, with_init=True, force=True
        )
        found, expected = rows(got), rows(folder / f"{container}.tar")
        if "etc/mtab" not in expected:  # docker made it for the host's root
            assert REMAP in options
            del found["etc/mtab"]
        assert found == expected
    for source in (root, live):
        report = json.loads(run("orphans", source, "--json").stdout)
        assert report == {"orphans": [], "problems": []}


PODMAN = r"""
set -e
export PODMAN_IGNORE_CGROUPSV1_WARNING=1 XDG_RUNTIME_DIR=/run/u HOME=/run/shared/u
P="podman --root $HOME/storage --runroot /run/u/root --storage-driver $DRIVER"
P="$P --cgroup-manager=cgroupfs --events-backend=file"
$P import base.tar base:1
for name in keep plain; do
  [ $name = plain ] && options= || options=--userns=keep-id
  $P create --name $name $options --network none --cgroups=disabled base:1 /bin/sh
  podman unshare sh -ec "m=\$($P mount $name); echo hi > \$m/new; ln \$m/d/n \$m/link
    touch \$m/one; chown 1:1 \$m/one; rm \$m/d/m; $P umount $name"
  $P export $name -o $HOME/$name.tar
done
$P create --name external --network none --cgroups=disabled --rootfs $HOME /bin/sh
"""
USER = r"""
getent group flat > /dev/null || groupadd -g 61003 flat
id flat > /dev/null 2>&1 || useradd -u 61003 -g flat flat
echo 'flat:200000:65536' > /etc/subuid
echo 'flat:200000:65536' > /etc/subgid
mkdir -p /run/u u
chown flat:flat /run/u u
export DRIVER
su flat -c "$SCRIPT"
"""


@pytest.mark.parametrize("driver", ["overlay", "vfs"])
def test_rootless_podman(folder, tmp_path, driver):
    """All files of the image are root's, so only a copy for keep-id shows the ids."""
    tree(tmp_path / "root")
    with tarfile.open(folder / "base.tar", "w") as base:
        base.add(tmp_path / "root", arcname="")

    inside(folder, USER, DRIVER=driver, SCRIPT=PODMAN)

    store, out = folder / "u" / "storage", tmp_path / "out.tar"
    done = flatten.export(f"{store}#container:keep", out)
    got = {path: (row["uid"], row["gid"]) for path, row in rows(out).items()}
    assert done.warnings == ()
    assert (got["bin/busybox"], got["new"], got["one"]) == (
        (0, 0), (61_003, 61_003), (0, 0),
    )  # fmt: skip
    # podman exports owners in the user's namespace, not in the container's.
    inner = {0: 61_003, 1: 0}
    want = {
        path: (inner[row["uid"]], inner[row["gid"]])
        for path, row in rows(folder / "u" / "keep.tar").items()
    }
    assert got == want
    done = flatten.export(f"{store}#container:plain", out, force=True)
    got, want = rows(out), rows(folder / "u" / "plain.tar")
    assert got.pop("one")["uid"] == 200_000
    assert "owners stay as they are" in done.warnings[0]
    del want["one"]
    assert got == want
    with pytest.raises(flatten.FormatError, match="made with --rootfs"):
        flatten.open_image(f"{store}#container:external")
