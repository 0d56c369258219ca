"""What ``docker save`` writes, of every age, and podman and skopeo after it.

===========  ====================================================================
before 1.10  ``repositories``; ``<id>/json`` and ``<id>/layer.tar`` for each layer,
             chained by the ``parent`` in the json; no manifest
1.10 to 24   ``manifest.json``; the layers as before, some of them as links
podman,      ``manifest.json`` is last; layers are ``<diff id>.tar``, and links to
skopeo       them
25 and on    an OCI layout too; the manifest names ``blobs/sha256/<digest>``
===========  ====================================================================

``manifest.json`` is preferred to ``index.json``: docker 25.0.0 wrote the layers of
the latter in random order.

Reference: moby image/tarexport/{save,load}.go and image/spec/v1.md.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..errors import FormatError, quoted, shown
from ..image.blob import BlobLayer
from ..image.image import Image
from .archive import Archive
from .choice import Entry, Platform, config_platform
from .documents import DIGEST, MAX_LAYERS, Files, blob_digest, diff_ids, read_json


@dataclass(frozen=True, slots=True)
class _Stored:
    """An image of an archive, as that says it.

    Attributes:
        config: The name of its config, which is read again when it is opened.
        platform: The one that the config is for.
        layers: Finds the names of its layers, oldest first.
        parent: Id of the image that it was built on, where that is recorded.
        hashed: The id is the digest of the config, not only the name of a directory.
    """

    archive: Archive
    id: str
    names: tuple[str, ...]
    config: str
    platform: Platform | None
    layers: Callable[[], Sequence[str]]
    parent: str | None
    hashed: bool = True

    def entry(self) -> Entry:
        """Return the selectable entry for this image."""
        return Entry(
            (self.id,), self.names, self.load, lambda: self.platform,
            hashed=self.hashed,
        )  # fmt: skip

    def load(self) -> Image:
        """Find the layers.

        Raises:
            FormatError: One is not there, or the config has another number of them.
        """
        files, paths = self.archive, self.layers()
        count = len(paths)
        where = f"{files.name}, config of {self.id[:12]}"
        config, _ = read_json(files, self.config, "config")
        promised = diff_ids(config, count, where)
        layers: list[BlobLayer] = []
        known: dict[tuple[int, int], BlobLayer] = {}
        for position, path in enumerate(paths):
            what = f"layer {position + 1} of {count}"
            name = f"{files.name}, {what} ({shown(path)})"
            opener = partial(files.open, path, what)
            place = opener().place  # what is not there is said now
            layer = BlobLayer(
                name, promised[position], blob_digest(path), opener, files.pool,
                same=known.get(place),
            )  # fmt: skip
            known.setdefault(place, layer)
            layers.append(layer)
        return Image(
            files.name, self.id, self.names, config, tuple(layers), parent=self.parent
        )


def detect(files: Files) -> bool:
    """Say whether the archive looks like one of docker's."""
    if not isinstance(files, Archive):
        return False
    if b"manifest.json" in files or b"repositories" in files or _legacy_ids(files):
        return True
    if files.failure is not None and files.is_tar:
        raise files.failure  # cut off before what would tell
    return False


def entries(files: Files) -> Sequence[Entry]:
    """List the images of an archive.

    Raises:
        FormatError: The archive breaks its format, or lacks what it names.
    """
    assert isinstance(files, Archive), "detect says so, or the kind was given"
    read = _read_manifest if b"manifest.json" in files else _read_legacy
    return [stored.entry() for stored in read(files)]


# --- manifest.json


def _read_manifest(archive: Archive) -> list[_Stored]:
    document, _ = read_json(archive, "manifest.json", "manifest")
    where = f"{archive.name}, manifest.json"
    if not isinstance(document, list):
        raise FormatError("not a list of images", where=where)
    known: dict[str, tuple[str, Platform | None]] = {}  # of each config, by its name
    configs: dict[str, str] = {}  # its name, by the image's id
    found: dict[tuple[str, tuple[str, ...]], dict[str, None]] = {}
    parents: dict[tuple[str, tuple[str, ...]], str | None] = {}
    for position, item in enumerate(document):
        config, layers, names = _manifest_item(item, f"{where}, image {position}")
        if config not in known:
            known[config] = _identify(archive, config, where)
        image = known[config][0], layers
        configs.setdefault(image[0], config)
        found.setdefault(image, {}).update(dict.fromkeys(names))
        parents.setdefault(image, _manifest_parent(item))
    return [
        _Stored(archive, image[0], tuple(names), configs[image[0]],
               known[configs[image[0]]][1], partial(tuple, image[1]), parents[image])
        for image, names in found.items()
    ]  # fmt: skip


