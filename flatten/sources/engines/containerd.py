"""containerd's root: ``/var/lib/containerd``, or ``containerd/daemon`` in docker's.

Its content store has ``blobs/sha256/<hex>`` as they were transferred, layers compressed
or not. The documents among them are those of an OCI layout, with names in a bbolt file
in place of ``index.json``; without it images have no names. A namespace is a user's:
docker's is ``moby``, that of Kubernetes ``k8s.io``. Of an image for several platforms
mostly one is there.

Layers whose blobs were discarded once they were unpacked (Kubernetes' option
``discard_unpacked_layers``) are read from their snapshots; so is what a container has
changed.

Reference: containerd docs/content-flow.md, content/local/store.go at v1.6.20.
"""

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Final

from ...errors import FlattenError, FormatError, quoted
from ...image.blob import BlobLayer
from ...image.chain_ids import chain_ids
from ...image.image import Image, Layer
from ..choice import Entry, container_entry
from ..documents import DIGEST, Files
from ..folder import Folder
from ..oci_layout import Manifest
from . import containerd_metadata
from .containerd_metadata import CONTENT, NAMES, Container, Snapshot, Snapshotter
from .containerd_store import BLOBS, Store
from .root import Root
from .survey import StoredContainer, StoredLayer, Survey

_PLACES: Final = ("", "containerd/daemon")


def detect(files: Files) -> bool:
    """Say whether the directory is a root of containerd's that holds blobs."""
    return isinstance(files, Folder) and _find(files) is not None


def entries(files: Files) -> Sequence[Entry]:
    """List the images by namespace and name.

    What is wrong with one of them is said when it is loaded.

    Raises:
        FormatError: The names cannot be read.
    """
    store = _open(files)
    found, broken = store.manifests()
    return [*(_image(store, manifest) for manifest in found), *broken]


def containers(files: Files) -> Sequence[Entry]:
    """List the containers, whose names and ids begin with ``container:``.

    Raises:
        FormatError: They cannot be read.
    """
    store = _open(files)
    if NAMES.encode() not in store.root:
        return []
    return [
        _container(store, container)
        for container in containerd_metadata.read_containers(store.root)
    ]


def survey(files: Files) -> Survey:
    """Return what the root holds besides its images."""
    store, found = _open(files), Survey()
    root = store.root
    for snapshotter in store.snapshotters():
        driver = snapshotter.driver
        for snapshot in snapshotter.snapshots.values():
            if snapshot.kind == containerd_metadata.COMMITTED:
                below = snapshotter.snapshots.get(snapshot.parent)
                chain_id = snapshot.key if DIGEST.fullmatch(snapshot.key) else ""
                place = containerd_metadata.place(root, driver, snapshot)
                parent = below.id if below else ""
                found.layers.append(StoredLayer(place, chain_id, "", parent))
        found.add_directories(root, driver, re.compile(r"[0-9]{1,19}"))
        base = driver.place.partition("/{}")[0]
        for name in root.names(base):
            if name.startswith(("new-", "rm-")):
                why = "its making or removal was interrupted"
                found.leave(root, f"{base}/{name}", why)
    for name in root.names(f"{CONTENT}/ingest"):
        found.leave(root, f"{CONTENT}/ingest/{name}", "its transfer was interrupted")
    if NAMES.encode() in root:
        _survey_names(store, found)
    return found


def _survey_names(store: Store, found: Survey) -> None:
    """Add the containers, and blobs that nothing names."""
    root = store.root
    for container in containerd_metadata.read_containers(root):
        for snapshotter in store.snapshotters():
            own = snapshotter.find(container.namespace, container.key)
            if snapshotter.driver.name != container.snapshotter or own is None:
                continue
            chain = snapshotter.chain(own, root.name)
            above = [s.id for s in chain if not DIGEST.fullmatch(s.key)]
            below = chain[len(above)].id if len(above) < len(chain) else ""
            found.containers.append(
                StoredContainer(
                    container.id, store.names_of(container), container.snapshotter,
                    tuple(above), below,
                )
            )  # fmt: skip
    named = containerd_metadata.read_needed(root).blobs
    for manifest in store.manifests()[0]:
        named |= {f"sha256:{id_}" for id_ in manifest.ids}
        named |= {layer["digest"] for layer in manifest.blobs()}
    for name in root.ids(f"{CONTENT}/{BLOBS}"):
        if f"sha256:{name}" not in named:
            found.leave(root, f"{CONTENT}/{BLOBS}/{name}", "no name leads to this blob")


def _open(files: Files) -> Store:
    folder = _find(files) if isinstance(files, Folder) else None
    assert isinstance(files, Folder), "detect says so"
    assert folder is not None, "likewise"
    return Store(folder, Root(files))


