"""OCI layouts: directories and archives, indexes, platforms, what is refused."""

import gzip
import json
import os

import pytest

import flatten
from builders import archive, descriptor, digest, layers, member, oci_files
from flatten.sources import choice
from listing import contents

TARS = layers(["a", "b"], ["-a", "c"])
WANT = {"b": "0", "c": "1"}
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def write(folder, files):
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


@pytest.fixture
def flat(tmp_path):
    """Return a function from files to the tree of the layout that they are."""

    def run(files, name=None, **options):
        folder = write(tmp_path / "layout", files)
        out = tmp_path / "rootfs.tar"
        flatten.export(f"{folder}#{name}" if name else folder, out, **options)
        return contents(out)

    return run


def test_a_directory_and_an_archive_are_one_image(flat, tmp_path):
    files = oci_files(TARS)
    (tmp_path / "image.tar").write_bytes(archive(files.items()))
    flatten.export(tmp_path / "image.tar", tmp_path / "out.tar")

    assert flat(files) == contents(tmp_path / "out.tar") == WANT
    assert (tmp_path / "rootfs.tar").read_bytes() == (tmp_path / "out.tar").read_bytes()


def test_kinds_can_be_given(tmp_path):
    folder = write(tmp_path / "layout", oci_files(TARS))
    (tmp_path / "i.tar").write_bytes(archive(oci_files(TARS).items()))

    flatten.open_image(f"oci:{folder}#app:1").close()
    flatten.open_image(f"oci-archive:{tmp_path / 'i.tar'}").close()
    for wrong in (f"oci-archive:{folder}", f"docker-archive:{tmp_path / 'i.tar'}"):
        with pytest.raises(flatten.SourceError, match="not an image of the kind"):
            flatten.open_image(wrong)


def test_blobs_may_be_symlinks_as_bazel_makes_them(flat, tmp_path):
    folder = write(tmp_path / "layout", oci_files(TARS))
    blobs = folder / "blobs" / "sha256"
    for blob in list(blobs.iterdir()):
        blob.rename(tmp_path / blob.name)
        blob.symlink_to(tmp_path / blob.name)

    assert flat({}) == WANT


def several(*platforms, nested=False, attested=False):
    """Return a layout whose images, one a platform, hold a file called like it."""
    files, listed = {}, []
    for name in platforms:
        os_, architecture, *variant = name.split("/")
        document = {"os": os_, "architecture": architecture}
        document |= {"variant": variant[0]} if variant else {}
        made = oci_files(
            layers([name.replace("/", "-")]), documents={"config": document}
        )  # fmt: skip
        (item,) = json.loads(made.pop("index.json"))["manifests"]
        files |= made
        listed.append(item | {"platform": document, "annotations": {}})
    if attested:
        data = json.dumps({"schemaVersion": 2, "config": {}, "layers": []}).encode()
        files[f"blobs/sha256/{digest(data)}"] = data
        listed.append(
            descriptor(
                data,
                MANIFEST,
                platform={"os": "unknown", "architecture": "unknown"},
                annotations={"vnd.docker.reference.type": "attestation-manifest"},
            )
        )
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": listed}
    if nested:
        data = json.dumps(index).encode()
        files[f"blobs/sha256/{digest(data)}"] = data
        name = {"org.opencontainers.image.ref.name": "multi:1"}
        index = {"manifests": [descriptor(data, INDEX, annotations=name)]}
    return files | {"index.json": json.dumps(index).encode()}


BOTH = several(
    "linux/amd64", "linux/arm64", "linux/arm/v6", "linux/arm/v7", attested=True
)
NESTED = several("linux/amd64", "linux/arm64", nested=True, attested=True)

PLATFORMS = {
    "by os and architecture": (BOTH, None, "linux/arm64", "linux-arm64"),
    "by variant": (BOTH, None, "linux/arm/v6", "linux-arm-v6"),
    "in capitals": (BOTH, None, "Linux/AMD64", "linux-amd64"),
    "in an index of indexes": (NESTED, None, "linux/arm64", "linux-arm64"),
    "and by the name of the index": (NESTED, "multi:1", "linux/amd64", "linux-amd64"),
    "by position": (BOTH, "@1", None, "linux-arm64"),
}


@pytest.mark.parametrize(
    ("files", "name", "wanted", "want"), PLATFORMS.values(), ids=PLATFORMS
)
def test_platforms(flat, files, name, wanted, want):
    assert flat(files, name, platform=wanted) == {want: "0"}


