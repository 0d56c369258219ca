"""What a root of containerd's has: images from blobs, layers from snapshots."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any, Final

from ...errors import FormatError, IntegrityError, quoted
from ...host.beneath import Beneath
from ...image.assembly import AssembledLayer
from ...image.blob import BlobLayer
from ...image.chain_ids import chain_ids
from ...image.image import Image
from ...tar.read_header import HeaderBytes
from ..choice import Entry, broken_entry
from ..documents import DIGEST, read_json
from ..folder import Folder
from ..oci_layout import Manifest, join, manifests
from . import containerd_metadata
from .containerd_metadata import CONTENT, NAMES, Container, Named, Snapshot, Snapshotter
from .drivers import Stack
from .root import ID, Root
from .user_namespace import user_owners

BLOBS: Final = "blobs/sha256"
_MAX_SCANNED: Final = 1 << 22  # bytes of a manifest or index; registries take no more


class Store:
    """A root of containerd's.

    Attributes:
        root: Of it.
        content: The blobs.
    """

    def __init__(self, folder: Folder, docker: Root) -> None:
        """Read nothing yet; ``docker`` may be docker's root around this one."""
        self.root = Root(folder)
        self.content = Root(folder.below(CONTENT))
        self.snapshotters = cache(
            partial(containerd_metadata.read_snapshotters, self.root)
        )
        self._docker = docker

    def names_of(self, container: Container) -> tuple[str, ...]:
        """Return what a container is called: by whoever made it, and by docker."""
        path = f"containers/{container.id}/config.v2.json"
        if not ID.fullmatch(container.id) or path.encode() not in self._docker:
            return container.names
        config, _ = read_json(self._docker, path, f"container {container.id[:12]}")
        name = config.get("Name") if isinstance(config, dict) else None
        if not isinstance(name, str):
            return container.names
        return (*container.names, name.removeprefix("/"))

    def manifests(self) -> tuple[list[Manifest], list[Entry]]:
        """Return the images: their manifests, and what leads to none."""
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

    def _manifests_of(self, named: Named) -> list[Manifest]:
        """Return the manifests that a name leads to: of the platforms that are there.

        Raises:
            FormatError: None is there.
        """
        where = f"{named.name} in {named.namespace}"
        target: dict[str, Any] = {"digest": named.digest, "size": named.size}
        if not DIGEST.fullmatch(named.name):  # what Kubernetes calls an image by its id
            target["annotations"] = {"io.containerd.image.name": named.name}
        found = [
            replace(manifest, store=named.namespace)
            for manifest in manifests(self.content, {"manifests": [target]}, where)
            if manifest.has_config()
        ]
        if not found:
            raise FormatError(
                f"{quoted(where)}: nothing of {named.digest} is there",
                where=self.content.name,
            )
        return [manifest for manifest in found if manifest.is_whole()] or found

    def _nameless(self) -> Iterator[Manifest]:
        """Yield the manifests among the blobs, for want of names."""
        listed = []
        for name in self.root.ids(f"{CONTENT}/{BLOBS}"):
            size = self.root.top.status(f"{CONTENT}/{BLOBS}/{name}".encode()).st_size
            if size <= _MAX_SCANNED and self._is_manifest(f"{BLOBS}/{name}"):
                listed.append({"digest": f"sha256:{name}", "size": size})
        for manifest in manifests(self.content, {"manifests": listed}, "blobs"):
            if manifest.has_config():
                yield manifest

    def _is_manifest(self, path: str) -> bool:
        """Say whether a blob is a manifest or an index, and no broken one."""
        if not self.content.read(path, "blob", _MAX_SCANNED).lstrip().startswith(b"{"):
            return False
        try:
            document: Any = read_json(self.content, path, "blob")[0]
        except (FormatError, IntegrityError):
            return False
        return "manifests" in document or {"config", "layers"} <= document.keys()

    # --- snapshots

    def unpacked(
        self, namespace: str, diff_ids: Sequence[str | None]
    ) -> tuple[Snapshotter, Snapshot] | None:
        """Return the snapshot of the last of some layers, with all below it."""
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
        snapshot: Snapshot,
        image: Image | None,
        warnings: list[str],
    ) -> AssembledLayer:
        """Return a layer that is read from a snapshot.

        Args:
            name: In messages.
            snapshotter: What has it.
            snapshot: It.
            image: What is below, whose layers show the owners of a user's store.
            warnings: Receives what is lost.
        """
        chain = snapshotter.chain(snapshot, name)
        owners = cache(
            lambda: user_owners(
                self.root.top.status(b""), self._shown(image), ((), ()), warnings
            )
        )
        stack = Stack(self.root, snapshotter.driver, [], owners)
        stack.warnings = warnings
        below = [each.id for each in chain[1:]]
        return replace(
            stack.own(name, snapshot.id, below),
            place=containerd_metadata.place(self.root, snapshotter.driver, snapshot),
        )

    def _shown(self, image: Image | None) -> Iterator[tuple[HeaderBytes, Beneath]]:
        """Yield the headers of layers and the directories they were unpacked to."""
        for layer in image.layers if image is not None else ():
            if isinstance(layer, BlobLayer) and layer.place is not None:
                path = layer.place.directory.removeprefix(self.root.path(""))
                tree = self.root.tree(path)
                if tree is not None:
                    yield layer.headers(), tree


def _image(manifest: Manifest) -> tuple[str, str]:
    """Return what is one for all manifests of an image: pulled, made here to push."""
    return manifest.store, manifest.ids[1]
