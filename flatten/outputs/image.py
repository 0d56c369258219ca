"""An image of one layer, in an archive that every engine loads.

The archive is an OCI image layout that also has docker's ``manifest.json``, as ``docker
save`` writes since Docker 25. Engines differ in which of the two they read:

===========================  =======================================================
``manifest.json``            docker with its own store, every version since 1.10;
                             skopeo's ``docker-archive:``
``index.json``               docker with containerd's store, containerd, and skopeo's
                             ``oci-archive:``
the index if it has one      podman
name, otherwise manifest
===========================  =======================================================

The layer is the tree or, with ``since``, the changes since that point, on top of the
layers that the image had there. The config is kept, except what it says about how the
image was made: steps whose layers are gone are marked as empty, and one more says which
layers became one, as ``docker build --squash`` does.

Blobs are named after digests that are known only once they are written, so each
member's header is written last. Kept layers are written as they are stored if that is
plain, gzip or zstd, and otherwise uncompressed.

Reference: moby image/spec/v1.2.md; OCI image-spec image-layout.md, config.md;
containerd core/images/archive/importer.go.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from ..errors import FlattenError, UsageError, quoted
from ..host.compress import Sink, compressing, parse_spec
from ..host.decompress import sniff
from ..host.files import File, LayerBytes
from ..image.history import cut, read_history
from ..image.image import Image, Layer
from ..options import Options
from ..plan.plan import Span
from ..tar.members import FILE
from ..tar.wire import BLOCK_SIZE
from ..tar.write_header import POSIX_MAGIC, header
from . import atomic
from .job import Job, Shape
from .reference import full_name, short_name
from .write_tar import write_tar

_MEDIA: Final = "application/vnd.oci.image."
_PACKED: Final = {"gzip": "+gzip", "zstd": "+zstd"}
"""Compressions of layers in the image-spec, and the suffixes of their media types."""

_GONE: Final = (
    "container", "container_config", "id", "layer_id", "parent", "parent_id", "Size",
    "throwaway",
)  # fmt: skip
"""Keys of docker's configs that describe the build of the original image."""

_CONTAINERD_NAME: Final = "io.containerd.image.name"
_OCI_NAME: Final = "org.opencontainers.image.ref.name"
_STEP: Final = 1 << 18  # bytes per read


@dataclass(frozen=True, slots=True)
class _Blob:
    """A blob of the archive.

    Attributes:
        digest: SHA-256 of its bytes, in hex.
        size: Number of its bytes.
        media: Its media type.
        diff_id: For a layer, SHA-256 of its uncompressed bytes, in hex.
    """

    digest: str
    size: int
    media: str
    diff_id: str = ""

    @property
    def path(self) -> str:
        """Name of its member."""
        return f"blobs/sha256/{self.digest}"

    def descriptor(self) -> dict[str, Any]:
        """Return the OCI descriptor that refers to it."""
        return {
            "mediaType": self.media,
            "digest": f"sha256:{self.digest}",
            "size": self.size,
        }


class Output:
    """An archive with one image.

    Attributes:
        path: The archive.
    """

    def __init__(self, out: Path, options: Options) -> None:
        """Write to a path.

        Raises:
            UsageError: The path is not a regular file, layers cannot have this
                compression, or a tag is not a valid name.
        """
        if out.exists() and not out.is_file():
            raise UsageError(
                f"{quoted(str(out))} exists and is not a regular file; name another "
                "file for the image"
            )
        self.path = out
        self._since = options.since
        self._tags = _each_once(map(_checked_tag, options.tags))
        self._spec = parse_spec(options.compress or "none", "")
        if self._spec is not None and self._spec[0] not in _PACKED:
            raise UsageError(
                f"--compress: layers of an image cannot be {self._spec[0]}; choose "
                "gzip, zstd or none"
            )

    def shape(self, image: Image) -> Shape:  # noqa: ARG002 - of Output
        """Ask for POSIX headers, and for no sparse members, as the OCI spec advises."""
        return Shape(posix=True, sparse=False)

    @contextmanager
    def writing(self, job: Job) -> Iterator[None]:
        """Write the archive, to a temporary name that is renamed when the body ends."""
        with atomic.create(
            self.path, sync=job.sync, before_commit=job.before_commit
        ) as descriptor:
            self._write(_Archive(descriptor, quoted(str(self.path))), job)
            yield

    def _write(self, archive: "_Archive", job: Job) -> None:
        base = 0 if self._since is None else len(cut(job.image, self._since).layers)
        layers = [archive.copy_layer(layer) for layer in job.image.layers[:base]]
        layers.append(archive.write_layer(job, self._spec))
        config = new_config(job.image, [layer.diff_id for layer in layers], base)
        _write_documents(archive, config, layers, self._tags or self._names(job))

    def _names(self, job: Job) -> Sequence[str]:
        """Return the image's own names in full; note those that engines refuse."""
        names = [full_name(name) for name in job.image.names]
        refused = [quoted(name) for name in job.image.names if full_name(name) is None]
        if refused:
            job.notes.append(
                f"{self.path}: left out names that engines refuse: "
                f"{', '.join(refused)}; --tag gives others"
            )
        return _each_once(filter(None, names))


