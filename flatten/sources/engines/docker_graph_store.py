"""The graph of docker before 1.10 and one storage driver: steps, names, layers.

A layer is read from the directory of the step, which is what a container sees. The
archive (docker 0.4 and 0.5) is read only if there is no directory. The old checksum of
an image is the SHA-256 of its json, a newline and the archive.

The parent of an image is in the file ``parent``, or else in its json as ``parent``, or
as ``parent_id`` (images pulled by 1.8.3 and later, whose ids are digests).

Reference: moby graph/graph.go at v1.9.1, image.go and graph.go at v0.6.7.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

from ...errors import FormatError, quoted
from ...image.assembly import AssembledLayer, Assembly
from ...image.blob import BlobLayer
from ...image.image import Layer
from ...image.union import AUFS
from ..documents import MAX_DOCUMENT, read_json
from ..parse import CONFIG, REPOSITORIES
from .drivers import Driver, Stack, Stored
from .parents import with_parents
from .root import ID, Root

OLD: Final = Driver("graph", "graph/{}/layer", AUFS, upper="containers/{}/rw")
"""Before storage drivers: AUFS branches in the graph."""


@dataclass(slots=True)
class Graph:
    """The graph with the directories of one driver.

    Attributes:
        root: The data root.
        driver: The driver.
        names_file: Path of the list of names.
    """

    root: Root
    driver: Driver
    names_file: str
    _steps: dict[str, dict[str, Any]] = field(default_factory=dict, repr=False)

    def names(self) -> dict[str, list[str]]:
        """Return the names by image id, names with tags first.

        Raises:
            FormatError: The list of names is malformed.
        """
        found: dict[str, list[str]] = {}
        if self.names_file.encode() not in self.root:
            return found
        document, _ = read_json(
            self.root, self.names_file, "list of names", shape=REPOSITORIES
        )
        where = self.root.path(self.names_file)
        names = document.get("Repositories") if isinstance(document, dict) else None
        for name, tags in (names if isinstance(names, dict) else {}).items():
            if not isinstance(tags, dict):
                raise FormatError(
                    f"{quoted(name)}: the tags are not an object", where=where
                )
            for tag, image_id in tags.items():
                if not isinstance(image_id, str) or not ID.fullmatch(image_id):
                    what = f"{quoted(name)}: the image id of a tag is not an id"
                    raise FormatError(what, where=where)
                mark = "@" if tag.startswith("sha256:") else ":"
                found.setdefault(image_id, []).append(f"{name}{mark}{tag}")
        return {
            image_id: sorted(names, key=lambda name: "@" in name)
            for image_id, names in found.items()
        }

    def ids(self) -> list[str]:
        """List the images whose directory the driver has."""
        return [
            id_
            for id_ in self.root.ids("graph")
            if self.driver.tree.format(id_).encode() in self.root
        ]

    def step(self, id_: str) -> dict[str, Any]:
        """Return an image's json.

        Raises:
            FormatError: The json is missing, or belongs to another image.
        """
        if id_ not in self._steps:
            path = f"graph/{id_}/json"
            what = f"json of {id_[:12]}"
            document, _ = read_json(self.root, path, what, shape=CONFIG)
            where = self.root.path(path)
            if not isinstance(document, dict):
                raise FormatError("not a JSON object", where=where)
            if document.get("id", id_) != id_:
                other = quoted(str(document["id"]))
                raise FormatError(f"this is the json of image {other}", where=where)
            self._steps[id_] = document
        return self._steps[id_]

    def parent(self, id_: str) -> str | None:
        """Return an image's parent, or None if it has none.

        Raises:
            FormatError: The parent is not an id.
        """
        document = self.step(id_)
        parent = self.root.text(f"graph/{id_}/parent") or document.get("parent")
        parent = parent or document.get("parent_id") or ""
        if not isinstance(parent, str):
            parent = repr(parent)
        parent = parent.removeprefix("sha256:")
        if parent and not ID.fullmatch(parent):
            where = self.root.path(f"graph/{id_}")
            what = f"parent: {quoted(parent)} is not an id"
            raise FormatError(what, where=where)
        return parent or None

    def chain(self, id_: str) -> list[str]:
        """Return the ids from the base to an image.

        Raises:
            FormatError: An image is missing, or the chain is circular.
        """

        def parent(current: str) -> str | None:
            if f"graph/{current}".encode() not in self.root:
                where = self.root.path(f"graph/{current}")
                raise FormatError(f"missing: an ancestor of {id_[:12]}", where=where)
            return self.parent(current)

        return with_parents(id_, parent, self.root.path(f"graph/{id_}"))

    def stack(self, chain: Sequence[str]) -> Stack:
        """Return the layers of a chain for reading."""
        stored: list[Stored] = []
        records = False
        for position, id_ in enumerate(chain, 1):
            what = f"layer {position} of {len(chain)} ({id_[:12]})"
            record = f"graph/{id_}/tar-data.json.gz"
            size = self.root.text(f"graph/{id_}/layersize") or ""
            here = record.encode() in self.root
            records = records or here  # docker wrote records from this step on
            stored.append(
                Stored(
                    f"{self.root.name}, {what}",
                    id_,
                    record,
                    size=int(size) if re.fullmatch("[0-9]{1,18}", size) else None,
                    empty=records and not here and size == "0",
                )
            )
        stack = Stack(self.root, self.driver, stored)
        self._compare_chains(chain, stack.warnings)
        return stack

    def layers(self, stack: Stack, chain: Sequence[str]) -> list[Layer]:
        """Return the layers of a chain: directories, with the checksums of archives."""
        layers: list[Layer] = list(stack.layers())
        for position, id_ in enumerate(chain if len(layers) == len(chain) else ()):
            archive = f"graph/{id_}/layer.tar.xz"
            layer = layers[position]
            if archive.encode() not in self.root or self.driver is not OLD:
                continue
            if self.root.tree(self.driver.tree.format(id_)) is None:
                opener = partial(self.root.open, archive, "layer.tar.xz")
                layers[position] = BlobLayer(
                    layer.name, None, None, opener, self.root.pool
                )
            elif isinstance(layer, AssembledLayer):
                layers[position] = replace(
                    layer,
                    digest=self._checksum(id_),
                    stored=partial(self._summed, id_, archive),
                )
        return layers

    def _checksum(self, id_: str) -> str | None:
        """Return the recorded checksum of an image, or None if there is none."""
        if b"graph/checksums" not in self.root:
            return None
        sums, _ = read_json(self.root, "graph/checksums", "checksums")
        found = sums.get(id_) if isinstance(sums, dict) else None
        return found if isinstance(found, str) else None

    def _summed(self, id_: str, archive: str) -> Assembly:
        """Return the bytes that the old checksum covers."""
        where = f"{self.root.name}, json and layer.tar.xz of {id_[:12]}"
        summed = Assembly(self.root.pool, where)
        summed.add_tree(self.root.top)
        data = self.root.read(f"graph/{id_}/json", "json", MAX_DOCUMENT)
        summed.add_bytes(data + b"\n")
        size = self.root.top.status(archive.encode()).st_size
        summed.add_file(archive.encode(), size)
        summed.finish()
        self.root.resources.callback(summed.close)
        return summed

    def _compare_chains(self, chain: Sequence[str], warnings: list[str]) -> None:
        """Warn if AUFS's list of ancestors differs from the graph."""
        path = f"aufs/layers/{chain[-1]}" if chain else ""
        if self.driver.name != "aufs" or path.encode() not in self.root:
            return
        listed = self.root.read(path, path, 1 << 20).decode("ascii", "replace").split()
        if listed != [*chain[:-1]][::-1]:
            warnings.append(
                f"{self.root.path(path)} has other ancestors than the graph"
            )
