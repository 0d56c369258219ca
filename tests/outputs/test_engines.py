"""Images that flatten writes, in docker, podman, containerd, skopeo and umoci.

`make check-engines` runs it.
"""

import json
import os
import shutil
import subprocess
import tarfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from test_headers import sparse_gnu
from test_image import SETTINGS, STEPS
from test_tar import ACL_TEXT, EVERYTHING, on_disk, root_only

import flatten
from builders import TRUSTED, config, docker_archive, layer, member
from flatten.image.history import Point
from listing import listing

pytestmark = [pytest.mark.engines, root_only]

STEPS_OF_ALL = STEPS  # of three layers
MADE_BY_ENGINES = ("etc/hostname", "etc/hosts", "etc/resolv.conf", "etc/mtab", "dev/",
                   "proc", "sys", "dev", ".dockerenv", "run/.containerenv", "run")  # fmt: skip


def need(tool):
    if shutil.which(tool) is None:
        pytest.skip(f"needs {tool}")


def call(*command, **options):
    """Run a command; return its standard output."""
    done = subprocess.run(
        list(map(str, command)), check=False, capture_output=True, text=True, **options
    )
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


@contextmanager
def running(command, log, ready):
    """Run a daemon until the body ends; skip if it does not become ready."""
    with log.open("w") as out:
        daemon = subprocess.Popen(list(map(str, command)), stdout=out, stderr=out)
    try:
        for _ in range(200):
            if not subprocess.run(ready, check=False, capture_output=True).returncode:
                break
            time.sleep(0.1)
        else:
            pytest.skip(f"{command[0]} does not start: {log.read_text()[-500:]}")
        yield
    finally:
        daemon.terminate()
        daemon.wait()


@pytest.fixture(scope="module", params=["its own store", "containerd's store"])
def docker(tmp_path_factory, request):
    """Return a function that runs docker, with its own daemon, on each store."""
    need("dockerd")
    need("docker")
    folder = tmp_path_factory.mktemp("d")  # a socket's path is short
    uses_containerd = request.param == "containerd's store"
    (folder / "config.json").write_text(
        json.dumps({"features": {"containerd-snapshotter": uses_containerd}})
    )
    address = f"unix://{folder}/s"
    client = [shutil.which("docker", path="/usr/bin") or "docker", "-H", address]
    daemon = [
        "dockerd", "--data-root", folder / "root", "--exec-root", folder / "exec",
        "--pidfile", folder / "pid", "--config-file", folder / "config.json",
        "-H", address, "--iptables=false", "--ip6tables=false", "--ip-masq=false",
        "--bridge=none",
    ]  # fmt: skip
    with running(daemon, folder / "log", [*client, "info"]):
        status = call(*client, "info", "-f", "{{.DriverStatus}}")
        if uses_containerd and "io.containerd.snapshotter" not in status:
            pytest.skip("needs a docker that can use containerd's store")
        yield lambda *args: call(*client, *args)


@pytest.fixture(scope="module")
def podman(tmp_path_factory):
    """Return a function that runs podman, with its own store."""
    need("podman")
    folder = tmp_path_factory.mktemp("p")
    return lambda *args: call(
        "podman", "--root", folder / "root", "--runroot", folder / "run",
        "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", *args,
    )  # fmt: skip


@pytest.fixture(scope="module")
def containerd(tmp_path_factory):
    """Return a function that runs ctr, with its own containerd."""
    need("containerd")
    need("ctr")
    folder = tmp_path_factory.mktemp("c")
    (folder / "config.toml").write_text(
        'version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
    )
    daemon = [
        "containerd", "--config", folder / "config.toml", "--root", folder / "root",
        "--state", folder / "state", "--address", folder / "s",
    ]  # fmt: skip
    client = ["ctr", "--address", str(folder / "s")]
    with running(daemon, folder / "log", [*client, "version"]):
        yield lambda *args: call(*client, *args)


