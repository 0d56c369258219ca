"""Inputs that users reported, each with the right outcome.

An id says which tool wrote such an image, or what happened to it. The value is the image,
built in code, and what flatten must make of it: a tree, or an error and a part of its
message. CONTRIBUTING.md says how a report becomes a row here.
"""

import gzip
import hashlib
import json
import struct

import pytest

import flatten
from builders import (
    archive,
    config,
    descriptor,
    digest,
    docker_archive,
    layer,
    layers,
    member,
    oci_files,
)
from flatten import FormatError, SourceError
from listing import contents, listing

OCI = "application/vnd.oci.image."
A = layer("etc/", "etc/a")
TREE = {"etc/": "", "etc/a": "0"}


def as_json(document):
    return json.dumps(document).encode()


def layout(*listed, blobs=()):
    """Return the files of an OCI layout that lists some descriptors."""
    index = as_json({"schemaVersion": 2, "manifests": list(listed)})
    files = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": index}
    return files | {f"blobs/sha256/{digest(blob)}": blob for blob in blobs}


def manifest(document, body, layer_type, config_type=f"{OCI}config.v1+json", **more):
    """Return a manifest of one layer, and all of its blobs."""
    made = as_json({
        "schemaVersion": 2,
        "mediaType": f"{OCI}manifest.v1+json",
        "config": descriptor(document, config_type),
        "layers": [descriptor(body, layer_type)],
        **more,
    })  # fmt: skip
    return made, [made, document, body]


def one_layer(body, layer_type, document=None, config_type=f"{OCI}config.v1+json"):
    """Return the archive of a layout whose image has one layer of some media type."""
    document = document or as_json(config([body]))
    made, blobs = manifest(document, body, layer_type, config_type)
    files = layout(descriptor(made, f"{OCI}manifest.v1+json"), blobs=blobs)
    return archive(files.items())


def beside_an_image(*others):
    """Return a layout of an image and of manifests that are not images."""
    image, blobs = manifest(as_json(config([A])), A, f"{OCI}layer.v1.tar")
    kind = f"{OCI}manifest.v1+json"
    listed = [descriptor(image, kind)]
    for document, body, layer_type, config_type, more in others:
        made, parts = manifest(document, body, layer_type, config_type, **more)
        listed.append(descriptor(made, kind))
        blobs = [*blobs, *parts]
    return layout(*listed, blobs=blobs)


def cosign(body, layer_type):
    document = as_json({
        "architecture": "", "os": "", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest(body)}"]},
    })  # fmt: skip
    return document, body, layer_type, f"{OCI}config.v1+json", {}


def referrer(body, kind):
    return (
        b"{}",
        body,
        kind,
        "application/vnd.oci.empty.v1+json",
        {"artifactType": kind},
    )


def jib():
    packed = gzip.compress(A, mtime=0)
    found = [{"config": "c.json", "repoTags": ["app:1"], "layers": ["l.tar.gz"]}]
    return archive([
        ("l.tar.gz", packed), ("c.json", as_json(config([A]))),
        ("manifest.json", as_json(found)),
    ])  # fmt: skip


def skopeo_dir():
    document = as_json(config([A]))
    made, _ = manifest(document, A, f"{OCI}layer.v1.tar")
    return {
        "version": b"Directory Transport Version: 1.1\n", "manifest.json": made,
        digest(document): document, digest(A): A,
    }  # fmt: skip


def docker_25_0_0():
    document = as_json(config([A]))
    empty = as_json({
        "schemaVersion": 2, "mediaType": f"{OCI}manifest.v1+json", "layers": [],
        "config": descriptor(document, f"{OCI}config.v1+json"),
    })  # fmt: skip
    right = [{
        "Config": f"blobs/sha256/{digest(document)}", "RepoTags": ["app:1"],
        "Layers": [f"blobs/sha256/{digest(A)}"],
    }]  # fmt: skip
    listed = descriptor(empty, f"{OCI}manifest.v1+json")
    files = layout(listed, blobs=[empty, document, A])
    return files | {"manifest.json": as_json(right)}


