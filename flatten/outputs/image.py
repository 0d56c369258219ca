"""An image again, of one layer: in an archive of docker's, or an OCI one.

The layer is the tree, or, with ``since``, what is new in it, on top of the layers that
the image had there. The config stays, but for what says how it was made: steps whose
layers are no more are marked as empty, and one more says what became of them, as
``docker build --squash`` does.

Layers are named after digests that are known only when they are written, so each
header is written last. Layers kept are written as they are stored in an OCI archive,
and uncompressed in docker's, which is what its tools write.

Reference: moby image/spec/v1.2.md; OCI image-spec image-layout.md, config.md.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
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
from ..plan.pieces import pieces
from ..plan.plan import Piece, Span
from ..tar.members import FILE
from ..tar.wire import BLOCK_SIZE
from ..tar.write_header import POSIX_MAGIC, header
from . import atomic
from .job import Job, Shape
from .write_tar import Advance, write_tar

KINDS: Final = ("oci", "docker")
_MEDIA: Final = "application/vnd.oci.image."
_PACKED: Final = {"gzip": "+gzip", "zstd": "+zstd"}  # and no other is in the spec
_GONE: Final = (
    "container", "container_config", "id", "layer_id", "parent", "parent_id", "Size",
    "throwaway",
)  # fmt: skip
"""What configs of docker's say of an image that this one is not."""

_STEP: Final = 1 << 18


@dataclass(frozen=True, slots=True)
class _Blob:
    """Something with a digest: a layer, a document.

    Attributes:
        digest: Of its bytes, in hex.
        size: Of its bytes.
        diff_id: Of its uncompressed bytes, in hex.
        packed: What its media type ends in.
    """

    digest: str
    size: int
    diff_id: str = ""
    packed: str = ""


class Output:
    """An archive with one image.

    Attributes:
        path: Where it will be.
    """

    def __init__(self, out: Path, options: Options) -> None:
        """Write to a path.

        Raises:
            UsageError: The compression is none of an image's layers.
        """
        if out.exists() and not out.is_file():
            raise UsageError(f"{quoted(str(out))}: an image goes to a regular file")
        self.path = out
        self._oci = options.image_kind == "oci"
        self._since = options.since
        self._tags = options.tags
        self._spec = parse_spec(options.compress or "none", "")
        if self._spec is not None and (not self._oci or self._spec[0] not in _PACKED):
            raise UsageError(
                f"--compress: {self._spec[0]} is not for layers here; gzip and zstd "
                "are, with --oci"
            )

    def shape(self, image: Image) -> Shape:  # noqa: ARG002 - of Output
        """Ask for POSIX headers: docker refuses GNU's sparse files."""
        return Shape(posix=True)

    @contextmanager
    def writing(self, job: Job) -> Iterator[None]:
        """Write the archive, to a temporary name that is renamed when the body ends."""
        with atomic.create(self.path, sync=job.sync, settle=job.settle) as descriptor:
            name = quoted(str(self.path))
            self._write(_Archive(descriptor, name, self._oci), job)
            yield

    def _write(self, archive: "_Archive", job: Job) -> None:
        base = 0 if self._since is None else len(cut(job.image, self._since).layers)
        kept = [archive.copy_layer(layer) for layer in job.image.layers[:base]]
        top = archive.write_layer(job, self._spec)
        document = new_config(job.image, [blob.diff_id for blob in (*kept, top)], base)
        names = [_tagged(name) for name in self._tags or job.image.names]
        layers = [*kept, top]
        if self._oci:
            _finish_oci(archive, document, layers, names)
        else:
            _finish_docker(archive, document, layers, names)


def _finish_docker(
    archive: "_Archive", document: bytes, layers: Sequence[_Blob], names: list[str]
) -> None:
    """Write what docker's archives have beside their layers."""
    name = f"{hashlib.sha256(document).hexdigest()}.json"
    archive.write_file(name, document)
    manifest = [{
        "Config": name,
        "RepoTags": names or None,
        "Layers": [f"{layer.digest}.tar" for layer in layers],
    }]  # fmt: skip
    archive.write_file("manifest.json", _json(manifest))
    archive.finish()


