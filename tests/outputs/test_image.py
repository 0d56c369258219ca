"""Images that flatten writes, read back; test_engines loads them into engines."""

import hashlib
import json
import subprocess
import tarfile
import zlib

import pytest

import flatten
from builders import archive, config, digest, docker_archive, layers, member, oci_files
from command import FLATTEN
from everything import EVERYTHING, SETTINGS, STEPS
from flatten.image.history import Point

TARS = layers(["a", "d/", "d/x", "l=a"], ["b", "d/y"], ["-a", "d/x"])


@pytest.fixture
def image(tmp_path):
    document = config(
        TARS, config=SETTINGS, history=STEPS, created="2023-01-01T00:00:00Z",
        container="gone", container_config={"Cmd": ["gone"]},
    )  # fmt: skip
    path = tmp_path / "i.tar"
    path.write_bytes(docker_archive(TARS, config_document=document))
    return path


def opened(path):
    """Return the config, names and diff_ids of the only image in an archive."""
    with flatten.open_image(str(path)) as image:
        return image.config, image.names, [layer.diff_id for layer in image.layers]


@pytest.mark.parametrize("kind", ["oci", "docker"])
@pytest.mark.parametrize("since", [None, Point(step=1), Point(layer=2), Point(step=0)])
def test_the_image_has_the_same_tree(image, tmp_path, kind, since):
    flatten.export(image, tmp_path / "again.tar", image_kind=kind, since=since)

    for name in ("i", "again"):
        flatten.export(
            tmp_path / f"{name}.tar", f"{tmp_path}/{name}.flat", format="pax"
        )
    assert (tmp_path / "again.flat").read_bytes() == (tmp_path / "i.flat").read_bytes()


@pytest.mark.parametrize("kind", ["oci", "docker"])
@pytest.mark.parametrize("compress", [None, "gzip", "zstd:1"])
def test_all_kinds_of_members_survive(tmp_path, kind, compress):
    (tmp_path / "i.tar").write_bytes(docker_archive(EVERYTHING))
    flatten.export(
        tmp_path / "i.tar", tmp_path / "again.tar", image_kind=kind, compress=compress
    )

    for name in ("i", "again"):
        flatten.export(tmp_path / f"{name}.tar", f"{tmp_path}/{name}.flat")
    assert (tmp_path / "again.flat").read_bytes() == (tmp_path / "i.flat").read_bytes()


@pytest.mark.parametrize("kind", ["oci", "docker"])
def test_the_config_is_kept_and_the_history_tells_what_was_squashed(
    image, tmp_path, kind
):
    flatten.export(image, tmp_path / "o.tar", image_kind=kind)
    got, names, diff_ids = opened(tmp_path / "o.tar")

    assert (got["config"], got["created"]) == (SETTINGS, "2023-01-01T00:00:00Z")
    assert got.keys() == {
        "architecture",
        "os",
        "config",
        "created",
        "history",
        "rootfs",
    }
    assert names == ("docker.io/library/app:1",)
    assert got["rootfs"]["diff_ids"] == diff_ids
    assert len(diff_ids) == 1
    *steps, last = got["history"]
    assert steps == [step | {"empty_layer": True} for step in STEPS]
    with flatten.open_image(str(image)) as was:
        assert last == {
            "created": "2023-01-01T00:00:00Z", "created_by": "flatten",
            "comment": f"layers 1 to 3 of {was.id} in one",
        }  # fmt: skip


def test_layers_below_a_step_are_kept(image, tmp_path):
    flatten.export(image, tmp_path / "o.tar", image_kind="oci", since=Point(step=2))
    got, _, diff_ids = opened(tmp_path / "o.tar")

    assert diff_ids[0] == f"sha256:{digest(TARS[0])}"
    assert len(diff_ids) == 2
    assert [bool(step.get("empty_layer")) for step in got["history"]] == [
        False, True, True, True, False,
    ]  # fmt: skip
    with tarfile.open(tmp_path / "o.tar") as tar:
        blob = tar.extractfile(f"blobs/{diff_ids[1].replace(':', '/')}").read()
    (tmp_path / "layer.tar").write_bytes(blob)
    with tarfile.open(tmp_path / "layer.tar") as tar:
        assert tar.getnames() == [".wh.a", "b", "d", "d/x", "d/y"]


def packed(data):
    compressor = zlib.compressobj(wbits=31)
    return compressor.compress(data) + compressor.flush()


