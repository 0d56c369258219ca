"""Images of ours in real engines: docker, podman, skopeo. Run by `make check-engines`."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from test_headers import sparse_gnu
from test_image import SETTINGS, STEPS
from test_tar import EVERYTHING, root_only

import flatten
from builders import config, docker_archive
from flatten.image.history import Point
from listing import listing

pytestmark = [pytest.mark.engines, root_only]

STEPS_OF_ALL = [STEPS[0], STEPS[1], STEPS[2]]  # of two layers
MADE_BY_ENGINES = ("etc/hostname", "etc/hosts", "etc/resolv.conf", "etc/mtab", "dev/",
                   "proc", "sys", "dev", ".dockerenv", "run/.containerenv", "run")  # fmt: skip


def need(tool):
    if shutil.which(tool) is None:
        pytest.skip(f"needs {tool}")


def call(*command, **options):
    return subprocess.run(
        list(map(str, command)), check=True, capture_output=True, text=True, **options
    ).stdout


@pytest.fixture(scope="module")
def docker(tmp_path_factory):
    """Return what runs docker, with a daemon of its own."""
    need("dockerd")
    folder = tmp_path_factory.mktemp("d")  # a socket's path is short
    address = f"unix://{folder}/s"
    argv = [
        "dockerd", "--data-root", folder / "root", "--exec-root", folder / "exec",
        "--pidfile", folder / "pid", "-H", address, "--storage-driver", "vfs",
        "--iptables=false", "--ip-masq=false", "--bridge=none",
    ]  # fmt: skip
    with (folder / "log").open("w") as log:
        daemon = subprocess.Popen(argv, stdout=log, stderr=log)
    client = shutil.which("docker", path="/usr/bin") or "docker"
    try:
        for _ in range(200):
            if subprocess.run([client, "-H", address, "info"], check=False,
                              capture_output=True).returncode == 0:  # fmt: skip
                break
            time.sleep(0.1)
        else:
            pytest.skip(
                f"dockerd does not start here: {(folder / 'log').read_text()[-500:]}"
            )
        yield lambda *args: call(client, "-H", address, *args)
    finally:
        daemon.terminate()
        daemon.wait()


@pytest.fixture(scope="module")
def podman(tmp_path_factory):
    """Return what runs podman, with a store of its own."""
    need("podman")
    folder = tmp_path_factory.mktemp("p")
    return lambda *args: call(
        "podman", "--root", folder / "root", "--runroot", folder / "run",
        "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", *args,
    )  # fmt: skip


@pytest.fixture
def image(tmp_path, request):
    """Return an image; one of whose layers stay has no sparse file, as docker wants."""
    tars = EVERYTHING
    if "since" in request.fixturenames and request.getfixturevalue("since"):
        sparse = sparse_gnu(b"sparse", [(8192, 512), (1 << 20, 0)], 1 << 20, b"s" * 512)
        tars = [tar.replace(sparse, b"") for tar in tars]
    document = config(tars, config=SETTINGS, history=STEPS_OF_ALL)
    path = tmp_path / "i.tar"
    path.write_bytes(docker_archive(tars, config_document=document))
    return path


def rows(tar):
    """List a container's tree, but for what engines put into every one."""
    return {
        row["path"]: row
        for row in listing(Path(tar))
        if row["path"] and not row["path"].startswith(MADE_BY_ENGINES)
    }


def wanted(image, tmp_path):
    flatten.export(image, tmp_path / "flat.tar")
    return rows(tmp_path / "flat.tar")


def compared(found, since):
    """Leave out what engines' exports leave out, or change for every container.

    Layers that stay are read by the engine: it takes modes from headers of hard links.
    """
    for row in found.values():
        row.pop("xattrs", None)
        row["mode"] = f"{int(row['mode'], 8) & 0o7777:04o}"
        row["mtime"] = 0 if row["type"] == "dir" else max(row["mtime"], 0)
        if since:
            row |= {"mode": "", "uid": 0, "gid": 0, "mtime": 0}
    found.pop(SETTINGS["WorkingDir"].strip("/"), None)
    return found


@pytest.mark.parametrize("since", [None, Point(step=1)])
def test_docker_loads_it(docker, image, tmp_path, since):
    flatten.export(
        image, tmp_path / "o.tar", image_kind="docker", since=since, tags=("us/x:1",)
    )
    assert docker("load", "-i", tmp_path / "o.tar").endswith("Loaded image: us/x:1\n")

    (found,) = json.loads(docker("inspect", "us/x:1"))
    assert {key: found["Config"][key] for key in SETTINGS} == SETTINGS
    assert len(found["RootFS"]["Layers"]) == (1 if since is None else 2)
    assert docker("history", "-q", "us/x:1").count("\n") == len(STEPS_OF_ALL) + 1
    container = docker("create", "us/x:1").strip()
    docker("export", container, "-o", tmp_path / "export.tar")
    got = compared(rows(tmp_path / "export.tar"), since)
    assert got == compared(wanted(image, tmp_path), since)


@pytest.mark.parametrize("kind", ["docker", "oci"])
@pytest.mark.parametrize("since", [None, Point(step=1)])
def test_podman_loads_it(podman, image, tmp_path, kind, since):
    flatten.export(
        image, tmp_path / "o.tar", image_kind=kind, since=since, tags=("us/x:1",)
    )
    podman("load", "-i", tmp_path / "o.tar")

    (found,) = json.loads(podman("inspect", "localhost/us/x:1"))
    assert {key: found["Config"][key] for key in SETTINGS} == SETTINGS
    container = podman("create", "localhost/us/x:1").strip()
    podman("export", container, "-o", tmp_path / "export.tar")
    got = compared(rows(tmp_path / "export.tar"), since)
    podman("rm", container)
    assert got == compared(wanted(image, tmp_path), since)


@pytest.mark.parametrize("kind", ["docker-archive", "oci-archive"])
@pytest.mark.parametrize("compress", [None, "gzip"])
def test_skopeo_copies_it(image, tmp_path, kind, compress):
    need("skopeo")
    if kind == "docker-archive" and compress:
        return
    flatten.export(image, tmp_path / "o.tar", image_kind=kind.partition("-")[0],
                   compress=compress)  # fmt: skip
    call("skopeo", "--insecure-policy", "copy", f"{kind}:{tmp_path}/o.tar",
         f"oci:{tmp_path}/layout:x", cwd=tmp_path, env=os.environ)  # fmt: skip

    flatten.export(tmp_path / "layout", tmp_path / "again.tar")
    flatten.export(image, tmp_path / "flat.tar")
    assert (tmp_path / "again.tar").read_bytes() == (tmp_path / "flat.tar").read_bytes()
