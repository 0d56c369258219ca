"""Image archives, from layer tars that lie beside them.

``docker_archive`` is what docker 1.10 to 24 saves: a tar of a directory that has a
folder a layer, in the order of their names, which is not the order of the layers.
``oci_archive`` is an OCI layout as one tar, as skopeo and buildah write it.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from layer import END, header, padding

NAME = "bench:latest"
CREATED = "2023-11-14T22:13:20Z"  # layer.MTIME
OCI = "application/vnd.oci.image"
Content = bytes | Path | None  # None is a directory


@dataclass(frozen=True)
class Blob:
    """A layer in a file, compressed or not; digests are hex SHA-256."""

    path: str
    digest: str
    diff_id: str
    members: int
    size: int


def dump(blobs: Sequence[Blob]) -> str:
    """Write blobs as JSON."""
    return json.dumps([asdict(blob) for blob in blobs], indent=1)


def load(text: str) -> list[Blob]:
    """Read blobs from JSON."""
    return [Blob(**each) for each in json.loads(text)]


def write_tar(path: Path, files: Mapping[str, Content]) -> None:
    """Write an archive in the order of its names; directories end in a slash."""
    with path.open("wb", buffering=1 << 20) as out:
        for name, content in sorted(files.items()):
            if content is None:
                out.write(header(name.encode(), b"5", 0o755, 0, b""))
                continue
            size = (
                len(content) if isinstance(content, bytes) else content.stat().st_size
            )
            out.write(header(name.encode(), b"0", 0o644, size, b""))
            if isinstance(content, bytes):
                out.write(content)
            else:
                with content.open("rb") as source:
                    shutil.copyfileobj(source, out, 1 << 20)
            out.write(padding(size))
        out.write(END)


def config(blobs: Sequence[Blob]) -> bytes:
    """Write an image's config."""
    return json.dumps({
        "architecture": "amd64",
        "os": "linux",
        "created": CREATED,
        "config": {"Cmd": ["/bin/sh"]},
        "history": [{"created": CREATED, "created_by": "bench"} for _ in blobs],
        "rootfs": {
            "type": "layers",
            "diff_ids": [f"sha256:{blob.diff_id}" for blob in blobs],
        },
    }).encode()  # fmt: skip


def hexdigest(data: bytes) -> str:
    """Return what names some bytes."""
    return hashlib.sha256(data).hexdigest()


def manifest_json(config_name: str, layers: Sequence[str]) -> bytes:
    """Write docker's list of the images in an archive."""
    image = {"Config": config_name, "RepoTags": [NAME], "Layers": list(layers)}
    return json.dumps([image]).encode()


def docker_archive(path: Path, home: Path, blobs: Sequence[Blob]) -> None:
    """Write what docker 1.10 to 24 saves."""
    document = config(blobs)
    files: dict[str, Content] = {f"{hexdigest(document)}.json": document}
    parent, ids = "", []
    for blob in blobs:
        link = {"parent": parent} if parent else {}
        parent = hexdigest(f"{parent} {blob.diff_id}".encode())
        ids.append(parent)
        files |= {
            f"{parent}/": None,
            f"{parent}/VERSION": b"1.0",
            f"{parent}/json": json.dumps({"id": parent, "os": "linux"} | link).encode(),
            f"{parent}/layer.tar": home / blob.path,
        }
    name, tag = NAME.split(":")
    files["repositories"] = json.dumps({name: {tag: parent}}).encode()
    layers = [f"{each}/layer.tar" for each in ids]
    files["manifest.json"] = manifest_json(f"{hexdigest(document)}.json", layers)
    write_tar(path, files)


def oci_archive(
    path: Path, home: Path, blobs: Sequence[Blob], how: str, *, hybrid: bool
) -> None:
    """Write an OCI layout whose layers are compressed by ``how``, gzip or zstd.

    A ``hybrid`` one has docker's manifest.json too, as docker 25 and later saves it.
    """
    files: dict[str, Content] = {"blobs/": None, "blobs/sha256/": None}

    def described(kind: str, digest: str, size: int) -> dict[str, Any]:
        media_type = f"{OCI}.{kind}"
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": size}

    def add(kind: str, data: bytes) -> dict[str, Any]:
        files[f"blobs/sha256/{hexdigest(data)}"] = data
        return described(kind, hexdigest(data), len(data))

    document = add("config.v1+json", config(blobs))
    files |= {f"blobs/sha256/{blob.digest}": home / blob.path for blob in blobs}
    kind = f"layer.v1.tar+{how}"
    layers = [described(kind, blob.digest, blob.size) for blob in blobs]
    manifest = {"schemaVersion": 2, "config": document, "layers": layers}
    manifest["mediaType"] = f"{OCI}.manifest.v1+json"
    listed = add("manifest.v1+json", json.dumps(manifest).encode())
    listed["annotations"] = {"org.opencontainers.image.ref.name": NAME.split(":")[1]}
    index = {"schemaVersion": 2, "manifests": [listed]}
    files["index.json"] = json.dumps(index).encode()
    files["oci-layout"] = b'{"imageLayoutVersion": "1.0.0"}'
    if hybrid:
        names = [f"blobs/sha256/{blob.digest}" for blob in blobs]
        name = f"blobs/{document['digest'].replace(':', '/')}"
        files["manifest.json"] = manifest_json(name, names)
    write_tar(path, files)
