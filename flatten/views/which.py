"""Which layers a path comes from: the reverse of listing an image.

Only headers are read, of each layer once, however many images share it. Of those the
few rows are kept that can bear on the path: it, the directories it is in, and the same
by other ways (``bin/x``, where ``bin`` leads to ``usr/bin``). With them each image's
layers are applied, by the rules that flatten it.
"""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ..errors import FlattenError, UsageError, quoted
from ..host.limits import Limits
from ..image.blob import BlobLayer
from ..image.chain_ids import layer_chains
from ..image.image import Image, Layer
from ..image.verify import checking
from ..sources.open import Opened
from ..tar.layer import LayerIndex, Removal, read_layer
from ..tar.members import FILE, LINK, SYMLINK, Members
from ..tar.wire import normalise
from ..tree.tree import Tree
from .describe import describe
from .identity import bytes_key
from .reading import has_digest

MAX_WAYS: Final = 1000
"""Ways to one path, through symlinks; more are not followed."""

_UNKNOWN: Final = -1


@dataclass(slots=True)
class _Rows:
    """What of a layer may bear on a path, in archive order.

    Attributes:
        leads: The symlinks, by what they lead to.
        links: What each of them leads to.
    """

    members: Members = field(default_factory=Members)
    paths: list[bytes] = field(default_factory=list)
    removals: list[Removal] = field(default_factory=list)
    leads: dict[bytes, list[bytes]] = field(default_factory=dict)
    links: dict[bytes, bytes] = field(default_factory=dict)

    def add(self, path: bytes, members: Members, member: int) -> None:
        """Add a row; a hard link is a file whose size may be unknown."""
        own, kind = self.members, members.kinds[member]
        number = len(own)
        own.kinds.append(FILE if kind == LINK else kind)
        own.owners.append(own.owner(members.owner_table[members.owners[member]]))
        own.sizes.append(_UNKNOWN if kind == LINK else members.sizes[member])
        own.data.append(members.data[member])
        own.mtimes.append(members.mtimes[member])
        if kind == SYMLINK:
            own.targets[number] = members.targets[member]
        self.paths.append(path)


@dataclass(slots=True)
class _Event:
    """What a layer does to the path, on what is below it."""

    row: dict[str, Any]
    images: list[dict[str, Any]]


def which(
    opened: Opened, path: str, limits: Limits, *, verify: bool = False
) -> dict[str, Any]:
    """Return which layers add, change, delete or hide a path, and who carries them.

    Keys: ``path``; ``layers``, the oldest of each image first: ``event``,
    ``chain_id``, ``diff_id``, ``cache_id``, ``directory``, ``entry`` (the path in the
    layer, None where something else removes it), ``type``, ``implied`` (a
    directory that the layer does not list, but needs), ``size``, ``images``:
    ``id``, ``names``, ``position`` (of the layer, from 1), ``visible`` (the image
    shows what this layer has there). ``problems``: what kept images from being read.
    ``verified``: all layers of the images that were read were checked.

    Args:
        opened: The source.
        path: Relative to the root of the images.
        limits: Limits on the resources that a layer may take.
        verify: Check the layers against the digests that the images record.

    Raises:
        FlattenError: No layer has the path, or no image can be read.
        IntegrityError: A layer that is checked does not have its digest.
    """
    try:
        wanted = normalise(path.encode("utf-8", "surrogateescape"))
    except ValueError as error:
        raise UsageError(f"{quoted(path)} is {error}") from error
    if not wanted:
        raise UsageError("the root is in every layer")
    images, problems = opened.load()
    events: dict[Hashable, _Event] = {}
    read: list[Image] = []
    with checking(_claims(images) if verify else []) as check:
        rows = _read_all(images, wanted, limits)
        check.start_rest()
        for image in images:
            try:
                _trace(image, wanted, rows, events)
                read.append(image)
            except FlattenError as error:
                problems.append(error)
        check.finish()
    if not events:
        raise _nothing(opened.where, wanted, read, problems)
    digests = all(has_digest(layer) for image in read for layer in image.layers)
    return {
        "path": path,
        "verified": verify and digests,
        "layers": [event.row | {"images": event.images} for event in events.values()],
        "problems": [str(problem) for problem in problems],
    }


