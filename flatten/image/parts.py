"""What an export fetches of layers with a table of contents: parts, or all of them."""

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from ..tar.members import Members
from .blob import ChunkedLayer
from .image import Image, Layer

if TYPE_CHECKING:
    from .chunked import Chunked


def read_in_parts(image: Image) -> list[ChunkedLayer]:
    """Return the layers of an image that are read in parts."""
    return [layer for layer in image.layers if isinstance(layer, ChunkedLayer)]


def read_whole(image: Image) -> list[Layer]:
    """Return the layers of an image whose digests can be checked."""
    return [layer for layer in image.layers if not isinstance(layer, ChunkedLayer)]


def with_whole_layers(image: Image) -> Image:
    """Return the image with all layers read whole."""
    layers = [
        layer.whole if isinstance(layer, ChunkedLayer) else layer
        for layer in image.layers
    ]
    return replace(image, layers=tuple(layers))


def are_exact(image: Image) -> bool:
    """Return True if the layers read in parts have the bytes of the whole layers."""
    return all(layer.content.exact for layer in read_in_parts(image))


def fetch_if_little(image: Image, members: Members, wanted: Iterable[int]) -> bool:
    """Fetch the contents of members, from the layers that are read in parts.

    Args:
        image: An open image.
        members: The members of all layers.
        wanted: The rows of those whose contents are needed.

    Returns:
        False if that is more than half of all contents: nothing is fetched then.
    """
    contents: dict[int, Chunked] = {
        at: layer.content
        for at, layer in enumerate(image.layers)
        if isinstance(layer, ChunkedLayer)
    }
    ranges: dict[int, list[tuple[int, int]]] = {at: [] for at in contents}
    for row in {*wanted} if contents else ():
        if members.layers[row] in ranges and members.stored(row):
            start = members.data[row]
            ranges[members.layers[row]].append((start, start + members.stored(row)))
    needed = sum(stop - start for found in ranges.values() for start, stop in found)
    if 2 * needed > sum(content.contents for content in contents.values()):
        return False
    for at, content in contents.items():
        content.fetch_contents(ranges[at])
    return True