def _each_once(names: Iterable[str]) -> list[str]:
    """Return names without repetitions, such as of ``app`` by ``app:latest``."""
    return list(dict.fromkeys(names))


def _checked_tag(name: str) -> str:
    """Return a name in full.

    Raises:
        UsageError: Engines refuse it.
    """
    full = full_name(name)
    if full is None:
        raise UsageError(
            f"--tag: {quoted(name)} is not a valid image name; expected "
            "[HOST[:PORT]/]NAME[:TAG] in lower case, such as registry.example/app:1"
        )
    return full


def _write_documents(
    archive: "_Archive", config: bytes, layers: Sequence[_Blob], names: Sequence[str]
) -> None:
    """Write the config, the manifest, and the two lists of images that refer to them.

    Args:
        archive: The archive, which has the layers already.
        config: The image's config.
        layers: Its layers, oldest first.
        names: Its names in full.
    """
    listed = archive.write_blob(config, "config.v1+json")
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_MEDIA}manifest.v1+json",
        "config": listed.descriptor(),
        "layers": [layer.descriptor() for layer in layers],
    }
    entry = archive.write_blob(_json(manifest), "manifest.v1+json").descriptor()
    entries = [
        entry | {"annotations": {_CONTAINERD_NAME: name, _OCI_NAME: short_name(name)}}
        for name in names
    ]
    index = {"schemaVersion": 2, "manifests": entries or [entry]}
    archive.write_file("index.json", _json(index))
    of_docker = {
        "Config": listed.path,
        "RepoTags": [*names] or None,
        "Layers": [layer.path for layer in layers],
    }
    archive.write_file("manifest.json", _json([of_docker]))
    archive.write_file("oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
    archive.finish()


def new_config(image: Image, diff_ids: Sequence[str], base: int) -> bytes:
    """Return the config of the image whose layers from ``base`` on became one."""
    document = {key: v for key, v in image.config.items() if key not in _GONE}
    document.setdefault("architecture", "unknown")
    document.setdefault("os", "linux")
    digests = [f"sha256:{diff_id}" for diff_id in diff_ids]
    document["rootfs"] = {"type": "layers", "diff_ids": digests}
    history = read_history(image)
    steps: list[dict[str, Any]] = []
    for step in () if history.problem else history.steps:
        entry = dict(image.config["history"][step.number - 1])
        if step.layer is not None and step.layer >= base:
            entry["empty_layer"] = True
        steps.append(entry)
    if history.problem:
        steps = [{"comment": f"layer {n + 1} of {image.id}"} for n in range(base)]
    count = len(image.layers) - base
    steps.append(
        {
            "created_by": "flatten",
            "comment": f"layers {base + 1} to {base + count} of {image.id} in one",
        }
    )
    if isinstance(document.get("created"), str):
        steps[-1]["created"] = document["created"]
    document["history"] = steps
    return _json(document)


def _json(document: object) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


class _HashingSink:
    """A sink that hashes the bytes on their way to another."""

    def __init__(self, inner: Sink) -> None:
        self.digest = hashlib.sha256()
        self._inner = inner

    def write(self, view: memoryview) -> int:
        done = self._inner.write(view)
        self.digest.update(view[:done])
        return done

    def descriptor(self) -> None:
        return


class _Archive:
    """A tar of blobs and documents that is being written to a file."""

    def __init__(self, descriptor: int, name: str) -> None:
        self._out = descriptor
        self._name = name
        self._at = 0  # offset of the next header
        self._written: set[str] = set()  # digests of layers

    def write_layer(self, job: Job, spec: tuple[str, int] | None) -> _Blob:
        """Write the planned tree as a layer."""
        return self._write(job.write_tar, spec)

    def copy_layer(self, layer: Layer) -> _Blob:
        """Write a kept layer: as it is stored, if a layer can be stored like that."""
        kind = sniff(layer.blob())
        packed = kind in _PACKED
        source = layer.blob() if packed or kind is None else layer.open()
        size = source.size()
        whole = (
            Span(0, start, min(_STEP, size - start), [])
            for start in range(0, size, _STEP)
        )
        blob = self._write(lambda sink: write_tar(whole, [source], sink))
        if not packed:
            return blob
        algorithm, _, diff_id = (layer.diff_id or "").partition(":")
        if algorithm != "sha256":
            plain = layer.open()
            diff_id = _hash(plain, 0, plain.size())
        return replace(blob, diff_id=diff_id, media=_layer_media(kind))

    def write_blob(self, data: bytes, kind: str) -> _Blob:
        """Write a document under its digest."""
        blob = _Blob(hashlib.sha256(data).hexdigest(), len(data), _MEDIA + kind)
        self.write_file(blob.path, data)
        return blob

    def write_file(self, name: str, data: bytes) -> None:
        """Write a member whose content is known."""
        padding = bytes(-len(data) % BLOCK_SIZE)
        self._put(self._at, _member_header(name, len(data)) + data + padding)
        self._at += BLOCK_SIZE + len(data) + len(padding)

    def finish(self) -> None:
        """Write the end of the archive."""
        self._put(self._at, bytes(2 * BLOCK_SIZE))
        os.ftruncate(self._out, self._at + 2 * BLOCK_SIZE)

    def _write(
        self, write: Callable[[Sink], object], spec: tuple[str, int] | None = None
    ) -> _Blob:
        """Write a layer, then its header, which has its digest and size."""
        start = self._at + BLOCK_SIZE
        os.lseek(self._out, start, os.SEEK_SET)
        with compressing(self._out, spec, self._name) as inner:
            sink = _HashingSink(inner)
            write(sink)
        size = os.lseek(self._out, 0, os.SEEK_CUR) - start
        diff_id = digest = sink.digest.hexdigest()
        if spec is not None:
            file = File(self._out, self._name, start + size)
            digest = _hash(file, start, size)
        blob = _Blob(digest, size, _layer_media(spec and spec[0]), diff_id)
        if digest not in self._written:  # otherwise the next member overwrites it
            self._written.add(digest)
            self._put(self._at, _member_header(blob.path, size))
            padding = -size % BLOCK_SIZE
            self._put(start + size, bytes(padding))
            self._at = start + size + padding
        return blob

    def _put(self, at: int, data: bytes) -> None:
        try:
            while data:
                done = os.pwrite(self._out, data, at)
                at, data = at + done, data[done:]
        except OSError as error:
            raise FlattenError(
                f"{self._name}: cannot write: {error.strerror}"
            ) from error


def _layer_media(compression: str | None) -> str:
    return f"{_MEDIA}layer.v1.tar{_PACKED.get(compression or '', '')}"


def _member_header(name: str, size: int) -> bytes:
    owner = b"0000644\0" + b"0000000\0" * 2
    return header(
        name.encode(), FILE, owner=owner, size=size, magic=POSIX_MAGIC, device=(0, 0)
    )


def _hash(source: LayerBytes, start: int, size: int) -> str:
    digest = hashlib.sha256()
    for at in range(start, start + size, _STEP):
        digest.update(source.read(at, min(_STEP, start + size - at)))
    return digest.hexdigest()
