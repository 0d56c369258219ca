"""What OCI layouts hold besides images, and layers that are no tars or not there."""

import gzip
import hashlib
import json

import pytest

import flatten
from builders import archive, config, descriptor, digest, layers, oci_files
from flatten.cli import main
from listing import contents

OCI = "application/vnd.oci.image."
TARS = layers(["a"])
EMPTY = "application/vnd.oci.empty.v1+json"
SPDX = "application/spdx+json"


@pytest.fixture
def flat(tmp_path):
    def run(files, name=None, **options):
        path, out = tmp_path / "image.tar", tmp_path / "out.tar"
        path.write_bytes(archive(files.items()))
        flatten.export(f"{path}#{name}" if name else path, out, **options)
        return contents(out.read_bytes())

    return run


def manifest(
    body=b"{}",
    layer_type=SPDX,
    *,
    document=b"{}",
    config_type=f"{OCI}config.v1+json",
    listed=None,
    **more,
):
    """Return the files of a layout of one manifest with one layer, of any types."""
    made = {
        "schemaVersion": 2,
        "mediaType": f"{OCI}manifest.v1+json",
        "config": descriptor(document, config_type),
        "layers": [descriptor(body, layer_type)],
        **more,
    }
    data = json.dumps(made).encode()
    item = descriptor(data, f"{OCI}manifest.v1+json", **(listed or {}))
    blobs = {f"blobs/sha256/{digest(each)}": each for each in (body, document, data)}
    return blobs | {"index.json": json.dumps({"manifests": [item]}).encode()}


def manifest_file(text):
    """Return the files of a layout of one manifest, as text."""
    data = text.encode()
    item = descriptor(data, json.loads(text)["mediaType"])
    index = json.dumps({"manifests": [item]}).encode()
    return {f"blobs/sha256/{digest(data)}": data, "index.json": index}


def beside(*layouts):
    """Return one layout of several: an image first."""
    files, listed = {}, []
    for layout in (oci_files(TARS), *layouts):
        listed += json.loads(layout["index.json"])["manifests"]
        files |= layout
    return files | {"index.json": json.dumps({"manifests": listed}).encode()}


STATIC_CONFIG = json.dumps({"architecture": "", "os": "", "config": {}}).encode()
"""As cosign writes it: that of an image."""

ARTIFACTS = {
    "a signature of cosign": manifest(
        layer_type="application/vnd.dev.cosign.simplesigning.v1+json",
        document=STATIC_CONFIG,
    ),
    "an attestation of cosign": manifest(
        layer_type="application/vnd.dsse.envelope.v1+json", document=STATIC_CONFIG
    ),
    "an SBOM of cosign, as text": manifest(
        layer_type="text/spdx", document=STATIC_CONFIG
    ),
    "an SBOM of oras attach": manifest(config_type=EMPTY, artifactType=SPDX),
    "an SBOM with an artifact type in the index only": manifest(
        layer_type=f"{OCI}layer.v1.tar", listed={"artifactType": SPDX}
    ),
    "an SBOM with an artifact type in the manifest only": manifest(
        layer_type=f"{OCI}layer.v1.tar", artifactType=SPDX
    ),
    "a signature of notation": manifest(
        layer_type="application/jose+json",
        config_type="application/vnd.cncf.notary.signature",
    ),
    "WebAssembly": manifest(
        b"\0asm", "application/wasm", config_type="application/vnd.wasm.config.v0+json"
    ),
    "a Helm chart": manifest(
        gzip.compress(TARS[0]),
        "application/vnd.cncf.helm.chart.content.v1.tar+gzip",
        config_type="application/vnd.cncf.helm.config.v1+json",
    ),
    "a build cache of BuildKit": manifest(
        TARS[0],
        f"{OCI}layer.v1.tar",
        config_type="application/vnd.buildkit.cacheconfig.v0",
    ),
}


ARTIFACTS["an artifact manifest of OCI 1.1's drafts"] = manifest_file(
    json.dumps({"mediaType": f"{OCI[:-6]}artifact.manifest.v1+json", "blobs": []})
)


def listed(*contents):
    """Return the files of a layout whose index lists contents, with media types."""
    items = [descriptor(data, media_type) for data, media_type in contents]
    index = json.dumps({"manifests": items}).encode()
    blobs = {f"blobs/sha256/{digest(data)}": data for data, _ in contents}
    return blobs | {"index.json": index}


ARTIFACTS |= {
    "a build cache of BuildKit in an index": listed(
        (gzip.compress(TARS[0]), f"{OCI}layer.v1.tar+gzip"),
        (b'{"layers": []}', "application/vnd.buildkit.cacheconfig.v0"),
    ),
    "an unknown media type": listed((b"x", "application/x-unknown")),
    "an unknown media type of JSON": listed((b"{}", "application/x-unknown+json")),
}


@pytest.mark.parametrize("files", ARTIFACTS.values(), ids=ARTIFACTS)
def test_an_artifact_next_to_an_image_is_not_an_image(flat, files):
    assert flat(beside(files)) == {"a": "0"}


