"""containerd's root: ``/var/lib/containerd``, or ``containerd/daemon`` in docker's.

Its content store has blobs, ``blobs/sha256/<hex>``, as they were transferred; layers
may be compressed. The documents are those of an OCI layout, with the names of images in
a bbolt file instead of ``index.json``; without that file images have no names. Each
client has a namespace: docker's is ``moby``, Kubernetes' is ``k8s.io``. Usually only
one platform of an image is present.

Layers whose blobs were discarded after unpacking (Kubernetes' option
``discard_unpacked_layers``) are read from their snapshots. So are the own layers of
containers.

Reference: containerd docs/content-flow.md, content/local/store.go at v1.6.20.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from ...errors import FlattenError, FormatError, SourceError, quoted
from ...image.blob import BlobLayer
from ...image.chain_ids import chain_ids
from ...image.image import Image, Layer
from ..choice import CONTAINER, Entry, broken_entry, container_entry
from ..documents import DIGEST, Files
from ..folder import Folder, unreadable
from ..oci_layout import Manifest
from . import containerd_metadata
from .containerd_metadata import (
    COMMITTED,
    CONTENT,
    NAMES,
    ContainerdContainer,
    ContainerdSnapshot,
    Snapshotter,
)
from .containerd_store import BLOBS, BrokenContainer, ContainerdStore
from .root import REMAPPED, Root, usual_and_remapped
from .stores import all_containers, all_images, whole_survey
from .survey import StoredContainer, StoredLayer, Survey

_FOLDERS: Final = ("", "containerd/daemon")
_CONTAINERD_STORE: Final = ("rootfs/*", "buildkit/containerd-*")
"""Directories in docker's data root that only the containerd image store makes."""


def detect(files: Files) -> bool:
    """Return True if the directory has such images, or docker's containers of them."""
    return isinstance(files, Folder) and (
        _find(files) is not None or any(map(_is_dockers, usual_and_remapped(files)))
    )


def entries(files: Files) -> Sequence[Entry]:
    """List the images by namespace and name.

    Loading an image that is damaged raises the error.

    Raises:
        FormatError: The metadata is malformed.
        SourceError: The images are in another root.
    """
    return all_images(stores(files))


def containers(files: Files) -> Sequence[Entry]:
    """List the containers, whose names and ids begin with ``container:``.

    Raises:
        FormatError: The metadata is malformed.
        SourceError: The images are in another root.
    """
    return all_containers(stores(files))


def survey(files: Files) -> Survey:
    """Return the inventory of the root besides its images."""
    return whole_survey(stores(files))


def stores(files: Files) -> "list[ContainerdRoot]":
    """Return the store of containerd's root, which may be next to docker's.

    Raises:
        SourceError: Docker's data root is here, but its images are elsewhere.
    """
    if not isinstance(files, Folder):
        return []
    found = _find(files)
    if found is None:
        raise SourceError(
            f"{files.name}: docker keeps the images of this data root in containerd's "
            f"root, which is not at {quoted(str(_beside(files)))}; "
            "use containerd:ROOT, usually containerd:/var/lib/containerd"
        )
    docker, folder = found
    return [ContainerdRoot(ContainerdStore(folder, Root(docker)))]


def _find(folder: Folder) -> tuple[Folder, Folder] | None:
    """Return docker's directory and the directory with the blobs.

    The blobs are in the same directory, in one below it, or in one next to it, which
    must not be a symlink: a foreign disk's could lead to this machine's. Docker 20.10
    keeps a directory without blobs in its data root.
    """
    for docker in usual_and_remapped(folder):
        for name in _FOLDERS:
            if _has_blobs(docker.path / name):
                return docker, docker.below(name) if name else docker
        path = _beside(docker)
        if _is_dockers(docker) and not path.is_symlink() and _has_blobs(path):
            beside = Folder(str(path), docker.pool)
            beside.resources = docker.resources
            return docker, beside
    return None


def _is_dockers(folder: Folder) -> bool:
    """Return True for a data root of docker with the containerd image store.

    Reference: moby daemon/snapshotter/mount.go, builder/builder-next/controller.go.
    """
    return (folder.path / "containers").is_dir() and any(
        any(folder.path.glob(pattern)) for pattern in _CONTAINERD_STORE
    )


