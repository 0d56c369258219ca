"""What containerd's metadata say: names, containers, snapshots.

=============================================  ====================================
in ``io.containerd.metadata.v1.bolt/meta.db``
``v1/NAMESPACE/images/NAME/target``            ``digest``, ``size`` of a manifest or
                                               an index, a blob
``v1/NAMESPACE/containers/ID``                 ``image``, ``snapshotter``,
                                               ``snapshotKey``; ``labels``
in ``io.containerd.snapshotter.v1.DRIVER/metadata.db``
``v1/snapshots/NAMESPACE/N/KEY``               ``id``, which names a directory;
                                               ``parent``, ``size``, ``kind``
=============================================  ====================================

The key of an unpacked layer is its chain id; that of a container's own layer is what
the container says, mostly its id.

Reference: containerd metadata/buckets.go, snapshots/storage/bolt.go at v1.6.20; moby
daemon/containerd/image_snapshot.go at v25.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, TypeVar

from ...errors import FormatError, quoted
from ...image.image import Place
from ...image.union import FUSE, OVERLAY
from .bolt import Bucket, read_bolt
from .drivers import Driver
from .root import Root

CONTENT: Final = "io.containerd.content.v1.content"
NAMES: Final = "io.containerd.metadata.v1.bolt/meta.db"
_SNAPSHOTTER: Final = "io.containerd.snapshotter.v1."
_DRIVERS: Final = (
    Driver("overlayfs", f"{_SNAPSHOTTER}overlayfs/snapshots/{{}}/fs", OVERLAY),
    Driver("fuse-overlayfs", f"{_SNAPSHOTTER}fuse-overlayfs/snapshots/{{}}/fs", FUSE),
    Driver("native", f"{_SNAPSHOTTER}native/snapshots/{{}}", full=True),
    Driver("btrfs", f"{_SNAPSHOTTER}btrfs/snapshots/{{}}", full=True),
)
_NAME_LABELS: Final = (b"nerdctl/name", b"io.kubernetes.container.name")
_KEY: Final = re.compile(r"([^/]*)/([0-9]{1,19})/(.*)", re.DOTALL)
_MAX_CHAIN: Final = 4096
_REFERENCE: Final = b"containerd.io/gc.ref.content"
COMMITTED: Final = 3

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Named:
    """What a name of a namespace leads to; the size is -1 where it is unreadable."""

    namespace: str
    name: str
    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class Container:
    """A container.

    Attributes:
        names: What its labels call it.
        image: The name of its image.
        snapshotter: What keeps its own layer.
        key: What that calls it.
    """

    namespace: str
    id: str
    names: tuple[str, ...]
    image: str
    snapshotter: str
    key: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A layer that was unpacked, or a container's own.

    Attributes:
        number: Grows: of two with one key, the older one waits to be removed.
        key: A chain id, or what the container says.
        id: Names the directory.
        parent: The whole key of the one below, "" if there is none.
        size: In bytes, as the file system counts.
        kind: ``COMMITTED``, or a container's own or a view of another.
    """

    namespace: str
    number: int
    key: str
    id: str
    parent: str
    size: int | None
    kind: int


@dataclass(frozen=True, slots=True)
class Snapshotter:
    """The snapshots of one driver.

    Attributes:
        snapshots: By their whole keys.
        by_key: By namespace and key.
    """

    driver: Driver
    snapshots: dict[str, Snapshot] = field(repr=False)
    by_key: dict[tuple[str, str], Snapshot] = field(repr=False)

    def find(self, namespace: str, key: str) -> Snapshot | None:
        """Return a snapshot by its key, in a namespace."""
        return self.by_key.get((namespace, key))

    def chain(self, snapshot: Snapshot, where: str) -> list[Snapshot]:
        """Return a snapshot and those below it, nearest first.

        Raises:
            FormatError: One is not there, or they go in a circle.
        """
        chain = [snapshot]
        while chain[-1].parent:
            below = self.snapshots.get(chain[-1].parent)
            if below is None:
                raise FormatError(
                    f"snapshot {quoted(chain[-1].parent)} is not there", where=where
                )
            if len(chain) > _MAX_CHAIN:
                raise FormatError("its snapshots go in a circle", where=where)
            chain.append(below)
        return chain


def place(root: Root, driver: Driver, snapshot: Snapshot) -> Place:
    """Return where a snapshot is."""
    directory = root.path(driver.place.format(snapshot.id))
    return Place(driver.name, snapshot.id, directory, snapshot.size)


