"""The contents of sources: images, layers, which, users, orphans."""

import gzip
import json
import os
from pathlib import Path

import pytest

import builders
from builders import (
    digest,
    docker_archive,
    layer,
    layers,
    legacy_archive,
    member,
)
from fixtures import needs_fixtures, restored_root
from flatten.host.limits import Limits
from flatten.sources.open import open_source
from flatten.views.which import which
from kinds import ARCHIVES, KINDS, ROOTS, history, run
from stores import append, chain_of, layer_ids, podman_image, unpack

TARS = layers(["etc/", member("etc/conf", b"1")], ["etc/", "etc/new"], ["-etc/conf"])
CONFIG = {"history": history("ADD base", "-ENV A=b", "RUN new", "RUN rm"),
          "created": "2024-01-04T00:00:00Z"}  # fmt: skip
DIFFS = [f"sha256:{digest(tar)}" for tar in TARS]
CHAINS = chain_of(TARS)


def answer(*args):
    """Run a command with --json, and return what it answers."""
    done = run(*args, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Return one image in every kind of source."""
    return {
        kind: write(tmp_path_factory.mktemp(kind), TARS, **CONFIG)
        for kind, write in KINDS.items()
    }


# --- images


@pytest.mark.parametrize("kind", KINDS)
def test_images_of_every_kind(sources, kind):
    (row,) = answer("images", sources[kind])

    assert (row["layers"], row["created"]) == (3, CONFIG["created"])
    assert (row["platform"], row["error"]) == ("linux/amd64", None)
    assert row["names"] in (["app:1"], ["docker.io/library/app:1"])
    assert row["namespace"] == ("moby" if kind == "containerd" else None)
    drivers = {"docker-root": "overlay2", "containers-storage": "overlay"}
    drivers["containerd"] = "overlayfs"
    assert row["driver"] == drivers.get(kind)
    stored = 3 if kind == "docker-root" else sum(map(len, TARS))  # as written
    assert row["size"] == stored


def test_images_as_a_table(sources):
    done = run("images", sources["containerd"])

    head, line = done.stdout.splitlines()
    assert head.split() == [
        "ID", "CREATED", "SIZE", "LAYERS", "DRIVER", "NAMESPACE", "NAME",
    ]  # fmt: skip
    assert line.split()[1] == "2024-01-04T00:00:00Z"
    assert line.split()[-3:] == ["overlayfs", "moby", "docker.io/library/app:1"]
    assert "NAMESPACE" not in run("images", sources["docker-archive"]).stdout


def test_images_that_match_a_name(tmp_path):
    podman_image(tmp_path, TARS, ["a/x:1"])
    podman_image(tmp_path, TARS[:1], ["a/y:1", "a/z:1"])

    assert len(answer("images", tmp_path)) == 2
    assert [row["names"] for row in answer("images", f"{tmp_path}#a/z:1")] == [
        ["a/y:1", "a/z:1"]
    ]
    assert run("images", tmp_path, "--driver", "vfs").returncode == 3
    assert run("images", f"{tmp_path}#none").returncode == 3
    assert len(run("images", tmp_path).stdout.splitlines()) == 4  # a line a name


def test_a_broken_image_is_listed_with_a_warning(tmp_path):
    podman_image(tmp_path, TARS)
    broken = podman_image(tmp_path, TARS[:1], ["broken:1"])
    for path in (tmp_path / "overlay-images" / broken).iterdir():
        path.unlink()

    whole, row = answer("images", tmp_path)
    done = run("images", tmp_path)

    assert whole["error"] is None
    assert "is missing" in row["error"]
    assert (row["id"], row["names"], row["layers"]) == (broken, ["broken:1"], None)
    assert "warning: " in done.stderr
    assert "broken:1" in done.stdout


# --- layers


@pytest.mark.parametrize("kind", KINDS)
def test_layers_of_every_kind(sources, kind):
    rows = answer("layers", sources[kind])["layers"]

    assert [row["position"] for row in rows] == [1, 2, 3]
    assert [row["diff_id"] for row in rows] == DIFFS
    assert [row["chain_id"] for row in rows] == CHAINS
    assert [row["size"] for row in rows] == [len(tar) for tar in TARS]
    assert [row["step"] for row in rows] == [1, 3, 4]
    assert rows[1]["created_by"] == "RUN new"
    if kind in ARCHIVES:
        assert [row["directory"] for row in rows] == [None] * 3
    else:
        assert all(Path(row["directory"]).is_dir() for row in rows)
        assert all(row["cache_id"] in row["directory"] for row in rows)


def test_layers_as_a_table(sources):
    done = run("layers", sources["docker-root"])

    head, *lines = done.stdout.splitlines()
    assert head.split() == [
        "#", "DIFF", "ID", "CHAIN", "ID", "CACHE", "ID", "STORED", "TAR", "STEP",
        "DIRECTORY",
    ]  # fmt: skip
    assert len(lines) == 3
    assert DIFFS[2][7:19] in lines[2]


def test_layers_without_history_or_diff_ids(tmp_path):
    (tmp_path / "old.tar").write_bytes(legacy_archive(TARS))

    rows = answer("layers", tmp_path / "old.tar")["layers"]

    assert [row["chain_id"] for row in rows] == [None] * 3
    assert [row["step"] for row in rows] == [None] * 3


def test_compressed_layers(tmp_path):
    packed = [gzip.compress(tar) for tar in TARS]
    document = builders.config(TARS)
    (tmp_path / "i.tar").write_bytes(docker_archive(packed, config_document=document))

    rows = answer("layers", tmp_path / "i.tar")["layers"]

    assert [row["stored"] for row in rows] == [len(data) for data in packed]
    assert [row["size"] for row in rows] == [len(tar) for tar in TARS]


# --- which

WHICH = {
    "a file that is added": ([["a"], ["b"]], "a", ["1 adds* a"]),
    "a file that is changed": ([["a"], ["a"]], "a", ["1 adds a", "2 changes* a"]),
    "a file that is deleted": ([["d/", "d/a"], ["-d/a"]], "d/a", ["1 adds d/a", "2 deletes"]),
    "a file that is deleted with its directory": (
        [["d/", "d/a"], ["-d"]], "d/a", ["1 adds d/a", "2 deletes"],
    ),
    "a file hidden by an opaque directory": (
        [["d/", "d/a"], ["d/", "d/*"]], "d/a", ["1 adds d/a", "2 hides"],
    ),
    "a file hidden by a file in its directory's place": (
        [["d/", "d/a"], ["d"]], "d/a", ["1 adds d/a", "2 hides"],
    ),
    "deleted and added again in one layer": (
        [["a"], ["-a", "a"]], "a", ["1 adds a", "2 changes* a"],
    ),
    "deleted and added again later": (
        [["a"], ["-a"], ["a"]], "a", ["1 adds a", "2 deletes", "3 adds* a"],
    ),
    "a directory": ([["d/"], ["d/", "d/x"]], "d", ["1 adds d", "2 changes* d"]),
    "a directory that no layer lists": (
        [["d/e/x"], ["d/e/y"]], "d/e", ["1 adds* d/e implied"],
    ),
    "a deep directory that no layer lists": ([["a/b/c/d/x"]], "a/b/c", ["1 adds* a/b/c implied"]),
    "a symlink": ([["s->t"]], "s", ["1 adds* s"]),
    "a hard link": ([["a", "b=a"]], "b", ["1 adds* b"]),
    "through a symlink of a lower layer": (
        [["usr/", "usr/bin/", "bin->usr/bin"], ["bin/x"]], "usr/bin/x", ["2 adds* bin/x"],
    ),
    "by the symlink's name": (
        [["usr/", "usr/bin/", "bin->usr/bin"], ["usr/bin/x"]], "bin/x",
        ["2 adds* usr/bin/x"],
    ),
    "through two symlinks, one of them deep": (
        [["p/q/r/", "a/b/c->../../p/q", "z->a/b/c/r"], ["z/x"], ["-p/q/r/x"]],
        "a/b/c/r/x", ["2 adds z/x", "3 deletes"],
    ),
    "whited out through a symlink": (
        [["usr/bin/x", "bin->usr/bin"], ["-bin/x"]], "usr/bin/x",
        ["1 adds usr/bin/x", "2 deletes"],
    ),
    "with dots in the path": ([["d/", "d/a"]], "/d/./e/../a", ["1 adds* d/a"]),
    "a prefix of other names": (
        [["a", "ab", "a.wh.b"], ["-ab"]], "a", ["1 adds* a"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("words", "path", "want"), WHICH.values(), ids=WHICH)
def test_which(tmp_path, words, path, want):
    (tmp_path / "i.tar").write_bytes(docker_archive(layers(*words)))

    with open_source(str(tmp_path / "i.tar")) as opened:
        found = which(opened, path, Limits())

    got = [
        " ".join(filter(None, (
            str(image["position"]), row["event"] + "*" * image["visible"],
            row["entry"] or "", "implied" * row["implied"],
        )))
        for row in found["layers"]
        for image in row["images"]
    ]  # fmt: skip
    assert got == want


@pytest.mark.parametrize("kind", KINDS)
def test_which_in_every_kind(sources, kind):
    first, last = answer("which", sources[kind], "etc/conf")["layers"]

    assert (first["event"], first["type"], first["size"]) == ("adds", "file", 1)
    assert (first["diff_id"], first["chain_id"]) == (DIFFS[0], CHAINS[0])
    assert (last["event"], last["entry"], last["diff_id"]) == (
        "deletes",
        None,
        DIFFS[2],
    )
    assert [image["position"] for image in last["images"]] == [3]
    assert first["images"][0]["visible"] is False
    if kind in ROOTS:
        assert Path(first["directory"]).is_dir()
    if kind == "containers-storage":
        assert (Path(first["directory"]) / first["entry"]).read_text() == "1"


def test_which_lists_each_layer_once_with_all_images(tmp_path):
    podman_image(tmp_path, TARS[:1], ["base:1", "base:2"])
    podman_image(tmp_path, TARS[:2], ["app:1"])

    (row,) = answer("which", tmp_path, "etc/conf")["layers"]

    assert [image["names"] for image in row["images"]] == [
        ["base:1", "base:2"],
        ["app:1"],
    ]
    assert (
        len(answer("which", f"{tmp_path}#app:1", "etc/conf")["layers"][0]["images"])
        == 1
    )


def test_which_reads_no_tree(tmp_path):
    """The record of a layer is enough, as on a copy without the driver's directories."""
    podman_image(tmp_path, TARS)
    (tmp_path / "overlay").rename(tmp_path / "elsewhere")

    assert len(answer("which", tmp_path, "etc/conf")["layers"]) == 2
    assert len(answer("layers", tmp_path)["layers"]) == 3


def test_which_as_a_table(sources):
    done = run("which", sources["containers-storage"], "etc/new")

    (line,) = done.stdout.splitlines()[1:]
    assert line.split()[:2] == ["adds*", "file"]
    assert line.endswith("/diff/etc/new")


def test_which_as_a_table_of_many_images(tmp_path):
    for n in range(4):
        podman_image(tmp_path, [TARS[0], layer(f"{n}")], [f"x/{n}:1"])
    podman_image(tmp_path, [TARS[0], layer("etc/conf")], ["x/last:1"])

    lines = run("which", tmp_path, "etc/conf").stdout.splitlines()[1:]

    assert len(lines) == 3
    assert " x/0:1 x/1:1 x/2:1 +1 " in lines[0]
    assert [line.split()[0] for line in lines] == ["adds*", "adds", "changes*"]


def test_which_without_a_match(sources):
    done = run("which", sources["oci"], "no/such")

    assert done.returncode == 1
    assert done.stderr.endswith("no layer has 'no/such'\n")
    for root in ("/", ".", "a/../.."):
        assert run("which", sources["oci"], root).returncode == 2


def test_which_goes_on_without_a_broken_image(tmp_path):
    podman_image(tmp_path, TARS)
    broken = podman_image(tmp_path, TARS[:1], ["broken:1"])
    for path in (tmp_path / "overlay-images" / broken).iterdir():
        path.unlink()

    done = run("which", tmp_path, "etc/conf")

    assert done.returncode == 0
    assert done.stderr.startswith("flatten: warning: ")


def test_which_through_a_circle_of_symlinks(tmp_path):
    links = [f"l{n}->l{(n + 1) % 40}" for n in range(40)]
    (tmp_path / "i.tar").write_bytes(
        docker_archive(layers(["a/", "a/x", *links, "a/s->../a"]))
    )

    assert answer("which", tmp_path / "i.tar", "a/x")["layers"][0]["event"] == "adds"


# --- users


def users(source, name):
    """Return (chain id, images, containers) of each layer that a name fits."""
    return [
        (
            row["chain_id"],
            [" ".join(image["names"]) for image in row["images"]],
            [" ".join(container["names"]) for container in row["containers"]],
        )
        for row in answer("users", source, name)
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_users_in_every_kind(sources, kind):
    (row,) = answer("layers", sources[kind])["layers"][1:2]
    names = [row["diff_id"], row["diff_id"][7:], row["chain_id"], row["chain_id"][7:15]]
    names += [row["cache_id"], row["directory"], f"{row['directory']}/etc/new"]

    for name in filter(None, names if kind in ROOTS else names[:4]):
        (found,) = answer("users", sources[kind], name)
        assert found["chain_id"] == CHAINS[1], name
        assert [image["position"] for image in found["images"]] == [2]


@pytest.fixture
def family(tmp_path):
    """Return a store with a base, two images on it, and containers."""
    podman_image(tmp_path, TARS[:1], ["base:1"])
    podman_image(tmp_path, [TARS[0], TARS[1]], ["one:1", "one:2"])
    podman_image(tmp_path, [TARS[0], TARS[2]], ["two:1"])
    for name, top in (("b1", TARS[:1]), ("b2", TARS[:2])):
        own = digest(name.encode())
        (tmp_path / "overlay" / own / "diff").mkdir(parents=True)
        (tmp_path / "overlay-containers").mkdir(exist_ok=True)
        append(
            tmp_path / "overlay-containers" / "containers.json",
            {"id": digest(b"c" + name.encode()), "names": [name], "layer": own},
        )
        append(
            tmp_path / "overlay-layers" / "layers.json",
            {"id": own, "parent": layer_ids(top)[-1]},
        )
    return tmp_path


def test_users_of_shared_layers(family):
    base, second = layer_ids(TARS[:2])
    assert users(family, base) == [
        (CHAINS[0], ["base:1", "one:1 one:2", "two:1"], ["b1", "b2"])
    ]
    assert users(family, second) == [(CHAINS[1], ["one:1 one:2"], ["b2"])]
    assert users(family, DIFFS[2]) == [(chain_of([TARS[0], TARS[2]])[1], ["two:1"], [])]
    done = run("users", family, f"/mnt/old/overlay/{second}/merged/etc")
    assert f"cache id: {second}" in done.stdout
    assert "container 27" in done.stdout or "b2" in done.stdout
    assert "one:1 one:2" in done.stdout


def test_containers(family, sources):
    rows = answer("containers", family)

    assert [sorted(row) for row in rows] == [["driver", "id", "names"]] * len(rows)
    names = [name for row in rows for name in row["names"]]
    assert names == sorted(names)
    for name in names:
        assert run("layers", f"{family}#container:{name}").returncode == 0
    shown = run("containers", family).stdout.splitlines()
    assert shown[0].split() == ["ID", "DRIVER", "NAME"]
    assert run("containers", sources["docker-archive"]).returncode == 2


def test_users_of_a_containers_own_layer(family):
    assert users(family, digest(b"b1")) == [(None, [], ["b1"])]


def test_one_diff_in_two_chains_is_two_layers(tmp_path):
    podman_image(tmp_path, [TARS[0], TARS[2]], ["one:1"])
    podman_image(tmp_path, [TARS[0], TARS[1], TARS[2]], ["two:1"])

    got = users(tmp_path, DIFFS[2])

    assert sorted(images for _, images, _ in got) == [["one:1"], ["two:1"]]


def test_users_of_a_directory_of_containerd(sources):
    place = "io.containerd.snapshotter.v1.overlayfs/snapshots/2"
    for path in (
        f"/mnt/{place}/fs/etc",
        f"{place}/",
        f"{sources['containerd']}/{place}",
    ):
        assert [chain for chain, _, _ in users(sources["containerd"], path)] == [
            CHAINS[1]
        ]
    for path in ("/mnt/2/x", "snapshots/2", place.replace("overlayfs", "native")):
        assert run("users", sources["containerd"], path).returncode == 3


def test_users_without_a_match(sources):
    for name in ("f" * 64, "app:1", "000", "/no/such/directory"):
        done = run("users", sources["docker-root"], name)
        assert done.returncode == 3
        assert "no layer matches" in done.stderr


# --- orphans


def orphans(root):
    found = answer("orphans", root)
    return {
        (row["kind"], str(Path(row["path"]).relative_to(root)))
        for row in found["orphans"]
    }


@pytest.mark.parametrize("kind", ROOTS)
def test_a_consistent_root_has_no_orphans(sources, kind):
    assert orphans(sources[kind]) == set()
    assert run("orphans", sources[kind]).stdout == ""


def test_orphans_of_a_store(family):
    lost = "1" * 64
    (family / "overlay" / lost / "diff").mkdir(parents=True)
    (family / "overlay" / "l").mkdir()
    (family / "overlay" / "l" / "ABC").symlink_to("../gone/diff")
    (family / "overlay" / "l" / "DEF").symlink_to(f"../{lost}/diff")
    (family / "overlay-layers" / f"{lost}.tar-split.gz").write_bytes(b"")
    (family / "overlay-images" / ("2" * 64)).mkdir()
    images = family / "overlay-images" / "images.json"
    kept = [r for r in json.loads(images.read_text()) if r["names"] != ["two:1"]]
    two = next(r for r in json.loads(images.read_text()) if r["names"] == ["two:1"])
    images.write_text(json.dumps(kept))
    append(family / "overlay-layers" / "layers.json",
           {"id": "3" * 64, "flags": {"incomplete": True}})  # fmt: skip
    (family / "overlay" / ("3" * 64) / "diff").mkdir(parents=True)

    assert orphans(family) == {
        ("directory", f"overlay/{lost}/diff"),
        ("leftover", "overlay/l/ABC"),
        ("leftover", f"overlay-layers/{lost}.tar-split.gz"),
        ("leftover", f"overlay-images/{'2' * 64}"),
        ("leftover", f"overlay-images/{two['id']}"),
        ("layer", f"overlay/{layer_ids([TARS[0], TARS[2]])[1]}/diff"),
        ("leftover", f"overlay/{'3' * 64}/diff"),
    }  # fmt: skip


def test_orphans_of_docker(tmp_path):
    builders.docker_root(tmp_path, TARS)
    cache_ids = [f"{position:02x}" * 32 for position in range(3)]
    image = tmp_path / "image" / "overlay2"
    (tmp_path / "overlay2" / ("a" * 64) / "diff").mkdir(parents=True)
    (tmp_path / "overlay2" / f"{'b' * 64}-removing").mkdir()
    (image / "layerdb" / "sha256" / f"{'c' * 64}-123-removing").mkdir()
    (image / "layerdb" / "tmp" / "write-set-1").mkdir(parents=True)
    (tmp_path / "overlay2" / "l").mkdir()
    (tmp_path / "overlay2" / "l" / "XYZ").symlink_to("../gone/diff")
    for path in (image / "imagedb" / "content" / "sha256").iterdir():
        path.unlink()
    (image / "repositories.json").unlink()

    assert orphans(tmp_path) == {
        ("directory", f"overlay2/{'a' * 64}/diff"),
        ("leftover", f"overlay2/{'b' * 64}-removing"),
        ("leftover", f"image/overlay2/layerdb/sha256/{'c' * 64}-123-removing"),
        ("leftover", "image/overlay2/layerdb/tmp/write-set-1"),
        ("leftover", "overlay2/l/XYZ"),
        *(("layer", f"overlay2/{cache_id}/diff") for cache_id in cache_ids),
    }
    done = run("orphans", tmp_path)
    assert "no image and no container uses it" in done.stdout
    assert "its removal was interrupted" in done.stdout


def test_orphans_of_containerd(tmp_path):
    root = Path(KINDS["containerd"](tmp_path, TARS))
    snapshots = root / "io.containerd.snapshotter.v1.overlayfs" / "snapshots"
    (snapshots / "99" / "fs").mkdir(parents=True)
    (snapshots / "new-123").mkdir()
    unpack(root, ["sha256:" + "9" * 64], "native")
    content = root / "io.containerd.content.v1.content"
    (content / "ingest" / "abc").mkdir(parents=True)
    stray = content / "blobs" / "sha256" / digest(b"stray")
    stray.write_bytes(b"stray")

    assert orphans(root) >= {
        ("directory", "io.containerd.snapshotter.v1.overlayfs/snapshots/99/fs"),
        ("leftover", "io.containerd.snapshotter.v1.overlayfs/snapshots/new-123"),
        ("layer", "io.containerd.snapshotter.v1.native/snapshots/1"),
        ("leftover", "io.containerd.content.v1.content/ingest/abc"),
        (
            "leftover",
            f"io.containerd.content.v1.content/blobs/sha256/{digest(b'stray')}",
        ),
    }


def test_a_broken_image_makes_orphans_uncertain(tmp_path):
    broken = podman_image(tmp_path, TARS)
    for path in (tmp_path / "overlay-images" / broken).iterdir():
        path.unlink()

    done = run("orphans", tmp_path)

    assert "warning: " in done.stderr
    assert len(answer("orphans", tmp_path)["problems"]) == 1


@pytest.mark.parametrize("kind", ARCHIVES)
def test_archives_have_no_orphans(sources, kind):
    done = run("orphans", sources[kind])

    assert done.returncode == 2
    assert "not an engine's root" in done.stderr


# --- real roots


@needs_fixtures
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can unpack devices and owners")
@pytest.mark.parametrize(
    "root",
    [
        "tiny-docker20-overlay2",
        "tiny-docker20-vfs",
        "tiny-podman-overlay",
        "tiny-containerd",
        "tiny-handmade-aufs-cas",
    ],
)
def test_a_real_root(tmp_path, root):
    folder = restored_root(root, tmp_path)

    rows = answer("images", folder)
    named = {name.rpartition("/")[2]: row for row in rows for name in row["names"]}
    assert {"hand:1", "tiny-child:1", "tiny-sib:1", "tiny-commit:1"} <= named.keys()
    first, *_ = answer("layers", f"{folder}#fx/hand:1")["layers"]
    assert first["size"] == 71680
    assert first["chain_id"] == first["diff_id"]
    assert Path(first["directory"]).is_dir()
    assert {
        len(row["images"]) for row in answer("users", folder, first["directory"])
    } == {len(rows)}
    events = answer("which", f"{folder}#fx/tiny-child:1", "etc/conf")["layers"]
    assert [(row["event"], row["images"][0]["position"]) for row in events] == [
        ("adds", 1), ("changes", 2), ("changes", 8),
    ]  # fmt: skip
    assert orphans(folder) == set()
