"""containerd's own disk: a store of blobs by digest, and names in a bbolt file.

==========================================  =======================================
``io.containerd.content.v1.content``        ``blobs/sha256/<hex>``, as they were
                                            transferred, layers compressed or not
``io.containerd.metadata.v1.bolt/meta.db``  names: ``v1/<namespace>/images/<name>/``
                                            ``target/{digest,mediatype,size}``
==========================================  =======================================

The documents are those of an OCI layout, with the file instead of ``index.json``;
without it images have no names. A namespace is a user's: docker's is ``moby``, that of
Kubernetes ``k8s.io``. Of an image for several platforms mostly one is there.

The root is ``/var/lib/containerd``, or ``containerd/daemon`` in docker's data-root.

Reference: containerd metadata/buckets.go, metadata/images.go, content/local/store.go.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from ..bolt import Bucket, read_bolt
from ..errors import FormatError, IntegrityError, quoted
from .choice import Broken, Entry
from .documents import DIGEST, Files, read_json
from .folder import Folder
from .oci_layout import Manifest, join, manifests

_CONTENT: Final = "io.containerd.content.v1.content"
_NAMES: Final = "io.containerd.metadata.v1.bolt/meta.db"
_PLACES: Final = ("", "containerd/daemon/")
_MAX_SCANNED: Final = 1 << 22  # bytes of a manifest or index; registries take no more


@dataclass(frozen=True, slots=True)
class _Named:
    """What a name of a namespace leads to."""

    namespace: str
    name: str
    digest: str
    size: int


def detect(files: Files) -> bool:
    """Say whether the directory is a root of containerd's that holds blobs."""
    return isinstance(files, Folder) and _root(files) is not None


def entries(files: Files) -> Sequence[Entry]:
    """List the images by namespace and name.

    What is wrong with one of them is said when it is loaded.

    Raises:
        FormatError: The names cannot be read.
    """
    root = _root(files)
    assert root is not None, "detect says so"
    content = root.below(_CONTENT)
    if _NAMES.encode() not in root:
        return join(_nameless(content), key=_image)
    found: list[Manifest] = []
    broken: list[Broken] = []
    for named in _read_names(root):
        try:
            found += _manifests_of(content, named)
        except (FormatError, IntegrityError) as error:
            ids = (named.digest.removeprefix("sha256:"),)
            broken.append(Broken(ids, (named.name,), named.namespace, error))
    found.sort(key=lambda manifest: not manifest.is_whole())
    return [*join(found, key=_image), *broken]


def _root(files: Files) -> Folder | None:
    """Return the folder that has the content store, if there are blobs in it.

    Docker 20.10 keeps an empty one.
    """
    if not isinstance(files, Folder):
        return None
    for place in _PLACES:
        blobs = files.path / place / _CONTENT / "blobs" / "sha256"
        if blobs.is_dir() and any(blobs.iterdir()):
            return files.below(place) if place else files
    return None


def _image(manifest: Manifest) -> tuple[str, str]:
    """Return what is one for all manifests of an image: pulled, made here to push."""
    return manifest.store, manifest.ids[1]


# --- names


def _read_names(root: Folder) -> list[_Named]:
    where = f"{root.name}, {_NAMES}"
    return read_bolt(
        lambda: root.open(_NAMES, "names"), where, lambda top: list(_names(top, where))
    )


def _names(top: Bucket, where: str) -> Iterator[_Named]:
    for namespace, bucket in top.find(b"v1").buckets().items():
        for name, image in bucket.find(b"images").buckets().items():
            target = image.find(b"target").values()
            yield _Named(
                _text(namespace),
                _text(name),
                _text(target.get(b"digest", b"")),
                varint(target.get(b"size", b""), where),
            )


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")


def varint(data: bytes, where: str) -> int:
    r"""Read a number as Go's encoding/binary PutVarint writes it.

    Raises:
        FormatError: It is none.

    >>> varint(b"\x90\x15", ""), varint(b"\x01", "")
    (1352, -1)
    """
    value = sum((byte & 0x7F) << 7 * at for at, byte in enumerate(data[:10]))
    if not data or len(data) > 10 or data[-1] & 0x80:
        raise FormatError(f"{data[:12]!r} is no number", where=where)
    return value >> 1 ^ -(value & 1)


# --- images


def _manifests_of(content: Folder, named: _Named) -> list[Manifest]:
    """Return the manifests that a name leads to: of the platforms that are there.

    Raises:
        FormatError: None is there.
    """
    where = f"{named.name} in {named.namespace}"
    target: dict[str, Any] = {"digest": named.digest, "size": named.size}
    if not DIGEST.fullmatch(named.name):  # what Kubernetes calls an image by its id
        target["annotations"] = {"io.containerd.image.name": named.name}
    found = [
        replace(manifest, store=named.namespace)
        for manifest in manifests(content, {"manifests": [target]}, where)
        if manifest.has_config()
    ]
    if not found:
        raise FormatError(
            f"{quoted(where)}: nothing of {named.digest} is there", where=content.name
        )
    return [manifest for manifest in found if manifest.is_whole()] or found


def _nameless(content: Folder) -> Iterator[Manifest]:
    """Yield the manifests among the blobs, for want of names."""
    listed = []
    for name in sorted(os.listdir(content.path / "blobs" / "sha256")):
        size = (content.path / "blobs" / "sha256" / name).stat().st_size
        if size <= _MAX_SCANNED and _is_manifest(content, f"blobs/sha256/{name}"):
            listed.append({"digest": f"sha256:{name}", "size": size})
    for manifest in manifests(content, {"manifests": listed}, "blobs"):
        if manifest.has_config():
            yield manifest


def _is_manifest(content: Folder, path: str) -> bool:
    """Say whether a blob is a manifest or an index, and no broken one."""
    if not content.read(path, "blob", _MAX_SCANNED).lstrip().startswith(b"{"):
        return False
    try:
        document: Any = read_json(content, path, "blob")[0]
    except (FormatError, IntegrityError):
        return False
    return "manifests" in document or {"config", "layers"} <= document.keys()