def _nothing(
    where: str, wanted: bytes, read: list[Image], problems: list[FlattenError]
) -> FlattenError:
    """Return the error for a path of which nothing was found."""
    if read:
        unread = f"; {len(problems):,} images could not be read" if problems else ""
        return FlattenError(f"{where}: no layer has {quoted(wanted)}{unread}")
    if not problems:
        return FlattenError(f"{where}: there are no images")
    error = FlattenError(f"{where}: no image could be read: {problems[0]}")
    error.exit_code = problems[0].exit_code
    return error


def _claims(images: Iterable[Image]) -> list[Layer]:
    """Return a layer for each pair of bytes and digests that they should have."""
    claims = {
        (key, layer.diff_id, layer.digest): layer
        for image in images
        for layer, key in _keyed(image)
    }
    return list(claims.values())


# --- reading


def _read_all(
    images: Iterable[Image], wanted: bytes, limits: Limits
) -> dict[Hashable, _Rows | FlattenError]:
    """Read each layer once, and again if ways are found that more is needed for."""
    layers = {key: layer for image in images for layer, key in _keyed(image)}
    parts = frozenset(wanted.split(b"/"))
    no_more: frozenset[bytes] = frozenset()
    rows = _read_each(layers, wanted, parts, no_more, limits)
    needed = _prefixes(
        _ways(wanted, [r for r in rows.values() if isinstance(r, _Rows)])
    )
    if all(_bears(path, parts, no_more) for path in needed):
        return rows
    return _read_each(layers, wanted, parts, needed, limits)


def _read_each(
    layers: dict[Hashable, Layer],
    wanted: bytes,
    parts: frozenset[bytes],
    needed: frozenset[bytes],
    limits: Limits,
) -> dict[Hashable, _Rows | FlattenError]:
    """Return what is kept of each layer, or the reason why it cannot be read."""
    found: dict[Hashable, _Rows | FlattenError] = {}
    for key, layer in layers.items():
        try:
            found[key] = _read(layer, wanted, parts, needed, limits)
        except FlattenError as error:
            found[key] = error
    return found


def _keyed(image: Image) -> list[tuple[Layer, Hashable]]:
    """Return the layers of an image, each with a key of its bytes in this source.

    Blobs of one source that are named by a digest are one file if the digest is the
    same, right or wrong; a diff_id is only what some config says.
    """
    return [
        (
            layer,
            layer.digest
            if isinstance(layer, BlobLayer) and layer.digest is not None
            else bytes_key(layer, chain_id),
        )
        for layer, chain_id in zip(
            image.layers, layer_chains(image.layers), strict=True
        )
    ]


def _bears(path: bytes, parts: frozenset[bytes], needed: frozenset[bytes]) -> bool:
    """Say whether a path is kept: if it is near the root, or is called like a part."""
    name = path[path.rfind(b"/") + 1 :]
    return name in parts or path.count(b"/") < 2 or path in needed


def _read(
    layer: Layer,
    wanted: bytes,
    parts: frozenset[bytes],
    needed: frozenset[bytes],
    limits: Limits,
) -> _Rows:
    """Return what is kept of a layer."""
    members, rows = Members(limit=limits.members), _Rows()
    index = read_layer(layer.headers(), layer.name, 0, members)
    rows.removals = index.removals
    numbers: dict[bytes, int] = {}
    implied = False
    for member, path in enumerate(index.paths):
        kind = members.kinds[member]
        if kind == SYMLINK:
            target = _target(path, members.targets[member])
            rows.links[path] = target
            rows.leads.setdefault(target, []).append(path)
        if _bears(path, parts, needed):
            numbers[path] = member
            named = numbers.get(members.targets[member]) if kind == LINK else None
            rows.add(path, members, member if named is None else named)
        elif not implied and path.startswith(wanted + b"/"):
            rows.add(path, members, member)  # one is enough to imply it
            implied = True
    return rows


def _target(path: bytes, target: bytes) -> bytes:
    """Return where a symlink leads, as far as its text says it."""
    trail = [] if target.startswith(b"/") else path.split(b"/")[:-1]
    for part in target.split(b"/"):
        if part == b"..":
            del trail[-1:]
        elif part not in (b"", b"."):
            trail.append(part)
    return b"/".join(trail)