@pytest.mark.parametrize("files", ARTIFACTS.values(), ids=ARTIFACTS)
def test_an_artifact_alone_is_said_to_be_one(flat, files):
    with pytest.raises(
        flatten.FormatError,
        match=r"holds no image, only artifacts: (application|text)/",
    ):
        flat(files)


@pytest.mark.parametrize("kind", [None, "", "application/json"])
def test_an_image_whose_descriptor_has_no_media_type_of_its_own(flat, kind):
    files = oci_files(TARS)
    index = json.loads(files["index.json"])
    manifest_ = files.pop(f"blobs/sha256/{index['manifests'][0]['digest'][7:]}")
    document = json.loads(manifest_)
    document.pop("mediaType", None)
    data = json.dumps(document).encode()
    item = descriptor(data, kind)
    files |= {f"blobs/sha256/{digest(data)}": data,
              "index.json": json.dumps({"manifests": [item]}).encode()}  # fmt: skip

    assert flat(files) == {"a": "0"}


def test_an_image_whose_artifact_type_is_that_of_its_config(flat):
    """The referrers API says so of an image without an artifact type of its own."""
    kind = f"{OCI}config.v1+json"
    document = json.dumps(config(TARS)).encode()
    files = manifest(
        TARS[0], f"{OCI}layer.v1.tar", document=document, listed={"artifactType": kind}
    )

    assert flat(files) == {"a": "0"}


def test_an_image_with_one_layer_of_text_is_an_image_that_cannot_be_read(flat):
    layer_types = [descriptor(TARS[0], f"{OCI}layer.v1.tar"), descriptor(b"x", SPDX)]
    files = oci_files(TARS, documents={"manifest": {"layers": layer_types}})
    files[f"blobs/sha256/{digest(b'x')}"] = b"x"

    with pytest.raises(flatten.FormatError, match="2"):
        flat(files)


def test_a_manifest_of_schema_1(flat):
    data = json.dumps({"schemaVersion": 1, "fsLayers": [], "history": []}).encode()
    media_type = "application/vnd.docker.distribution.manifest.v1+prettyjws"
    index = {"manifests": [descriptor(data, media_type)]}
    files = {
        f"blobs/sha256/{digest(data)}": data,
        "index.json": json.dumps(index).encode(),
    }

    with pytest.raises(
        flatten.FormatError, match="schema 1; copy the image with skopeo"
    ):
        flat(files)


# --- layers that are no tars


def image_of(body, layer_type, **more):
    document = json.dumps(config([body])).encode()
    return manifest(body, layer_type, document=document, **more)


NOT_TARS = {
    "encrypted": (
        image_of(bytes(range(256)), f"{OCI}layer.v1.tar+gzip+encrypted"),
        r"gzip\+encrypted, is encrypted; decrypt the image first, with skopeo copy ",
    ),
    "a blob of nydus that begins as zstd": (
        image_of(b"\x28\xb5\x2f\xfdxx", f"{OCI}layer.nydus.blob.v1"),
        "nydus.blob.v1, is part of a nydus file system",
    ),
    "SquashFS": (
        image_of(
            b"hsqs" + bytes(4092), "application/vnd.sylabs.image.layer.v1.squashfs"
        ),
        r"\.squashfs\): not a tar, but a SquashFS file system",
    ),
    "EROFS": (
        image_of(
            bytes(1024) + b"\xe2\xe1\xf5\xe0" + bytes(3068), "application/vnd.erofs"
        ),
        r"vnd\.erofs\): not a tar, but an EROFS file system",
    ),
    "EROFS, said to be a tar": (
        image_of(bytes(1024) + b"\xe2\xe1\xf5\xe0" + bytes(3068), f"{OCI}layer.v1.tar"),
        r"[0-9a-f]\): not a tar, but an EROFS file system",
    ),
}


@pytest.mark.parametrize(("files", "why"), NOT_TARS.values(), ids=NOT_TARS)
def test_a_layer_that_is_not_a_tar(flat, files, why):
    with pytest.raises(flatten.FormatError, match=why):
        flat(files)


def test_a_tar_of_an_unknown_media_type_is_a_layer(flat):
    assert flat(image_of(TARS[0], "application/vnd.example")) == {"a": "0"}


FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"


@pytest.mark.parametrize(
    ("item", "why"),
    [
        (
            {"mediaType": FOREIGN, "digest": f"sha256:{digest(b'')}", "size": 0,
             "urls": ["https://e.com/l"]},
            "must be fetched from 'https://e.com/l'$",
        ),
        (
            {"mediaType": FOREIGN, "digest": f"sha256:{digest(b'')}", "size": 0,
             "urls": [f"https://e.com/{letter}" for letter in "abcdef"]},
            "from 'https://e.com/a' or .* or 'https://e.com/d', or 2 more$",
        ),
        (
            {"mediaType": f"{OCI}layer.nondistributable.v1.tar+gzip",
             "digest": f"sha256:{digest(b'x')}", "size": 1},
            "must be fetched$",
        ),
        (
            {"mediaType": f"{OCI}layer.v1.tar", "digest": f"sha256:{digest(b'x')}",
             "size": 1},
            "is not there$",
        ),
    ],
    ids=["of size 0, its blob being there", "many URLs", "nondistributable",
         "an ordinary one"],
)  # fmt: skip
def test_a_layer_that_is_not_there(flat, item, why):
    files = oci_files(TARS, documents={"manifest": {"layers": [item]}})
    files[f"blobs/sha256/{digest(b'')}"] = b""

    with pytest.raises(flatten.FormatError, match=why):
        flat(files)


