"""Reading an image for a view: from indexes that were kept, where there are any."""

from collections.abc import Iterator
from functools import partial

from ..host.limits import Limits
from ..image import read
from ..image.columns import Rows
from ..image.image import Image, Layer
from ..image.read import Index
from ..image.verify import checking
from ..tar.layer import LayerIndex, read_layer
from ..tar.members import Members
from .index_cache import IndexCache, pack


def read_index(
    image: Image, limits: Limits | None = None, cache: IndexCache | None = None
) -> Index:
    """Read the headers of all layers, and apply them.

    Args:
        image: An open image.
        limits: What it may cost.
        cache: Layers whose indexes are there are not read; those of others are checked
            against the image's digests, and their indexes kept.

    Raises:
        FormatError: A layer breaks its format, or says what no tree can be; or a
            limit is passed.
        IntegrityError: With a cache: a layer is not what the image promises.
    """
    return read.read_index(image, limits, partial(read_layers, cache=cache))


def read_layers(
    image: Image, into: Members, cache: IndexCache | None = None
) -> Iterator[LayerIndex]:
    """Read the headers of one layer after the other, oldest first."""
    known = [cache.find(layer.diff_id) if cache else None for layer in image.layers]
    new = [layer for layer, found in zip(image.layers, known, strict=True) if not found]
    for layer in new:  # all begin to inflate
        layer.open()
    kept = [layer for layer in new if cache and cache.keeps and _may_be_kept(layer)]
    packed = []
    with checking(kept) as check:
        for position, layer in enumerate(image.layers):
            found = known[position]
            if found is not None and len(into) + len(found.paths) <= into.limit:
                yield found.append(layer.name, position, into)
                continue
            index = read_layer(layer.headers(), layer.name, position, into)
            if layer in kept:
                packed.append((layer.diff_id, pack(Rows.of(index, into))))
            yield index
        check.start_rest()
        check.finish()
    if cache is not None:
        for diff_id, data in packed:
            cache.keep(diff_id, data)


def _may_be_kept(layer: Layer) -> bool:
    """Say whether it costs no more than a look at the layer's bytes to check it.

    A layer of an engine's root is put together from many files for that; its headers
    alone are read much faster.
    """
    return layer.diff_id is not None and layer.headers() is layer.open()
