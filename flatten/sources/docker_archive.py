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
the latter in random order. Of an image for several platforms the former has only this
machine's; the others are taken from the latter. An archive whose two documents have two
images of one name is refused, as it depends on the tool which of them is read.

A directory that such an archive was unpacked to is read too; symlinks stay in it.

Reference: moby image/tarexport/{save,load}.go and image/spec/v1.md.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from ..errors import FormatError, IntegrityError, quoted, shown
from ..image.blob import BlobLayer
from ..image.image import Image
from .archive import Archive
from .choice import (
    Entry,
    Platform,
    broken_entry,
    config_platform,
    familiar,
    platform_of,
)
from .documents import (
    DIGEST,
    MAX_LAYERS,
    Files,
    begins_with,
    blob_digest,
    diff_ids,
    read_json,
)
from .folder import Folder
from .oci_layout import Manifest, external_layer, listing
from .parse import CONFIG, DOCKER_MANIFEST, INDEX_OR_MANIFEST

Stored = Archive | Folder

MANIFEST: Final = "manifest.json"
INDEX: Final = "index.json"
_ID: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class _Stored:
    """An image, as an archive describes it.

    Attributes:
        files: The archive, or the directory that it was unpacked to.
        id: Hex digest of its config, or the name of its directory before docker 1.10.
        names: Its names, with tags.
        config: The name of its config, which is read again when it is opened.
        platform: The platform that the config is for.
        layers: Finds the names of its layers, oldest first.
        parent: Id of the image that it was built on, if that is recorded.
        external: Descriptors of layers that are not in the archive, by diff_id.
        hashed: Whether the id is the digest of the config.
    """

    files: Stored
    id: str
    names: tuple[str, ...]
    config: str
    platform: Platform | None
    layers: Callable[[], Sequence[str]]
    parent: str | None
    external: dict[str, Any]
    hashed: bool = True

    def entry(self) -> Entry:
        """Return the entry of this image."""
        return Entry(
            (self.id,),
            self.names,
            self.load,
            lambda: self.platform,
            hashed=self.hashed,
        )

    def load(self) -> Image:
        """Find the layers.

        Raises:
            FormatError: One is not there, or the config has another number of them.
        """
        files = self.files
        paths = [_slashed(files, path) for path in self.layers()]
        count = len(paths)
        where = f"{files.name}, config of {self.id[:12]}"
        config, _ = read_json(files, self.config, "config", shape=CONFIG)
        promised = diff_ids(config, count, where)
        layers: list[BlobLayer] = []
        known: dict[tuple[int, int], BlobLayer] = {}
        for position, path in enumerate(paths):
            what = f"layer {position + 1} of {count}"
            diff_id = promised[position]
            self._check_external(path, diff_id, what)
            place = files.place(path, what)  # one that is not there is reported now
            layer = BlobLayer(
                f"{files.name}, {what} ({shown(path)})",
                diff_id,
                blob_digest(path),
                partial(files.open, path, what),
                files.pool,
                same=known.get(place),
            )
            known.setdefault(place, layer)
            layers.append(layer)
        return Image(
            files.name, self.id, self.names, config, tuple(layers), parent=self.parent
        )

    def _check_external(self, path: str, diff_id: str | None, what: str) -> None:
        """Check that a layer is in the archive, if it may be external."""
        source = self.external.get(diff_id or "")
        urls = source.get("urls") if isinstance(source, dict) else None
        if not isinstance(urls, list) or not urls:
            return
        if not _is_there(self.files, path):
            missing = external_layer(str(diff_id), urls)
            raise FormatError(missing, where=f"{self.files.name}, {what}")


def detect(files: Files) -> bool:
    """Return True if the archive or directory looks like one of docker's."""
    if MANIFEST.encode() in files:
        return not begins_with(files, MANIFEST, b"{")  # that is another kind's
    if isinstance(files, Folder):
        return bool(_legacy_ids(files))
    if not isinstance(files, Archive):
        return False
    if b"repositories" in files or _legacy_ids(files):
        return True
    if files.failure is not None and files.is_tar:
        raise files.failure  # cut off before what would tell
    return False


def entries(files: Files) -> Sequence[Entry]:
    """List the images of an archive; an entry that cannot be opened has the reason.

    Raises:
        FormatError: The archive breaks its format, or its documents have different
            images of one name.
    """
    if isinstance(files, Folder):
        files = files.within()
    assert isinstance(files, Archive | Folder), "there are no other files"
    if MANIFEST.encode() not in files:
        return [stored.entry() for stored in _read_legacy(files)]
    found = _read_manifest(files)
    if INDEX.encode() in files:
        found = _with_index(files, found)
    if not found and begins_with(files, MANIFEST, b"null"):
        raise FormatError(
            "holds no image: its manifest.json is null, as kaniko writes it without "
            "--destination",
            where=files.name,
        )
    return found


