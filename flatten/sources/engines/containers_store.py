"""What one storage driver has in containers-storage: images, layers, containers.

======================================  =============================================
``DRIVER-images/images.json``           a list: ``id``, ``names``, ``layer`` (the top
                                        one), ``big-data-names``
``DRIVER-images/ID/``                   an image's documents: ``manifest``; the config,
                                        called by its digest
``DRIVER-layers/layers.json``           a list: ``id``, ``parent``, ``diff-digest``,
                                        ``diff-size``; ids are of no use but as names
``DRIVER-layers/ID.tar-split.gz``       the record of a layer's tar
``DRIVER-containers/containers.json``   a list: ``id``, ``names``, ``image``,
                                        ``layer`` (its own)
======================================  =============================================

``volatile-layers.json`` and ``volatile-containers.json`` have more of each list. A
document is a file of its name where that is plain, else of ``=`` and that in base64.

Reference: containers/storage images.go, layers.go, containers.go, store.go at v1.43.
"""

import re
from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, NoReturn

from ...errors import FormatError, quoted
from ...host.beneath import Beneath
from ...image.assembly import Headers
from ...image.chain_ids import chain_ids
from ...image.directory import Owners
from ...tar.read_header import HeaderBytes
from ..documents import DIGEST, read_json
from .drivers import Driver, Stack, Stored
from .root import ID, Root
from .user_namespace import Ranges, is_users, parse_ranges, user_owners

