"""Statements of what an output was made from."""

import hashlib
import json

import pytest

import flatten
from builders import digest, docker_archive, layers, legacy_archive
from command import run
from flatten import __version__
from kinds import oci

TARS = layers(["a", "d/", "d/x"], ["b", "-a"])


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "i.tar"
    path.write_bytes(docker_archive(TARS))
    return path


def stated(image, out, *options):
    """Return the statement about an output."""
    path = out.with_suffix(".json")
    done = run(image, "-o", out, "--statement", path, *options)
    assert done.returncode == 0, done.stderr
    return json.loads(path.read_text())


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ["o.tar", "o.tar.gz", "o.erofs", "o.cpio"])
def test_the_subject_is_the_output(image, tmp_path, name):
    statement = stated(image, tmp_path / name)

    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    assert statement["subject"] == [
        {"name": name, "digest": {"sha256": sha256(tmp_path / name)}}
    ]


def test_the_root_of_a_hash_tree_is_a_subject(image, tmp_path):
    tree = tmp_path / "v"

    statement = stated(image, tmp_path / "o.erofs", "--verity", tree)

    root = tmp_path / "v.roothash"
    assert statement["subject"][1:] == [
        {"name": "v", "digest": {"sha256": sha256(tree)}},
        {"name": "v.roothash",
         "digest": {"sha256": sha256(root), "dmVerityRoot": root.read_text()}},
    ]  # fmt: skip


def test_the_dependencies_are_the_image_and_its_layers(image, tmp_path):
    with flatten.open_image(str(image)) as opened:
        id_ = opened.id

    predicate = stated(image, tmp_path / "o.tar")["predicate"]

    assert predicate["buildDefinition"]["resolvedDependencies"] == [
        {"name": "config", "digest": {"sha256": id_}},
        *({"name": f"layer {n}", "digest": {"sha256": digest(tar)}}
          for n, tar in enumerate(TARS, 1)),
    ]  # fmt: skip
    assert predicate["buildDefinition"]["externalParameters"] == {
        "image": ["app:1"], "options": {},
    }  # fmt: skip
    assert predicate["runDetails"]["builder"]["version"] == {"flatten": __version__}


def test_the_manifest_of_a_layout_is_a_dependency(tmp_path):
    reference = oci(tmp_path, TARS)

    predicate = stated(reference, tmp_path / "o.tar")["predicate"]

    first = predicate["buildDefinition"]["resolvedDependencies"][0]
    assert first["name"] == "manifest"
    assert (
        (tmp_path / "layout/blobs/sha256" / first["digest"]["sha256"])
        .read_bytes()
        .startswith(b'{"schemaVersion": 2')
    )


def test_layers_without_a_diff_id_are_hashed(tmp_path):
    (tmp_path / "old.tar").write_bytes(legacy_archive(TARS))

    predicate = stated(tmp_path / "old.tar", tmp_path / "o.tar")["predicate"]

    found = predicate["buildDefinition"]["resolvedDependencies"][1:]
    assert [row["digest"]["sha256"] for row in found] == [*map(digest, TARS)]


def test_options_and_host_files_are_said(image, tmp_path):
    (tmp_path / "host").write_text("host")
    more = ["--exclude", "b", "--add", f"{tmp_path}/host:h", "--mtime", "7", "--no-verify",
            "--at-layer", "2", "--no-fsync", "--memory", "1G"]  # fmt: skip

    predicate = stated(image, tmp_path / "o.tar", *more)["predicate"]

    definition = predicate["buildDefinition"]
    assert definition["externalParameters"]["options"] == {
        "at": {"layer": 2}, "verify": False, "mtime": 7,
        "edits": {"exclude": ["b"], "add": [[f"{tmp_path}/host", "h"]]},
    }  # fmt: skip
    assert definition["resolvedDependencies"][-1]["name"] == "host files"


def test_the_same_image_and_options_give_the_same_statement(image, tmp_path):
    (tmp_path / "other").mkdir()
    copy = image.rename(tmp_path / "other/copy.tar")

    one = stated(copy, tmp_path / "o.erofs", "--list-out", tmp_path / "list")
    other = stated(copy, tmp_path / "other/o.erofs")

    assert one == other


@pytest.mark.parametrize("args", [["-o", "o/"], ["-o", "-"]], ids=["directory", "pipe"])
def test_what_is_no_file_is_refused(image, tmp_path, args):
    done = run(image, *args, "--statement", "s.json", cwd=tmp_path)

    assert done.returncode == 2
    assert "--statement" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["i.tar"]


def test_a_failed_export_leaves_no_statement(image, tmp_path):
    data = bytearray(image.read_bytes())
    data[1024] ^= 1
    image.write_bytes(data)

    done = run(image, "-o", "o.tar", "--statement", "s.json", cwd=tmp_path)

    assert done.returncode in {4, 5}
    assert [path.name for path in tmp_path.iterdir()] == ["i.tar"]


def test_a_place_that_cannot_be_written_is_noticed_before_the_output(image, tmp_path):
    done = run(image, "-o", "o.tar", "--statement", "no/s.json", cwd=tmp_path)

    assert (done.returncode, done.stderr) == (
        1, "flatten: 'no/s.json': cannot create: No such file or directory\n",
    )  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["i.tar"]
