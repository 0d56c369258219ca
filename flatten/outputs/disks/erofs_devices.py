"""Where an EROFS index finds contents: in the files that have the image's layers.

An index holds no content that is complete in such a file, a *device* of the index, and
starts there on a block. Such a file of the tree is one chunk, whose address is a device
and a block of it. A layer that is in no file, as host files that were added, and
contents that cross blocks otherwise are copied into the index.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ...errors import FlattenError, quoted
from ...host.files import LayerBytes
from ...image.image import Image
from ...plan.plan import Plan
from ...tar.members import FILE, NO_EXTRA
from .erofs_fs import MAX_BLOCKS, MAX_CHUNK_BITS


@dataclass(frozen=True, slots=True)
class Device:
    """A file that an index points at.

    Attributes:
        path: Its absolute path.
        tag: Its name in the index: the digest (hex) of the layer that it is, or the id
            of the image that it contains.
        blocks: The number of whole blocks in it.
    """

    path: str
    tag: bytes
    blocks: int


class Address(NamedTuple):
    """Where a content is: the number of a device, from 1 on, and a block of it."""

    device: int
    block: int


class _Place(NamedTuple):
    """Where a layer is: the number of a device, and the offset of its first byte."""

    device: int
    start: int


class Devices:
    """The files that an index points at.

    Attributes:
        files: In the order of their numbers, the first of which is 1.
    """

    def __init__(
        self, plan: Plan, image: Image, layers: Sequence[LayerBytes], block: int
    ) -> None:
        """Find the files of the layers that have any content.

        Args:
            plan: The plan of the tree.
            image: The image.
            layers: The bytes of its layers, and of those that were added.
            block: The size of a block, in bytes.

        Raises:
            FlattenError: A file has more blocks than EROFS can count.
        """
        self._members, self._block = plan.members, block
        self.files: list[Device] = []
        self._places: list[_Place | None] = [None] * len(layers)
        known: dict[tuple[int, int], int] = {}
        for layer in self._used(plan):
            source = layers[layer]
            descriptor, start = source.sample(), source.origin(0)
            if descriptor is None or start is None:
                continue
            status = os.fstat(descriptor)
            identity = status.st_dev, status.st_ino
            if identity not in known:
                known[identity] = len(self.files) + 1
                diff_id = (
                    image.layers[layer].diff_id
                    if source.size() == (status.st_size)
                    else None
                )
                tag = image.id if diff_id is None else diff_id.partition(":")[2]
                self.files.append(_device(descriptor, tag, status.st_size // block))
            self._places[layer] = _Place(known[identity], start)

    def _used(self, plan: Plan) -> list[int]:
        """Return the layers whose contents may be pointed at, oldest first."""
        members = self._members
        kinds, sizes, layers = members.kinds, members.sizes, members.layers
        used = {layers[i] for i in plan.inodes if kinds[i] == FILE and sizes[i]}
        return sorted(used)

    def find(self, inode: int) -> Address | None:
        """Return where the content of a file is, or None to copy it."""
        members, block = self._members, self._block
        place, size = self._places[members.layers[inode]], members.sizes[inode]
        if place is None or members.extras.get(inode, NO_EXTRA).sparse is not None:
            return None
        first, rest = divmod(place.start + members.data[inode], block)
        blocks = -(-size // block)
        if (
            rest
            or first + blocks > self.files[place.device - 1].blocks
            or (blocks - 1).bit_length() > MAX_CHUNK_BITS
        ):
            return None
        return Address(place.device, first)


def _device(descriptor: int, tag: str, blocks: int) -> Device:
    """Return the device that an open file is.

    Raises:
        FlattenError: It has too many blocks.
    """
    path = os.readlink(f"/proc/self/fd/{descriptor}")
    if blocks > MAX_BLOCKS:
        raise FlattenError(
            f"{quoted(path)} has {blocks:,} blocks; an index holds at most "
            f"{MAX_BLOCKS:,}, use a larger --block-size"
        )
    return Device(path, tag.encode("ascii")[:64], blocks)