def _ways(wanted: bytes, rows: Sequence[_Rows]) -> list[bytes]:
    """Return a path, and the same through symlinks that any of the layers has."""
    ways = {wanted: None}
    for way in (queue := [wanted]):
        for parent in _parents(way):
            rest = way[len(parent) :].lstrip(b"/")
            for each in rows:
                others = each.leads.get(parent, [])
                if parent in each.links:
                    others = [*others, each.links[parent]]
                for other in others:
                    found = other + b"/" + rest if other else rest
                    if found not in ways and len(ways) < MAX_WAYS:
                        ways[found] = None
                        queue.append(found)
    return list(ways)


def _parents(path: bytes) -> Iterator[bytes]:
    """Yield the directories that a path is in, the root too."""
    while path:
        path = path.rpartition(b"/")[0]
        yield path


def _prefixes(ways: Iterable[bytes]) -> frozenset[bytes]:
    return frozenset(path for way in ways for path in (way, *_parents(way)))


# --- tracing


def _trace(
    image: Image,
    wanted: bytes,
    rows: dict[Hashable, _Rows | FlattenError],
    events: dict[Hashable, _Event],
) -> None:
    """Apply an image's layers, and note what each does to the path."""
    keyed = _keyed(image)
    own = []
    for _, key in keyed:
        found_rows = rows[key]
        if isinstance(found_rows, FlattenError):
            raise found_rows
        own.append(found_rows)
    bearing = _prefixes(_ways(wanted, own))
    members = Members()
    tree = Tree(members)
    found: list[tuple[int | None, dict[str, Any]]] = []
    chains = layer_chains(image.layers)
    for position, ((layer, bytes_), each) in enumerate(zip(keyed, own, strict=True)):
        before = tree.find(wanted)
        index = _index(each, layer.name, position, wanted, bearing, members)
        tree.apply(index)
        after = tree.find(wanted)
        if after == before:
            continue
        row = _row(layer, chains[position])
        if after is None:
            row["event"] = "deletes" if _deletes(index, bearing) else "hides"
        else:
            row["event"] = "adds" if before is None else "changes"
            row |= _entry(members, after, index, wanted)
        key = (chains[position], bytes_, row["event"])
        event = events.setdefault(key, _Event(row, []))
        listed = {"id": image.id, "names": list(image.names), "position": position + 1}
        event.images.append(listed)
        found.append((after, listed))
    last = tree.find(wanted)
    for inode, listed in found:
        listed["visible"] = inode is not None and inode == last


def _index(  # noqa: PLR0913, PLR0917 - of a layer, for an image
    rows: _Rows,
    where: str,
    layer: int,
    wanted: bytes,
    bearing: frozenset[bytes],
    members: Members,
) -> LayerIndex:
    """Return what a layer does, as far as it bears on the path."""
    index = LayerIndex(where, first=len(members))
    copy = _Rows(members)
    for member, path in enumerate(rows.paths):
        if path in bearing or path.startswith(wanted + b"/"):
            copy.add(path, rows.members, member)
    index.paths = copy.paths
    index.removals = [r for r in rows.removals if r.path in bearing]
    members.layers.extend([layer] * len(index.paths))
    return index


def _deletes(index: LayerIndex, bearing: frozenset[bytes]) -> bool:
    """Say whether it is a whiteout that removes the path, its own or a directory's."""
    return any(r.path in bearing and not r.opaque for r in index.removals)


def _row(layer: Layer, chain_id: str | None) -> dict[str, Any]:
    place = layer.place
    return {
        "event": None,
        "chain_id": chain_id,
        "diff_id": layer.diff_id,
        "cache_id": place and place.cache_id,
        "directory": place and place.directory,
        "layer": layer.name,
        "entry": None,
        "type": None,
        "implied": False,
        "size": None,
    }


def _entry(
    members: Members, inode: int, index: LayerIndex, wanted: bytes
) -> dict[str, Any]:
    """Return what is in the layer under the path."""
    number = inode - index.first
    listed = 0 <= number < len(index.paths)
    path = index.paths[number] if listed else wanted
    size = members.sizes[inode]
    return {
        "entry": path.decode("utf-8", "surrogateescape"),
        "type": describe(members, path, inode, None)["type"],
        "implied": not listed,
        "size": None if size == _UNKNOWN else size,
    }
