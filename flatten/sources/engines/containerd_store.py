"""The contents of a containerd root: images from blobs, layers from snapshots."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, Final

from ...errors import FlattenError, FormatError, IntegrityError, quoted
from ...image.assembly import AssembledLayer
from ...image.blob import BlobLayer
from ...image.chain_ids import chain_ids
from ...image.image import Image
from ..choice import Entry, broken_entry
from ..documents import DIGEST, read_json
from ..folder import Folder
from ..oci_layout import Manifest, join, manifests
from ..parse import INDEX_OR_MANIFEST
from . import containerd_metadata
from .containerd_metadata import (
    CONTENT,
    NAMES,
    ContainerdContainer,
    ContainerdSnapshot,
    ImageName,
    Snapshotter,
)
from .docker_container import has_record, read_record
from .drivers import Stack
from .root import ID, Root, shift_in
from .user_namespace import Unpacked

BLOBS: Final = "blobs/sha256"
_DOCKERS: Final = "moby"
"""Docker's namespace; with ``userns-remap``, a hyphen and ``UID.GID`` follow."""

_MAX_SCANNED: Final = 1 << 22  # bytes of a manifest or index; registries take no more


@dataclass(frozen=True, slots=True)
class BrokenContainer:
    """A container whose record is malformed, and the error."""

    id: str
    error: FlattenError


