"""An OCI image layout: a directory of blobs by digest, with an index.

``index.json`` lists manifests, or indexes of manifests, one for each platform. What
attests to an image (provenance, SBOM) is listed among them and skipped. A document that
could be read both as an index and as a manifest is refused (CVE-2021-41190).

Reference: OCI image-spec image-layout.md, image-index.md, manifest.md, config.md.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from ..errors import FormatError, quoted
from ..host.files import LayerBytes
from ..image.blob import BlobLayer
from ..image.image import Image, Layer
from .choice import Entry, Platform, config_platform
from .documents import DIGEST, Files, diff_ids, read_json
from .folder import Folder

MAX_DEPTH: Final = 4  # indexes in indexes; buildx writes 2
MAX_DOCUMENTS: Final = 4096
_NAMES: Final = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
_ATTESTS: Final = "vnd.docker.reference.type"


Instead = Callable[[int, Sequence[str | None]], Layer | None]


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest of a layout, or of a store that has the same documents.

    The documents are read again when they are needed: there may be many.

    Attributes:
        ids: Hex digests of the manifest, its config, and the indexes that list it.
        names: From the annotations, its own or those of the index that lists it.
        listed: The platform that the index says it is for.
        store: The part of a store that it is in.
    """

    files: Files
    ids: tuple[str, ...]
    names: tuple[str, ...]
    listed: Platform | None
    store: str = ""

    def platform(self) -> Platform | None:
        """Return the platform, from the index or else from the config."""
        return self.listed or config_platform(self.config())

    def entry(self, load: Callable[[], Image] | None = None) -> Entry:
        """Return what chooses the image; ``load`` is another way to open it."""
        return Entry(self.ids, self.names, load or self.load, self.platform, self.store)

    def config(self) -> dict[str, Any]:
        """Return the config document."""
        document, _ = read_json(self.files, _path(self.ids[1]), "config")
        if not isinstance(document, dict):
            raise FormatError("not an object", where=f"{self.files.name}, config")
        return document

    def blobs(self) -> list[dict[str, Any]]:
        """Return the descriptors of the layers.

        Raises:
            FormatError: The manifest does not have them.
        """
        where = f"{self.files.name}, manifest"
        manifest, _ = read_json(self.files, _path(self.ids[0]), "manifest")
        descriptors = manifest.get("layers")
        if not isinstance(descriptors, list):
            raise FormatError("layers is not a list", where=where)
        for descriptor in descriptors:
            parse_descriptor(descriptor, where)
        return descriptors

    def has_config(self) -> bool:
        """Say whether the config is there."""
        return _path(f"sha256:{self.ids[1]}").encode() in self.files

    def diff_ids(self) -> list[str]:
        """Return the diff_ids that the config promises."""
        count = len(self.blobs())
        return [name or "" for name in diff_ids(self.config(), count, self.files.name)]

    def is_whole(self) -> bool:
        """Say whether all layers are there."""
        return all(
            _path(descriptor["digest"]).encode() in self.files
            for descriptor in self.blobs()
        )

    def load(self, instead: Instead | None = None) -> Image:
        """Find the layers.

        Args:
            instead: Returns what a layer is read from whose blob is not there, for
                its position and the diff_ids, if anything.

        Raises:
            FormatError: One is not there, or not as the manifest says.
        """
        name = self.files.name
        descriptors = self.blobs()
        config, image_id = self.config(), self.ids[1]
        count = len(descriptors)
        promised = diff_ids(config, count, f"{name}, config of {image_id[:12]}")
        layers: list[Layer] = []
        known: dict[str, BlobLayer] = {}
        for position, descriptor in enumerate(descriptors):
            digest = descriptor["digest"]
            found = None
            if instead and _path(digest).encode() not in self.files:
                found = instead(position, promised)
            if found is None:
                what = f"layer {position + 1} of {count}"
                found = self._layer(descriptor, what, promised[position])
                found.same = known.get(digest)
                known.setdefault(digest, found)
            layers.append(found)
        return Image(name, image_id, self.names, config, tuple(layers))

    def _layer(
        self, descriptor: dict[str, Any], what: str, diff_id: str | None
    ) -> BlobLayer:
        files, where = self.files, f"{self.files.name}, {what}"
        digest, size = parse_descriptor(descriptor, where)
        if _path(digest).encode() not in files:
            urls = descriptor.get("urls")
            missing = f"{quoted(_path(digest))} is not there"
            if urls:
                missing = (
                    f"{digest} is not part of the image, it must be fetched from "
                    f"{quoted(str(urls[0]))}"
                )
            raise FormatError(missing, where=where)
        opener = partial(_open_blob, files, digest, size, what)
        return BlobLayer(f"{where} ({digest})", diff_id, digest, opener, files.pool)


def detect(files: Files) -> bool:
    """Say whether the directory looks like a layout."""
    return isinstance(files, Folder) and b"index.json" in files


def entries(files: Files) -> Sequence[Entry]:
    """List the images of a layout.

    Raises:
        FormatError: The layout breaks its format, or lacks what it names.
        IntegrityError: A document is not its digest.
    """
    document, _ = read_json(files, "index.json", "index")
    return [
        manifest.entry() for manifest in join(manifests(files, document, "index.json"))
    ]


