"""Stores that Docker 28.5 and podman 5.8 wrote, against their own saves and exports."""

import json
import os
import subprocess

import pytest

import flatten
from fixtures import fixture
from kinds import run
from listing import listing

BUILDKIT = "docker28-overlay2-buildkit"
CONTAINERD = "docker28-containerd-store"
PODMAN = "podman58-manifest-list"

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can unpack owners and trusted xattrs"
)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Return a function that unpacks a store once and returns its path."""
    known = {}

    def unpack(name):
        packed = fixture("new", f"{name}.tar.zst")
        if name not in known:
            folder = tmp_path_factory.mktemp(name)
            options = ["--xattrs", "--xattrs-include=*", "--numeric-owner", "--zstd"]
            subprocess.run(["tar", *options, "-xf", packed, "-C", folder], check=True)
            (known[name],) = folder.iterdir()
        return known[name]

    return unpack


SAVES = {
    "built by BuildKit": (BUILDKIT, "t/app:1", "fxo.save.tar"),
    "in containerd": (CONTAINERD, "t/app:1", "fxc.save.tar"),
    "in containerd by its other name": (CONTAINERD, "u/app:2", "fxc.save.tar"),
    "for two platforms": (CONTAINERD, "t/multi:1", "fxc-multi.save.tar"),
    "in a manifest list": (PODMAN, "t/list:1", "podman-list.save.tar"),
}


@pytest.mark.parametrize(("name", "image", "save"), SAVES.values(), ids=SAVES)
def test_an_image_is_what_the_engine_saved(tmp_path, store, name, image, save):
    got, want = tmp_path / "got.tar", tmp_path / "want.tar"
    flatten.export(fixture("new", save), want, platform="linux/amd64")

    done = flatten.export(f"{store(name)}#{image}", got, platform="linux/amd64")

    assert got.read_bytes() == want.read_bytes()
    assert (done.verified, done.warnings) == (done.layers, ())


@pytest.mark.parametrize("platform", ["linux/amd64", "linux/arm64"])
@pytest.mark.parametrize(
    ("name", "image"), [(CONTAINERD, "t/multi"), (PODMAN, "t/list")]
)
def test_every_platform_is_found(store, name, image, platform):
    with flatten.open_image(f"{store(name)}#{image}:1", platform=platform) as opened:
        assert f"linux/{opened.config['architecture']}" == platform


def rows(tar):
    """List a tar without its root; docker writes file types into modes."""
    return {
        row["path"]: row | {"mode": row["mode"][-4:]}
        for row in listing(tar)
        if row["path"]
    }


@pytest.mark.parametrize("container", ["created", "stopped"])
@pytest.mark.parametrize(("name", "short"), [(BUILDKIT, "fxo"), (CONTAINERD, "fxc")])
def test_a_container_is_what_docker_export_wrote(
    tmp_path, store, name, short, container
):
    want = rows(fixture("new", f"{short}-{container}.export.tar"))

    done = flatten.export(
        f"{store(name)}#container:{container}", tmp_path / "out.tar", with_init=True
    )

    assert rows(tmp_path / "out.tar") == want
    assert done.warnings == ()


@pytest.mark.parametrize("name", [BUILDKIT, CONTAINERD, PODMAN])
def test_nothing_in_a_store_is_an_orphan(store, name):
    done = run("orphans", store(name), "--json")

    assert json.loads(done.stdout) == {"orphans": [], "problems": []}