@pytest.mark.parametrize(
    ("machine", "want"), [("x86_64", "linux-amd64"), ("aarch64", "linux-arm64"),
                          ("armv7l", "linux-arm-v7")],
)  # fmt: skip
def test_the_default_is_the_hosts_platform(flat, monkeypatch, machine, want):
    pretend(monkeypatch, machine)

    assert flat(BOTH) == {want: "0"}


def pretend(monkeypatch, machine):
    """Be on a machine of another kind."""
    found = os.uname_result(("Linux", "host", "6", "1", machine))
    monkeypatch.setattr(os, "uname", lambda: found)


def test_attestations_are_not_images(flat):
    assert flat(several("linux/riscv64", attested=True)) == {"linux-riscv64": "0"}
    assert flat(several("linux/riscv64", nested=True, attested=True))


def test_a_platform_that_no_image_has(flat):
    with pytest.raises(
        flatten.SourceError, match=r"no image for linux/s390x; it has\s+@0"
    ):
        flat(BOTH, platform="linux/s390x")
    with pytest.raises(flatten.SourceError, match="no image for windows/amd64"):
        flat(oci_files(TARS), platform="windows/amd64")


def test_a_platform_that_matches_several_images(flat):
    with pytest.raises(flatten.UsageError, match=r"choose one with .*--platform"):
        flat(BOTH, platform="linux/arm")


def test_an_invalid_platform(flat):
    for text in ("linux", "linux/", "a/b/c/d", ""):
        with pytest.raises(
            flatten.UsageError, match=r"expected OS/ARCH\[/VARIANT\], such as"
        ):
            flat(BOTH, platform=text)


def test_platforms_that_were_not_fetched_cannot_be_chosen(flat):
    files = dict(BOTH)
    items = json.loads(files["index.json"])["manifests"]
    for item in items[:3]:
        del files[f"blobs/sha256/{item['digest'][7:]}"]

    assert flat(files) == {"linux-arm-v7": "0"}