def windows_docker():
    files = [("c.json", as_json(config([A]))), ("one/layer.tar", A)]
    named = [{"Config": "c.json", "RepoTags": ["app:1"], "Layers": ["one\\layer.tar"]}]
    return archive([*files, ("manifest.json", as_json(named))])


def in_a_folder():
    with_dots = member("app/", type=b"5", mode=0o755)
    files = [("app/manifest.json", b"[]"), ("app/c.json", b"{}")]
    return archive([with_dots, *files])


def mac_layer():
    """Return a layer as macOS's tar writes it: AppleDouble members and Apple's xattrs."""
    apple = {b"LIBARCHIVE.creationtime": b"1600000000", b"SCHILY.fflags": b"hidden"}
    double = b"\0\5\x16\7double"
    return layer(
        member("._etc", double), member("etc/", type=b"5", mode=0o755, records=apple),
        member("etc/._a", double), member("etc/a", b"0", records=apple),
    )  # fmt: skip


def mac_archive():
    document = as_json(config([A]))
    named = [{"Config": "c.json", "RepoTags": ["app:1"], "Layers": ["l.tar"]}]
    files = {"c.json": document, "l.tar": A, "manifest.json": as_json(named)}
    parts = []
    for name, data in files.items():
        parts.append(member(f"._{name}", b"\0\5\x16\7double"))
        parts.append(member(name, data, records={b"LIBARCHIVE.creationtime": b"1"}))
    return archive(parts)


def sha512(*, diff_ids):
    def named(data, kind):
        digest_ = f"sha512:{hashlib.sha512(data).hexdigest()}"
        return {"mediaType": f"{OCI}{kind}", "digest": digest_, "size": len(data)}

    document = config([A])
    if diff_ids:
        document["rootfs"]["diff_ids"] = [named(A, "")["digest"]]
    document = as_json(document)
    made = as_json({
        "schemaVersion": 2, "config": named(document, "config.v1+json"),
        "layers": [named(A, "layer.v1.tar")],
    })  # fmt: skip
    files = layout(named(made, "manifest.v1+json"))
    for data in (A, document, made):
        files[f"blobs/sha512/{hashlib.sha512(data).hexdigest()}"] = data
    return archive(files.items())


def with_config(**changes):
    """Return an archive of an image whose config has some other fields."""
    document = {k: v for k, v in (config([A]) | changes).items() if v is not ...}
    return docker_archive([A], config_document=document)


def named_index():
    """Return a layout whose index has a name, and the image in it another one."""
    files = oci_files([A], names=("1",))
    inner = files["index.json"]
    kind = f"{OCI}index.v1+json"
    name = {"org.opencontainers.image.ref.name": "app:1"}
    files[f"blobs/sha256/{digest(inner)}"] = inner
    files["index.json"] = as_json({
        "schemaVersion": 2, "manifests": [descriptor(inner, kind, annotations=name)]
    })  # fmt: skip
    return files


