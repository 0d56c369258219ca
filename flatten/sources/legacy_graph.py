"""Docker's data root before 1.10: a graph in which every step of a build is an image.

=========  =========================================================================
docker     a layer
=========  =========================================================================
0.1 - 0.6  ``graph/ID/{json,layer/}``; in 0.4 and 0.5 the archive that it came as too,
           ``layer.tar.xz``, compressed in any way; names in ``repositories``
0.7 - 1.9  ``graph/ID/json``; a storage driver has the directory, under the same id;
           names in ``repositories-DRIVER``; from 1.8 on ``tar-data.json.gz``, the
           record of tar-split
=========  =========================================================================

Reference: moby graph/graph.go at v1.9.1, image.go and graph.go at v0.6.7.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import FlattenError, FormatError, quoted
from ..model import Image, Place
from .choice import Entry, Platform, config_platform
from .documents import Files, read_json
from .drivers import DRIVERS
from .folder import Folder
from .graph_store import OLD, Graph
from .root import ID, Root, check_readable
from .survey import StoredContainer, StoredLayer, Survey, joined


def detect(files: Files) -> bool:
    """Say whether the directory has a graph, and images only there."""
    if not isinstance(files, Folder):
        return False
    check_readable(files, "graph")
    return any(files.path.glob("graph/*/json"))


def entries(files: Files) -> Sequence[Entry]:
    """List the images, by driver: those with names first.

    Raises:
        FormatError: The names cannot be read.
    """
    found: list[Entry] = []
    for graph in graphs(files):
        names = graph.names()
        ids = {*names, *graph.ids()}
        ordered = sorted(ids, key=lambda id_: (id_ not in names, id_))
        found += [_Image(graph, id_, tuple(names.get(id_, ()))) for id_ in ordered]
    return found


def containers(files: Files) -> Sequence[Entry]:
    """List the containers, whose names and ids begin with ``container:``.

    Raises:
        FormatError: What is said of one is not what it should be.
    """
    found: list[Entry] = []
    for graph in graphs(files):
        place = graph.driver.upper or graph.driver.place
        for id_ in graph.root.ids("containers"):
            config_path = f"containers/{id_}/config.json"
            is_there = config_path.encode() in graph.root
            if is_there and place.format(id_).encode() in graph.root:
                config, _ = read_json(graph.root, config_path, f"container {id_[:12]}")
                found.append(_Container(graph, id_, _object(config)))
    return found


def survey(files: Files) -> Survey:
    """Return what the root holds besides its images, which are its layers."""
    return joined(_survey(graph) for graph in graphs(files))


def _survey(graph: Graph) -> Survey:
    found, root, driver = Survey(), graph.root, graph.driver
    for id_ in graph.ids():
        try:
            parent = graph.parent(id_) or ""
        except FlattenError as error:
            found.problems.append(str(error))
            continue
        place = Place(driver.name, id_, root.path(driver.place.format(id_)))
        found.layers.append(StoredLayer(place, "", "", parent))
    for id_ in root.ids("containers"):
        path = f"containers/{id_}/config.json"
        if path.encode() in root:
            config = _object(read_json(root, path, f"container {id_[:12]}")[0])
            name = str(config.get("Name") or "").removeprefix("/")
            own = (id_, f"{id_}-init")
            image_id = str(config.get("Image") or "")
            found.containers.append(
                StoredContainer(
                    id_, (name,) if name else (), driver.name, own, image_id
                )
            )
    found.add_directories(root, driver)
    for name in ("graph/_tmp", "graph/:tmp:"):
        for each in root.names(name):
            found.leave(root, f"{name}/{each}", "its making was interrupted")
    return found


def graphs(files: Files) -> list[Graph]:
    """Return the graph as each driver has it."""
    if not isinstance(files, Folder):
        return []
    root = Root(files)
    found = [
        Graph(root, driver, f"repositories-{name}")
        for name, driver in DRIVERS.items()
        if f"repositories-{name}".encode() in root
        or driver.place.partition("/{}")[0].encode() in root
    ]
    return found or [Graph(root, OLD, "repositories")]


def _object(document: object) -> dict[str, Any]:
    return document if isinstance(document, dict) else {}


@dataclass(frozen=True, slots=True)
class _Image:
    """An image of a graph."""

    graph: Graph
    id: str
    names: tuple[str, ...]

    @property
    def ids(self) -> tuple[str, ...]:
        """Return the image's id alone."""
        return (self.id,)

    @property
    def store(self) -> str:
        """Return the driver's name."""
        return self.graph.driver.name

    def platform(self) -> Platform | None:
        """Return the platform that the json is of."""
        return config_platform(self.graph.step(self.id))

    def load(self) -> Image:
        """Find the layers.

        Raises:
            FormatError: One is not there.
        """
        graph, chain = self.graph, self.graph.chain(self.id)
        stack = graph.stack(chain)
        tags = tuple(name for name in self.names if "@" not in name)
        return Image(
            graph.root.name,
            self.id,
            tags,
            _config(graph, chain),
            tuple(graph.layers(stack, chain)),
            warnings=stack.warnings,
            parent=graph.parent(self.id),
        )


@dataclass(frozen=True, slots=True)
class _Container:
    """A container: an image, and what it has changed."""

    graph: Graph
    id: str
    config: dict[str, Any]

    @property
    def ids(self) -> tuple[str, ...]:
        """Return its id."""
        return (f"container:{self.id}",)

    @property
    def names(self) -> tuple[str, ...]:
        """Return its name, if it has one: since 0.7."""
        name = str(self.config.get("Name") or "").removeprefix("/")
        return (f"container:{name}",) if name else ()

    @property
    def store(self) -> str:
        """Return the driver's name."""
        return self.graph.driver.name

    def platform(self) -> Platform | None:
        """Return None: it ran here."""
        return None

    def load(self) -> Image:
        """Find the layers: the image's, docker's own, the container's.

        Raises:
            FormatError: One is not there.
        """
        graph, driver = self.graph, self.graph.driver
        image_id = str(self.config.get("Image") or "")
        where = f"{graph.root.name}, container {self.id[:12]}"
        if image_id and not ID.fullmatch(image_id):
            raise FormatError(f"an image of no id: {quoted(image_id)}", where=where)
        chain = graph.chain(image_id) if image_id else []
        stack = graph.stack(chain)
        layers = graph.layers(stack, chain)
        init, below = None, []
        init_path = driver.place.format(f"{self.id}-init")
        if not driver.upper and init_path.encode() in graph.root:
            init, below = len(layers), [f"{self.id}-init"]
            layers.append(stack.own(f"{where}, init layer", below[0], []))
        layers.append(stack.own(f"{where}, its own layer", self.id, below))
        return Image(
            graph.root.name,
            self.id,
            self.names,
            _config(graph, chain),
            tuple(layers),
            init,
            stack.warnings,
        )


def _config(graph: Graph, chain: Sequence[str]) -> dict[str, Any]:
    """Return the config that an image would have today: the last json, and a history.

    Every step made a layer, be it empty.
    """
    if not chain:
        return {}
    steps = [graph.step(id_) for id_ in chain]
    return steps[-1] | {"history": [_history(step) for step in steps]}


def _history(step: dict[str, Any]) -> dict[str, Any]:
    """Return a step as image configs tell of it."""
    command = _object(step.get("container_config")).get("Cmd")
    words = command if isinstance(command, list) else []
    found = {
        "created": step.get("created"),
        "created_by": " ".join(map(str, words)),
        "author": step.get("author"),
        "comment": step.get("comment"),
    }
    return {key: value for key, value in found.items() if value}