class ContainerdStore:
    """A root of containerd.

    Attributes:
        root: The directory.
        content: The content store.
        docker: Docker's data root, which has records of containers; for a root without
            docker the same directory.
    """

    def __init__(self, folder: Folder, docker: Root) -> None:
        """Store the arguments; nothing is read."""
        self.root = Root(folder)
        self.content = Root(folder.below(CONTENT))
        self.docker = docker
        self.snapshotters = cache(
            partial(containerd_metadata.read_snapshotters, self.root)
        )

    def containers(self) -> Iterator[ContainerdContainer | BrokenContainer]:
        """Yield the containers in containerd's metadata, then the others of docker.

        Docker's containers are in the metadata only while they run.
        """
        known: list[ContainerdContainer] = []
        if NAMES.encode() in self.root:
            known = containerd_metadata.read_containers(self.root)
        for container in known:
            yield self._docker_container(container)
        here = {container.id for container in known}
        for id_ in self.docker.ids("containers"):
            if id_ not in here and self._is_dockers(id_):
                container = ContainerdContainer(self._namespace(id_), id_)
                yield self._docker_container(container)

    def _is_dockers(self, id_: str) -> bool:
        """Return True if a container of docker has its layers in containerd.

        If a storage driver of docker keeps them, they are in ``layerdb``.
        """
        return has_record(self.docker, id_) and not any(
            f"image/{driver}/layerdb/mounts/{id_}".encode() in self.docker
            for driver in self.docker.names("image")
        )

    def _namespace(self, key: str) -> str:
        """Return the namespace of a snapshot, or docker's if the key is unknown."""
        found = [
            namespace
            for snapshotter in self.snapshotters()
            for namespace, known in snapshotter.by_key
            if known == key
        ]
        return found[0] if found else _DOCKERS

    def _docker_container(
        self, container: ContainerdContainer
    ) -> ContainerdContainer | BrokenContainer:
        """Return a container completed from docker's record, if there is one."""
        if not ID.fullmatch(container.id):
            return container
        try:
            record = read_record(self.docker, container.id)
        except FlattenError as error:
            return BrokenContainer(container.id, error)
        return replace(
            container,
            names=(*container.names, *filter(None, [record.name])),
            image=container.image or record.image,
            snapshotter=container.snapshotter or record.driver,
            manifest=record.manifest,
        )

    def own_snapshot(
        self, container: ContainerdContainer, where: str
    ) -> tuple[Snapshotter, ContainerdSnapshot]:
        """Return a container's own snapshot, and its snapshotter.

        Raises:
            FormatError: It is missing, or its snapshotter is not supported.
        """
        wanted, key = container.snapshotter, container.key or container.id
        for snapshotter in self.snapshotters():
            if wanted in ("", snapshotter.driver.name):
                found = snapshotter.find(container.namespace, key)
                if found is not None:
                    return snapshotter, found
        unknown = containerd_metadata.unknown_snapshotters(self.root)
        raise FormatError(
            f"its snapshot {quoted(key)} is in snapshotter {quoted(wanted)}, which is "
            "not supported"
            if wanted in unknown
            else f"snapshotter {quoted(wanted)} has no snapshot {quoted(key)}",
            where=where,
        )

    def manifests(self) -> tuple[list[Manifest], list[Entry]]:
        """Return the manifests of images, and entries for names without a manifest."""
        if NAMES.encode() not in self.root:
            return join(self._nameless(), key=_image), []
        found: list[Manifest] = []
        broken: list[Entry] = []
        for named in containerd_metadata.read_names(self.root):
            try:
                found += self._manifests_of(named)
            except (FormatError, IntegrityError) as error:
                ids = (named.digest.removeprefix("sha256:"),)
                broken.append(broken_entry(ids, (named.name,), named.namespace, error))
        found.sort(key=lambda manifest: not manifest.is_whole())
        return join(found, key=_image), broken

    def _manifests_of(self, named: ImageName) -> list[Manifest]:
        """Return the manifests of a name, of all platforms that are present.

        Raises:
            FormatError: No manifest is present.
        """
        where = f"{named.name} in {named.namespace}"
        target: dict[str, Any] = {"digest": named.digest, "size": named.size}
        if not DIGEST.fullmatch(named.name):  # Kubernetes adds the image id as a name
            target["annotations"] = {"io.containerd.image.name": named.name}
        found = [
            replace(manifest, store=named.namespace)
            for manifest in manifests(self.content, {"manifests": [target]}, where)
            if manifest.has_config()
        ]
        if not found:
            raise FormatError(
                f"{quoted(where)}: no blob of {named.digest} is present",
                where=self.content.name,
            )
        return [manifest for manifest in found if manifest.is_whole()] or found

    def _nameless(self) -> Iterator[Manifest]:
        """Yield all manifests among the blobs, for a root without names."""
        listed = []
        for name in self.root.ids(f"{CONTENT}/{BLOBS}"):
            size = self.root.top.status(f"{CONTENT}/{BLOBS}/{name}".encode()).st_size
            if size <= _MAX_SCANNED and self._is_manifest(f"{BLOBS}/{name}"):
                listed.append({"digest": f"sha256:{name}", "size": size})
        for manifest in manifests(self.content, {"manifests": listed}, "blobs"):
            if manifest.has_config():
                yield manifest

    def _is_manifest(self, path: str) -> bool:
        """Return True if a blob is a well-formed manifest or index."""
        if not self.content.read(path, "blob", _MAX_SCANNED).lstrip().startswith(b"{"):
            return False
        try:
            document: Any = read_json(
                self.content, path, "blob", shape=INDEX_OR_MANIFEST
            )[0]
        except (FormatError, IntegrityError):
            return False
        return "manifests" in document or {"config", "layers"} <= document.keys()

    # --- snapshots

    def unpacked(
        self, namespace: str, diff_ids: Sequence[str | None]
    ) -> tuple[Snapshotter, ContainerdSnapshot] | None:
        """Return the snapshot of a chain's last layer, or None if there is none."""
        chain_id = [*chain_ids([diff_id or "" for diff_id in diff_ids])][-1][0]
        for snapshotter in self.snapshotters():
            found = snapshotter.find(namespace, f"sha256:{chain_id}")
            if found is not None:
                return snapshotter, found
        return None

    def snapshot_layer(
        self,
        name: str,
        snapshotter: Snapshotter,
        snapshot: ContainerdSnapshot,
        image: Image | None,
        warnings: list[str],
    ) -> AssembledLayer:
        """Return a layer read from a snapshot.

        Args:
            name: The layer's name in messages.
            snapshotter: The snapshotter of the snapshot.
            snapshot: The snapshot.
            image: The image below, whose layers show the ids of a user's store.
            warnings: Receives the losses.
        """
        stack = Stack(
            self.root,
            snapshotter.driver,
            [],
            shift=shift_in(snapshot.namespace.removeprefix(f"{_DOCKERS}-")),
            unpacked=partial(self._unpacked_layers, image),
        )
        stack.warnings = warnings
        below = [each.id for each in snapshotter.chain(snapshot, name)[1:]]
        layer = stack.own(name, snapshot.id, below)
        return replace(layer, place=snapshotter.place(self.root, snapshot))

    def _unpacked_layers(self, image: Image | None) -> Iterator[Unpacked]:
        """Yield the layers that have both a blob and a directory."""
        for layer in image.layers if image is not None else ():
            if isinstance(layer, BlobLayer) and layer.place is not None:
                path = layer.place.directory.removeprefix(self.root.path(""))
                tree = self.root.tree(path)
                if tree is not None:
                    yield Unpacked(layer.headers(), tree)


def _image(manifest: Manifest) -> tuple[str, str]:
    """Return the key that groups the manifests of one image: namespace and config."""
    return manifest.store, manifest.ids[1]