def _identify(archive: Archive, name: str, where: str) -> tuple[str, Platform | None]:
    """Return the id of the image that a config makes, and its platform."""
    config, data = read_json(archive, name, "config")
    if not isinstance(config, dict):
        raise FormatError(f"{quoted(name)} is not an object", where=where)
    return hashlib.sha256(data).hexdigest(), config_platform(config)


def _manifest_item(
    item: object, where: str
) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """Return the config's name, the layers' and the tags of one manifest entry."""
    if not isinstance(item, dict):
        raise FormatError("not an object", where=where)
    config = item.get("Config")
    if not isinstance(config, str) or not config:
        raise FormatError("Config is not a name", where=where)
    texts = []
    for key in ("Layers", "RepoTags"):
        value = item.get(key)
        value = [] if value is None else value
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            raise FormatError(f"{key} is not a list of names", where=where)
        texts.append(tuple(value))
    return config, texts[0], texts[1]


def _manifest_parent(item: dict[str, Any]) -> str | None:
    """Return the id of the image that one was built on; nothing else depends on it."""
    parent = item.get("Parent")
    if not isinstance(parent, str) or not DIGEST.fullmatch(parent):
        return None
    return parent.removeprefix("sha256:")


# --- before docker 1.10


def _legacy_ids(archive: Archive) -> list[str]:
    """Return the ids of the layers that have a directory with a json and a layer."""
    ids = []
    for name in archive.names():
        head, _, tail = name.rpartition(b"/")
        if tail == b"json" and head and head + b"/layer.tar" in archive:
            ids.append(head.decode("utf-8", "surrogateescape"))
    return ids


def _read_legacy(archive: Archive) -> list[_Stored]:
    """List the images: what has a name, or else what is nobody's parent."""
    parents: dict[str, str | None] = {}
    platforms: dict[str, Platform | None] = {}
    for layer_id in _legacy_ids(archive):
        config, _ = read_json(
            archive, f"{layer_id}/json", f"json of {shown(layer_id[:12])}"
        )
        if not isinstance(config, dict):
            archive.fail(f"{quoted(layer_id)}/json is not an object")
        parents[layer_id] = _parent(config, archive)
        platforms[layer_id] = config_platform(config)
    names = _repositories(archive)
    if not names:
        if not archive.ended:
            archive.fail("no manifest.json, no repositories and no end: cut off?")
        inner = set(parents.values())
        names = {layer_id: [] for layer_id in parents if layer_id not in inner}
    entries = []
    for image_id, tags in names.items():
        if image_id not in parents:
            archive.fail(f"layer {quoted(image_id)} is not in the archive")
        entries.append(
            _Stored(archive, image_id, tuple(tags), f"{image_id}/json",
                   platforms[image_id], partial(_chain, image_id, parents, archive),
                   parents[image_id], hashed=False)
        )  # fmt: skip
    return entries


def _chain(
    image_id: str, parents: dict[str, str | None], archive: Archive
) -> list[str]:
    """Return the names of the layers from the base to ``image_id``."""
    chain: dict[str, None] = {}
    current: str | None = image_id
    while current:
        if current in chain:
            archive.fail(f"the parents of {quoted(image_id)} go in a circle")
        if current not in parents:
            archive.fail(f"layer {quoted(current)} is not in the archive")
        if len(chain) == MAX_LAYERS:
            archive.fail(f"{quoted(image_id)} has more than {MAX_LAYERS:,} layers")
        chain[current] = None
        current = parents[current]
    return [f"{layer_id}/layer.tar" for layer_id in reversed(chain)]


def _parent(config: dict[str, Any], archive: Archive) -> str | None:
    parent = config.get("parent")
    if parent is not None and not isinstance(parent, str):
        archive.fail(f"a parent that is no id: {quoted(str(parent))}")
    return parent


def _repositories(archive: Archive) -> dict[str, list[str]]:
    """Return the names of each tagged image id."""
    names: dict[str, list[str]] = {}
    if b"repositories" not in archive:
        return names
    document, _ = read_json(archive, "repositories", "list of names")
    where = f"{archive.name}, repositories"
    if not isinstance(document, dict):
        raise FormatError("not an object", where=where)
    for name, tags in document.items():
        if not isinstance(tags, dict):
            raise FormatError(f"the tags of {quoted(name)} are no object", where=where)
        for tag, image_id in tags.items():
            if not isinstance(image_id, str):
                raise FormatError(f"{quoted(name)} has a tag of no id", where=where)
            names.setdefault(image_id, []).append(f"{name}:{tag}")
    return names