_PLAIN: Final = re.compile(r"[-_.A-Za-z0-9]+")
_MAX_LIST: Final = 1 << 26  # bytes of layers.json; a layer takes some 700
_MAX_CHAIN: Final = 4096

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of a store.

    Attributes:
        parent: The layer below; "" of a base.
        diff_id: ``sha256:<hex>`` of its tar; None where that never came whole.
        size: Of its tar, in bytes.
        incomplete: It was being written, or removed, when that was interrupted.
        uids: What user namespace it is for, in the store's; mostly none.
        gids: Likewise.
    """

    id: str
    parent: str
    diff_id: str | None
    size: int | None
    incomplete: bool
    uids: Ranges
    gids: Ranges


@dataclass(frozen=True, slots=True)
class Named:
    """An image of a store, or a container.

    Attributes:
        layer: The top layer of an image, a container's own one; "" for none.
        image: Of a container: the image's id, "" if it has none.
        documents: Names of an image's documents.
        digests: Of an image's manifests, hex.
    """

    id: str
    names: tuple[str, ...]
    layer: str
    image: str = ""
    documents: frozenset[str] = field(default=frozenset(), repr=False)
    digests: tuple[str, ...] = ()


class Store:
    """What one driver has.

    Attributes:
        root: The store's root.
        driver: The driver.
        layers: By their ids.
    """

    def __init__(self, root: Root, driver: Driver) -> None:
        """Read the lists of layers.

        Raises:
            FormatError: One is not what it should be.
        """
        self.root = root
        self.driver = driver
        self.layers = {
            layer.id: layer
            for name in ("layers", "volatile-layers")
            for layer in map(self._layer, self._records(f"layers/{name}.json"))
        }

    # --- lists

    def images(self) -> list[Named]:
        """List the images.

        Raises:
            FormatError: The list is not what it should be.
        """
        return [self._image(r) for r in self._records("images/images.json")]

    def containers(self) -> list[Named]:
        """List the containers.

        Raises:
            FormatError: A list is not what it should be.
        """
        return [
            Named(
                self._id(record, "id"),
                tuple(self._texts(record, "names")),
                self._id(record, "layer"),
                self._id(record, "image", optional=True),
            )
            for name in ("containers", "volatile-containers")
            for record in self._records(f"containers/{name}.json")
        ]

    def chain(self, top: str, where: str) -> list[Layer]:
        """Return a layer and all below it, the oldest first.

        Raises:
            FormatError: One is not in the list, or they go in a circle.
        """
        chain: dict[str, Layer] = {}
        while top:
            if top in chain or len(chain) > _MAX_CHAIN:
                raise FormatError(f"the parents of {top} go in a circle", where=where)
            if top not in self.layers:
                raise FormatError(
                    f"layer {top} is in no list of {self.driver.name}-layers; an "
                    "additional image store may have it",
                    where=where,
                )
            chain[top] = self.layers[top]
            top = chain[top].parent
        return list(chain.values())[::-1]

    def chain_id(self, layer: Layer) -> str:
        """Return what docker would call a layer with all below it, "" if unknown."""
        try:
            chain = self.chain(layer.id, self.root.name)
        except FormatError:
            return ""
        known = [layer.diff_id for layer in chain if layer.diff_id]
        if len(known) < len(chain):
            return ""
        return [f"sha256:{chain_id}" for chain_id, _ in chain_ids(known)][-1]

    def _records(self, path: str) -> list[Record]:
        """Return the objects of a list; of one that is not there, none."""
        path = f"{self.driver.name}-{path}"
        if path.encode() not in self.root:
            return []
        document, _ = read_json(self.root, path, path, limit=_MAX_LIST)
        records = document or []  # an empty list is written as null
        if not isinstance(records, list) or not all(
            isinstance(record, dict) for record in records
        ):
            raise FormatError("not a list of objects", where=self.root.path(path))
        return records

    def _image(self, record: Record) -> Named:
        documents = record.get("big-data-digests")
        digests = [
            str(digest)
            for key, digest in (
                ("manifest", record.get("digest")),
                *(documents if isinstance(documents, dict) else {}).items(),
            )
            if key.startswith("manifest") and DIGEST.fullmatch(str(digest))
        ]
        return Named(
            self._id(record, "id"),
            tuple(self._texts(record, "names")),
            self._id(record, "layer", optional=True),
            documents=frozenset(self._texts(record, "big-data-names")),
            digests=tuple(dict.fromkeys(d.removeprefix("sha256:") for d in digests)),
        )

    def _layer(self, record: Record) -> Layer:
        diff_id, size = record.get("diff-digest"), record.get("diff-size")
        flags = record.get("flags")
        known = isinstance(diff_id, str) and DIGEST.fullmatch(diff_id)
        where = self.root.path(f"{self.driver.name}-layers")
        return Layer(
            self._id(record, "id"),
            self._id(record, "parent", optional=True),
            diff_id if known else None,
            size if isinstance(size, int) else None,
            isinstance(flags, dict) and flags.get("incomplete") is True,
            parse_ranges(record.get("uidmap"), where),
            parse_ranges(record.get("gidmap"), where),
        )

    def _id(self, record: Record, key: str, *, optional: bool = False) -> str:
        """Return an id, which may join a path."""
        value = record.get(key)
        if optional and value in (None, ""):
            return ""
        if not isinstance(value, str) or not ID.fullmatch(value):
            self._fail(f"{key}: {quoted(str(value))} is no id")
        return value

    def _texts(self, record: Record, key: str) -> list[str]:
        value = record.get(key) or []
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            self._fail(f"{key}: no list of names")
        return value

    def _fail(self, what: str) -> NoReturn:
        where = self.root.path(f"{self.driver.name}-*")
        raise FormatError(what, where=where)

    # --- what they lead to

    def config(self, image: Named) -> Record:
        """Return an image's config.

        Raises:
            FormatError: It is not there, or no object.
            IntegrityError: It does not have its digest.
        """
        what = f"config of {image.id[:12]}"
        key = f"sha256:{image.id}"
        if key not in image.documents:
            key = self._config_key(image, what)
        config, _ = read_json(self.root, self._path(image, key), what, key)
        if not isinstance(config, dict):
            raise FormatError("not an object", where=f"{self.root.name}, {what}")
        return config

    def _config_key(self, image: Named, what: str) -> str:
        """Return the config's digest where it is not the image's id."""
        where = f"{self.root.name}, {what}"
        manifest, _ = read_json(self.root, self._path(image, "manifest"), what)
        if isinstance(manifest, dict) and "manifests" in manifest:
            raise FormatError(
                "a list of images for several platforms, without layers; choose one "
                "of those",
                where=where,
            )
        config = manifest.get("config") if isinstance(manifest, dict) else None
        digest = config.get("digest") if isinstance(config, dict) else None
        if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
            raise FormatError(f"{quoted(str(digest))} is no sha256 digest", where=where)
        return digest

    def _path(self, image: Named, document: str) -> str:
        return f"{self.driver.name}-images/{image.id}/{file_name(document)}"

    def stack(
        self,
        chain: Sequence[Layer],
        promised: Sequence[str | None],
        own: Layer | None = None,
    ) -> Stack:
        """Return layers to be read.

        Args:
            chain: They, the oldest first.
            promised: The diff_id of each.
            own: The layer above them that is a container's, which may be in a user
                namespace of its own.

        Raises:
            FormatError: They are kept in a way that cannot be.
        """
        stored = []
        for position, (layer, diff_id) in enumerate(
            zip(chain, promised, strict=True), 1
        ):
            name = f"{self.root.name}, layer {position} of {len(chain)} ({layer.id})"
            self._check(layer.id, name)
            record = self._record(layer)
            stored.append(Stored(name, layer.id, record, diff_id, layer.size))

        stack = Stack(
            self.root,
            self.driver,
            stored,
            cache(lambda: self._owners(chain, own, stack.warnings)),
            trusted=not is_users(self.root.top.status(b"")),
        )
        return stack

    def _record(self, layer: Layer) -> str:
        return f"{self.driver.name}-layers/{layer.id}.tar-split.gz"

    def _owners(
        self, chain: Sequence[Layer], own: Layer | None, warnings: list[str]
    ) -> tuple[Owners, Owners]:
        """Return what turns ids of the disk into those of an image or container."""
        uids = (own.uids,) if own is not None and own.uids else ()
        gids = (own.gids,) if own is not None and own.gids else ()
        user = self.root.top.status(b"")
        return user_owners(user, self._recorded(chain), (uids, gids), warnings)

    def _recorded(
        self, chain: Sequence[Layer]
    ) -> Iterator[tuple[HeaderBytes, Beneath]]:
        """Yield what observes a layer's ids, of layers that have a record."""
        for layer in chain:
            record = self._record(layer)
            tree = self.root.tree(self.driver.place.format(layer.id))
            if tree is not None and record.encode() in self.root:
                yield Headers(self.root.assemble(record, tree, layer.id)), tree

    def _check(self, layer: str, where: str) -> None:
        """Refuse what composefs keeps: files by their digests, not by their names."""
        if f"overlay/{layer}/composefs-data".encode() in self.root and all(
            re.fullmatch(r"[0-9a-f]{2}", name)
            for name in self.root.names(self.driver.place.format(layer))
        ):
            raise FormatError(
                "kept by composefs, its files by digest, which is not read here; let "
                "podman save the image",
                where=where,
            )


def file_name(key: str) -> str:
    """Return the name of the file that holds a document.

    >>> file_name("manifest"), file_name("sha256:0")
    ('manifest', '=c2hhMjU2OjA=')
    """
    return key if _PLAIN.fullmatch(key) else "=" + b64encode(key.encode()).decode()
