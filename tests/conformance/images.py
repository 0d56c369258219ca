"""Images from layers: a docker-archive, or an OCI image layout.

Both hold the same layers and the same config. The image is called ``app:latest`` in the
archive and ``latest`` in the layout.
"""

import bz2
import gzip
import hashlib
import json
import lzma
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .layers import END, directory, layer_tar, member

LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
Words = Sequence[str | bytes] | bytes


@dataclass(frozen=True)
class Layer:
    """One layer of an image.

    Attributes:
        tar: The uncompressed tar.
        blob: The bytes that the image stores; None: the tar itself.
        suffix: What the media type ends in: ``+gzip``, ``+zstd`` or nothing.
        diff_id: The digest in the config; None: the tar's.
        digest: The digest in the OCI manifest; None: the blob's.
    """

    tar: bytes
    blob: bytes | None = None
    suffix: str = ""
    diff_id: str | None = None
    digest: str | None = None

    @property
    def stored(self) -> bytes:
        """The bytes that the image stores."""
        return self.tar if self.blob is None else self.blob


def packed(pack: Callable[[bytes], bytes], *words: str | bytes, suffix: str) -> Layer:
    """Return the first layer of an image, compressed by ``pack``."""
    tar = layer_tar(*words)
    return Layer(tar, pack(tar), suffix)


def two_gzip_members(data: bytes) -> bytes:
    """Compress each half of some bytes to a gzip member of its own."""
    return gzip.compress(data[:700]) + gzip.compress(data[700:])


def gzip_and_zeros(data: bytes) -> bytes:
    """Compress to gzip and add zeros, which GNU gzip ignores."""
    return gzip.compress(data) + bytes(512)


def zstd(data: bytes) -> bytes:
    """Write a zstd frame of raw blocks (RFC 8878, 3.1.1)."""
    blocks = [data[at : at + 1024] for at in range(0, len(data), 1024)]
    out = b"\x28\xb5\x2f\xfd\xa0" + len(data).to_bytes(4, "little")
    for position, block in enumerate(blocks, 1):
        last = position == len(blocks)
        out += (len(block) << 3 | last).to_bytes(3, "little") + block
    return out


def two_zstd_frames(data: bytes) -> bytes:
    """Write two zstd frames with a skippable one in front of each (RFC 8878, 3.1.2)."""
    skippable = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"skip"
    return skippable + zstd(data[:700]) + skippable + zstd(data[700:])


def bzip2(data: bytes) -> bytes:
    """Compress to bzip2."""
    return bz2.compress(data)


def xz(data: bytes) -> bytes:
    """Compress to xz."""
    return lzma.compress(data)


def sha256(data: bytes) -> str:
    """Return a digest in hex."""
    return hashlib.sha256(data).hexdigest()


def as_layers(each: Sequence[Words | Layer]) -> list[Layer]:
    """Write layers from words, and take the others as they are."""
    out = []
    for number, words in enumerate(each, 1):
        if isinstance(words, Layer):
            out.append(words)
        elif isinstance(words, bytes):
            out.append(Layer(words))
        else:
            out.append(Layer(layer_tar(*words, number=number)))
    return out


def config(layers: Sequence[Layer]) -> bytes:
    """Write the image config."""
    ids = [layer.diff_id or f"sha256:{sha256(layer.tar)}" for layer in layers]
    return as_json({
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": ids},
        "history": [{"created_by": f"layer {n}"} for n, _ in enumerate(layers, 1)],
    })  # fmt: skip


def write_docker_archive(path: Path, layers: Sequence[Layer]) -> None:
    """Write what docker save writes up to docker 24, with the files for older dockers."""
    document = config(layers)
    ids = [f"{number:064x}" for number, _ in enumerate(layers, 1)]
    manifest = [{
        "Config": f"{sha256(document)}.json",
        "RepoTags": ["app:latest"],
        "Layers": [f"{each}/layer.tar" for each in ids],
    }]  # fmt: skip
    with path.open("wb") as out:
        for parent, each, layer in zip([None, *ids], ids, layers, strict=False):
            legacy = {"id": each} | ({"parent": parent} if parent else {})
            out.write(directory(f"{each}/"))
            out.write(member(f"{each}/VERSION", b"1.0"))
            out.write(member(f"{each}/json", as_json(legacy)))
            out.write(member(f"{each}/layer.tar", layer.stored))
        out.write(member(f"{sha256(document)}.json", document))
        out.write(member("manifest.json", as_json(manifest)))
        top = {"app": {"latest": ids[-1]}} if ids else {}
        out.write(member("repositories", as_json(top)) + END)


def write_oci_layout(path: Path, layers: Sequence[Layer]) -> None:
    """Write an OCI image layout, a directory."""
    blobs = path / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def store(data: bytes, media_type: str, digest: str | None = None) -> Any:
        name = digest or sha256(data)
        (blobs / name).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{name}", "size": len(data)}

    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": store(config(layers), "application/vnd.oci.image.config.v1+json"),
        "layers": [
            store(layer.stored, LAYER_TYPE + layer.suffix, layer.digest)
            for layer in layers
        ],
    }
    listed = store(as_json(manifest), manifest["mediaType"])
    listed["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    index = {"schemaVersion": 2, "manifests": [listed]}
    (path / "index.json").write_bytes(as_json(index))
    (path / "oci-layout").write_bytes(as_json({"imageLayoutVersion": "1.0.0"}))


def as_json(document: Any) -> bytes:
    """Write a JSON document."""
    return json.dumps(document).encode()