# --- manifest.json


def _read_manifest(files: Stored) -> list[Entry]:
    document, _ = read_json(files, MANIFEST, "manifest", shape=DOCKER_MANIFEST)
    where = f"{files.name}, {MANIFEST}"
    document = [] if document is None else document
    if not isinstance(document, list):
        raise FormatError("not a list of images", where=where)
    known: dict[str, tuple[str, Platform | None]] = {}  # of each config, by its name
    found: dict[object, _Stored | Entry] = {}
    for position, item in enumerate(document):
        names: tuple[str, ...] = ()
        try:
            config, layers, names = _manifest_item(item, f"{where}, image {position}")
            config = _slashed(files, config)
            if config not in known:
                known[config] = _identify(files, config, where)
        except (FormatError, IntegrityError) as error:
            found[position] = broken_entry((), names, "", error)
            continue
        id_, platform = known[config]
        sources = item.get("LayerSources")
        stored = found.setdefault(
            (id_, layers),
            _Stored(
                files,
                id_,
                (),
                config,
                platform,
                partial(tuple, layers),
                _manifest_parent(item),
                sources if isinstance(sources, dict) else {},
            ),
        )
        assert isinstance(stored, _Stored), "broken ones are there by position"
        names = tuple(dict.fromkeys((*stored.names, *names)))
        found[id_, layers] = replace(stored, names=names)
    return [
        image.entry() if isinstance(image, _Stored) else image
        for image in found.values()
    ]


def _identify(files: Stored, name: str, where: str) -> tuple[str, Platform | None]:
    """Return the id of the image that a config makes, and its platform."""
    config, data = read_json(files, name, "config", shape=CONFIG)
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


def _slashed(files: Stored, name: str) -> str:
    r"""Return a name of manifest.json as it is in the archive.

    Docker for Windows before 18.05 wrote ``<id>\layer.tar`` for ``<id>/layer.tar``.

    Raises:
        FormatError: Both are there: it depends on the system which one is meant.
    """
    slashed = name.replace("\\", "/")
    if slashed == name or not _is_there(files, slashed):
        return name
    if _is_there(files, name):
        raise FormatError(
            f"both {quoted(name)} and {quoted(slashed)} are in it", where=files.name
        )
    return slashed


def _is_there(files: Files, name: str) -> bool:
    return name.encode("utf-8", "surrogatepass") in files


# --- manifest.json and index.json


def _with_index(files: Stored, found: list[Entry]) -> list[Entry]:
    """Add to the images of manifest.json what only index.json has.

    Raises:
        FormatError: Both have an image of one name and platform, and they differ, or
            that of index.json cannot be read.
    """
    index, _ = read_json(files, INDEX, "index", shape=INDEX_OR_MANIFEST)
    listed, aside = listing(files, index, INDEX)
    spelled = {familiar(name): name for entry in found for name in entry.names}
    listed = [_renamed(manifest, spelled) for manifest in listed]
    by_config: dict[str, list[Manifest]] = {}
    for manifest in listed:
        by_config.setdefault(manifest.ids[1], []).append(manifest)
    by_name: dict[str, list[Manifest]] = {}
    for manifest in listed:
        for name in manifest.names:
            by_name.setdefault(name, []).append(manifest)
    for entry in found:
        _check_agreement(files, entry, by_name)
    both = [_joined(entry, by_config.get(_config_id(entry), [])) for entry in found]
    known = {_config_id(entry) for entry in found}
    only = [m.entry() for m in listed if m.ids[1] not in known]
    for entry in aside.broken:
        if entry.problem and any(familiar(name) in spelled for name in entry.names):
            raise entry.problem
    absent = [
        entry
        for entry in aside.absent
        if not any(familiar(name) in spelled for name in entry.names)
    ]
    return [*both, *only, *aside.broken, *absent]


def _renamed(manifest: Manifest, spelled: dict[str, str]) -> Manifest:
    """Return a manifest of index.json with names as manifest.json spells them.

    The annotations have a full name and, beside it, its tag alone.
    """
    names = [spelled.get(familiar(name), name) for name in manifest.names]
    tags = {name.rpartition("/")[2].partition(":")[2] for name in names}
    kept = tuple(dict.fromkeys(name for name in names if name not in tags))
    return replace(manifest, names=kept)


def _config_id(entry: Entry) -> str:
    return entry.ids[0] if entry.ids else ""