def _find(folder: Folder) -> Folder | None:
    """Return the directory that has blobs: this one, or docker's in it.

    Docker 20.10 keeps an empty one.
    """
    for place in _PLACES:
        blobs = folder.path / place / CONTENT / BLOBS
        if blobs.is_dir() and any(blobs.iterdir()):
            return folder.below(place) if place else folder
    return None


def _image(store: Store, manifest: Manifest) -> Entry:
    """Return what chooses an image, by the digests of its config and indexes too."""
    return manifest.entry(lambda: _load_image(store, manifest))


def _load_image(store: Store, manifest: Manifest) -> Image:
    """Find the layers, and where they are unpacked.

    Raises:
        FormatError: One is not there.
    """
    warnings: list[str] = []
    image = manifest.load(partial(_unpacked, store, manifest, warnings))
    image.warnings = warnings
    image.source = store.root.name
    diff_ids = [layer.diff_id for layer in image.layers]
    for position, layer in enumerate(image.layers, 1):
        if isinstance(layer, BlobLayer) and None not in diff_ids[:position]:
            with suppress(FlattenError):  # the blobs are enough
                found = store.unpacked(manifest.store, diff_ids[:position])
                if found is not None:
                    snapshotter, snapshot = found
                    layer.place = containerd_metadata.place(
                        store.root, snapshotter.driver, snapshot
                    )
    return image


def _unpacked(
    store: Store,
    manifest: Manifest,
    warnings: list[str],
    position: int,
    promised: Sequence[str | None],
) -> Layer | None:
    """Return a layer whose blob is not there, if it is unpacked."""
    found = store.unpacked(manifest.store, promised[: position + 1])
    if found is None:
        return None
    snapshotter, snapshot = found
    digest = manifest.blobs()[position]["digest"]
    root = store.root
    name = f"{root.name}, layer {position + 1} of {len(promised)} ({digest})"
    place = containerd_metadata.place(root, snapshotter.driver, snapshot)
    warnings.append(
        f"{name}: its blob is not there, so it is read from where it was unpacked, "
        f"{quoted(place.directory)}: nothing is verified, and directories have the "
        "metadata of the disk"
    )
    return store.snapshot_layer(name, snapshotter, snapshot, None, warnings)


def _container(store: Store, container: Container) -> Entry:
    """Return what chooses a container."""
    called = store.names_of(container)
    load = partial(_load_container, store, container, (*called, container.id[:12])[0])
    return container_entry(container.id, called, container.namespace, load)


def _load_container(
    store: Store, container: Container, shown: str, names: tuple[str, ...]
) -> Image:
    """Find the layers: the image's, docker's own, the container's.

    Raises:
        FormatError: One is not there.
    """
    where = f"{store.root.name}, container {shown}"
    snapshotter, own = _own(store, container, where)
    chain = snapshotter.chain(own, where)
    above = [s for s in chain if not DIGEST.fullmatch(s.key)][::-1]
    image = _image_of(store, container, snapshotter, chain[len(above) :], where)
    layers = list(image.layers)
    for snapshot in above:
        what = "its own layer" if snapshot is own else "init layer"
        layers.append(
            store.snapshot_layer(
                f"{where}, {what}", snapshotter, snapshot, image, image.warnings
            )
        )
    init = len(image.layers) if len(above) > 1 else None
    return replace(image, id=container.id, names=names, layers=tuple(layers), init=init)


def _own(
    store: Store, container: Container, where: str
) -> tuple[Snapshotter, Snapshot]:
    """Return a container's own snapshot."""
    for snapshotter in store.snapshotters():
        if snapshotter.driver.name == container.snapshotter:
            found = snapshotter.find(container.namespace, container.key)
            if found is not None:
                return snapshotter, found
    raise FormatError(
        f"its snapshot {quoted(container.key)} of {quoted(container.snapshotter)} "
        "is not there, or of a snapshotter that is not read here",
        where=where,
    )


def _image_of(
    store: Store,
    container: Container,
    snapshotter: Snapshotter,
    below: Sequence[Snapshot],
    where: str,
) -> Image:
    """Return the image whose layers are below a container's own."""
    for manifest in store.manifests()[0]:
        if manifest.store == container.namespace:
            chain = [chain_id for chain_id, _ in chain_ids(manifest.diff_ids())][::-1]
            if [s.key for s in below] == [f"sha256:{id_}" for id_ in chain]:
                return _load_image(store, manifest)
    image = Image(store.root.name, "", (), {}, ())
    image.warnings.append(
        f"{where}: its image, {quoted(container.image)}, is not there, so all "
        "is read from where it was unpacked"
    )
    image.layers = tuple(
        store.snapshot_layer(
            f"{where}, layer {position} of {len(below)}",
            snapshotter, snapshot, None, image.warnings,
        )
        for position, snapshot in enumerate(below[::-1], 1)
    )  # fmt: skip
    return image
