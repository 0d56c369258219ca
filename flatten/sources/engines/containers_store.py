"""The documents of one storage driver in containers-storage.

======================================  =============================================
``DRIVER-images/images.json``           a list: ``id``, ``names``, ``layer`` (the top
                                        one), ``big-data-names``
``DRIVER-images/ID/``                   an image's documents: ``manifest``; the config,
                                        called by its digest
``DRIVER-layers/layers.json``           a list: ``id``, ``parent``, ``diff-digest``,
                                        ``diff-size``; an id says nothing about the
                                        layer's content
``DRIVER-layers/ID.tar-split.gz``       the tar-split record of a layer
``DRIVER-containers/containers.json``   a list: ``id``, ``names``, ``image``,
                                        ``layer`` (its own)
======================================  =============================================

``volatile-layers.json`` and ``volatile-containers.json`` are further parts of the
lists. The file of a document has the document's name if that has only small letters,
digits and dots; otherwise ``=`` and the name in base64.

Reference: containers/storage images.go, layers.go, containers.go, store.go at v1.43.
"""

import re
from base64 import b64encode
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, NoReturn

from ...errors import FormatError, quoted
from ...image.chain_ids import chain_ids
from ..choice import Platform, config_platform
from ..documents import DIGEST, read_json
from ..parse import CONFIG, INDEX_OR_MANIFEST, Fields, parse_json
from . import composefs
from .drivers import Driver, Stack, Stored
from .parents import with_parents
from .root import ID, Root
from .user_namespace import Maps, parse_ranges

_PLAIN: Final = re.compile(r"[.0-9a-z]+")
_MAX_LIST: Final = 1 << 26  # bytes of layers.json; a layer takes some 700

_ID_MAP: Final = Fields("container_id", "host_id", "size")
_RECORDS: Final = Fields(
    "big-data-digests",
    "big-data-names",
    "diff-digest",
    "diff-size",
    "digest",
    "flags",
    "id",
    "image",
    "layer",
    "metadata",
    "names",
    "parent",
    gidmap=_ID_MAP,
    uidmap=_ID_MAP,
)
_METADATA: Final = Fields("image-id")

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class PodmanLayer:
    """A layer in a store's lists.

    Attributes:
        parent: Id of the layer below; "" for a base layer.
        diff_id: ``sha256:<hex>`` of its tar; None if it is not recorded.
        size: Size of its tar in bytes; None if it is not recorded.
        incomplete: Writing or removing the layer was interrupted.
        maps: The user namespace that it was made for, inside the store's.
    """

    id: str
    parent: str
    diff_id: str | None
    size: int | None
    incomplete: bool
    maps: Maps


@dataclass(frozen=True, slots=True)
class PodmanImage:
    """An image of a store, or a list of images for several platforms.

    Attributes:
        layer: Id of the top layer; "" if there is none.
        documents: Names of its documents.
        digests: Hex digests of its manifests.
    """

    id: str
    names: tuple[str, ...]
    layer: str
    documents: frozenset[str] = field(repr=False)
    digests: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PodmanContainer:
    """A container of a store.

    Attributes:
        layer: Id of its own layer.
        image: Id of its image; "" if it has none.
        external: Its files are in a directory outside the store (``--rootfs``).
    """

    id: str
    names: tuple[str, ...]
    layer: str
    image: str
    external: bool


@dataclass(frozen=True, slots=True)
class Instance:
    """A manifest in a list of images for several platforms.

    Attributes:
        digest: Hex digest of the manifest.
        platform: Its platform according to the list.
    """

    digest: str
    platform: Platform | None


