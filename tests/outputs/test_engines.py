"""Images that flatten writes, in docker, podman, containerd, skopeo and umoci.

`make check-engines` runs it.
"""

import json
import os
import tarfile

import pytest

import flatten
from builders import TRUSTED, config, docker_archive, layer, member
from engines import call, rows
from everything import ACL_TEXT, EVERYTHING, SETTINGS, STEPS, on_disk
from flatten.image.history import Point
from headers import sparse_gnu
from needs import need, root_only

pytestmark = [pytest.mark.engines, root_only]

STEPS_OF_ALL = STEPS  # of three layers


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