@pytest.fixture
def image(tmp_path, request):
    """Return an image; one of whose layers stay has no sparse file, as docker wants."""
    acl = {b"SCHILY.acl.access": ACL_TEXT}
    tars = [*EVERYTHING, layer(member("acl", b"x", mode=0o640, records=acl))]
    if "since" in request.fixturenames and request.getfixturevalue("since"):
        sparse = sparse_gnu(b"sparse", [(8192, 512), (1 << 20, 0)], 1 << 20, b"s" * 512)
        tars = [tar.replace(sparse, b"") for tar in tars]
    document = config(tars, config=SETTINGS, history=STEPS_OF_ALL)
    path = tmp_path / "i.tar"
    path.write_bytes(docker_archive(tars, config_document=document))
    return path


@pytest.fixture
def nameless(tmp_path):
    path = tmp_path / "nameless.tar"
    path.write_bytes(docker_archive(EVERYTHING, tags=None))
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


ONE = ("us/x:1",)
TWO = ("us/x:1", "registry.example:5000/y:2")
NAMED = ("--filter", "dangling=false", "--format", "{{.Repository}}:{{.Tag}}")
COMPRESSIONS = [None, "gzip", "zstd"]
SINCE = [None, Point(step=1)]


def written(image, folder, **options):
    """Write the image again; return the archive."""
    flatten.export(image, folder / "o.tar", image_kind="oci", **options)
    return folder / "o.tar"


@pytest.mark.parametrize("compress", COMPRESSIONS)
@pytest.mark.parametrize("since", SINCE)
def test_docker_loads_the_tree_and_the_config(docker, image, tmp_path, since, compress):
    path = written(image, tmp_path, since=since, tags=ONE, compress=compress)
    assert docker("load", "-i", path).endswith("Loaded image: us/x:1\n")

    (found,) = json.loads(docker("inspect", "us/x:1"))
    assert {key: found["Config"][key] for key in SETTINGS} == SETTINGS
    assert len(found["RootFS"]["Layers"]) == (1 if since is None else 2)
    assert docker("history", "-q", "us/x:1").count("\n") == len(STEPS_OF_ALL) + 1
    container = docker("create", "us/x:1").strip()
    docker("export", container, "-o", tmp_path / "export.tar")
    docker("rm", container)
    got = compared(rows(tmp_path / "export.tar"), since)
    assert got == compared(wanted(image, tmp_path), since)


@pytest.mark.parametrize("tags", [ONE, TWO], ids=["one", "two"])
def test_docker_knows_the_image_by_each_name(docker, image, tmp_path, tags):
    docker("load", "-i", written(image, tmp_path, tags=tags))

    listed = docker("images", *NAMED).split()
    assert sorted(listed) == sorted(tags)
    for tag in tags:
        assert f"Untagged: {tag}" in docker("rmi", tag)


def test_docker_loads_an_image_without_a_name(docker, nameless, tmp_path):
    said = docker("load", "-i", written(nameless, tmp_path))

    image_id = said.removeprefix("Loaded image ID: ").strip()
    assert json.loads(docker("inspect", image_id))[0]["RepoTags"] == []


def test_podman_loads_an_image_without_a_name(podman, nameless, tmp_path):
    said = podman("load", "-i", written(nameless, tmp_path))

    image_id = said.removeprefix("Loaded image: ").strip()
    assert json.loads(podman("inspect", image_id))[0]["RepoTags"] == []


@pytest.mark.parametrize("compress", COMPRESSIONS)
@pytest.mark.parametrize("since", SINCE)
def test_podman_loads_the_tree_and_the_config(podman, image, tmp_path, since, compress):
    podman(
        "load", "-i", written(image, tmp_path, since=since, tags=ONE, compress=compress)
    )

    (found,) = json.loads(podman("inspect", "docker.io/us/x:1"))
    assert {key: found["Config"][key] for key in SETTINGS} == SETTINGS
    container = podman("create", "docker.io/us/x:1").strip()
    podman("export", container, "-o", tmp_path / "export.tar")
    podman("rm", container)
    got = compared(rows(tmp_path / "export.tar"), since)
    assert got == compared(wanted(image, tmp_path), since)


