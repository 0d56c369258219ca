"""An OCI image layout: a directory of blobs by digest, with an index.

``index.json`` lists manifests, or indexes of manifests, one for each platform. What
else is listed there is skipped: what attests to an image (provenance, SBOMs), its
signatures, and artifacts. A document that could be read both as an index and as a
manifest is refused (CVE-2021-41190).

Reference: OCI image-spec image-layout.md, image-index.md, manifest.md, config.md.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

from ..errors import FormatError, IntegrityError, quoted, shown
from ..host.files import LayerBytes
from ..image.blob import BlobLayer, ChunkedLayer, WholeLayerNeededError
from ..image.image import Image, Layer
from .choice import Entry, Platform, broken_entry, config_platform
from .documents import CONTENT_DIGEST, Files, blob_path, diff_ids, read_json
from .folder import Folder
from .parse import CONFIG, INDEX_OR_MANIFEST

MAX_DEPTH: Final = 4  # indexes in indexes; buildx writes 2
MAX_DOCUMENTS: Final = 4096
_KINDS_SHOWN: Final = 4  # media types in a message
_URLS_SHOWN: Final = 4
REF_NAME: Final = "org.opencontainers.image.ref.name"
_NAMES: Final = ("io.containerd.image.name", REF_NAME)
_ATTESTS: Final = "vnd.docker.reference.type"
_IMAGE_CONFIGS: Final = (
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
)
_MANIFESTS: Final = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
)
_DOCUMENT: Final = re.compile(
    r"text/.*|.*[/+](json|xml|yaml|protobuf|jws|jose|cose|cbor|pem|wasm)(;.*)?"
    r"|application/vnd\.(cyclonedx|spdx|in-toto)"
)
"""Media types of documents, such as signatures, that manifests list as layers."""
_TAR: Final = re.compile(r".*[./+]tar([.+](gzip|zstd))?|")
"""Usual media types of layers; without one, the bytes alone tell."""
_NOT_TARS: Final = {
    "+encrypted": "encrypted; decrypt the image first, with "
    "skopeo copy --decryption-key KEY",
    ".nydus.blob": "part of a nydus file system, not a tar; convert the image first, "
    "with nydusify",
}  # parts of media types, and what layers of such types are
_NOT_DISTRIBUTED: Final = re.compile(r".*\.(foreign|nondistributable)\..*")


Instead = Callable[[int, Sequence[str | None]], Layer | None]


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest of a layout, or of a store that has the same documents.

    The documents are read again when they are needed: there may be many.

    Attributes:
        files: The layout.
        ids: Digests of the manifest, its config, and the indexes that list it, as of
            ``Entry``.
        names: From the annotations, its own or those of the index that lists it.
        listed: The platform that the index says it is for.
        config_size: The size of the config, in bytes, as the manifest says.
        store: The part of a store that it is in.
        artifact: What it is, if it is not an image's: a signature, a chart and so on.
    """

    files: Files
    ids: tuple[str, ...]
    names: tuple[str, ...]
    listed: Platform | None
    config_size: int
    store: str = ""
    artifact: str | None = None

    def platform(self) -> Platform | None:
        """Return the platform, from the index or else from the config."""
        return self.listed or config_platform(self.config())

    def entry(self, load: Callable[[], Image] | None = None) -> Entry:
        """Return the entry of the image; ``load`` is another way to open it."""
        if self.artifact is not None:
            return broken_entry(self.ids, self.names, self.store, self._not_an_image())
        return Entry(self.ids, self.names, load or self.load, self.platform, self.store)

    def config(self) -> dict[str, Any]:
        """Return the config document.

        Raises:
            FormatError: It does not exist, or is not as long as the manifest says.
        """
        document, data = read_json(
            self.files, _path(self.ids[1]), "config", shape=CONFIG
        )
        where = f"{self.files.name}, config"
        if not isinstance(document, dict):
            raise FormatError("not an object", where=where)
        if len(data) != self.config_size:
            raise FormatError(
                f"{len(data):,} bytes, the manifest says {self.config_size:,}",
                where=where,
            )
        return document

    def blobs(self) -> list[dict[str, Any]]:
        """Return the descriptors of the layers.

        Raises:
            FormatError: The manifest does not have them.
        """
        where = f"{self.files.name}, manifest"
        manifest, _ = read_json(
            self.files, _path(self.ids[0]), "manifest", shape=INDEX_OR_MANIFEST
        )
        descriptors = manifest.get("layers")
        if not isinstance(descriptors, list):
            raise FormatError("layers is not a list", where=where)
        for descriptor in descriptors:
            parse_descriptor(descriptor, where)
        return descriptors

    def has_config(self) -> bool:
        """Return True if the config is there."""
        return _path(self.ids[1]).encode() in self.files

    def diff_ids(self) -> list[str]:
        """Return the diff_ids that the config promises."""
        count = len(self.blobs())
        return [name or "" for name in diff_ids(self.config(), count, self.files.name)]

    def is_whole(self) -> bool:
        """Return True if all layers are there."""
        return all(
            blob_path(descriptor["digest"]).encode() in self.files
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
        if self.artifact is not None:
            raise self._not_an_image()
        name = self.files.name
        descriptors = self.blobs()
        config, image_id = self.config(), self.ids[1]
        count = len(descriptors)
        promised = diff_ids(config, count, f"{name}, config of {image_id[:12]}")
        layers: list[Layer] = []
        known: dict[str, BlobLayer | ChunkedLayer] = {}
        for position, descriptor in enumerate(descriptors):
            digest = descriptor["digest"]
            found = None
            if instead and blob_path(digest).encode() not in self.files:
                found = instead(position, promised)
            if found is None:
                what = f"layer {position + 1} of {count}"
                before = known.get(digest)
                found = self._layer(descriptor, what, promised[position], before)
                known.setdefault(digest, found)
            layers.append(found)
        digest = self.ids[0] if ":" in self.ids[0] else f"sha256:{self.ids[0]}"
        return Image(name, image_id, self.names, config, tuple(layers), manifest=digest)

    def _not_an_image(self) -> FormatError:
        what = f"{self.ids[0][:12]} is not an image, but {self.artifact}"
        return FormatError(what, where=self.files.name)

    def _layer(
        self,
        descriptor: dict[str, Any],
        what: str,
        diff_id: str | None,
        before: BlobLayer | ChunkedLayer | None,
    ) -> BlobLayer | ChunkedLayer:
        """Return a layer; ``before`` is one with the same blob."""
        files, where = self.files, f"{self.files.name}, {what}"
        digest, size = parse_descriptor(descriptor, where)
        media_type = str(descriptor.get("mediaType") or "")
        urls = descriptor.get("urls") or ()
        external = bool(urls or _NOT_DISTRIBUTED.fullmatch(media_type))
        if blob_path(digest).encode() not in files or (external and not size):
            missing = f"{quoted(blob_path(digest))} is not there"
            if external:
                missing = external_layer(digest, urls)
            raise FormatError(missing, where=where)
        for part, kind in _NOT_TARS.items():
            if part in media_type:
                raise FormatError(
                    f"{digest}, of media type {shown(media_type)}, is {kind}",
                    where=where,
                )
        opener = partial(_open_blob, files, digest, size, what)
        unusual = "" if _TAR.fullmatch(media_type) else f", {shown(media_type)}"
        name = f"{where} ({digest}{unusual})"
        same = before.whole if isinstance(before, ChunkedLayer) else before
        whole = BlobLayer(name, diff_id, digest, opener, files.pool, same=same)
        if isinstance(before, ChunkedLayer):
            return replace(before, whole=whole)
        chunked = before is None and self._in_parts(descriptor, what, whole)
        return chunked or whole

    def _in_parts(
        self, descriptor: dict[str, Any], what: str, whole: BlobLayer
    ) -> ChunkedLayer | None:
        """Return a layer that can be fetched in parts, else None."""
        digest, size = parse_descriptor(descriptor, whole.name)
        annotations = descriptor.get("annotations") or {}
        if not annotations:
            return None
        blob = self.files.open_parts(blob_path(digest), what)
        if blob is None or blob.size() != size:
            return None  # a wrong size is found when it is opened
        from ..image.chunked import read_table, table_digest  # datetime, seldom needed

        table = table_digest(annotations)
        if table is None:
            return None
        try:
            tar = read_table(blob, annotations, self.files.pool, whole.name)
        except WholeLayerNeededError:
            return None
        return ChunkedLayer(whole, table, tar, blob)


def external_layer(digest: str, urls: Sequence[object]) -> str:
    """Return the message for a layer that has to be fetched from one of some URLs."""
    named = [quoted(str(url)) for url in urls[:_URLS_SHOWN]]
    place = f" from {' or '.join(named)}" if urls else ""
    place += f", or {len(urls) - len(named):,} more" if len(urls) > len(named) else ""
    return f"{digest} is not part of the image, it must be fetched{place}"


def detect(files: Files) -> bool:
    """Return True if the directory looks like a layout."""
    return isinstance(files, Folder) and b"index.json" in files


def entries(files: Files) -> Sequence[Entry]:
    """List the images of a layout; an entry that cannot be opened has the reason.

    Raises:
        FormatError: The index breaks its format, or lists only artifacts.
    """
    document, _ = read_json(files, "index.json", "index", shape=INDEX_OR_MANIFEST)
    return index_entries(files, document, "index.json")


def index_entries(files: Files, index: object, name: str) -> list[Entry]:
    """List the images of an index called ``name``, as ``entries``.

    Raises:
        FormatError: As for ``entries``.
    """
    found, aside = listing(files, index, name)
    listed = [*(manifest.entry() for manifest in found), *aside.broken, *aside.absent]
    if aside.artifacts and not listed:
        kinds = list(dict.fromkeys(aside.artifacts))
        some = "; ".join(kinds[:_KINDS_SHOWN]) + ("; ..." * (len(kinds) > _KINDS_SHOWN))
        raise FormatError(f"holds no image, only artifacts: {some}", where=files.name)
    return listed


@dataclass(slots=True)
class Aside:
    """What an index lists besides manifests of images that can be read.

    Attributes:
        broken: Entries of what breaks its format.
        absent: Entries of what is listed under a name and is not there.
        artifacts: The media types of signatures, attestations and other artifacts.
    """

    broken: list[Entry] = field(default_factory=list)
    absent: list[Entry] = field(default_factory=list)
    artifacts: list[str] = field(default_factory=list)


def listing(files: Files, index: object, name: str) -> tuple[list[Manifest], Aside]:
    """List the images of an index called ``name``, and what else is in it.

    Raises:
        FormatError: The index breaks its format.
    """
    aside = Aside()
    listed = join(manifests(files, index, name, aside))
    found = [manifest for manifest in listed if manifest.artifact is None]
    aside.artifacts += [manifest.artifact for manifest in listed if manifest.artifact]
    names = {name for manifest in found for name in manifest.names}
    aside.absent = [entry for entry in aside.absent if names.isdisjoint(entry.names)]
    return found, aside


def manifests(
    files: Files, index: object, name: str, aside: Aside | None = None
) -> Iterator[Manifest]:
    """Yield the manifests of images that an index called ``name`` lists, deeply.

    Args:
        files: The layout.
        index: The index, as parsed.
        name: Its name in messages.
        aside: Receives what cannot be read. Without it, the first fault is raised.

    Raises:
        FormatError: The index breaks its format, or lists too much.
        IntegrityError: A document has another digest; only without ``aside``.
    """
    return _Walk(files, aside).index(index, name, MAX_DEPTH)


@dataclass(slots=True)
class _Walk:
    """A walk through an index and those in it."""

    files: Files
    aside: Aside | None
    count: int = 0

    def index(
        self,
        index: object,
        name: str,
        depth: int,
        ids: tuple[str, ...] = (),
        names: tuple[str, ...] = (),
    ) -> Iterator[Manifest]:
        """Yield the manifests that an index lists; ``ids`` and ``names`` are its own.

        Names of an index win over those of what it lists, as for containerd.
        """
        where = f"{self.files.name}, {name}"
        listed = index.get("manifests", ()) if isinstance(index, dict) else ()
        if not isinstance(index, dict) or not isinstance(listed, list | None):
            raise FormatError("not an index: it has no list of manifests", where=where)
        if "layers" in index or "config" in index:
            both = "both an index and a manifest (CVE-2021-41190)"
            raise FormatError(both, where=where)
        for descriptor in listed or ():  # null is how Go writes none
            self.count += 1
            if self.count > MAX_DOCUMENTS:
                many = f"more than {MAX_DOCUMENTS:,} manifests"
                raise FormatError(many, where=where)
            try:
                yield from self._listed(descriptor, where, depth, ids, names)
            except (FormatError, IntegrityError) as error:
                if self.aside is None:
                    raise
                found = (*_ids(descriptor), *ids), names or _own_names(descriptor)
                self.aside.broken.append(broken_entry(*found, "", error))

    def _listed(
        self,
        descriptor: object,
        where: str,
        depth: int,
        ids: tuple[str, ...],
        names: tuple[str, ...],
    ) -> Iterator[Manifest]:
        """Yield the manifests that a descriptor leads to."""
        files = self.files
        digest, size = parse_descriptor(descriptor, where)
        assert isinstance(descriptor, dict), "parse_descriptor checks that"
        platform = listed_platform(descriptor)
        if is_attestation(descriptor, platform):
            return
        known = _id(digest), *ids
        called = names or _own_names(descriptor)
        if blob_path(digest).encode() not in files:  # a platform that was not fetched
            if called and not ids:
                self._add_absent(digest, known, called)
            return
        media_type = _unusual_type(descriptor) or "json"
        if "json" not in media_type:  # such as a layer, in an index of BuildKit's cache
            self._add_artifact(shown(media_type))
            return
        found = read_manifest(files, descriptor, digest, size)
        if "manifests" in found:
            if not depth:
                deep = f"indexes in indexes, over {MAX_DEPTH} deep"
                raise FormatError(deep, where=where)
            yield from self.index(found, f"index {digest}", depth - 1, known, called)
            return
        artifact = _artifact(descriptor, found)
        if artifact is not None and not isinstance(found.get("config"), dict):
            self._add_artifact(artifact)
            return
        if "fsLayers" in found:
            old = "a manifest of schema 1; copy the image with skopeo first"
            raise FormatError(old, where=f"{files.name}, manifest {digest}")
        config, size = parse_descriptor(found.get("config"), f"{files.name}, manifest")
        known = known[0], _id(config), *known[1:]
        yield Manifest(files, known, called, platform, size, artifact=artifact)

    def _add_absent(
        self, digest: str, ids: tuple[str, ...], names: tuple[str, ...]
    ) -> None:
        problem = FormatError(f"manifest {digest} is not there", where=self.files.name)
        if self.aside is not None:
            entry = broken_entry(ids, names, "", problem, fetched=False)
            self.aside.absent.append(entry)

    def _add_artifact(self, kind: str) -> None:
        if self.aside is not None:
            self.aside.artifacts.append(kind)


def _artifact(descriptor: dict[str, Any], manifest: dict[str, Any]) -> str | None:
    """Return what a manifest is, with its media type, or None if it is an image's.

    Reference: OCI image-spec manifest.md, "Guidelines for Artifact Usage".
    """
    config, layers = manifest.get("config"), manifest.get("layers")
    kinds = [
        manifest.get("mediaType") if "blobs" in manifest else None,
        _unusual_type(descriptor) if config is None else None,
        manifest.get("artifactType"),
        descriptor.get("artifactType"),
        config.get("mediaType") if isinstance(config, dict) else None,
    ]
    layers = layers if isinstance(layers, list) else []
    types = [
        str(layer["mediaType"])
        for layer in layers
        if isinstance(layer, dict) and layer.get("mediaType")
    ]
    contents = shown(", ".join([*dict.fromkeys(types)][:_KINDS_SHOWN]))
    for kind in filter(None, kinds):
        if kind not in _IMAGE_CONFIGS:
            return f"{shown(str(kind))}" + (f" (of {contents})" if types else "")
    if types and len(types) == len(layers) and all(map(_DOCUMENT.fullmatch, types)):
        return contents
    return None


def _unusual_type(descriptor: dict[str, Any]) -> str | None:
    """Return a descriptor's media type if it is not that of a manifest or index.

    Reference: OCI image-spec image-index.md: unknown media types are no errors.
    """
    media_type = descriptor.get("mediaType") or None
    return None if media_type in (None, *_MANIFESTS) else str(media_type)


def _own_names(descriptor: object) -> tuple[str, ...]:
    """Return the names that a descriptor's annotations give."""
    annotations = isinstance(descriptor, dict) and descriptor.get("annotations")
    if not isinstance(annotations, dict):
        return ()
    found = [annotations.get(key) for key in _NAMES]
    return tuple(name for name in found if isinstance(name, str) and name)


def _ids(descriptor: object) -> tuple[str, ...]:
    """Return the id of what a descriptor, maybe a broken one, describes."""
    digest = descriptor.get("digest") if isinstance(descriptor, dict) else None
    known = isinstance(digest, str) and CONTENT_DIGEST.fullmatch(digest)
    return (_id(str(digest)),) if known else ()


def read_manifest(
    files: Files, descriptor: dict[str, Any], digest: str, size: int
) -> dict[str, Any]:
    """Return a manifest or index."""
    where = f"{files.name}, manifest {digest}"
    document, data = read_json(
        files, blob_path(digest), "manifest", shape=INDEX_OR_MANIFEST
    )
    if not isinstance(document, dict):
        raise FormatError("not an object", where=where)
    if len(data) != size:
        raise FormatError(f"{len(data):,} bytes, the index says {size:,}", where=where)
    found = (each.get("mediaType") for each in (descriptor, document))
    types = [str(media_type) for media_type in found if media_type]
    if len(set(types)) > 1:
        both = quoted(", ".join(sorted(types)))
        raise FormatError(f"two media types, {both}", where=where)
    if "manifests" in document and ("layers" in document or "config" in document):
        raise FormatError("both an index and a manifest (CVE-2021-41190)", where=where)
    return document


def _open_blob(files: Files, digest: str, size: int, what: str) -> LayerBytes:
    """Open a blob, which must be as long as its descriptor says."""
    blob = files.open(blob_path(digest), what)
    if blob.size() != size:
        raise FormatError(
            f"{digest} has {blob.size():,} bytes, the manifest says {size:,}",
            where=f"{files.name}, {what}",
        )
    return blob


def parse_descriptor(value: object, where: str) -> tuple[str, int]:
    """Return the digest and size of a descriptor."""
    if not isinstance(value, dict):
        raise FormatError("a descriptor that is not an object", where=where)
    digest, size = value.get("digest"), value.get("size")
    if not isinstance(digest, str) or not CONTENT_DIGEST.fullmatch(digest):
        raise FormatError(
            f"{quoted(str(digest))} is not a sha256 or sha512 digest", where=where
        )
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 1 << 63:
        raise FormatError(f"{quoted(str(size))} is not a size", where=where)
    for key, kind in (("annotations", dict), ("platform", dict), ("urls", list)):
        if value.get(key) is not None and not isinstance(value[key], kind):
            raise FormatError(
                f"{key} of a descriptor is not a {kind.__name__}", where=where
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


def _id(digest: str) -> str:
    """Return a digest as an id, as of ``Entry``."""
    return digest.removeprefix("sha256:")


def _path(id_: str) -> str:
    """Return the name of the blob that an id is of."""
    return blob_path(id_ if ":" in id_ else f"sha256:{id_}")


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
