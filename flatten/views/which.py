"""Find the layers that a path comes from: the reverse of listing an image.

Each layer's headers are read once, however many images share it. Only rows that can
affect the path are kept: its own, those of its parents, and those of its aliases
(``bin/x``, where ``bin`` is a symlink to ``usr/bin``). They are applied layer by layer,
by the same rules as for flattening.
"""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, TypedDict

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
from .reading import Verified, has_digest, verified

MAX_ALIASES: Final = 1000
"""Maximum number of aliases of one path, through symlinks, that are followed."""

_UNKNOWN: Final = -1  # the size of a hard link whose target was not kept


class LayerUse(TypedDict):
    """An image that contains a layer.

    Attributes:
        id: The image's id.
        names: Its names with tags.
        position: The position of the layer in it, from 1.
        visible: Whether the image shows the layer's content at the path.
    """

    id: str
    names: list[str]
    position: int
    visible: bool


class EventRow(TypedDict):
    """A change that a layer makes to the path; unknown fields are None.

    Attributes:
        event: ``adds``, ``changes``, ``deletes`` or ``hides``.
        chain_id: The layer's chain id.
        diff_id: Its diff_id, as the images record it.
        cache_id: The storage driver's name for it.
        directory: Its directory in an engine's root.
        layer: Its name in messages.
        entry: The path in the layer, or None if the layer does not list it.
        type: As in ``describe``.
        implied: The path is a directory that the layer needs but does not list.
        size: Bytes of the file.
        images: The images that contain the layer.
    """

    event: str
    chain_id: str | None
    diff_id: str | None
    cache_id: str | None
    directory: str | None
    layer: str
    entry: str | None
    type: str | None
    implied: bool
    size: int | None
    images: list[LayerUse]


class Found(TypedDict):
    """The result of ``which``.

    Attributes:
        path: As given.
        verified: Whether all layers of the images that were read were checked, as of
            ``reading.verified``.
        layers: The oldest layers of each image first.
        problems: Why some images could not be read.
    """

    path: str
    verified: Verified
    layers: list[EventRow]
    problems: list[str]


@dataclass(slots=True)
class _Rows:
    """The rows of a layer that may affect a path, in archive order.

    Attributes:
        links: The target of each symlink, as a path from the root.
        leads: The symlinks to each target.
    """

    members: Members = field(default_factory=Members)
    paths: list[bytes] = field(default_factory=list)
    removals: list[Removal] = field(default_factory=list)
    leads: dict[bytes, list[bytes]] = field(default_factory=dict)
    links: dict[bytes, bytes] = field(default_factory=dict)

    def add(self, path: bytes, members: Members, member: int) -> None:
        """Add a row; a hard link becomes a file, whose size may be unknown."""
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


def which(opened: Opened, path: str, limits: Limits, *, verify: bool = False) -> Found:
    """Return the layers that add, change, delete or hide a path, and their images.

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
    events: dict[Hashable, EventRow] = {}
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
    layers = [layer for image in read for layer in image.layers]
    checked = [verify and has_digest(layer) for layer in layers]
    return {
        "path": path,
        "verified": verified(layers, checked),
        "layers": list(events.values()),
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
    """Read each layer once, and again if aliases are found that need more rows."""
    layers = {key: layer for image in images for layer, key in _keyed(image)}
    parts = frozenset(wanted.split(b"/"))
    no_more: frozenset[bytes] = frozenset()
    rows = _read_each(layers, wanted, parts, no_more, limits)
    needed = _prefixes(
        _aliases(wanted, [r for r in rows.values() if isinstance(r, _Rows)])
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
    """Return True if a path is kept: near the root, or named like one of ``parts``."""
    name = path[path.rfind(b"/") + 1 :]
    return name in parts or path.count(b"/") < 2 or path in needed


def _read(
    layer: Layer,
    wanted: bytes,
    parts: frozenset[bytes],
    needed: frozenset[bytes],
    limits: Limits,
) -> _Rows:
    """Return the rows of a layer that are kept."""
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
    """Return the path of a symlink's target, without following other symlinks."""
    trail = [] if target.startswith(b"/") else path.split(b"/")[:-1]
    for part in target.split(b"/"):
        if part == b"..":
            del trail[-1:]
        elif part not in (b"", b"."):
            trail.append(part)
    return b"/".join(trail)


def _aliases(wanted: bytes, rows: Sequence[_Rows]) -> list[bytes]:
    """Return a path, and its aliases through symlinks of any of the layers."""
    aliases = {wanted: None}
    for alias in (queue := [wanted]):
        for parent in _parents(alias):
            rest = alias[len(parent) :].lstrip(b"/")
            for each in rows:
                others = each.leads.get(parent, [])
                if parent in each.links:
                    others = [*others, each.links[parent]]
                for other in others:
                    found = other + b"/" + rest if other else rest
                    if found not in aliases and len(aliases) < MAX_ALIASES:
                        aliases[found] = None
                        queue.append(found)
    return list(aliases)


def _parents(path: bytes) -> Iterator[bytes]:
    """Yield the parents of a path, up to the root."""
    while path:
        path = path.rpartition(b"/")[0]
        yield path


def _prefixes(paths: Iterable[bytes]) -> frozenset[bytes]:
    """Return some paths, with all their parents."""
    return frozenset(each for path in paths for each in (path, *_parents(path)))


# --- tracing


def _trace(
    image: Image,
    wanted: bytes,
    rows: dict[Hashable, _Rows | FlattenError],
    events: dict[Hashable, EventRow],
) -> None:
    """Apply an image's layers, and record the changes of each to the path."""
    keyed = _keyed(image)
    own = []
    for _, key in keyed:
        found_rows = rows[key]
        if isinstance(found_rows, FlattenError):
            raise found_rows
        own.append(found_rows)
    bearing = _prefixes(_aliases(wanted, own))
    members = Members()
    tree = Tree(members)
    found: list[tuple[int | None, LayerUse]] = []
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
            _add_entry(row, members, after, index, wanted)
        key = (chains[position], bytes_, row["event"])
        listed: LayerUse = {
            "id": image.id,
            "names": list(image.names),
            "position": position + 1,
            "visible": False,
        }
        events.setdefault(key, row)["images"].append(listed)
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
    """Return the part of a layer's index that affects the path."""
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
    """Return True if a whiteout of the path or of a parent removes it."""
    return any(r.path in bearing and not r.opaque for r in index.removals)


def _row(layer: Layer, chain_id: str | None) -> EventRow:
    place = layer.place
    return {
        "event": "",
        "chain_id": chain_id,
        "diff_id": layer.diff_id,
        "cache_id": place.cache_id if place else None,
        "directory": place.directory if place else None,
        "layer": layer.name,
        "entry": None,
        "type": None,
        "implied": False,
        "size": None,
        "images": [],
    }


def _add_entry(
    row: EventRow, members: Members, inode: int, index: LayerIndex, wanted: bytes
) -> None:
    """Add the fields for the layer's entry at the path."""
    number = inode - index.first
    listed = 0 <= number < len(index.paths)
    path = index.paths[number] if listed else wanted
    size = members.sizes[inode]
    row["entry"] = path.decode("utf-8", "surrogateescape")
    row["type"] = describe(members, path, inode, None)["type"]
    row["implied"] = not listed
    row["size"] = None if size == _UNKNOWN else size