class PodmanStore:
    """The documents of one driver.

    Attributes:
        root: The store's root.
        driver: The driver.
        layers: The layers by id.
    """

    def __init__(self, root: Root, driver: Driver) -> None:
        """Read the lists of layers.

        Raises:
            FormatError: A list is malformed.
        """
        self.root = root
        self.driver = driver
        self.layers = {
            layer.id: layer
            for name in ("layers", "volatile-layers")
            for layer in map(self._layer, self._records(f"layers/{name}.json"))
        }

    # --- lists

    def images(self) -> list[PodmanImage]:
        """List the images.

        Raises:
            FormatError: The list is malformed.
        """
        return [self._image(r) for r in self._records("images/images.json")]

    def containers(self) -> list[PodmanContainer]:
        """List the containers.

        Raises:
            FormatError: A list is malformed.
        """
        return [
            PodmanContainer(
                self._id(record, "id"),
                tuple(self._texts(record, "names")),
                self._id(record, "layer"),
                self._id(record, "image", optional=True),
                _is_external(record),
            )
            for name in ("containers", "volatile-containers")
            for record in self._records(f"containers/{name}.json")
        ]

    def chain(self, top: str, where: str) -> list[PodmanLayer]:
        """Return a layer with all layers below it, oldest first.

        Raises:
            FormatError: A layer is in no list, or the chain is circular.
        """

        def find(id_: str) -> PodmanLayer | None:
            if not id_:
                return None
            if id_ not in self.layers:
                raise FormatError(
                    f"layer {id_} is in no list of {self.driver.name}-layers; another "
                    "store may have it (additionalimagestores or imagestore in "
                    "storage.conf)",
                    where=where,
                )
            return self.layers[id_]

        return with_parents(find(top), lambda layer: find(layer.parent), where)

    def chain_id(self, layer: PodmanLayer) -> str:
        """Return the chain id of a layer, or "" if a diff_id is unknown."""
        try:
            chain = self.chain(layer.id, self.root.name)
        except FormatError:
            return ""
        known = [layer.diff_id for layer in chain if layer.diff_id]
        if len(known) < len(chain):
            return ""
        return [f"sha256:{chain_id}" for chain_id, _ in chain_ids(known)][-1]

    def _records(self, path: str) -> list[Record]:
        """Return the objects of a list; a missing file counts as an empty list."""
        path = f"{self.driver.name}-{path}"
        if path.encode() not in self.root:
            return []
        document, _ = read_json(self.root, path, path, limit=_MAX_LIST, shape=_RECORDS)
        records = document or []  # an empty list is written as null
        if not isinstance(records, list) or not all(
            isinstance(record, dict) for record in records
        ):
            raise FormatError("not a list of objects", where=self.root.path(path))
        return records

    def _image(self, record: Record) -> PodmanImage:
        documents = record.get("big-data-digests")
        digests = [
            str(digest)
            for key, digest in (
                ("manifest", record.get("digest")),
                *(documents if isinstance(documents, dict) else {}).items(),
            )
            if key.startswith("manifest") and DIGEST.fullmatch(str(digest))
        ]
        return PodmanImage(
            self._id(record, "id"),
            tuple(self._texts(record, "names")),
            self._id(record, "layer", optional=True),
            documents=frozenset(self._texts(record, "big-data-names")),
            digests=tuple(dict.fromkeys(d.removeprefix("sha256:") for d in digests)),
        )

    def _layer(self, record: Record) -> PodmanLayer:
        diff_id, size = record.get("diff-digest"), record.get("diff-size")
        flags = record.get("flags")
        known = isinstance(diff_id, str) and DIGEST.fullmatch(diff_id)
        where = self.root.path(f"{self.driver.name}-layers")
        return PodmanLayer(
            self._id(record, "id"),
            self._id(record, "parent", optional=True),
            diff_id if known else None,
            size if isinstance(size, int) else None,
            isinstance(flags, dict) and flags.get("incomplete") is True,
            (
                parse_ranges(record.get("uidmap"), where),
                parse_ranges(record.get("gidmap"), where),
            ),
        )

    def _id(self, record: Record, key: str, *, optional: bool = False) -> str:
        """Return an id, which is safe as a part of a path."""
        value = record.get(key)
        if optional and value in (None, ""):
            return ""
        if not isinstance(value, str) or not ID.fullmatch(value):
            self._fail(f"{key}: {quoted(str(value))} is not an id")
        return value

    def _texts(self, record: Record, key: str) -> list[str]:
        value = record.get(key) or []
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            self._fail(f"{key} is not a list of names")
        return value

    def _fail(self, what: str) -> NoReturn:
        where = self.root.path(f"{self.driver.name}-*")
        raise FormatError(what, where=where)

    # --- documents and layers

    def config(self, image: PodmanImage) -> Record:
        """Return an image's config.

        Raises:
            FormatError: The config is missing, or is not a JSON object.
            IntegrityError: It has another digest.
        """
        what = f"config of {image.id[:12]}"
        key = f"sha256:{image.id}"
        if key not in image.documents:
            key = self._config_key(image, what)
        config, _ = read_json(
            self.root, self._path(image, key), what, key, shape=CONFIG
        )
        if not isinstance(config, dict):
            raise FormatError("not an object", where=f"{self.root.name}, {what}")
        return config

    def _config_key(self, image: PodmanImage, what: str) -> str:
        """Return the digest of a config that is not the image's id."""
        manifest = self._manifest(image)
        config = manifest.get("config")
        digest = config.get("digest") if isinstance(config, dict) else None
        if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
            where = f"{self.root.name}, {what}"
            what = f"config: {quoted(str(digest))} is not a sha256 digest"
            raise FormatError(what, where=where)
        return digest

    def instances(self, image: PodmanImage) -> list[Instance] | None:
        """Return the instances of a list of platforms, or None for a single image.

        Raises:
            FormatError: The list is malformed.
        """
        if image.layer or f"sha256:{image.id}" in image.documents:
            return None
        manifest = self._manifest(image)
        if "manifests" not in manifest:
            return None
        listed = manifest["manifests"]
        if not isinstance(listed, list) or not all(isinstance(d, dict) for d in listed):
            where = self.root.path(self._path(image, "manifest"))
            raise FormatError('"manifests" is not a list of objects', where=where)
        return [
            Instance(
                str(descriptor.get("digest")).removeprefix("sha256:"),
                _platform(descriptor.get("platform")),
            )
            for descriptor in listed
        ]

    def _manifest(self, image: PodmanImage) -> Record:
        path = self._path(image, "manifest")
        what = f"manifest of {image.id[:12]}"
        manifest, _ = read_json(self.root, path, what, shape=INDEX_OR_MANIFEST)
        if not isinstance(manifest, dict):
            raise FormatError("not an object", where=self.root.path(path))
        return manifest

    def _path(self, image: PodmanImage, document: str) -> str:
        return f"{self.driver.name}-images/{image.id}/{file_name(document)}"

    def stack(
        self,
        chain: Sequence[PodmanLayer],
        promised: Sequence[str | None],
    ) -> Stack:
        """Return layers for reading.

        Args:
            chain: The layers, oldest first.
            promised: The diff_id of each.

        Raises:
            FormatError: A layer is stored in a way that is not supported.
        """
        stored = []
        for position, (layer, diff_id) in enumerate(
            zip(chain, promised, strict=True), 1
        ):
            name = f"{self.root.name}, layer {position} of {len(chain)} ({layer.id})"
            path = f"{self.driver.name}-layers/{layer.id}"
            record, contents = f"{path}.tar-split.gz", None
            if self.is_composefs(layer):
                table = f"{path}/{file_name(composefs.CONTENTS)}"
                self._check_composefs(record, table, name)
                contents = partial(composefs.content_paths, self.root, table, name)
            stored.append(
                Stored(
                    name,
                    layer.id,
                    record,
                    diff_id,
                    layer.size,
                    maps=layer.maps,
                    contents=contents,
                )
            )
        return Stack(self.root, self.driver, stored)

    def is_composefs(self, layer: PodmanLayer) -> bool:
        """Return True if composefs keeps a layer, with its files named by digest."""
        return self.driver.name == "overlay" and composefs.is_kept(self.root, layer.id)

    def _check_composefs(self, record: str, table: str, where: str) -> None:
        """Check that the documents are there that lead to a layer's files."""
        for path in (record, table):
            if path.encode() not in self.root:
                raise FormatError(
                    f"kept by composefs, which names files by their digests, and "
                    f"{quoted(self.root.path(path))}, which has their names, is "
                    "missing; save the image with podman save",
                    where=where,
                )


def _is_external(record: Record) -> bool:
    """Return True if podman made a container without an image (``--rootfs``).

    Buildah's containers from scratch have no image either, but have no such metadata.
    """
    metadata: object = None
    text = record.get("metadata")
    with suppress(ValueError, RecursionError):
        if isinstance(text, str) and text:
            metadata = parse_json(text.encode("utf-8", "surrogatepass"), _METADATA)
    return (
        not record.get("image")
        and isinstance(metadata, dict)
        and metadata.get("image-id") == ""
    )


def _platform(value: object) -> Platform | None:
    return config_platform(value) if isinstance(value, dict) else None


def file_name(key: str) -> str:
    """Return the file name of a document.

    >>> file_name("manifest"), file_name("a-b")
    ('manifest', '=YS1i')
    """
    return key if _PLAIN.fullmatch(key) else "=" + b64encode(key.encode()).decode()