SIGNED = b'{"critical":{"type":"cosign container image signature"}}'
DIFF_ID = f"sha256:{digest(A)}"
EROFS = bytes(1024) + b"\xe2\xe1\xf5\xe0" + bytes(3068)
NOISE = bytes(range(256)) * 16
CHART = gzip.compress(layer("chart/Chart.yaml"), mtime=0)
REPORTS = {
    "Jib before 2.3 wrote the keys of manifest.json in lower case": (jib(), TREE),
    "kaniko 0.19 links the root to itself": (
        docker_archive(layers(
            ["etc/", "etc/a"],
            [member(".", type=b"5", mode=0o755), member("/", type=b"1", target="."),
             "link->nowhere"],
        )), {"./": "", **TREE, "link": "->nowhere"}),
    "docker 25.0.0 saved an OCI manifest without layers": (docker_25_0_0(), TREE),
    "docker for Windows named layers with backslashes": (windows_docker(), TREE),
    "cosign save puts signatures and attestations beside the image": (
        beside_an_image(
            cosign(SIGNED, "application/vnd.dev.cosign.simplesigning.v1+json"),
            cosign(b"{}", "application/vnd.dsse.envelope.v1+json"),
        ), TREE),
    "oras copy -r puts an SBOM and a signature beside the image": (
        beside_an_image(
            referrer(b"{}", "application/spdx+json"),
            referrer(b"sig", "application/jose+json"),
        ), TREE),
    "skopeo's dir: has its blobs beside manifest.json": (skopeo_dir(), TREE),
    "an index with a name of its own lists a named image": (named_index(), TREE),
    "regctl writes digests of SHA-512": (sha512(diff_ids=False), TREE),
    "SHA-512 in the diff_ids too": (sha512(diff_ids=True), TREE),
    "an image packed again by macOS's tar": (mac_archive(), TREE),
    "a layer packed by macOS's tar": (
        docker_archive([mac_layer()]),
        {"._etc": "\0\5\x16\7double", "etc/._a": "\0\5\x16\7double", **TREE}),
    "FROM scratch with labels only": (docker_archive([]), {}),
    "kaniko --tarPath without --destination": (
        archive([("manifest.json", b"null")]),
        FormatError, "its manifest.json is null, as kaniko writes it"),
    "an image packed again with the folder that it was unpacked to": (
        in_a_folder(), SourceError, "a tar whose manifest.json is in its directory 'app'"),
    "umoci#546: an entry below what the layer before has as a file": (
        docker_archive(layers(["opt/", "opt/d"], ["opt/d/x"])),
        FormatError, "an entry below 'opt/d', where 'd' is not a directory"),
    "a SquashFS layer of Singularity": (
        one_layer(b"hsqs" + bytes(4092), "application/vnd.sylabs.image.layer.v1.squashfs"),
        FormatError, "not a tar, but a SquashFS file system"),
    "an EROFS layer of containerd's snapshotter": (
        one_layer(EROFS, "application/vnd.erofs"),
        FormatError, "not a tar, but an EROFS file system"),
    "a layer of nydus": (
        one_layer(NOISE, f"{OCI}layer.nydus.blob.v1"),
        FormatError, "is part of a nydus file system, not a tar"),
    "an encrypted layer": (
        one_layer(NOISE, f"{OCI}layer.v1.tar+gzip+encrypted"),
        FormatError, "is encrypted; decrypt the image first"),
    "a WebAssembly module": (
        one_layer(b"\0asm\1\0\0\0", "application/wasm", b"{}",
                  "application/vnd.wasm.config.v0+json"),
        FormatError, "holds no image, only artifacts"),
    "a chart of Helm": (
        one_layer(CHART, "application/vnd.cncf.helm.chart.content.v1.tar+gzip", b"{}",
                  "application/vnd.cncf.helm.config.v1+json"),
        FormatError, "holds no image, only artifacts"),
    "ko: the zero time of Go": (
        with_config(created="0001-01-01T00:00:00Z",
                    history=[{"created": "0001-01-01T00:00:00Z"}]), TREE),
    "created and history are null": (with_config(created=None, history=None), TREE),
    "config is null": (with_config(config=None, history=[]), TREE),
    "created is empty": (with_config(created="", history=[{"created": ""}]), TREE),
    "created has a fraction and a time zone": (
        with_config(created="2023-01-01T00:00:00.123456789+02:00"), TREE),
    "created is not a time": (with_config(created="yesterday"), TREE),
    "created is a number, created_by a list": (
        with_config(created=1_600_000_000, history=[{"created_by": ["a", "b"]}]), TREE),
    "a config of diff_ids alone": (
        docker_archive([A], config_document={"rootfs": {"diff_ids": [DIFF_ID]}}), TREE),
    "the platform is empty": (with_config(os="", architecture=""), TREE),
    "the platform is in capitals": (with_config(os="Linux", architecture="AMD64"), TREE),
    "history has more steps than there are layers": (
        with_config(history=[{"created_by": "a"}, {"created_by": "b"}]), TREE),
    "a step of 70,000 characters": (
        with_config(history=[{"created_by": "x" * 70_000}]), TREE),
    "Labels is a list, Env null, Cmd a text": (
        with_config(config={"Labels": [], "Env": None, "Cmd": "sh"}), TREE),
    "a label with half of a surrogate pair": (
        with_config(config={"Labels": {"\ud800": "x"}}), TREE),
    "rootfs is missing": (with_config(rootfs=...), TREE),
    "diff_ids is empty": (
        with_config(rootfs={"type": "layers", "diff_ids": []}),
        FormatError, "0 diff_ids, but the manifest lists 1"),
    "diff_ids has one too many": (
        with_config(rootfs={"type": "layers", "diff_ids": [DIFF_ID] * 2}),
        FormatError, "2 diff_ids, but the manifest lists 1"),
    "diff_ids is null": (
        with_config(rootfs={"type": "layers", "diff_ids": None}),
        FormatError, "rootfs.diff_ids is not a list of digests"),
    "a diff_id is empty": (
        with_config(rootfs={"type": "layers", "diff_ids": [""]}),
        FormatError, "rootfs.diff_ids is not a list of digests"),
    "a diff_id is in capitals": (
        with_config(rootfs={"type": "layers", "diff_ids": [f"sha256:{digest(A).upper()}"]}),
        FormatError, "rootfs.diff_ids is not a list of digests"),
}  # fmt: skip


