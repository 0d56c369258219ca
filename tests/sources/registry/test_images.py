"""Kinds of images in a registry: all encodings, several platforms, and what is refused."""

import gzip
import json
from functools import partial

import pytest
import zstandard

import flatten
from builders import (
    config,
    descriptor,
    digest,
    docker_archive,
    layer,
    layers,
    member,
    oci_files,
)
from everything import EVERYTHING
from registries import NOISE, Proxy, exported, need_registry, push, run

pytestmark = need_registry

IMAGES = {
    "everything that a tar may have": EVERYTHING,
    "one small file": layers(["a"]),
    "no layers": [],
    "an empty layer": layers(["a"], [], ["b"]),
    "a layer twice": [*layers(["a"], ["b"]), layers(["a"])[0]],
    "forty layers": layers(*([f"{n:02}", f"-{n - 1:02}"] for n in range(1, 41))),
    "whiteouts": layers(["d/a", "d/b", "e/c"], ["-d/a", member("e/.wh..wh..opq")]),
    "hard links": layers(["a", "b=a"], ["c=b", "-a"]),
    "zeros": [layer(member("zero", bytes(5_000_000)), member("one", b"1"))],
    "noise": [layer(member("noise", NOISE)), layer(member("more", NOISE[9:]))],
    "many names": [layer(*(member(f"{n:05}", b"x") for n in range(3000)))],
    "long names": layers(
        [member("n" * 200 + "/" + "m" * 200, b"x")], ["-" + "n" * 200]
    ),
}


def zstd(data):
    return zstandard.compress(data, 3)


def chunked(data):
    """Compress as zstd:chunked does: frames, and others that decompressors skip."""
    frames = [
        zstandard.compress(data[at : at + 10_000]) for at in range(0, len(data), 10_000)
    ]
    skipped = bytes.fromhex("502a4d18") + (12).to_bytes(4, "little") + b"x" * 12
    return b"".join((*frames, skipped, skipped))


def members(data):
    """Compress as eStargz does, in many gzip members."""
    return b"".join(
        gzip.compress(data[at : at + 10_000], mtime=0)
        for at in range(0, len(data), 10_000)
    )


LAYER = "application/vnd.oci.image.layer.v1.tar"
ENCODINGS = {
    "plain": (None, LAYER),
    "gzip": (partial(gzip.compress, mtime=0), f"{LAYER}+gzip"),
    "gzip-members": (members, f"{LAYER}+gzip"),
    "zstd": (zstd, f"{LAYER}+zstd"),
    "zstd:chunked": (chunked, f"{LAYER}+zstd"),
}


def write(folder, files):
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def layout(folder, tars, encoding):
    """Write a layout whose manifest has the right media types; return its path."""
    pack, kind = ENCODINGS[encoding]
    packed = [pack(tar) if pack else tar for tar in tars]
    described = [descriptor(data, kind) for data in packed]
    write(folder, oci_files(
        tars, pack=pack, names=["1"],
        documents={"manifest": {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "layers": described,
        }},
    ))  # fmt: skip
    return folder


@pytest.mark.parametrize("image", IMAGES)
def test_every_encoding_gives_the_bytes_of_the_archive(host, tmp_path, image):
    tars = IMAGES[image]
    archive = tmp_path / "image.tar"
    archive.write_bytes(docker_archive(tars))
    flatten.export(archive, tmp_path / "want.tar", sync=False)
    want = (tmp_path / "want.tar").read_bytes()

    name = f"{host}/b/{image.replace(' ', '-')}"
    for encoding in ENCODINGS:
        tag = encoding.replace(":", "-")
        source = layout(tmp_path / tag, tars, encoding)
        push(f"oci:{source}:1", f"{name}:{tag}", "--preserve-digests")
        assert exported(f"docker://{name}:{tag}", tmp_path) == want, encoding
    if tars:
        push(f"docker-archive:{archive}", f"{name}:docker")
        assert exported(f"docker://{name}:docker", tmp_path) == want


def test_plain_layers_are_read_while_they_are_downloaded(host, tmp_path):
    """They are large enough for several processes, which would wait for ever."""
    tars = [layer(member(str(n), bytes(1 << 25) + NOISE[n:])) for n in range(3)]
    push(f"oci:{layout(tmp_path / 'layout', tars, 'plain')}:1", f"{host}/b/large:1",
         "--preserve-digests")  # fmt: skip
    (tmp_path / "image.tar").write_bytes(docker_archive(tars))
    flatten.export(tmp_path / "image.tar", tmp_path / "want.tar", sync=False)

    got = exported(f"docker://{host}/b/large:1", tmp_path)
    assert got == (tmp_path / "want.tar").read_bytes()


# --- several platforms

PLATFORMS = {
    "amd64": {"os": "linux", "architecture": "amd64"},
    "arm64": {"os": "linux", "architecture": "arm64"},
    "arm": {"os": "linux", "architecture": "arm", "variant": "v7"},
}