def manifests(files: Files, index: object, name: str) -> Iterator[Manifest]:
    """Yield the manifests that an index called ``name`` lists, deeply.

    Raises:
        FormatError: As ``entries``.
        IntegrityError: As ``entries``.
    """
    return _manifests(files, index, name, MAX_DEPTH, [0])


def _manifests(  # noqa: PLR0913, PLR0917 - what is inherited on the way down
    files: Files,
    index: object,
    name: str,
    depth: int,
    read: list[int],
    ids: tuple[str, ...] = (),
    names: tuple[str, ...] = (),
) -> Iterator[Manifest]:
    """Yield the manifests that an index lists, those of indexes in it too."""
    where = f"{files.name}, {name}"
    if not isinstance(index, dict) or not isinstance(index.get("manifests"), list):
        raise FormatError("not an index: it has no list of manifests", where=where)
    if "layers" in index or "config" in index:
        raise FormatError("both an index and a manifest (CVE-2021-41190)", where=where)
    for descriptor in index["manifests"]:
        digest, size = parse_descriptor(descriptor, where)
        annotations = descriptor.get("annotations") or {}
        platform = listed_platform(descriptor)
        if is_attestation(descriptor, platform):
            continue
        read[0] += 1
        if read[0] > MAX_DOCUMENTS:
            raise FormatError(f"more than {MAX_DOCUMENTS:,} manifests", where=where)
        own = tuple(str(annotations[key]) for key in _NAMES if key in annotations)
        found = read_manifest(files, descriptor, digest, size)
        if found is None:
            continue
        known = (digest.removeprefix("sha256:"), *ids)
        if "manifests" not in found:
            config, _ = parse_descriptor(found.get("config"), f"{files.name}, manifest")
            known = (known[0], config.removeprefix("sha256:"), *known[1:])
            yield Manifest(files, known, own or names, platform)
        elif depth:
            yield from _manifests(
                files, found, f"index {digest}", depth - 1, read, known, own or names
            )
        else:
            raise FormatError(f"indexes in indexes, over {MAX_DEPTH} deep", where=where)


def read_manifest(
    files: Files, descriptor: dict[str, Any], digest: str, size: int
) -> dict[str, Any] | None:
    """Return a manifest or index; None when it is of a platform not fetched."""
    where = f"{files.name}, manifest {digest}"
    if _path(digest).encode() not in files:
        return None
    document, data = read_json(files, _path(digest), "manifest")
    if not isinstance(document, dict):
        raise FormatError("not an object", where=where)
    if len(data) != size:
        raise FormatError(f"{len(data):,} bytes, the index says {size:,}", where=where)
    types = [str(d["mediaType"]) for d in (descriptor, document) if "mediaType" in d]
    if len(set(types)) > 1:
        both = quoted(", ".join(sorted(types)))
        raise FormatError(f"two media types, {both}", where=where)
    if "manifests" in document and ("layers" in document or "config" in document):
        raise FormatError("both an index and a manifest (CVE-2021-41190)", where=where)
    return document


def _open_blob(files: Files, digest: str, size: int, what: str) -> LayerBytes:
    """Open a blob, which must be as long as its descriptor says."""
    blob = files.open(_path(digest), what)
    if blob.size() != size:
        raise FormatError(
            f"{digest} has {blob.size():,} bytes, the manifest says {size:,}",
            where=f"{files.name}, {what}",
        )
    return blob


def parse_descriptor(value: object, where: str) -> tuple[str, int]:
    """Return the digest and size of a descriptor."""
    if not isinstance(value, dict):
        raise FormatError("a descriptor that is no object", where=where)
    digest, size = value.get("digest"), value.get("size")
    if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
        raise FormatError(f"{quoted(str(digest))} is no sha256 digest", where=where)
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 1 << 63:
        raise FormatError(f"{quoted(str(size))} is no size", where=where)
    for key, kind in (("annotations", dict), ("platform", dict), ("urls", list)):
        if value.get(key) is not None and not isinstance(value[key], kind):
            raise FormatError(
                f"{key} of a descriptor is no {kind.__name__}", where=where
            )
    return digest, size


def is_attestation(descriptor: dict[str, Any], platform: Platform | None) -> bool:
    """Return True if a descriptor is that of what attests to another image."""
    annotations = descriptor.get("annotations") or {}
    return _ATTESTS in annotations or (
        platform is not None and platform.os == "unknown"
    )


def listed_platform(descriptor: dict[str, Any]) -> Platform | None:
    """Return the platform that an index says a manifest is for."""
    return config_platform(descriptor.get("platform") or {})


def _path(digest: str) -> str:
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def join(
    manifests: Iterable[Manifest],
    key: Callable[[Manifest], object] = lambda manifest: manifest.ids[0],
) -> list[Manifest]:
    """Join the manifests of one image, such as one with several names."""
    same: dict[object, list[Manifest]] = {}
    for manifest in manifests:
        same.setdefault(key(manifest), []).append(manifest)
    return [
        replace(
            found[0],
            ids=tuple(dict.fromkeys(id_ for each in found for id_ in each.ids)),
            names=tuple(dict.fromkeys(name for each in found for name in each.names)),
        )
        for found in same.values()
    ]
