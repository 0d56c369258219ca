"""The documents of one storage driver of docker: names, configs, layers, containers.

================================================  ==================================
``image/DRIVER/repositories.json``                names, each with an image id
``image/DRIVER/imagedb/content/sha256/ID``        an image's config
``image/DRIVER/layerdb/sha256/CHAIN/``            a layer: ``diff``, ``parent``,
                                                  ``cache-id``, ``tar-split.json.gz``
``image/DRIVER/layerdb/mounts/CONTAINER/``        ``mount-id``, ``init-id``,
                                                  ``parent``
``containers/CONTAINER/config.v2.json``           a container's name and image
================================================  ==================================

A chain id identifies a layer with all layers below it. The base layer's is its diff_id;
another layer's is the SHA-256 of its parent's chain id, a space and its own diff_id.

Reference: moby reference/store.go, image/fs.go, layer/filestore.go, layer/layer.go and
container/container.go at v20.10.24.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import FormatError, IntegrityError, quoted
from ...image.chain_ids import chain_ids
from ..documents import DIGEST, diff_ids, read_json
from ..parse import CONFIG, REPOSITORIES
from .docker_container import read_record
from .drivers import Driver, Stack, Stored
from .parents import with_parents
from .root import BUILD_ID, ID, TREE_ID, Root


@dataclass(frozen=True, slots=True)
class DockerLayer:
    """A layer in ``layerdb``.

    Attributes:
        chain_id: Hex digest that identifies it with all layers below it.
        diff_id: ``sha256:<hex>`` of its tar.
        parent: The chain id of the layer below; None for a base layer.
        cache_id: Name of its directory.
        size: Size in bytes according to the driver; None if it is not recorded.
    """

    chain_id: str
    diff_id: str
    parent: str | None
    cache_id: str
    size: int | None


@dataclass(frozen=True, slots=True)
class DockerContainer:
    """A container.

    Attributes:
        id: Hex id of the container.
        name: Its name, without docker's leading slash; "" if it is not recorded.
        image_id: Hex id of its image; "" if it is not recorded.
        mount_id: Name of its directory.
        init_id: Name of the directory of docker's init layer; "" if there is none.
        parent: Chain id of the image's top layer; None if the image has no layers.
    """

    id: str
    name: str
    image_id: str
    mount_id: str
    init_id: str
    parent: str | None


@dataclass(frozen=True, slots=True)
class DockerStore:
    """The documents of one storage driver.

    Attributes:
        root: The data root.
        driver: The driver.
    """

    root: Root
    driver: Driver

    @property
    def path(self) -> str:
        """The directory of the documents, in the root."""
        return f"image/{self.driver.name}"

    def names(self) -> dict[str, list[str]]:
        """Return the names by image id, names with tags first.

        Raises:
            FormatError: ``repositories.json`` is malformed.
        """
        path = f"{self.path}/repositories.json"
        found: dict[str, list[str]] = {}
        if path.encode() not in self.root:
            return found
        document, _ = read_json(self.root, path, "list of names", shape=REPOSITORIES)
        names = document.get("Repositories") if isinstance(document, dict) else None
        where = self.root.path(path)
        if not isinstance(names, dict):
            raise FormatError('"Repositories" is not an object', where=where)
        for references in names.values():
            if not isinstance(references, dict):
                raise FormatError("a repository is not an object", where=where)
            for name, image_id in references.items():
                if not isinstance(image_id, str) or not DIGEST.fullmatch(image_id):
                    raise FormatError(
                        f"{quoted(name)}: the image id is not a sha256 digest",
                        where=where,
                    )
                found.setdefault(image_id.removeprefix("sha256:"), []).append(name)
        return {
            image_id: sorted(names, key=lambda name: "@" in name)
            for image_id, names in found.items()
        }

    def ids(self) -> list[str]:
        """List the ids of the images."""
        return self.root.ids(f"{self.path}/imagedb/content/sha256")

    def config(self, image_id: str) -> dict[str, Any]:
        """Return an image's config.

        Raises:
            FormatError: The config is missing, or is not a JSON object.
            IntegrityError: Its digest is not the id.
        """
        path = f"{self.path}/imagedb/content/sha256/{image_id}"
        what = f"config of {image_id[:12]}"
        document, data = read_json(self.root, path, what, shape=CONFIG)
        where = self.root.path(path)
        found = hashlib.sha256(data).hexdigest()
        if found != image_id:
            raise IntegrityError(f"{where}: its digest is sha256:{found}")
        if not isinstance(document, dict):
            raise FormatError("not an object", where=where)
        return document

    def parent(self, image_id: str) -> str | None:
        """Return the id of the image that an image was built on with the old builder.

        Raises:
            FormatError: The file does not contain an id.
        """
        path = f"{self.path}/imagedb/metadata/sha256/{image_id}/parent"
        parent = self.root.text(path)
        if not parent:
            return None
        if not DIGEST.fullmatch(parent):
            raise FormatError(
                f"expected an id, found {quoted(parent)}",
                where=self.root.path(path),
            )
        return parent.removeprefix("sha256:")

    def chains(self) -> list[str]:
        """List the chain ids of all layers, without those being removed."""
        return self.root.ids(f"{self.path}/layerdb/sha256")

    def layer(self, chain_id: str) -> DockerLayer:
        """Return a layer by its chain id.

        Raises:
            FormatError: The layer is missing or malformed.
        """
        path = f"{self.path}/layerdb/sha256/{chain_id}"
        where = self.root.path(path)
        if path.encode() not in self.root:
            raise FormatError(
                "missing: the layer was removed, or belongs to another driver",
                where=where,
            )
        diff = self._text(path, "diff", DIGEST)
        parent = self.root.text(f"{path}/parent")
        if parent is not None and not DIGEST.fullmatch(parent):
            raise FormatError(f"parent: {quoted(parent)} is not an id", where=where)
        size = self.root.text(f"{path}/size") or ""
        return DockerLayer(
            chain_id,
            diff,
            None if parent is None else parent.removeprefix("sha256:"),
            self._text(path, "cache-id", TREE_ID),
            int(size) if re.fullmatch(r"[0-9]{1,18}", size) else None,
        )

    def record(self, chain_id: str) -> str:
        """Return the path of a layer's tar-split record, which may be missing."""
        return f"{self.path}/layerdb/sha256/{chain_id}/tar-split.json.gz"

    def below(self, chain_id: str | None) -> list[DockerLayer]:
        """Return a layer with all layers below it, oldest first.

        Raises:
            FormatError: A layer is missing, or the chain is circular.
        """
        top = None if chain_id is None else self.layer(chain_id)
        where = self.root.path(f"{self.path}/layerdb/sha256/{chain_id}")
        return with_parents(
            top, lambda each: self.layer(each.parent) if each.parent else None, where
        )

    def stack(self, layers: Sequence[DockerLayer]) -> Stack:
        """Return layers, oldest first, for reading."""
        stored = []
        for position, layer in enumerate(layers, 1):
            what = f"layer {position} of {len(layers)} ({layer.diff_id})"
            record = self.record(layer.chain_id)
            stored.append(
                Stored(
                    f"{self.root.name}, {what}",
                    layer.cache_id,
                    record,
                    layer.diff_id,
                    layer.size,
                )
            )
        return Stack(self.root, self.driver, stored)

    def image_layers(self, config: dict[str, Any], image_id: str) -> list[DockerLayer]:
        """Return the layers that a config lists, oldest first.

        Raises:
            FormatError: A layer is missing, or has another diff_id.
        """
        rootfs = config.get("rootfs")
        listed = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
        count = len(listed) if isinstance(listed, list) else 0
        where = f"{self.root.name}, config of {image_id[:12]}"
        promised = [name for name in diff_ids(config, count, where) if name]
        layers = []
        for chain_id, diff_id in chain_ids(promised):
            layer = self.layer(chain_id)
            if layer.diff_id != diff_id:
                where = self.root.path(f"{self.path}/layerdb/sha256/{chain_id}")
                raise FormatError(
                    f"diff: {layer.diff_id}, but the image has {diff_id}", where=where
                )
            layers.append(layer)
        return layers

    def container_ids(self) -> list[str]:
        """List the ids of the containers whose own layer this driver keeps."""
        return self.root.ids(self._mounts)

    def container(self, id_: str) -> DockerContainer:
        """Return a container.

        Raises:
            FormatError: The container's record is malformed.
        """
        path = f"{self._mounts}/{id_}"
        init = self.root.text(f"{path}/init-id") or ""
        parent = self.root.text(f"{path}/parent") or ""
        if (init and not TREE_ID.fullmatch(init)) or (
            parent and not DIGEST.fullmatch(parent)
        ):
            raise FormatError(
                "init-id or parent is not an id", where=self.root.path(path)
            )
        record = read_record(self.root, id_)
        image_id = record.image.removeprefix("sha256:")
        return DockerContainer(
            id_,
            record.name,
            image_id if ID.fullmatch(image_id) else "",
            self._text(path, "mount-id", TREE_ID),
            init,
            parent.removeprefix("sha256:") or None,
        )

    def build_mounts(self) -> set[str]:
        """Return the names of the directories that running builds have mounted."""
        names = self.root.names(self._mounts)
        builds = [name for name in names if BUILD_ID.fullmatch(name)]
        return {
            self._text(f"{self._mounts}/{name}", "mount-id", TREE_ID) for name in builds
        }

    @property
    def _mounts(self) -> str:
        return f"{self.path}/layerdb/mounts"

    def _text(self, path: str, name: str, pattern: re.Pattern[str]) -> str:
        """Return the id in a file.

        Raises:
            FormatError: The file is missing, or contains something else.
        """
        text = self.root.text(f"{path}/{name}")
        if text is None or not pattern.fullmatch(text):
            found = (
                "but the file is missing" if text is None else f"found {quoted(text)}"
            )
            where = self.root.path(f"{path}/{name}")
            raise FormatError(f"expected an id, {found}", where=where)
        return text