@pytest.fixture(scope="module")
def index(host, tmp_path_factory):
    """Push what buildx builds: an image for each platform, with an attestation each."""
    folder = tmp_path_factory.mktemp("index")
    listed, files = [], {}
    for name, platform in PLATFORMS.items():
        made = oci_files(
            layers([name, "same"]), pack=gzip.compress,
            documents={"config": platform, "manifest": {
                "mediaType": "application/vnd.oci.image.manifest.v1+json"}},
        )  # fmt: skip
        (found,) = json.loads(made.pop("index.json"))["manifests"]
        files |= made
        listed.append(found | {"platform": platform, "annotations": {}})
        listed.append(attestation(files, found["digest"]))
    top = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
           "manifests": listed}  # fmt: skip
    data = json.dumps(top).encode()
    files[f"blobs/sha256/{digest(data)}"] = data
    outer = descriptor(data, top["mediaType"]) | {
        "annotations": {"org.opencontainers.image.ref.name": "1"}
    }
    files["index.json"] = json.dumps(
        {"schemaVersion": 2, "manifests": [outer]}
    ).encode()
    write(folder, files)
    push(f"oci:{folder}:1", f"{host}/multi:1", "--all", "--preserve-digests")
    return f"{host}/multi:1", f"sha256:{digest(data)}"


def attestation(files, of):
    """Add an attestation of a manifest to the files; return its descriptor."""

    def blob(data, kind):
        files[f"blobs/sha256/{digest(data)}"] = data
        return descriptor(data, kind)

    statement = json.dumps({"_type": "https://in-toto.io/Statement/v0.1"}).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob(json.dumps(config([], os="unknown", architecture="unknown")).encode(),
                       "application/vnd.oci.image.config.v1+json"),
        "layers": [blob(statement, "application/vnd.in-toto+json")],
    }  # fmt: skip
    return blob(json.dumps(manifest).encode(), manifest["mediaType"]) | {
        "platform": {"os": "unknown", "architecture": "unknown"},
        "annotations": {
            "vnd.docker.reference.type": "attestation-manifest",
            "vnd.docker.reference.digest": of,
        },
    }


@pytest.mark.parametrize(
    ("platform", "name"),
    {
        "linux/amd64": "amd64",
        "linux/arm64": "arm64",
        "linux/arm/v7": "arm",
        "linux/arm": "arm",
    }.items(),
)
def test_a_platform(index, platform, name):
    done = run("ls", f"docker://{index[0]}", "--platform", platform, "--no-cache")

    assert done.returncode == 0, done.stderr
    assert [line.split()[-1] for line in done.stdout.splitlines()] == sorted(
        [name, "same"]
    )


def test_a_platform_that_is_not_there(index, tmp_path):
    with pytest.raises(flatten.SourceError) as caught:
        exported(f"docker://{index[0]}", tmp_path, platform="linux/s390x")

    assert "no image for linux/s390x; it has" in str(caught.value)
    assert all(
        f"linux/{name}" in str(caught.value) for name in ("amd64", "arm64", "arm/v7")
    )
    assert "unknown" not in str(caught.value)


def test_only_the_chosen_platform_is_fetched(host, index, tmp_path):
    name = index[0].partition("/")[2]
    with Proxy(host) as proxy:
        exported(f"docker://{proxy.address}/{name}", tmp_path, platform="linux/arm64")

    kinds = [path.split("/")[-2] for path, _ in proxy.seen]
    assert kinds == ["manifests", "manifests", "blobs", "blobs"]


def test_the_digest_of_an_index(index, tmp_path):
    reference = f"docker://{index[0].rpartition(':')[0]}@{index[1]}"
    done = run(
        reference,
        "-o",
        str(tmp_path / "out.tar"),
        "--json",
        "--platform",
        "linux/arm64",
    )

    found = json.loads(done.stdout)
    assert found["transfer"]["digest"] == index[1] != found["image"]["manifest"]


def test_images_lists_all_platforms(index):
    done = run("images", f"docker://{index[0]}", "--json")
    assert [image["platform"] for image in json.loads(done.stdout)] == [
        "linux/amd64", "linux/arm64", "linux/arm/v7",
    ]  # fmt: skip


# --- what is refused


def replaced(change, kind=None):
    """Return a ``spoil`` that changes the manifests that a registry sends."""

    def spoil(handler, status, headers, body):
        if "/manifests/" in handler.path:
            body = json.dumps(change(json.loads(body))).encode()
            headers = {k: v for k, v in headers.items() if k != "Content-Length"}
            headers |= {"Content-Type": kind} if kind else {}
        return status, headers, body

    return spoil


def foreign(manifest):
    kind = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    missing = {"mediaType": kind, "digest": "sha256:" + "0" * 64, "size": 1000,
               "urls": ["https://example.org/layer"]}  # fmt: skip
    return manifest | {"layers": [missing, *manifest["layers"][1:]]}


def encrypted(manifest):
    for each in manifest["layers"]:
        each["mediaType"] += "+encrypted"
    return manifest


SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"
REFUSED = {
    "schema 1": (
        replaced(lambda _: {"schemaVersion": 1, "fsLayers": []}, SCHEMA_1),
        "a manifest of schema 1, of Docker before 1.10",
    ),
    "a layer that is elsewhere": (
        replaced(foreign),
        "the registry has no sha256:0000",
    ),
    "encrypted layers": (replaced(encrypted), "is an encrypted layer|encrypted"),
    "a config of another kind": (
        replaced(
            lambda m: m | {"config": m["config"] | {"mediaType": "application/x"}}
        ),
        "artifact|not an image|application/x",
    ),
}


@pytest.mark.parametrize("refused", REFUSED)
def test_what_is_refused(host, tmp_path, refused):
    spoil, why = REFUSED[refused]
    with (
        Proxy(host, spoil=spoil) as proxy,
        pytest.raises(flatten.FormatError, match=why) as caught,
    ):
        exported(f"docker://{proxy.address}/a/gzip:1", tmp_path)
    assert "\n" not in str(caught.value)
