"""skopeo's ``dir:``, as ``podman save --format docker-dir`` writes it too."""

import filecmp
import gzip
import json
import shutil
import subprocess

import pytest

import flatten
from builders import archive, config, descriptor, digest, docker_archive, layers
from listing import contents

DOCKER = "application/vnd.docker."
TARS = layers(["a", "b"], ["-a", "c"])
WANT = {"b": "0", "c": "1"}


def dir_files(tars=TARS, *, pack=bytes, architecture="amd64"):
    """Return the files of a directory with one image."""
    document = json.dumps(config(tars, architecture=architecture)).encode()
    packed = [pack(tar) for tar in tars]
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{DOCKER}distribution.manifest.v2+json",
        "config": descriptor(document, f"{DOCKER}container.image.v1+json"),
        "layers": [
            descriptor(d, f"{DOCKER}image.rootfs.diff.tar.gzip") for d in packed
        ],
    }
    return {
        "version": b"Directory Transport Version: 1.1\n",
        "manifest.json": json.dumps(manifest).encode(),
        **{digest(data): data for data in (document, *packed)},
    }


def list_files(*images):
    """Return the files of a directory with an image for each of several platforms."""
    files, listed = {}, []
    for architecture, tars in images:
        made = dir_files(tars, architecture=architecture)
        data = made.pop("manifest.json")
        files |= made | {f"{digest(data)}.manifest.json": data}
        kind = f"{DOCKER}distribution.manifest.v2+json"
        platform = {"os": "linux", "architecture": architecture}
        listed.append(descriptor(data, kind, platform=platform))
    kind = f"{DOCKER}distribution.manifest.list.v2+json"
    document = {"schemaVersion": 2, "mediaType": kind, "manifests": listed}
    return files | {"manifest.json": json.dumps(document).encode()}


@pytest.fixture
def flat(tmp_path):
    def run(files, kind="", **options):
        folder = tmp_path / "image"
        for name, data in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        flatten.export(f"{kind}{folder}", tmp_path / "out.tar", **options)
        return contents(tmp_path / "out.tar")

    return run


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("kind", ["", "dir:"])
def test_an_image(flat, pack, kind):
    assert flat(dir_files(pack=pack), kind) == WANT


def test_platforms(flat):
    files = list_files(("amd64", TARS), ("arm64", layers(["arm"])))

    assert flat(files, platform="linux/amd64") == WANT
    assert flat(files, platform="linux/arm64") == {"arm": "0"}


def test_a_platform_that_was_not_copied_cannot_be_chosen(flat):
    files = list_files(("riscv64", TARS), ("arm64", layers(["arm"])))
    gone = json.loads(files["manifest.json"])["manifests"][1]["digest"]
    del files[f"{gone.removeprefix('sha256:')}.manifest.json"]

    assert flat(files) == WANT


def test_a_tar_of_the_directory(tmp_path):
    (tmp_path / "i.tar").write_bytes(archive(dir_files().items()))

    flatten.export(tmp_path / "i.tar", tmp_path / "out.tar")

    assert contents(tmp_path / "out.tar") == WANT


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")
@pytest.mark.parametrize("options", [[], ["--dest-compress"]], ids=["plain", "gzip"])
def test_what_skopeo_itself_writes(tmp_path, options):
    source = tmp_path / "i.tar"
    source.write_bytes(docker_archive(TARS))
    target = f"dir:{tmp_path / 'copy'}"
    command = ["skopeo", "--insecure-policy", "copy", "-q", *options]
    subprocess.run([*command, f"docker-archive:{source}", target], check=True)

    flatten.export(source, tmp_path / "right.tar")
    flatten.export(target, tmp_path / "out.tar")

    assert filecmp.cmp(tmp_path / "right.tar", tmp_path / "out.tar", shallow=False)


def edited(**changes):
    files = dir_files()
    manifest = json.loads(files["manifest.json"]) | changes
    return files | {"manifest.json": json.dumps(manifest).encode()}


REFUSED = {
    "a layer that is not its digest": (
        dir_files() | {digest(TARS[0]): TARS[0].replace(b"somebody", b"ydobemos")},
        flatten.IntegrityError, "digest mismatch",
    ),
    "a config that is not its digest": (
        dir_files() | {digest(json.dumps(config(TARS)).encode()): b"{}"},
        flatten.IntegrityError, "its digest is",
    ),
    "a digest that is a path": (
        edited(layers=[{"digest": "sha256:../../x", "size": 1}]),
        flatten.FormatError, "is not a sha256 or sha512 digest",
    ),
    "a layer that is not there": (
        {n: d for n, d in dir_files().items() if n != digest(TARS[1])},
        flatten.FormatError, "layer 2 of 2: ",
    ),
    "both a manifest and an index": (
        edited(manifests=[]), flatten.FormatError, "both an index and a manifest",
    ),
    "another size": (
        edited(config=descriptor(json.dumps(config(TARS)).encode(), "") | {"size": 5}),
        flatten.FormatError, "the manifest says 5",
    ),
    "no manifest at all": ({"manifest.json": b"{}"}, flatten.FormatError, "descriptor"),
}  # fmt: skip


@pytest.mark.parametrize(("files", "error", "why"), REFUSED.values(), ids=REFUSED)
def test_refused(flat, tmp_path, files, error, why):
    with pytest.raises(error, match=why):
        flat(files)
    assert not (tmp_path / "out.tar").exists()