def test_a_foreign_layer_whose_blob_is_there_is_read(flat):
    item = descriptor(TARS[0], FOREIGN, urls=["https://e.com/l"])

    files = oci_files(TARS, documents={"manifest": {"layers": [item]}})
    assert flat(files) == {"a": "0"}


# --- names of indexes


def test_names_of_an_index_win_over_those_of_its_manifests(flat):
    files = oci_files(TARS, names=("1",))
    data = files["index.json"]
    files[f"blobs/sha256/{digest(data)}"] = data
    names = {"org.opencontainers.image.ref.name": "app:1"}
    item = descriptor(data, f"{OCI}index.v1+json", annotations=names)
    files["index.json"] = json.dumps({"manifests": [item]}).encode()

    assert flat(files, "app:1") == {"a": "0"}
    with pytest.raises(flatten.SourceError, match="no image 'other'"):
        flat(files, "other")


# --- sha512


def sha512_layout(*, diff_ids="sha256", pack=bytes, edit=None, promised=None):
    """Return a layout whose digests are of SHA-512."""
    blobs = {}

    def add(data, media_type):
        name = hashlib.sha512(data).hexdigest()
        blobs[f"blobs/sha512/{name}"] = data
        return {"mediaType": media_type, "digest": f"sha512:{name}", "size": len(data)}

    right = f"{diff_ids}:{hashlib.new(diff_ids, TARS[0]).hexdigest()}"
    rootfs = {"type": "layers", "diff_ids": [promised or right]}
    document = {"os": "linux", "architecture": "amd64", "rootfs": rootfs}
    body = {
        "config": add(json.dumps(document).encode(), f"{OCI}config.v1+json"),
        "layers": [add(pack(TARS[0]), f"{OCI}layer.v1.tar")],
    }
    item = add(json.dumps(body).encode(), f"{OCI}manifest.v1+json")
    files = {"index.json": json.dumps({"manifests": [item]}).encode(), **blobs}
    for name, data in blobs.items():
        if edit is not None and edit in data:
            files[name] = data.replace(edit, bytes(reversed(edit)))
    return files, item["digest"], body["config"]["digest"]


@pytest.mark.parametrize("diff_ids", ["sha256", "sha512"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_sha512(flat, diff_ids, pack):
    files, manifest_digest, config_digest = sha512_layout(diff_ids=diff_ids, pack=pack)

    assert flat(files) == {"a": "0"}
    for name in (manifest_digest, config_digest, config_digest[:30]):
        assert flat(files, name) == {"a": "0"}


@pytest.mark.parametrize(
    "name",
    ["sha512:", "sha", "sha512:" + "0" * 128, "s", "f" * 128],
)
def test_no_sha512_digest(flat, name):
    files, _, _ = sha512_layout()

    with pytest.raises(flatten.SourceError, match="no image"):
        flat(files, name)


def test_a_sha256_digest_is_not_found_as_one_of_sha512(flat):
    files = oci_files(TARS)
    listed = json.loads(files["index.json"])["manifests"][0]["digest"]

    with pytest.raises(flatten.SourceError, match="no image"):
        flat(files, listed.replace("sha256", "sha512"))


WRONG = {
    "the manifest": b"layers",
    "the config": b"linux",
    "the layer": b"somebody",
}


@pytest.mark.parametrize("edit", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("diff_ids", ["sha256", "sha512"])
def test_a_blob_that_is_not_its_sha512_digest(flat, edit, diff_ids):
    files, _, _ = sha512_layout(edit=edit, diff_ids=diff_ids)

    with pytest.raises(flatten.IntegrityError, match="sha512:"):
        flat(files)


def test_a_compressed_layer_that_is_not_its_sha512_diff_id(flat):
    wrong = f"sha512:{'0' * 128}"
    files, _, _ = sha512_layout(promised=wrong, pack=gzip.compress)

    with pytest.raises(flatten.IntegrityError, match="expected sha512:000"):
        flat(files)
    assert flat(files, verify=False) == {"a": "0"}


def test_a_layer_that_stays_below_a_delta_gets_a_sha256_diff_id(tmp_path):
    files, _, _ = sha512_layout(diff_ids="sha512", pack=gzip.compress)
    (tmp_path / "i.tar").write_bytes(archive(files.items()))
    out = tmp_path / "o.tar"

    code = main.main([str(tmp_path / "i.tar"), "--oci", str(out), "--from-layer", "1"])

    assert code == 0
    with flatten.open_image(str(out)) as image:
        assert image.layers[0].diff_id == f"sha256:{digest(TARS[0])}"