def _beside(folder: Folder) -> Path:
    """Return the path of the system's containerd root next to docker's root."""
    path = folder.path.resolve()
    usual = path.parent if REMAPPED.fullmatch(path.name) else path
    return usual.parent / "containerd"


def _has_blobs(path: Path) -> bool:
    """Return True if a directory is a root of containerd with blobs.

    Raises:
        FlattenError: The directory cannot be listed.
    """
    blobs = path / CONTENT / BLOBS
    try:
        return any(blobs.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise unreadable(blobs, error) from error


@dataclass(frozen=True, slots=True)
class ContainerdRoot:
    """The images and containers of all namespaces."""

    store: ContainerdStore

    def images(self) -> Iterator[Entry]:
        """Yield the images, then those that are damaged."""
        found, broken = self.store.manifests()
        for manifest in found:
            yield manifest.entry(partial(self._load_image, manifest))
        yield from broken

    def containers(self) -> Iterator[Entry]:
        """Yield the containers."""
        for container in self.store.containers():
            if isinstance(container, BrokenContainer):
                ids = (f"{CONTAINER}{container.id}",)
                yield broken_entry(ids, (), "", container.error)
                continue
            shown = (*container.names, container.id[:12])[0]
            load = partial(self._load_container, container, shown)
            yield container_entry(
                container.id, container.names, container.namespace, load
            )

    def survey(self) -> Survey:
        """Return the inventory besides the images."""
        store, found = self.store, Survey()
        root = store.root
        for snapshotter in store.snapshotters():
            self._survey_snapshots(snapshotter, found)
        for name in root.names(f"{CONTENT}/ingest"):
            why = "its transfer was interrupted"
            found.leave(root, f"{CONTENT}/ingest/{name}", why)
        self._survey_containers(found)
        if NAMES.encode() in root:
            self._survey_references(found)
        return found

    def _survey_snapshots(self, snapshotter: Snapshotter, found: Survey) -> None:
        root, driver = self.store.root, snapshotter.driver
        for snapshot in snapshotter.snapshots.values():
            if snapshot.kind == COMMITTED:
                below = snapshotter.snapshots.get(snapshot.parent)
                chain_id = snapshot.key if DIGEST.fullmatch(snapshot.key) else ""
                place = snapshotter.place(root, snapshot)
                parent = below.id if below else ""
                found.layers.append(StoredLayer(place, chain_id, "", parent))
        found.add_directories(root, driver, re.compile(r"[0-9]{1,19}"))
        base = driver.tree.partition("/{}")[0]
        for name in root.names(base):
            if name.startswith(("new-", "rm-")):
                why = "its creation or removal was interrupted"
                found.leave(root, f"{base}/{name}", why)

    def _survey_containers(self, found: Survey) -> None:
        for container in self.store.containers():
            if isinstance(container, BrokenContainer):
                found.problems.append(str(container.error))
                continue
            where = f"{self.store.root.name}, container {container.id[:12]}"
            try:
                snapshotter, own = self.store.own_snapshot(container, where)
                chain = snapshotter.chain(own, where)
            except FlattenError as error:
                found.problems.append(str(error))
                continue
            above = [s.id for s in chain if not DIGEST.fullmatch(s.key)]
            below = chain[len(above)].id if len(above) < len(chain) else ""
            driver = snapshotter.driver.name
            found.containers.append(
                StoredContainer(
                    container.id, container.names, driver, tuple(above), below
                )
            )

    def _survey_references(self, found: Survey) -> None:
        """Add what leases and labels need, and the blobs that nothing refers to."""
        store, root = self.store, self.store.root
        needed = containerd_metadata.read_needed(root)
        for (namespace, name, key), holder in needed.snapshots.items():
            for snapshotter in store.snapshotters():
                snapshot = snapshotter.find(namespace, key)
                if snapshotter.driver.name == name and snapshot is not None:
                    found.held[name, snapshot.id] = holder
        for manifest in store.manifests()[0]:
            needed.blobs |= {f"sha256:{id_}" for id_ in manifest.ids}
            try:
                needed.blobs |= {layer["digest"] for layer in manifest.blobs()}
            except FlattenError as error:
                found.problems.append(str(error))
        for name in root.ids(f"{CONTENT}/{BLOBS}"):
            if f"sha256:{name}" not in needed.blobs:
                path = f"{CONTENT}/{BLOBS}/{name}"
                found.leave(root, path, "no image and no lease refers to this blob")

    def _load_image(self, manifest: Manifest) -> Image:
        """Find the layers, and the directories to which they were unpacked.

        Raises:
            FormatError: A layer is missing.
        """
        store = self.store
        warnings: list[str] = []
        image = replace(
            manifest.load(partial(self._unpacked, manifest, warnings)),
            source=store.root.name,
            warnings=warnings,
        )
        diff_ids = [layer.diff_id for layer in image.layers]
        for position, layer in enumerate(image.layers, 1):
            if isinstance(layer, BlobLayer) and None not in diff_ids[:position]:
                with suppress(FlattenError):  # the blobs are sufficient
                    found = store.unpacked(manifest.store, diff_ids[:position])
                    if found is not None:
                        snapshotter, snapshot = found
                        layer.place = snapshotter.place(store.root, snapshot)
        return image

    def _unpacked(
        self,
        manifest: Manifest,
        warnings: list[str],
        position: int,
        promised: Sequence[str | None],
    ) -> Layer | None:
        """Return a layer whose blob is missing, or None if it is not unpacked either.

        Raises:
            FormatError: It may be unpacked in a snapshotter that is not supported.
        """
        store, root = self.store, self.store.root
        digest = manifest.blobs()[position]["digest"]
        name = f"{root.name}, layer {position + 1} of {len(promised)} ({digest})"
        found = store.unpacked(manifest.store, promised[: position + 1])
        if found is None:
            unknown = containerd_metadata.unknown_snapshotters(root)
            if unknown:
                raise FormatError(
                    "its blob is missing; it may be unpacked in snapshotter "
                    f"{quoted(', '.join(unknown))}, which is not supported",
                    where=name,
                )
            return None
        snapshotter, snapshot = found
        place = snapshotter.place(root, snapshot)
        warnings.append(
            f"{name}: its blob is missing; reading the directory to which it was "
            f"unpacked, {quoted(place.directory)}, instead; nothing is verified, and "
            "directories have the metadata of the disk"
        )
        return store.snapshot_layer(name, snapshotter, snapshot, None, warnings)

    def _load_container(
        self, container: ContainerdContainer, shown: str, names: tuple[str, ...]
    ) -> Image:
        """Find the layers: the image's, docker's init layer, the container's own.

        Raises:
            FormatError: A layer is missing.
        """
        store = self.store
        where = f"{store.root.name}, container {shown}"
        snapshotter, own = store.own_snapshot(container, where)
        chain = snapshotter.chain(own, where)
        above = [s for s in chain if not DIGEST.fullmatch(s.key)][::-1]
        image = self._image_of(container, snapshotter, chain[len(above) :], where)
        layers = list(image.layers)
        for snapshot in above:
            what = "its own layer" if snapshot is own else "init layer"
            layers.append(
                store.snapshot_layer(
                    f"{where}, {what}", snapshotter, snapshot, image, image.warnings
                )
            )
        init = len(image.layers) if len(above) > 1 else None
        return replace(
            image, id=container.id, names=names, layers=tuple(layers), init=init
        )

    def _image_of(
        self,
        container: ContainerdContainer,
        snapshotter: Snapshotter,
        below: Sequence[ContainerdSnapshot],
        where: str,
    ) -> Image:
        """Return the image whose layers are below a container's own.

        If several images have the same layers, docker's record says which one it is.
        """
        store = self.store
        recorded = container.manifest.removeprefix("sha256:")
        manifests = [
            each for each in store.manifests()[0] if each.store == container.namespace
        ]
        manifests.sort(key=lambda manifest: recorded not in manifest.ids)
        for manifest in manifests:
            try:
                ids = [id_ for id_, _ in chain_ids(manifest.diff_ids())]
            except FlattenError:
                if recorded in manifest.ids:
                    raise
                continue  # another image is damaged
            if [f"sha256:{id_}" for id_ in ids[::-1]] == [each.key for each in below]:
                return self._load_image(manifest)
        image = Image(store.root.name, "", (), {}, ())
        image.warnings.append(
            f"{where}: its image, {quoted(container.image)}, is missing; reading the "
            "directories to which its layers were unpacked"
        )
        image.layers = tuple(
            store.snapshot_layer(
                f"{where}, layer {position} of {len(below)}",
                snapshotter,
                snapshot,
                None,
                image.warnings,
            )
            for position, snapshot in enumerate(below[::-1], 1)
        )
        return image
