"""Engines' directories that are found without their paths."""

import shutil

import pytest

import flatten
from builders import layers
from kinds import ROOTS, run
from listing import contents

PLACES = {
    "docker-root": "var/lib/docker",
    "containers-storage": "var/lib/containers/storage",
    "containerd": "var/lib/containerd",
}
TARS = layers(["etc/", "etc/hostname"])


def write(kind, folder, place):
    """Write an engine's directory with one image."""
    folder.mkdir()
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(ROOTS[kind](folder, TARS), place)


@pytest.fixture(params=PLACES.items(), ids=PLACES)
def disk(request, tmp_path):
    """Return a root file system with an engine's directory in its usual place."""
    kind, place = request.param
    (tmp_path / "disk/etc").mkdir(parents=True)
    write(kind, tmp_path / "made", tmp_path / "disk" / place)
    return tmp_path / "disk"


def test_an_engines_directory_on_a_mounted_disk(disk, tmp_path):
    flatten.export(f"{disk}#app:1", tmp_path / "out.tar")

    assert contents(tmp_path / "out.tar") == {"etc/": "", "etc/hostname": "0"}
    assert "app:1" in run("images", disk).stdout


@pytest.mark.parametrize("empty", PLACES)
def test_the_engine_that_has_the_image_is_read(tmp_path, empty):
    for kind, place in PLACES.items():
        if kind == empty:
            (tmp_path / "disk" / place).mkdir(parents=True)
        else:
            write(kind, tmp_path / kind, tmp_path / "disk" / place)

    flatten.export(f"{tmp_path}/disk#app:1", tmp_path / "out.tar")

    assert contents(tmp_path / "out.tar") == {"etc/": "", "etc/hostname": "0"}


def test_a_symlink_on_a_disk_does_not_lead_to_the_hosts_engine(disk, tmp_path):
    shutil.move(disk / "var", tmp_path / "host")
    (disk / "var").symlink_to(tmp_path / "host")

    with pytest.raises(flatten.SourceError, match="not a container image"):
        flatten.export(f"{disk}#app:1", tmp_path / "out.tar")