# --- meta.db


def read_names(root: Root) -> list[Named]:
    """List the names of images.

    Raises:
        FormatError: They cannot be read.
    """

    def names(top: Bucket) -> Iterator[Named]:
        for namespace, bucket in top.find(b"v1").buckets().items():
            for name, image in bucket.find(b"images").buckets().items():
                target = image.find(b"target").values()
                yield Named(
                    _text(namespace),
                    _text(name),
                    _text(target.get(b"digest", b"")),
                    varint(target.get(b"size", b"")),
                )

    return _read(root, NAMES, lambda top: list(names(top)))


def read_containers(root: Root) -> list[Container]:
    """List the containers.

    Raises:
        FormatError: They cannot be read.
    """

    def containers(top: Bucket) -> Iterator[Container]:
        for namespace, bucket in top.find(b"v1").buckets().items():
            for id_, container in bucket.find(b"containers").buckets().items():
                said = container.values()
                labels = container.find(b"labels").values()
                yield Container(
                    _text(namespace),
                    _text(id_),
                    tuple(_text(labels[key]) for key in _NAME_LABELS if key in labels),
                    *(
                        _text(said.get(key, b""))
                        for key in (b"image", b"snapshotter", b"snapshotKey")
                    ),
                )

    return _read(root, NAMES, lambda top: list(containers(top)))


def read_named_blobs(root: Root) -> set[str]:
    """Return the digests of the blobs that names lead to, by way of labels.

    Reference: containerd docs/garbage-collection.md.

    Raises:
        FormatError: They cannot be read.
    """

    def named(top: Bucket) -> set[str]:
        whole: set[str] = set()
        for bucket in top.find(b"v1").buckets().values():
            found: set[str] = set()
            blobs = bucket.find(b"content", b"blob").buckets()
            todo = [
                image.find(b"target").values().get(b"digest", b"")
                for image in bucket.find(b"images").buckets().values()
            ]
            while todo:
                digest = todo.pop()
                if _text(digest) not in found and digest in blobs:
                    found.add(_text(digest))
                    labels = blobs[digest].find(b"labels").values()
                    todo += [v for k, v in labels.items() if k.startswith(_REFERENCE)]
            whole |= found
        return whole

    return _read(root, NAMES, named)


# --- snapshots


def read_snapshotters(root: Root) -> list[Snapshotter]:
    """List what each snapshotter has, the usual one first.

    Raises:
        FormatError: It cannot be read.
    """
    found = []
    for driver in _DRIVERS:
        path = f"{_SNAPSHOTTER}{driver.name}/metadata.db"
        if path.encode() in root:
            snapshots = _read(root, path, lambda top: dict(_snapshots(top)))
            ordered = sorted(snapshots.values(), key=lambda each: each.number)
            by_key = {(each.namespace, each.key): each for each in ordered}
            found.append(Snapshotter(driver, snapshots, by_key))
    return found


def _snapshots(top: Bucket) -> Iterator[tuple[str, Snapshot]]:
    for whole, bucket in top.find(b"v1", b"snapshots").buckets().items():
        key, said = _KEY.fullmatch(_text(whole)), bucket.values()
        if key is not None:
            yield (
                _text(whole),
                Snapshot(
                    key[1],
                    int(key[2]),
                    key[3],
                    str(uvarint(said.get(b"id", b""))),
                    _text(said.get(b"parent", b"")),
                    varint(said[b"size"]) if b"size" in said else None,
                    uvarint(said.get(b"kind", b"")),
                ),
            )


def _read(root: Root, path: str, take: Callable[[Bucket], T]) -> T:
    return read_bolt(lambda: root.open(path, "metadata"), root.path(path), take)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")


def varint(data: bytes) -> int:
    r"""Read a number as Go's encoding/binary PutVarint writes it; -1 if it is none.

    >>> varint(b"\x90\x15"), varint(b"\x02"), varint(b"\xff")
    (1352, 1, -1)
    """
    value = uvarint(data)
    return -1 if value < 0 else value >> 1 ^ -(value & 1)


def uvarint(data: bytes) -> int:
    r"""Read a number as PutUvarint writes it; -1 if it is none.

    >>> uvarint(b"\x05"), uvarint(b"\x80\x01"), uvarint(b"")
    (5, 128, -1)
    """
    if not data or len(data) > 10 or data[-1] & 0x80:
        return -1
    return sum((byte & 0x7F) << 7 * at for at, byte in enumerate(data))