@pytest.mark.parametrize("tags", [ONE, TWO], ids=["one", "two"])
def test_podman_knows_the_image_by_each_name(podman, image, tmp_path, tags):
    podman("load", "-i", written(image, tmp_path, tags=tags))

    names = ["docker.io/us/x:1", "registry.example:5000/y:2"][: len(tags)]
    listed = podman("images", *NAMED).split()
    assert sorted(listed) == sorted(names)
    podman("rmi", *names)


@pytest.mark.parametrize("compress", COMPRESSIONS)
@pytest.mark.parametrize("tags", [ONE, TWO], ids=["one", "two"])
def test_containerd_imports_the_tree_by_each_name(
    containerd, image, tmp_path, tags, compress
):
    containerd(
        "images", "import", written(image, tmp_path, tags=tags, compress=compress)
    )

    names = ["docker.io/us/x:1", "registry.example:5000/y:2"][: len(tags)]
    assert sorted(containerd("images", "ls", "-q").split()) == sorted(names)
    (tmp_path / "mounted").mkdir()
    for name in names:
        containerd("images", "mount", name, tmp_path / "mounted")
        try:
            got = on_disk(tmp_path / "mounted")
        finally:
            containerd("images", "unmount", "--rm", tmp_path / "mounted")
        want = extracted(image, tmp_path)
        for row in want.values():
            row["mtime"] = max(row["mtime"], 0)  # containerd sets none before 1970
        del got[""], want[""]  # nor any on the root
        assert got == want
    containerd("images", "rm", *names)


def extracted(image, tmp_path):
    """List the tree as the directory output makes it."""
    flatten.export(image, f"{tmp_path}/tree/", force=True)
    return on_disk(tmp_path / "tree")


@pytest.mark.parametrize("compress", COMPRESSIONS)
@pytest.mark.parametrize("tags", [(), ONE, TWO], ids=["no tag", "one", "two"])
def test_skopeo_copies_it(image, tmp_path, tags, compress):
    need("skopeo")
    path = written(image, tmp_path, tags=tags, compress=compress)
    names = ["us/x:1", "registry.example:5000/y:2"][: len(tags)]
    sources = [f"oci-archive:{path}:{name}" for name in names]
    if len(tags) < 2:
        sources.append(f"oci-archive:{path}")
    for number, source in enumerate([f"docker-archive:{path}", *sources]):
        call("skopeo", "--insecure-policy", "copy", source,
             f"oci:{tmp_path}/{number}:x", cwd=tmp_path, env=os.environ)  # fmt: skip

        flatten.export(tmp_path / str(number), tmp_path / "again.tar")
        flatten.export(image, tmp_path / "flat.tar")
        again = (tmp_path / "again.tar").read_bytes()
        assert again == (tmp_path / "flat.tar").read_bytes()


@pytest.mark.parametrize("compress", COMPRESSIONS)
def test_umoci_unpacks_it(image, tmp_path, compress):
    need("umoci")
    if compress == "zstd" and "0.4." in call("umoci", "--version"):
        pytest.skip("needs umoci 0.5, which reads zstd")
    with tarfile.open(written(image, tmp_path, tags=ONE, compress=compress)) as tar:
        tar.extractall(tmp_path / "layout", **TRUSTED)
    call("umoci", "unpack", "--image", f"{tmp_path}/layout:us/x:1", tmp_path / "bundle")

    want = extracted(image, tmp_path)
    want["xattr"]["xattrs"] = {"user.a": b"\0\xff\n"}  # umoci drops empty xattrs
    assert on_disk(tmp_path / "bundle" / "rootfs") == want
