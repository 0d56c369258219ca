"""Docker's data root before 1.10: a graph in which each build step is an image.

=========  =========================================================================
docker     files of a layer
=========  =========================================================================
0.1 - 0.6  ``graph/ID/{json,layer/}``; in 0.4 and 0.5 also ``layer.tar.xz``, the
           archive, with any compression; names in ``repositories``
0.7 - 1.9  ``graph/ID/json``; the directory is a storage driver's, with the same id;
           names in ``repositories-DRIVER``; since 1.8 ``tar-data.json.gz``, the
           tar-split record
=========  =========================================================================

Reference: moby graph/graph.go at v1.9.1, image.go and graph.go at v0.6.7.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from ...errors import FlattenError, FormatError, quoted
from ...image.image import Image, Place
from ..choice import Entry, Platform, config_platform, container_entry
from ..documents import Files, read_json
from ..folder import Folder
from ..parse import Fields
from .docker_graph_store import OLD, Graph
from .drivers import DRIVERS
from .root import ID, Root, check_readable
from .stores import all_containers, all_images, image_entries, whole_survey
from .survey import StoredContainer, StoredLayer, Survey

_RECORD: Final = Fields("Image", "Name")


def detect(files: Files) -> bool:
    """Return True if the directory has a graph."""
    if not isinstance(files, Folder):
        return False
    check_readable(files, "graph")
    return any(files.path.glob("graph/*/json"))


def entries(files: Files) -> Sequence[Entry]:
    """List the images, by driver: those with names first.

    Raises:
        FormatError: The list of names is malformed.
    """
    return all_images(stores(files))


def containers(files: Files) -> Sequence[Entry]:
    """List the containers, whose names and ids begin with ``container:``.

    Raises:
        FormatError: A container's record is malformed.
    """
    return all_containers(stores(files))


def survey(files: Files) -> Survey:
    """Return the inventory of the root besides its images, which are its layers."""
    return whole_survey(stores(files))


def stores(files: Files) -> "list[GraphRoot]":
    """Return a store for each driver."""
    if not isinstance(files, Folder):
        return []
    root = Root(files)
    found = [
        Graph(root, driver, f"repositories-{name}")
        for name, driver in DRIVERS.items()
        if f"repositories-{name}".encode() in root
        or driver.tree.partition("/{}")[0].encode() in root
    ]
    return [GraphRoot(each) for each in found or [Graph(root, OLD, "repositories")]]


@dataclass(frozen=True, slots=True)
class GraphRoot:
    """The images and containers of one driver."""

    graph: Graph

    def images(self) -> Iterator[Entry]:
        """Yield the images, those with names first; names have tags, or digests.

        Raises:
            FormatError: The list of names is malformed.
        """
        names = self.graph.names()
        ids = {*names, *self.graph.ids()}
        driver = self.graph.driver.name
        yield from image_entries(names, ids, driver, self._load_image, self._platform)

    def containers(self) -> Iterator[Entry]:
        """Yield the containers, which have names since docker 0.7.

        Raises:
            FormatError: A container's record is malformed.
        """
        driver = self.graph.driver
        for id_ in self._container_ids():
            if (driver.upper or driver.tree).format(id_).encode() in self.graph.root:
                record = self._record(id_)
                image_id = str(record.get("Image") or "")
                load = partial(self._load_container, id_, image_id)
                yield container_entry(id_, _names(record), driver.name, load)

    def survey(self) -> Survey:
        """Return the inventory besides the images, which are the layers."""
        found, graph = Survey(), self.graph
        root, driver = graph.root, graph.driver
        for id_ in graph.ids():
            try:
                parent = graph.parent(id_) or ""
            except FlattenError as error:
                found.problems.append(str(error))
                continue
            place = Place(driver.name, id_, root.path(driver.tree.format(id_)))
            found.layers.append(StoredLayer(place, "", "", parent))
        for id_ in self._container_ids():
            record = self._record(id_)
            own, image_id = (id_, f"{id_}-init"), str(record.get("Image") or "")
            found.containers.append(
                StoredContainer(id_, _names(record), driver.name, own, image_id)
            )
        found.add_directories(root, driver)
        for name in ("graph/_tmp", "graph/:tmp:"):
            for each in root.names(name):
                found.leave(root, f"{name}/{each}", "its creation was interrupted")
        return found

    def _container_ids(self) -> list[str]:
        root = self.graph.root
        return [id_ for id_ in root.ids("containers") if _path(id_).encode() in root]

    def _record(self, id_: str) -> dict[str, Any]:
        what = f"container {id_[:12]}"
        record, _ = read_json(self.graph.root, _path(id_), what, shape=_RECORD)
        return _object(record)

    def _platform(self, id_: str) -> Platform | None:
        return config_platform(self.graph.step(id_))

    def _load_image(self, id_: str, names: Sequence[str]) -> Image:
        """Find the layers.

        Raises:
            FormatError: A layer is missing.
        """
        graph = self.graph
        chain = graph.chain(id_)
        stack = graph.stack(chain)
        tags = tuple(name for name in names if "@" not in name)
        layers = tuple(graph.layers(stack, chain))
        return Image(
            graph.root.name,
            id_,
            tags,
            _config(graph, chain),
            layers,
            warnings=stack.warnings,
            parent=graph.parent(id_),
        )

    def _load_container(self, id_: str, image_id: str, names: tuple[str, ...]) -> Image:
        """Find the layers: the image's, docker's init layer, the container's own.

        Raises:
            FormatError: A layer is missing.
        """
        graph = self.graph
        driver, where = graph.driver, f"{graph.root.name}, container {id_[:12]}"
        if image_id and not ID.fullmatch(image_id):
            what = f"Image: {quoted(image_id)} is not an id"
            raise FormatError(what, where=where)
        chain = graph.chain(image_id) if image_id else []
        stack = graph.stack(chain)
        layers = graph.layers(stack, chain)
        init, below = None, []
        init_path = driver.tree.format(f"{id_}-init")
        if not driver.upper and init_path.encode() in graph.root:
            init, below = len(layers), [f"{id_}-init"]
            layers.append(stack.own(f"{where}, init layer", below[0], []))
        layers.append(stack.own(f"{where}, its own layer", id_, below))
        return Image(
            graph.root.name,
            id_,
            names,
            _config(graph, chain),
            tuple(layers),
            init,
            stack.warnings,
        )


def _path(id_: str) -> str:
    return f"containers/{id_}/config.json"


def _object(document: object) -> dict[str, Any]:
    return document if isinstance(document, dict) else {}


def _names(record: dict[str, Any]) -> tuple[str, ...]:
    """Return a container's name, if it has one."""
    name = str(record.get("Name") or "").removeprefix("/")
    return (name,) if name else ()


def _config(graph: Graph, chain: Sequence[str]) -> dict[str, Any]:
    """Return a config in today's format: the json of the last step, and a history.

    Every step made a layer, which may be empty.
    """
    if not chain:
        return {}
    steps = [graph.step(id_) for id_ in chain]
    return steps[-1] | {"history": [_history(step) for step in steps]}


def _history(step: dict[str, Any]) -> dict[str, Any]:
    """Return a step as an entry of a config's history."""
    command = _object(step.get("container_config")).get("Cmd")
    words = command if isinstance(command, list) else []
    found = {
        "created": step.get("created"),
        "created_by": " ".join(map(str, words)),
        "author": step.get("author"),
        "comment": step.get("comment"),
    }
    return {key: value for key, value in found.items() if value}