def test_a_kept_layer_of_an_oci_image_is_the_same_blob(tmp_path):
    files = oci_files(TARS, pack=packed)
    (tmp_path / "i.tar").write_bytes(archive(files.items()))
    flatten.export(
        tmp_path / "i.tar", tmp_path / "o.tar", image_kind="oci", since=Point(layer=1)
    )

    with tarfile.open(tmp_path / "o.tar") as tar:
        name = f"blobs/sha256/{digest(packed(TARS[0]))}"
        assert tar.extractfile(name).read() == packed(TARS[0])
        index = json.load(tar.extractfile("index.json"))
        listed = index["manifests"][0]["digest"].replace(":", "/")
        manifest = json.load(tar.extractfile(f"blobs/{listed}"))
    assert [layer["mediaType"].rpartition(".")[2] for layer in manifest["layers"]] == [
        "tar+gzip", "tar",
    ]  # fmt: skip


def test_every_blob_is_named_by_its_digest(image, tmp_path):
    flatten.export(image, tmp_path / "o.tar", image_kind="oci", compress="gzip")

    with tarfile.open(tmp_path / "o.tar") as tar:
        blobs = [name for name in tar.getnames() if name.startswith("blobs/")]
        for name in blobs:
            data = tar.extractfile(name).read()
            assert hashlib.sha256(data).hexdigest() == name.rpartition("/")[2]
    assert len(blobs) == 3


def test_a_layer_that_is_listed_twice_is_written_once(tmp_path):
    tars = layers(["a"], ["b"])
    document = config([tars[0], tars[0], tars[1]])
    names = ["0.tar", "0.tar", "1.tar"]
    manifest = [{"Config": "c.json", "RepoTags": None, "Layers": names}]
    (tmp_path / "i.tar").write_bytes(archive([
        ("0.tar", tars[0]), ("1.tar", tars[1]), ("c.json", json.dumps(document).encode()),
        ("manifest.json", json.dumps(manifest).encode()),
    ]))  # fmt: skip
    flatten.export(
        tmp_path / "i.tar",
        tmp_path / "o.tar",
        image_kind="docker",
        since=Point(layer=2),
    )

    with tarfile.open(tmp_path / "o.tar") as tar:
        blobs = [name for name in tar.getnames() if name.startswith("blobs/")]
    assert len(blobs) == 4  # two layers, the config, the manifest
    assert len(opened(tmp_path / "o.tar")[2]) == 3


def test_the_same_bytes_on_every_run_and_for_either_option(image, tmp_path):
    for name, kind in [("a", "docker"), ("b", "docker"), ("c", "oci")]:
        flatten.export(image, tmp_path / name, image_kind=kind)

    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_bytes() == (tmp_path / "c").read_bytes()


def documents(path):
    """Return index.json and manifest.json of an archive."""
    with tarfile.open(path) as tar:
        return [
            json.load(tar.extractfile(name)) for name in ("index.json", "manifest.json")
        ]


@pytest.mark.parametrize(
    ("tags", "full", "short"),
    [
        (["a"], ["docker.io/library/a:latest"], ["a:latest"]),
        (["us/x:1", "h:5000/y"], ["docker.io/us/x:1", "h:5000/y:latest"], ["us/x:1", "h:5000/y:latest"]),
        (["a", "a:latest", "docker.io/a"], ["docker.io/library/a:latest"], ["a:latest"]),
        ([], ["docker.io/library/app:1"], ["app:1"]),
    ],
    ids=["one tag", "two tags", "one tag in three forms", "the image's name"],
)  # fmt: skip
def test_the_index_and_the_manifest_have_each_name(image, tmp_path, tags, full, short):
    flatten.export(image, tmp_path / "o.tar", image_kind="oci", tags=tuple(tags))
    index, (manifest,) = documents(tmp_path / "o.tar")

    assert manifest["RepoTags"] == full
    assert [entry["annotations"] for entry in index["manifests"]] == [
        {
            "io.containerd.image.name": name,
            "org.opencontainers.image.ref.name": known,
        }
        for name, known in zip(full, short, strict=True)
    ]
    assert len({entry["digest"] for entry in index["manifests"]}) == 1


