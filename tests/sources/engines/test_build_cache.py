"""Layers that BuildKit makes in docker's data roots, and what its cache needs."""

import json
import shutil
from pathlib import Path

import pytest

import flatten
from bolts import bolt
from builders import digest, docker_archive, docker_root, layers
from kinds import run
from stores import chain_of

TARS = layers(["a", "d/", "d/b"], ["-a", "c"], ["d/", "d/e"])
CHAINS = chain_of(TARS)
TREES = {
    "overlay2": "overlay2/{}/diff",
    "fuse-overlayfs": "fuse-overlayfs/{}/diff",
    "btrfs": "btrfs/subvolumes/{}",
    "vfs": "vfs/dir/{}",
}


def answer(*args):
    """Run a command with --json and return the parsed output."""
    done = run(*args, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def build_id(word):
    """Return an id as BuildKit makes them: 25 characters of base 36."""
    return f"{word}z0".ljust(25, "k")


IDS = [build_id(word) for word in ("first", "second", "third")]


def rename_layers(root, ids, driver="overlay2"):
    """Give the layers of a data root the names that BuildKit would give them."""
    image, tree = root / "image" / driver, TREES[driver]
    for position, (chain, id_) in enumerate(zip(CHAINS, ids, strict=True)):
        (image / "layerdb" / "sha256" / chain[7:] / "cache-id").write_text(id_)
        above = root / tree.format(f"{position:02x}" * 32).removesuffix("/diff")
        above.rename(above.parent / id_)


@pytest.fixture
def root(tmp_path):
    """Return a data root of overlay2 with one image, made by BuildKit."""
    folder = tmp_path / "docker"
    docker_root(folder, TARS)
    rename_layers(folder, IDS)
    return folder


@pytest.mark.parametrize("driver", TREES)
def test_an_image_of_buildkit_is_the_same_as_from_docker_save(tmp_path, driver):
    root = tmp_path / "docker"
    docker_root(root, TARS, driver=driver, place=TREES[driver])
    rename_layers(root, IDS, driver)
    (tmp_path / "save.tar").write_bytes(docker_archive(TARS))
    flatten.export(tmp_path / "save.tar", tmp_path / "want.tar")

    done = flatten.export(f"{root}#app:1", tmp_path / "got.tar")

    assert (tmp_path / "got.tar").read_bytes() == (tmp_path / "want.tar").read_bytes()
    assert (done.verified, done.warnings) == (3, ())


def test_an_image_of_buildkit_in_a_remapped_root(root, tmp_path):
    (tmp_path / "above").mkdir()
    root.rename(tmp_path / "above" / "100000.100000")

    done = flatten.export(f"{tmp_path}/above#app:1", tmp_path / "got.tar")

    assert done.verified == 3


NO_IDS = {
    "a path": "../../../../../etc/passwd",
    "25 characters with a slash": "aaaaaaaaaaaa/aaaaaaaaaaaa",
    "25 characters with dots": "..aaaaaaaaaaaaaaaaaaaaaaa",
    "25 dots": "." * 25,
    "a capital letter": "A" + "a" * 24,
    "24 characters": "a" * 24,
    "26 characters": "a" * 26,
    "the init layer of a build": "a" * 25 + "-init",
    "a digit that is not ASCII": "a" * 24 + "\u0663",
    "two lines": "a" * 25 + "\n" + "b" * 25,
    "nothing": "",
}


@pytest.mark.parametrize("id_", NO_IDS.values(), ids=NO_IDS)
def test_an_invalid_cache_id_is_refused(root, tmp_path, id_):
    cache_id = root / f"image/overlay2/layerdb/sha256/{CHAINS[1][7:]}/cache-id"
    cache_id.write_text(id_)

    with pytest.raises(flatten.FormatError) as caught:
        flatten.export(root, tmp_path / "out.tar")

    assert str(cache_id) in str(caught.value)
    assert not (tmp_path / "out.tar").exists()


@pytest.mark.parametrize(
    "name", [IDS[1], IDS[1][:6], IDS[1][:24], f"/old/overlay2/{IDS[1]}/diff/c"]
)
def test_users_of_a_layer_of_buildkit(root, name):
    (row,) = answer("users", root, name)

    assert (row["cache_id"], row["held_by"]) == (IDS[1], None)
    assert [image["position"] for image in row["images"]] == [2]


# --- orphans

ACTIVE, STRAY = build_id("active"), build_id("stray")


def cache(root, snapshots, leases=()):
    """Write BuildKit's databases: snapshots, and the keys that leases hold."""
    folder = root / "buildkit"
    folder.mkdir()
    folder.joinpath("snapshots.db").write_bytes(bolt(snapshots))
    held = {
        b"lease of %b" % key: {b"snapshots": {b"default": {key: b""}}} for key in leases
    }
    tree = {b"v1": {b"buildkit": {b"leases": held}}}
    folder.joinpath("containerdmeta.db").write_bytes(bolt(tree))


def forget_the_image(root):
    image = root / "image" / "overlay2"
    shutil.rmtree(image / "imagedb" / "content")
    (image / "imagedb" / "content" / "sha256").mkdir(parents=True)
    (image / "repositories.json").unlink()


def orphans(root):
    return {
        (row["kind"], Path(row["path"]).parent.name)
        for row in answer("orphans", root)["orphans"]
    }


def test_what_the_build_cache_needs_is_not_an_orphan(root):
    for id_ in (ACTIVE, STRAY, build_id("committed")):
        (root / "overlay2" / id_ / "diff").mkdir(parents=True)
    key = build_id("key").encode()
    cache(
        root,
        {
            ACTIVE.encode(): {b"parent": b"", b"size": b"4"},
            key: {b"committed": build_id("committed").encode()},
        },
    )

    assert orphans(root) == {("directory", STRAY)}
    (row,) = answer("users", root, ACTIVE)
    assert row["held_by"] == "the build cache"
    assert "the build cache" in run("users", root, ACTIVE).stdout


HOLDS = {
    "by its chain id": ({b"key": {b"chainid": CHAINS[2].encode()}}, ()),
    "as a key": ({CHAINS[2].encode(): {b"parent": b""}}, ()),
    "by a lease": ({}, [CHAINS[2].encode()]),
}


@pytest.mark.parametrize(("snapshots", "leases"), HOLDS.values(), ids=HOLDS)
def test_a_layer_without_an_image_that_the_build_cache_needs(root, snapshots, leases):
    forget_the_image(root)
    assert orphans(root) == {("layer", id_) for id_ in IDS}
    cache(root, snapshots, leases)

    assert orphans(root) == set()


def test_the_mount_of_a_running_build_is_not_an_orphan(root):
    mount = digest(b"mount")
    (root / "overlay2" / mount / "diff").mkdir(parents=True)
    assert orphans(root) == {("directory", mount)}
    folder = root / "image/overlay2/layerdb/mounts" / build_id("run")
    folder.mkdir(parents=True)
    (folder / "mount-id").write_text(mount)

    assert orphans(root) == set()


@pytest.mark.parametrize("name", ["snapshots.db", "containerdmeta.db"])
@pytest.mark.parametrize("data", [b"", b"hello", bolt({})[:700]])
def test_a_broken_build_cache_makes_orphans_uncertain(root, tmp_path, name, data):
    cache(root, {})
    (root / "buildkit" / name).write_bytes(data)

    found = answer("orphans", root)
    done = run("orphans", root)

    assert found["orphans"] == []
    assert [name in problem for problem in found["problems"]] == [True]
    assert done.stderr.count("warning: ") == 1
    assert flatten.export(root, tmp_path / "out.tar").verified == 3  # it needs no cache


def test_names_in_the_build_cache_that_are_not_directories_are_ignored(root):
    cache(root, {b"../../etc": {b"committed": b"../.."}, b"\xff\xfe": {}})

    assert answer("orphans", root) == {"orphans": [], "problems": []}
    done = run("users", root, "../../etc")
    assert done.returncode == 3
    assert json.dumps("../..") not in done.stdout