@pytest.fixture
def flat(tmp_path):
    """Return a function from an archive, or the files of a directory, to its tar."""

    def run(data):
        image, out = tmp_path / "image", tmp_path / "out.tar"
        if isinstance(data, bytes):
            image.write_bytes(data)
        else:
            for name, content in data.items():
                (image / name).parent.mkdir(parents=True, exist_ok=True)
                (image / name).write_bytes(content)
        flatten.export(image, out)
        return out.read_bytes()

    return run


@pytest.mark.parametrize("row", REPORTS.values(), ids=REPORTS)
def test_report(flat, tmp_path, row):
    image, *right = row
    if len(right) == 1:
        assert contents(flat(image)) == right[0]
    else:
        with pytest.raises(right[0]) as caught:
            flat(image)
        assert right[1] in str(caught.value)
        assert not (tmp_path / "out.tar").exists()


ACL_TEXT = b"user::rwx,group::r-x,group:4:r-x,mask::r-x,other::r-x"
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, bits, who)
    for tag, bits, who in (
        (1, 7, 2**32 - 1), (4, 5, 2**32 - 1), (8, 5, 4), (16, 5, 2**32 - 1),
        (32, 5, 2**32 - 1),
    )
)  # fmt: skip
AS_TEXT = {
    b"SCHILY.acl.access": ACL_TEXT.replace(b":4:r-x", b":adm:r-x:4"),
    b"SCHILY.acl.default": ACL_TEXT.replace(b":4:r-x", b":adm:r-x:4"),
}
AS_XATTRS = {
    b"SCHILY.xattr.system.posix_acl_access": ACL,
    b"SCHILY.xattr.system.posix_acl_default": ACL,
}


@pytest.mark.parametrize(
    "records", [AS_TEXT, AS_XATTRS, AS_TEXT | AS_XATTRS],
    ids=["as text", "as xattrs", "as both"],
)  # fmt: skip
def test_the_acls_of_fedoras_journal(flat, records):
    journal = member("journal/", type=b"5", mode=0o755, records=records)
    tar = flat(docker_archive([layer(journal)]))

    (row,) = listing(tar)
    assert set(row["xattrs"]) == {"system.posix_acl_access", "system.posix_acl_default"}
    for wanted in (*AS_XATTRS.values(), ACL_TEXT):
        assert tar.count(wanted) == 2
