"""Views of engines' real roots equal those of the archives that these saved."""

import json

import pytest

from fixtures import needs_fixtures, unpacked_save
from kinds import run
from listing import listing

pytestmark = needs_fixtures

ROOTS = {
    "docker, overlay2": ("tiny-docker20-overlay2", "fx/"),
    "docker, vfs": ("tiny-docker20-vfs", "fx/"),
    "docker, btrfs": ("tiny-docker20-btrfs", "fx/"),
    "docker, aufs": ("tiny-handmade-aufs-cas", "fx/"),
    "podman, overlay": ("tiny-podman-overlay", "localhost/fx/"),
    "podman, vfs": ("tiny-podman-vfs", "localhost/fx/"),
    "containerd": ("tiny-containerd", "docker.io/fx/"),
    "docker before 1.10": ("tiny-handmade-aufs-v1.9", "fx/"),
}

SAME = (
    "tiny-docker20-overlay2",
    "tiny-podman-overlay",
    "tiny-podman-vfs",
    "tiny-containerd",
)
"""Those that have the images of the save, layer by layer."""


def lines(*command):
    done = run(*command)
    assert done.returncode in (0, 1), done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def save(tmp_path_factory):
    return unpacked_save("tovl-multi", tmp_path_factory.mktemp("save"))


@pytest.mark.parametrize("root", SAME)
def test_views_of_a_root_and_of_its_save_are_equal(data_root, save, root):
    prefix = dict(ROOTS.values())[root]
    here, there = f"{data_root(root)}#{prefix}tiny-child:1", f"{save}#fx/tiny-child:1"

    assert lines("ls", here, "--json", "--hash", "--verify") == lines(
        "ls", there, "--json", "--hash"
    )
    assert run("ls", here, "--tree").stdout == run("ls", there, "--tree").stdout
    assert run("cat", here, "etc/conf").stdout == run("cat", there, "etc/conf").stdout
    assert run("diff", here, there).stdout == ""
    steps = [
        json.loads(run("history", at, "--json").stdout)["steps"] for at in (here, there)
    ]
    for row in (*steps[0], *steps[1]):
        del row["stored"]  # a blob may be compressed in one of them
    assert steps[0] == steps[1]
    for at in ("--at", "9"), ("--at-layer", "3"):
        assert run("config", here, *at).stdout == run("config", there, *at).stdout
    reports = [
        json.loads(run("report", at, "--json", "--verify").stdout)
        for at in (here, there)
    ]
    for report in reports:
        del report["names"]
        for row in report["steps"]:
            del row["stored"]
    assert reports[0] == reports[1]


@pytest.mark.parametrize(("root", "prefix"), ROOTS.values(), ids=ROOTS)
def test_related_images_of_a_root(data_root, root, prefix):
    place = data_root(root)

    up = json.loads(run("ancestors", f"{place}#{prefix}tiny-child:1", "--json").stdout)
    down = json.loads(run("derived", f"{place}#{prefix}hand:1", "--json").stdout)
    shared = json.loads(
        run(
            "common",
            f"{place}#{prefix}tiny-child:1",
            f"{place}#{prefix}tiny-sib:1",
            "--json",
        ).stdout
    )

    base = f"{prefix}hand:1"
    assert base in [name for row in up for name in row["names"]]
    assert {f"{prefix}tiny-child:1", f"{prefix}tiny-sib:1"} <= {
        n for row in down for n in row["names"]
    }
    if "v1.9" not in root:  # which has no diff_ids
        assert shared["layers"] >= 5


def test_related_images_of_a_root_without_diff_ids(data_root):
    place = data_root("tiny-handmade-aufs-v1.9")
    rows = json.loads(run("ancestors", f"{place}#fx/tiny-child:1", "--json").stdout)

    assert {row["how"] for row in rows} == {"parent"}


@pytest.mark.parametrize(("root", "prefix"), ROOTS.values(), ids=ROOTS)
def test_a_delta_of_an_image_on_a_root(data_root, tmp_path, root, prefix):
    image = f"{data_root(root)}#{prefix}tiny-child:1"

    done = run("delta", image, "--from-layer", "5", "-o", tmp_path / "delta.tar")

    assert done.returncode == 0, done.stderr
    assert {"opt/op1/copied", "w"} <= {
        row["path"] for row in listing(tmp_path / "delta.tar")
    }


@pytest.mark.parametrize(("root", "prefix"), ROOTS.values(), ids=ROOTS)
def test_a_second_view_of_a_root_is_equal(data_root, tmp_path, root, prefix):
    image = f"{data_root(root)}#{prefix}tiny-child:1"
    looks = [
        run("ls", image, "--json", "--cache", tmp_path / "c").stdout for _ in range(2)
    ]

    assert looks[0] == looks[1] == run("ls", image, "--json", "--no-cache").stdout