def _finish_oci(
    archive: "_Archive", document: bytes, layers: Sequence[_Blob], names: list[str]
) -> None:
    """Write what OCI archives have beside their layers."""
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_MEDIA}manifest.v1+json",
        "config": archive.write_blob(document, "config.v1+json"),
        "layers": [
            {
                "mediaType": f"{_MEDIA}layer.v1.tar{layer.packed}",
                "digest": f"sha256:{layer.digest}",
                "size": layer.size,
            }
            for layer in layers
        ],
    }
    listed = archive.write_blob(_json(manifest), "manifest.v1+json")
    key = "org.opencontainers.image.ref.name"
    entries = [listed | {"annotations": {key: name}} for name in names] or [listed]
    archive.write_file("index.json", _json({"schemaVersion": 2, "manifests": entries}))
    archive.write_file("oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
    archive.finish()


def new_config(image: Image, diff_ids: Sequence[str], base: int) -> bytes:
    """Return the config of an image whose layers from ``base`` on became one."""
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
    steps.append({
        "created_by": "flatten",
        "comment": f"layers {base + 1} to {base + count} of {image.id} in one",
    })  # fmt: skip
    if isinstance(document.get("created"), str):
        steps[-1]["created"] = document["created"]
    document["history"] = steps
    return _json(document)


def _json(document: object) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _tagged(name: str) -> str:
    """Return a name with a tag."""
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


class _HashingSink:
    """What hashes bytes on their way."""

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
    """A tar that is being written, to a file."""

    def __init__(self, descriptor: int, name: str, oci: bool) -> None:
        self._out = descriptor
        self._name = name
        self._oci = oci
        self._at = 0  # where the next header goes
        self._written: set[str] = set()  # digests of layers

    def write_layer(self, job: Job, spec: tuple[str, int] | None) -> _Blob:
        """Write the tree, or what is new in it."""
        return self._write(pieces(job.plan), job.layers(), spec, job.advance)

    def copy_layer(self, layer: Layer) -> _Blob:
        """Write a layer that stays: as it is stored, if that can be in the archive."""
        kind = sniff(layer.blob())
        packed = _PACKED.get(kind or "", "") if self._oci else ""
        source = layer.blob() if packed or kind is None else layer.open()
        size = source.size()
        whole = (Span(0, start, min(_STEP, size - start), [])
                 for start in range(0, size, _STEP))  # fmt: skip
        blob = self._write(whole, [source], None, None)
        if not packed:
            return blob
        algorithm, _, diff_id = (layer.diff_id or "").partition(":")
        if algorithm != "sha256":
            plain = layer.open()
            diff_id = _hash(plain, 0, plain.size())
        return replace(blob, diff_id=diff_id, packed=packed)

    def write_blob(self, data: bytes, kind: str) -> dict[str, Any]:
        """Write a document by its digest, and describe it."""
        digest = hashlib.sha256(data).hexdigest()
        self.write_file(f"blobs/sha256/{digest}", data)
        return {"mediaType": _MEDIA + kind, "digest": f"sha256:{digest}",
                "size": len(data)}  # fmt: skip

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
        self,
        parts: Iterable[Piece],
        layers: Sequence[LayerBytes],
        spec: tuple[str, int] | None,
        advance: Advance | None,
    ) -> _Blob:
        """Write a layer, then its header, which has its digest and size."""
        start = self._at + BLOCK_SIZE
        os.lseek(self._out, start, os.SEEK_SET)
        with compressing(self._out, spec, self._name) as inner:
            sink = _HashingSink(inner)
            write_tar(parts, layers, sink, advance)
        size = os.lseek(self._out, 0, os.SEEK_CUR) - start
        diff_id = sink.digest.hexdigest()
        digest = diff_id
        if spec is not None:
            file = File(self._out, "the archive", start + size)
            digest = _hash(file, start, size)
        if digest not in self._written:  # else the next member takes its place
            self._written.add(digest)
            name = f"blobs/sha256/{digest}" if self._oci else f"{digest}.tar"
            self._put(self._at, _member_header(name, size))
            padding = -size % BLOCK_SIZE
            self._put(start + size, bytes(padding))
            self._at = start + size + padding
        return _Blob(digest, size, diff_id, "" if spec is None else _PACKED[spec[0]])

    def _put(self, at: int, data: bytes) -> None:
        try:
            while data:
                done = os.pwrite(self._out, data, at)
                at, data = at + done, data[done:]
        except OSError as error:
            raise FlattenError(
                f"{self._name}: cannot write: {error.strerror}"
            ) from error


def _member_header(name: str, size: int) -> bytes:
    owner = b"0000644\0" + b"0000000\0" * 2
    return header(name.encode(), FILE, owner=owner, size=size, magic=POSIX_MAGIC,
                  device=(0, 0))  # fmt: skip


def _hash(source: LayerBytes, start: int, size: int) -> str:
    digest = hashlib.sha256()
    for at in range(start, start + size, _STEP):
        digest.update(source.read(at, min(_STEP, start + size - at)))
    return digest.hexdigest()
