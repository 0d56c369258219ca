"""What the images of a batch share on one machine: layers, and stacks of them.

A layer that several jobs have is inflated and verified once, and kept. The lowest
layers that several jobs have are read and applied once: each job begins with a fork of
the process that has their tree.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from ..errors import FlattenError
from ..image.image import Image, Layer
from ..image.read import Stack
from ..image.shared import SharedBytes, SharedLayer
from ..image.verify import checking
from ..outputs.layer_store import LayerStore, StoredLayer
from ..sources.open import open_image
from ..tar.layer import read_layer
from ..tar.members import Members
from ..tree.tree import Tree
from .jobs import Common, Job
from .resolve import layer_id

_STACKS: Final = 3  # trees that are kept, each with more layers than the one before


@dataclass(frozen=True, slots=True)
class _Kept:
    """A layer that is kept.

    Attributes:
        diff_id: Its diff_id.
        shared: Its bytes.
        stored: Whether they are a file of the layer store.
        resources: The open files of the image that it was read from.
    """

    diff_id: str
    shared: SharedBytes
    stored: bool
    resources: ExitStack


class Shared:
    """The layers and stacks of the jobs of one process, least recently used first.

    Bytes in memory are within the budget. Of a layer that is larger, the rest is in
    scratch space.
    """

    def __init__(self, common: Common, memory: int) -> None:
        """Keep nothing yet.

        Args:
            common: The options of the batch.
            memory: Bytes of layers to keep.
        """
        self._options = common.options
        self._memory = memory
        self._store: LayerStore | None = None
        if self._options.layers is not None:
            self._store = LayerStore(Path(self._options.layers), sync=common.sync)
        self._kept: dict[bytes, _Kept] = {}
        self._stacks: list[tuple[tuple[bytes, ...], Stack]] = []

    def close(self) -> None:
        """Free everything."""
        for layer in list(self._kept):
            self._drop(layer)

    def prepare(self, job: Job) -> int:
        """Read what a job shares with others, unless it is kept; return bytes fetched.

        An error is left to the job, which will meet it again in its own image.
        """
        wanted = {
            layer for layer, uses in zip(job.layers, job.uses, strict=True) if uses > 1
        }
        fetched = 0
        if wanted - {*self._kept}:
            try:
                fetched = self._read(job, wanted)
            except FlattenError:
                return fetched
        for layer in job.layers:
            if layer in self._kept:  # the most recently used ones come last
                self._kept[layer] = self._kept.pop(layer)
        depth = 0
        while depth < len(job.layers) and job.layers[depth] in self._kept:
            depth += 1
        self._stack(job.layers[:depth], job.uses)
        return fetched

    def reuse(self, image: Image) -> tuple[Image, Stack | None]:
        """Return an image with the layers that are kept, and the stack of its lowest.

        The stack is the one that is kept, not a copy, as jobs are forked.
        """
        if self._options.since is not None:  # needs the tree below some layer
            return image, None
        layers = tuple(map(self._replaced, image.layers))
        ids = tuple(
            layer_id(layer.diff_id or "") if self._is_known(layer) else b""
            for layer in layers
        )
        best: Stack | None = None
        for below, stack in self._stacks:
            if ids[: len(below)] == below:
                best = stack
        return replace(image, layers=layers), best

    def _replaced(self, layer: Layer) -> Layer:
        """Return a layer with the bytes that are kept, if they are.

        An index points at the files of its own image, or at those of the layer store,
        as it does without a batch.
        """
        kept = self._find(layer)
        if kept is None:
            return layer
        if not self._options.index:
            return SharedLayer(layer.name, kept.diff_id, kept.shared)
        if kept.stored and isinstance(layer, StoredLayer):
            own = SharedBytes(layer.open(), kept.diff_id)
            return SharedLayer(layer.name, kept.diff_id, own)
        return layer

    def _is_known(self, layer: Layer) -> bool:
        """Return True if a layer's headers are those of the layer that is kept.

        Its own bytes are, or will be found to be, those of its diff_id.
        """
        if isinstance(layer, SharedLayer):
            return True
        checked = self._options.verify is not False
        return checked and self._find(layer) is not None

    def _find(self, layer: Layer) -> _Kept | None:
        """Return what is kept of a layer with that diff_id, or None."""
        diff_id = layer.diff_id or ""
        if not diff_id.startswith("sha256:"):
            return None
        kept = self._kept.get(layer_id(diff_id))
        return kept if kept is not None and kept.diff_id == diff_id else None

    # --- layers

    def _read(self, job: Job, wanted: set[bytes]) -> int:
        """Inflate and verify the wanted layers of a job's image; return bytes fetched.

        Raises:
            FlattenError: The image cannot be read, or a digest does not match.
        """
        left = max(self._memory - self._size(), 0)
        limits = replace(self._options.limits, memory=left)
        access = replace(self._options.access, parts=False)
        options = replace(self._options, limits=limits, access=access)
        with open_image(job.source, options) as image:
            missing: dict[bytes, Layer] = {}
            for layer in image.layers:
                name = layer_id(layer.diff_id or "")
                if name in wanted and name not in self._kept:
                    missing.setdefault(name, layer)
            if self._store is not None:
                few = replace(image, layers=tuple(missing.values()))
                layers = self._store.stored(few).layers
                missing = dict(zip(missing, layers, strict=True))
            with checking(missing.values()) as check:
                check.start_rest()
                check.finish()
            resources = image.resources.pop_all()  # the image stays open
        for name, layer in missing.items():
            shared = SharedBytes(layer.open(), layer.diff_id or "")
            stored = isinstance(layer, StoredLayer)
            self._kept[name] = _Kept(layer.diff_id or "", shared, stored, resources)
        self._shrink({*job.layers})
        return 0 if image.transfer is None else image.transfer().fetched

    def _size(self) -> int:
        """Return the bytes of layers in memory, or in scratch space beyond that."""
        return sum(map(self._cost, self._kept))

    def _cost(self, layer: bytes) -> int:
        shared = self._kept[layer].shared
        return 0 if shared.origin(0) is not None else shared.size()

    def _shrink(self, needed: set[bytes]) -> None:
        """Drop the layers that were not used for longest, while they are too many."""
        size = self._size()
        for layer in [layer for layer in self._kept if layer not in needed]:
            if size <= self._memory:
                return
            size -= self._cost(layer)
            self._drop(layer)

    def _drop(self, layer: bytes) -> None:
        """Drop a layer, the stacks with it, and its image with its last layer."""
        resources = self._kept.pop(layer).resources
        self._stacks = [one for one in self._stacks if layer not in one[0]]
        if all(kept.resources is not resources for kept in self._kept.values()):
            resources.close()

    # --- stacks

    def _stack(self, layers: Sequence[bytes], uses: Sequence[int]) -> None:
        """Stack a job's lowest layers, on top of those stacks that have a part of them.

        A tree is kept wherever fewer jobs have the layer above: those that have it will
        be followed by others that do not.
        """
        layers = tuple(layers)
        while (
            self._stacks and self._stacks[-1][0] != layers[: len(self._stacks[-1][0])]
        ):
            self._stacks.pop()
        start = len(self._stacks[-1][0]) if self._stacks else 0
        stops = [
            at
            for at in range(start + 1, len(layers) + 1)
            if at == len(layers) or uses[at] < uses[at - 1]
        ]
        for stop in stops:
            tree = self._grown(layers, stop)
            if tree is None:
                return
            self._stacks.append((layers[:stop], Stack(tree, stop)))

    def _grown(self, layers: tuple[bytes, ...], stop: int) -> Tree | None:
        """Return the topmost stack's tree with more layers, or None if that fails.

        A layer with a warning is left to the job, as the warning names the image.
        """
        limit = self._options.limits.members
        if not self._stacks:
            tree, start = Tree(Members(limit=limit)), 0
        else:
            _, stack = self._stacks[-1]
            tree, start = stack.tree, stack.layers
            if len(self._stacks) < _STACKS:
                tree = tree.copy()
            else:
                self._stacks.pop()
        try:
            for at in range(start, stop):
                kept = self._kept[layers[at]]
                tree.apply(read_layer(kept.shared, kept.diff_id, at, tree.members))
        except FlattenError:
            return None
        return None if tree.warnings else tree