NAMES = {
    "a ref name": "app:1",
    "the second ref name": "other",
    "the start of the manifest's digest": None,
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_names(flat, name):
    files = oci_files(TARS, names=("app:1", "other"))
    (found,) = {item["digest"] for item in json.loads(files["index.json"])["manifests"]}

    assert flat(files, name or found) == WANT
    assert flat(files, name or found[7:19]) == WANT


@pytest.mark.parametrize("name", [None, "", 1, {}])
def test_an_annotation_that_is_no_name(tmp_path, name):
    (tmp_path / "i.tar").write_bytes(archive(oci_files(TARS, names=[name]).items()))

    with flatten.open_image(str(tmp_path / "i.tar")) as image:
        assert image.names == ()


def edited(**documents):
    return oci_files(TARS, documents=documents)


def without(name, files=None):
    files = dict(files or oci_files(TARS))
    index = json.loads(files["index.json"])
    manifest = json.loads(files[f"blobs/sha256/{index['manifests'][0]['digest'][7:]}"])
    found = {
        "layer": manifest["layers"][1]["digest"],
        "config": manifest["config"]["digest"],
        "manifest": index["manifests"][0]["digest"],
    }[name]
    del files[f"blobs/sha256/{found[7:]}"]
    return files


def deep(levels):
    """Return a layout of indexes in indexes."""
    files = oci_files(TARS)
    index = files["index.json"]
    for _ in range(levels):
        files[f"blobs/sha256/{digest(index)}"] = index
        index = json.dumps({"manifests": [descriptor(index, INDEX)]}).encode()
    return files | {"index.json": index}


def wide():
    """Return a layout whose indexes list each other thousands of times."""
    files = oci_files(TARS)
    index = files["index.json"]
    for _ in range(3):
        files[f"blobs/sha256/{digest(index)}"] = index
        index = json.dumps({"manifests": [descriptor(index, INDEX)] * 100}).encode()
    return files | {"index.json": index}


LAYER = {"digest": "sha256:" + "0" * 64, "size": 9, "urls": ["https://e.com/layer"]}

MALFORMED = {
    "the index is not JSON": ({"index.json": b"{"}, "is not JSON"),
    "the index is a list": ({"index.json": b"[]"}, "not an index"),
    "the index is empty": ({"index.json": b'{"manifests": []}'}, "holds no image"),
    "the index lists text": ({"index.json": b'{"manifests": ["x"]}'}, "not an object"),
    "the index could be a manifest": (
        edited(index={"layers": []}), "both an index and a manifest (CVE-2021-41190)",
    ),
    "a manifest could be an index": (
        edited(manifest={"manifests": []}), "both an index and a manifest",
    ),
    "two media types": (edited(manifest={"mediaType": "x/y"}), "two media types"),
    "media types that are lists": (
        edited(manifest={"mediaType": [1]}), "two media types",
    ),
    "no layers": (edited(manifest={"layers": None}), "layers is not a list"),
    "layers of text": (edited(manifest={"layers": ["x", "y"]}), "not an object"),
    "no config": (edited(manifest={"config": None}), "a descriptor that is not an object"),
    "a digest that is a path": (
        edited(manifest={"layers": [{"digest": "sha256:../../x", "size": 1}] * 2}),
        "'sha256:../../x' is not a sha256 or sha512 digest",
    ),
    "a digest of another algorithm": (
        edited(manifest={"config": {"digest": "sha1:" + "0" * 40, "size": 1}}),
        "is not a sha256 or sha512 digest",
    ),
    "a size that is text": (
        edited(manifest={"config": {"digest": "sha256:" + "0" * 64, "size": "1"}}),
        "'1' is not a size",
    ),
    "a wrong size": (
        edited(manifest={"layers": [
            {"digest": f"sha256:{digest(tar)}", "size": 1} for tar in TARS]}),
        "bytes, the manifest says 1",
    ),
    "annotations that are a list": (
        edited(manifest={"config": LAYER | {"annotations": []}}), "annotations of a",
    ),
    "a layer that must be fetched": (
        edited(manifest={"layers": [LAYER, LAYER]}),
        "layer 1 of 2: sha256:" + "0" * 64 + " is not part of the image, it must be "
        "fetched from 'https://e.com/layer'",
    ),
    "a layer that is missing": (without("layer"), "layer 2 of 2: "),
    "a config that is missing": (without("config"), "config: "),
    "a manifest that is missing": (without("manifest"), "is not there"),
    "other diff_ids": (
        edited(config={"rootfs": {"diff_ids": []}}), "0 diff_ids, but the manifest lists 2",
    ),
    "indexes in indexes in indexes": (deep(6), "indexes in indexes, over 4 deep"),
    "indexes that list each other": (wide(), "more than 4,096 manifests"),
}  # fmt: skip


@pytest.mark.parametrize(("files", "why"), MALFORMED.values(), ids=MALFORMED)
def test_malformed(flat, tmp_path, files, why):
    with pytest.raises(flatten.FormatError) as caught:
        flat({"oci-layout": b"{}", **files})

    assert why in str(caught.value)
    assert str(tmp_path / "layout") in str(caught.value)
    assert not (tmp_path / "rootfs.tar").exists()


def test_indexes_may_be_nested_up_to_a_depth(flat):
    assert flat(deep(3)) == WANT


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("layer", "digest mismatch: expected sha256:"),
        ("config", "its digest is sha256:"),
        ("manifest", "its digest is sha256:"),
    ],
    ids=["layer", "config", "manifest"],
)
def test_a_blob_that_is_not_its_digest(flat, what, why):
    files = oci_files(layers(["a"], [member("b", b"sha256")]))
    (gone,) = set(files) - set(without(what, files))
    files[gone] = files[gone].replace(b"sha256", b"sha257", 1)

    with pytest.raises(flatten.IntegrityError, match=f"{what}.*{why}"):
        flat(files)


def test_the_digest_of_a_compressed_blob_is_checked_too(flat):
    """The blob inflates to the right layer, but is not the blob that is promised."""
    files = oci_files(TARS, pack=gzip.compress)
    name = f"blobs/sha256/{digest(gzip.compress(TARS[0]))}"
    files[name] = files[name][:4] + b"\1\2\3\4" + files[name][8:]  # its mtime

    with pytest.raises(flatten.IntegrityError, match="layer 1 of 2"):
        flat(files)
    assert flat(files, verify=False) == WANT


def test_a_blob_that_is_a_directory_or_fifo(flat, tmp_path):
    files = oci_files(TARS)
    name = f"blobs/sha256/{digest(TARS[0])}"
    del files[name]
    folder = write(tmp_path / "layout", files)
    os.mkfifo(folder / name)
    with pytest.raises(flatten.FlattenError, match="layer 1 of 2: "):
        flat({})
    (folder / name).unlink()
    (folder / name).mkdir()
    with pytest.raises(flatten.FlattenError, match="layer 1 of 2: "):
        flat({})


def test_a_config_without_a_platform(flat):
    assert flat(edited(config={"os": "", "architecture": ""})) == WANT


def test_host_platforms_are_spelled_as_docker_does(monkeypatch):
    for machine, want in (("x86_64", "linux/amd64"), ("armv7l", "linux/arm/v7"),
                          ("riscv64", "linux/riscv64")):  # fmt: skip
        pretend(monkeypatch, machine)
        assert str(choice.host_platform()) == want