def test_an_image_without_a_name_stays_without(tmp_path):
    (tmp_path / "i.tar").write_bytes(docker_archive(TARS, tags=None))
    flatten.export(tmp_path / "i.tar", tmp_path / "o.tar", image_kind="oci")
    index, (manifest,) = documents(tmp_path / "o.tar")

    assert manifest["RepoTags"] is None
    assert [entry.keys() for entry in index["manifests"]] == [
        {"mediaType", "digest", "size"}
    ]


def test_names_that_engines_refuse_are_left_out_with_a_warning(tmp_path):
    (tmp_path / "i.tar").write_bytes(docker_archive(TARS, tags=["App:1", "b:1"]))
    done = flatten.export(tmp_path / "i.tar", tmp_path / "o.tar", image_kind="oci")

    assert documents(tmp_path / "o.tar")[1][0]["RepoTags"] == ["docker.io/library/b:1"]
    (warning,) = done.warnings
    assert "left out names that engines refuse: 'App:1'; --tag" in warning


@pytest.mark.usefixtures("image")
def test_an_image_can_be_slimmed_and_named(tmp_path):
    got = subprocess.run(
        [*FLATTEN, "i.tar", "--docker", "o.tar", "--exclude", "/d", "--tag", "slim",
         "--tag", "reg.io:5000/x:2"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    assert got.stderr == b""
    flatten.export(tmp_path / "o.tar", tmp_path / "flat.tar")

    assert opened(tmp_path / "o.tar")[1] == (
        "docker.io/library/slim:latest",
        "reg.io:5000/x:2",
    )
    with tarfile.open(tmp_path / "flat.tar") as tar:
        assert tar.getnames() == ["b", "l"]


@pytest.mark.parametrize("history", [[], [{"created_by": "x"}] * 2])
def test_a_history_that_does_not_match_the_layers_is_left_out(tmp_path, history):
    document = config(TARS, history=history)
    (tmp_path / "i.tar").write_bytes(docker_archive(TARS, config_document=document))
    flatten.export(
        tmp_path / "i.tar",
        tmp_path / "o.tar",
        image_kind="docker",
        since=Point(layer=2),
    )
    got, _, diff_ids = opened(tmp_path / "o.tar")

    assert [step["comment"][:7] for step in got["history"]] == [
        "layer 1",
        "layer 2",
        "layers ",
    ]
    assert len(diff_ids) == 3


REFUSED = {
    "two outputs": (["-o", "x", "--oci", "o.tar"], "-o cannot be used together with --oci or --docker"),
    "both kinds": (["--docker", "x", "--oci", "o.tar"], "not allowed with argument"),
    "--from without an image": (["-o", "x", "--from", "1"], "--from and --tag need --oci or --docker"),
    "a compression that layers cannot have": (["--oci", "o.tar", "--compress", "xz"], "layers of an image cannot be xz"),
    "a tag in upper case": (["--oci", "o.tar", "--tag", "App:1"], "'App:1' is not a valid image name"),
    "a tag with a digest": (["--oci", "o.tar", "--tag", f"a@sha256:{'0' * 64}"], "is not a valid image name"),
    "an image id as a tag": (["--oci", "o.tar", "--tag", "0" * 64], "is not a valid image name"),
    "standard output": (["--oci", "-"], "write to a file, not to standard output"),
    "a directory": (["--docker", "o/"], "'o/' is the name of a directory"),
    "a device": (["--oci", "/dev/null"], "exists and is not a regular file"),
    "no such step": (["--oci", "o.tar", "--from", "9"], "no step 9"),
    "edits with --from": (["--oci", "o.tar", "--from", "1", "--exclude", "a"], "takes no selection"),
}  # fmt: skip


@pytest.mark.parametrize(("args", "why"), REFUSED.values(), ids=REFUSED)
@pytest.mark.usefixtures("image")
def test_refused(tmp_path, args, why):
    got = subprocess.run(
        [*FLATTEN, "i.tar", *args],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert got.returncode == 2
    assert why in got.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["i.tar"]


def test_a_wrong_digest_leaves_nothing(tmp_path):
    tars = layers([member("x", b"c" * 2000)])
    data = docker_archive(tars).replace(b"c" * 2000, b"d" * 2000)
    (tmp_path / "i.tar").write_bytes(data)

    with pytest.raises(flatten.IntegrityError):
        flatten.export(tmp_path / "i.tar", tmp_path / "o.tar", image_kind="oci")
    assert [p.name for p in tmp_path.iterdir()] == ["i.tar"]