def _joined(entry: Entry, manifests: list[Manifest]) -> Entry:
    """Return an entry with the digests and names that index.json has for its image."""
    ids = [id_ for manifest in manifests for id_ in manifest.ids]
    names = [name for manifest in manifests for name in manifest.names]
    return replace(
        entry,
        ids=tuple(dict.fromkeys((*entry.ids, *ids))),
        names=tuple(dict.fromkeys((*entry.names, *names))),
    )


def _check_agreement(
    files: Stored, entry: Entry, by_name: dict[str, list[Manifest]]
) -> None:
    """Check that index.json has no other image for a name of manifest.json's."""
    id_, platform = _config_id(entry), platform_of(entry)
    for name in entry.names if entry.problem is None else ():
        same = by_name.get(name, [])
        if any(manifest.ids[1] == id_ for manifest in same):
            same = [
                manifest
                for manifest in same
                if manifest.ids[1] != id_ and platform_of(manifest.entry()) == platform
            ]
        if same:
            raise FormatError(
                f"manifest.json and index.json have different images of the name "
                f"{quoted(name)}: {id_[:12]} and {same[0].ids[1][:12]}",
                where=files.name,
            )


# --- before docker 1.10


def _legacy_ids(files: Stored) -> list[str]:
    """Return the layers' ids: names of directories with a json and a layer.tar.

    On the host only names that docker makes are looked at: others may be unreadable.
    """
    if isinstance(files, Folder):
        heads = [name.encode() for name in files.names() if _ID.fullmatch(name)]
    else:
        found = (name.rpartition(b"/") for name in files.names())
        heads = [head for head, _, tail in found if head and tail == b"json"]
    return [
        head.decode("utf-8", "surrogateescape")
        for head in heads
        if head + b"/json" in files and head + b"/layer.tar" in files
    ]


def _read_legacy(files: Stored) -> list[_Stored]:
    """List the images: layers that have a name or, without names, no child."""
    parents: dict[str, str | None] = {}
    platforms: dict[str, Platform | None] = {}
    for layer_id in _legacy_ids(files):
        config, _ = read_json(
            files, f"{layer_id}/json", f"json of {shown(layer_id[:12])}", shape=CONFIG
        )
        if not isinstance(config, dict):
            files.fail(f"{quoted(layer_id)}/json is not an object")
        parents[layer_id] = _parent(config, files)
        platforms[layer_id] = config_platform(config)
    names = _repositories(files)
    if not names:
        if isinstance(files, Archive) and not files.ended:
            files.fail(
                "truncated: no manifest.json, no repositories, no end-of-archive mark"
            )
        inner = set(parents.values())
        names = {layer_id: [] for layer_id in parents if layer_id not in inner}
    entries = []
    for image_id, tags in names.items():
        if image_id not in parents:
            files.fail(f"layer {quoted(image_id)} is not in the archive")
        entries.append(
            _Stored(
                files,
                image_id,
                tuple(tags),
                f"{image_id}/json",
                platforms[image_id],
                partial(_chain, image_id, parents, files),
                parents[image_id],
                {},
                hashed=False,
            )
        )
    return entries


def _chain(image_id: str, parents: dict[str, str | None], files: Stored) -> list[str]:
    """Return the names of the layers from the base to ``image_id``."""
    chain: dict[str, None] = {}
    current: str | None = image_id
    while current:
        if current in chain:
            files.fail(f"the parents of {quoted(image_id)} go in a circle")
        if current not in parents:
            files.fail(f"layer {quoted(current)} is not in the archive")
        if len(chain) == MAX_LAYERS:
            files.fail(f"{quoted(image_id)} has more than {MAX_LAYERS:,} layers")
        chain[current] = None
        current = parents[current]
    return [f"{layer_id}/layer.tar" for layer_id in reversed(chain)]


def _parent(config: dict[str, Any], files: Stored) -> str | None:
    parent = config.get("parent")
    if parent is not None and not isinstance(parent, str):
        files.fail(f"a parent that is not an id: {quoted(str(parent))}")
    return parent


def _repositories(files: Stored) -> dict[str, list[str]]:
    """Return the names of each tagged image id."""
    names: dict[str, list[str]] = {}
    if b"repositories" not in files:
        return names
    document, _ = read_json(files, "repositories", "list of names")
    where = f"{files.name}, repositories"
    if not isinstance(document, dict):
        raise FormatError("not an object", where=where)
    for name, tags in document.items():
        if not isinstance(tags, dict):
            raise FormatError(
                f"the tags of {quoted(name)} are not an object", where=where
            )
        for tag, image_id in tags.items():
            if not isinstance(image_id, str):
                raise FormatError(
                    f"{quoted(name)} has a tag without an id", where=where
                )
            names.setdefault(image_id, []).append(f"{name}:{tag}")
    return names
