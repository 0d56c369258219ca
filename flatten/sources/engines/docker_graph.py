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
from functools import partial
from typing import Any

from ...errors import FlattenError, FormatError, quoted
from ...image.image import Image, Place
from ..choice import Entry, config_platform, container_entry
from ..documents import Files, read_json
from ..folder import Folder
from .docker_graph_store import OLD, Graph
from .drivers import DRIVERS
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
        found += [_image(graph, id_, names.get(id_, ())) for id_ in ordered]
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
                found.append(_container(graph, id_, _object(config)))
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
            own = (id_, f"{id_}-init")
            image_id = str(config.get("Image") or "")
            found.containers.append(
                StoredContainer(id_, _names(config), driver.name, own, image_id)
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


def _image(graph: Graph, id_: str, names: Sequence[str]) -> Entry:
    """Return what chooses an image; names have tags, or digests."""
    return Entry(
        (id_,),
        tuple(names),
        load=lambda: _load_image(graph, id_, names),
        platform=lambda: config_platform(graph.step(id_)),
        store=graph.driver.name,
    )


def _load_image(graph: Graph, id_: str, names: Sequence[str]) -> Image:
    """Find the layers.

    Raises:
        FormatError: One is not there.
    """
    chain = graph.chain(id_)
    stack = graph.stack(chain)
    tags = tuple(name for name in names if "@" not in name)
    layers = tuple(graph.layers(stack, chain))
    return Image(
        graph.root.name, id_, tags, _config(graph, chain), layers,
        warnings=stack.warnings, parent=graph.parent(id_),
    )  # fmt: skip


def _container(graph: Graph, id_: str, config: dict[str, Any]) -> Entry:
    """Return what chooses a container; names are of 0.7 and on."""
    load = partial(_load_container, graph, id_, str(config.get("Image") or ""))
    return container_entry(id_, _names(config), graph.driver.name, load)


def _names(config: dict[str, Any]) -> tuple[str, ...]:
    """Return what a container is called, if it is."""
    name = str(config.get("Name") or "").removeprefix("/")
    return (name,) if name else ()


def _load_container(
    graph: Graph, id_: str, image_id: str, names: tuple[str, ...]
) -> Image:
    """Find the layers: the image's, docker's own, the container's.

    Raises:
        FormatError: One is not there.
    """
    driver, where = graph.driver, f"{graph.root.name}, container {id_[:12]}"
    if image_id and not ID.fullmatch(image_id):
        raise FormatError(f"an image of no id: {quoted(image_id)}", where=where)
    chain = graph.chain(image_id) if image_id else []
    stack = graph.stack(chain)
    layers = graph.layers(stack, chain)
    init, below = None, []
    init_path = driver.place.format(f"{id_}-init")
    if not driver.upper and init_path.encode() in graph.root:
        init, below = len(layers), [f"{id_}-init"]
        layers.append(stack.own(f"{where}, init layer", below[0], []))
    layers.append(stack.own(f"{where}, its own layer", id_, below))
    return Image(
        graph.root.name, id_, names, _config(graph, chain), tuple(layers),
        init, stack.warnings,
    )  # fmt: skip


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
