"""containerd's metadata: names of images, containers, leases, snapshots.

=============================================  ====================================
in ``io.containerd.metadata.v1.bolt/meta.db``
``v1/NAMESPACE/images/NAME/target``            ``digest`` and ``size`` of the manifest
                                               or index
``v1/NAMESPACE/containers/ID``                 ``image``, ``snapshotter``,
                                               ``snapshotKey``; ``labels``
``v1/NAMESPACE/content/blob/DIGEST``           ``labels``: references to others
``v1/NAMESPACE/snapshots/SNAPSHOTTER/KEY``     ``parent``; ``labels``: likewise
``v1/NAMESPACE/leases/LEASE``                  ``content`` and ``snapshots`` it holds
in ``io.containerd.snapshotter.v1.DRIVER/metadata.db``
``v1/snapshots/NAMESPACE/N/KEY``               ``id``: name of the directory;
                                               ``parent``, ``size``, ``kind``
=============================================  ====================================

The key of an unpacked layer is its chain id. The key of a container's own layer is in
the container's record; usually it is the container's id.

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
from .parents import with_parents
from .root import Root

CONTENT: Final = "io.containerd.content.v1.content"
NAMES: Final = "io.containerd.metadata.v1.bolt/meta.db"
_SNAPSHOTTER: Final = "io.containerd.snapshotter.v1."
_DATABASE: Final = "metadata.db"
_DRIVERS: Final = (
    Driver("overlayfs", f"{_SNAPSHOTTER}overlayfs/snapshots/{{}}/fs", OVERLAY),
    Driver("fuse-overlayfs", f"{_SNAPSHOTTER}fuse-overlayfs/snapshots/{{}}/fs", FUSE),
    Driver(
        "erofs",
        f"{_SNAPSHOTTER}erofs/snapshots/{{}}/fs",
        OVERLAY,
        image=f"{_SNAPSHOTTER}erofs/snapshots/{{}}/layer.erofs",
    ),
    Driver("native", f"{_SNAPSHOTTER}native/snapshots/{{}}", full=True),
    Driver("btrfs", f"{_SNAPSHOTTER}btrfs/snapshots/{{}}", full=True),
)
_NAME_LABELS: Final = (b"nerdctl/name", b"io.kubernetes.container.name")
_KEY: Final = re.compile(r"([^/]*)/([0-9]{1,19})/(.*)", re.DOTALL)
_CONTENT: Final = b""  # a kind of resource; others are named by their snapshotter
_ROOT: Final = b"containerd.io/gc.root"
_BY_LABEL: Final = f"label {_ROOT.decode()}"
_CONTENT_REFERENCE: Final = b"containerd.io/gc.ref.content"
_SNAPSHOT_REFERENCE: Final = re.compile(rb"containerd\.io/gc\.ref\.snapshot\.([^/]+)")
COMMITTED: Final = 3

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ImageName:
    """The target of an image's name; the size is -1 if it is not a valid number."""

    namespace: str
    name: str
    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class ContainerdContainer:
    """A container.

    Attributes:
        names: Names from its labels and from docker's record.
        image: Name of its image.
        snapshotter: Snapshotter of its own layer; "" if it is not recorded.
        key: Key of that snapshot; "" if it is the container's id.
        manifest: ``sha256:<hex>`` of its image's manifest; "" if it is not recorded.
    """

    namespace: str
    id: str
    names: tuple[str, ...] = ()
    image: str = ""
    snapshotter: str = ""
    key: str = ""
    manifest: str = ""


@dataclass(frozen=True, slots=True)
class ContainerdSnapshot:
    """An unpacked layer, or a container's own layer.

    Attributes:
        number: Increases; of two with the same key, the older one is being removed.
        key: A chain id, or any other name.
        id: Name of the directory.
        parent: Full key of the snapshot below; "" if there is none.
        size: Disk usage in bytes; None if it is not recorded.
        kind: ``COMMITTED``, or that of a writable snapshot or a view.
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
    """The snapshots of one snapshotter.

    Attributes:
        driver: Where the directories are.
        snapshots: The snapshots by full key.
        by_key: The snapshots by namespace and key.
    """

    driver: Driver
    snapshots: dict[str, ContainerdSnapshot] = field(repr=False)
    by_key: dict[tuple[str, str], ContainerdSnapshot] = field(repr=False)

    def find(self, namespace: str, key: str) -> ContainerdSnapshot | None:
        """Return the snapshot with a key in a namespace, or None if there is none."""
        return self.by_key.get((namespace, key))

    def chain(
        self, snapshot: ContainerdSnapshot, where: str
    ) -> list[ContainerdSnapshot]:
        """Return a snapshot and all snapshots below it, nearest first.

        Raises:
            FormatError: A snapshot is missing, or the chain is circular.
        """

        def parent(above: ContainerdSnapshot) -> ContainerdSnapshot | None:
            if not above.parent:
                return None
            if above.parent not in self.snapshots:
                key = quoted(above.parent)
                raise FormatError(f"snapshot {key} is missing", where=where)
            return self.snapshots[above.parent]

        return with_parents(snapshot, parent, where)[::-1]

    def place(self, root: Root, snapshot: ContainerdSnapshot) -> Place:
        """Return the location of a snapshot."""
        directory = root.path(self.driver.tree.format(snapshot.id))
        return Place(self.driver.name, snapshot.id, directory, snapshot.size)


# --- meta.db


def read_names(root: Root) -> list[ImageName]:
    """List the names of images.

    Raises:
        FormatError: The metadata is malformed.
    """

    def names(top: Bucket) -> Iterator[ImageName]:
        for namespace, bucket in top.find(b"v1").buckets().items():
            for name, image in bucket.find(b"images").buckets().items():
                target = image.find(b"target").values()
                yield ImageName(
                    decode(namespace),
                    decode(name),
                    decode(target.get(b"digest", b"")),
                    varint(target.get(b"size", b"")),
                )

    return read_database(root, NAMES, lambda top: list(names(top)))


def read_containers(root: Root) -> list[ContainerdContainer]:
    """List the containers.

    Raises:
        FormatError: The metadata is malformed.
    """

    def containers(top: Bucket) -> Iterator[ContainerdContainer]:
        for namespace, bucket in top.find(b"v1").buckets().items():
            for id_, container in bucket.find(b"containers").buckets().items():
                said = container.values()
                labels = container.find(b"labels").values()
                yield ContainerdContainer(
                    decode(namespace),
                    decode(id_),
                    tuple(decode(labels[key]) for key in _NAME_LABELS if key in labels),
                    *(
                        decode(said.get(key, b""))
                        for key in (b"image", b"snapshotter", b"snapshotKey")
                    ),
                )

    return read_database(root, NAMES, lambda top: list(containers(top)))


@dataclass(slots=True)
class Needed:
    """The blobs and snapshots that containerd's garbage collector would keep.

    Attributes:
        blobs: Digests of the blobs that are reachable from an image, lease or label.
        snapshots: The snapshots that are reachable from a lease or label: namespace,
            snapshotter and key, each with the name of the lease or label.
    """

    blobs: set[str] = field(default_factory=set)
    snapshots: dict[tuple[str, str, str], str] = field(default_factory=dict)


def read_needed(root: Root) -> Needed:
    """Return the blobs and snapshots that are needed, of all namespaces.

    Raises:
        FormatError: The metadata is malformed.
    """
    return read_database(root, NAMES, find_needed)


def find_needed(top: Bucket) -> Needed:
    """Follow references as the garbage collector does, in a containerd database.

    Reference: containerd docs/garbage-collection.md, metadata/gc.go at v2.1.
    """
    found = Needed()
    for namespace, bucket in top.find(b"v1").buckets().items():
        _Collector(found, decode(namespace), bucket).follow()
    return found


class _Collector:
    """Follows the references in one namespace, starting from the collector's roots."""

    def __init__(self, found: Needed, namespace: str, bucket: Bucket) -> None:
        self._found = found
        self._namespace = namespace
        self._bucket = bucket
        self._blobs = bucket.find(b"content", b"blob").buckets()
        self._seen: set[tuple[bytes, bytes, bool]] = set()
        self._todo: list[tuple[bytes, bytes, str]] = []

    def follow(self) -> None:
        """Visit everything that images, leases and root labels refer to."""
        for image in self._bucket.find(b"images").buckets().values():
            digest = image.find(b"target").values().get(b"digest", b"")
            self._todo.append((_CONTENT, digest, ""))
        for name, lease in self._bucket.find(b"leases").buckets().items():
            self._add_lease(lease, f"lease {decode(name)}")
        for digest, blob in self._blobs.items():
            if _ROOT in blob.find(b"labels").values():
                self._todo.append((_CONTENT, digest, _BY_LABEL))
        for snapshotter, keys in self._bucket.find(b"snapshots").buckets().items():
            for key, snapshot in keys.buckets().items():
                if _ROOT in snapshot.find(b"labels").values():
                    self._todo.append((snapshotter, key, _BY_LABEL))
        while self._todo:
            self._visit(*self._todo.pop())

    def _add_lease(self, lease: Bucket, holder: str) -> None:
        content = lease.find(b"content").values()
        self._todo += [(_CONTENT, digest, holder) for digest in content]
        for snapshotter, keys in lease.find(b"snapshots").buckets().items():
            self._todo += [(snapshotter, key, holder) for key in keys.values()]

    def _visit(self, kind: bytes, name: bytes, holder: str) -> None:
        """Record a blob, or a snapshot of the snapshotter ``kind``.

        ``holder`` is "" for something that an image needs. It is visited again if a
        lease or label needs it too.
        """
        if (kind, name, bool(holder)) in self._seen:
            return
        self._seen.add((kind, name, bool(holder)))
        if kind == _CONTENT:
            self._found.blobs.add(decode(name))
            labels = self._blobs[name].find(b"labels") if name in self._blobs else None
        else:
            snapshot = self._bucket.find(b"snapshots", kind, name)
            if holder:
                key = self._namespace, decode(kind), decode(name)
                self._found.snapshots.setdefault(key, holder)
            if parent := snapshot.values().get(b"parent"):
                self._todo.append((kind, parent, holder))
            labels = snapshot.find(b"labels")
        for label, value in labels.values().items() if labels is not None else ():
            if label.startswith(_CONTENT_REFERENCE):
                self._todo.append((_CONTENT, value, holder))
            elif match := _SNAPSHOT_REFERENCE.match(label):
                self._todo.append((match[1], value, holder))


# --- snapshots


def read_snapshotters(root: Root) -> list[Snapshotter]:
    """List the snapshotters that can be read, the usual one first.

    Raises:
        FormatError: A database is malformed.
    """
    found = []
    for driver in _DRIVERS:
        path = f"{_SNAPSHOTTER}{driver.name}/{_DATABASE}"
        if path.encode() in root:
            snapshots = read_database(root, path, lambda top: dict(_snapshots(top)))
            ordered = sorted(snapshots.values(), key=lambda each: each.number)
            by_key = {(each.namespace, each.key): each for each in ordered}
            found.append(Snapshotter(driver, snapshots, by_key))
    return found


def unknown_snapshotters(root: Root) -> list[str]:
    """Return the names of the snapshotters in use that are not supported."""
    known = {f"{_SNAPSHOTTER}{driver.name}" for driver in _DRIVERS}
    return [
        name.removeprefix(_SNAPSHOTTER)
        for name in root.names("")
        if name.startswith(_SNAPSHOTTER)
        and name not in known
        and f"{name}/{_DATABASE}".encode() in root
    ]


def _snapshots(top: Bucket) -> Iterator[tuple[str, ContainerdSnapshot]]:
    for whole, bucket in top.find(b"v1", b"snapshots").buckets().items():
        key, said = _KEY.fullmatch(decode(whole)), bucket.values()
        if key is not None:
            yield (
                decode(whole),
                ContainerdSnapshot(
                    key[1],
                    int(key[2]),
                    key[3],
                    str(uvarint(said.get(b"id", b""))),
                    decode(said.get(b"parent", b"")),
                    varint(said[b"size"]) if b"size" in said else None,
                    uvarint(said.get(b"kind", b"")),
                ),
            )


def read_database(root: Root, path: str, take: Callable[[Bucket], T]) -> T:
    """Return the result of ``take`` for a database in the root.

    Raises:
        FormatError: The database is malformed.
    """
    return read_bolt(lambda: root.open(path, "metadata"), root.path(path), take)


def decode(data: bytes) -> str:
    """Return a key or value as text; bytes that are not UTF-8 are escaped."""
    return data.decode("utf-8", "backslashreplace")


def varint(data: bytes) -> int:
    r"""Read a number in the format of Go's binary.PutVarint; -1 if it is invalid.

    >>> varint(b"\x90\x15"), varint(b"\x02"), varint(b"\xff")
    (1352, 1, -1)
    """
    value = uvarint(data)
    return -1 if value < 0 else value >> 1 ^ -(value & 1)


def uvarint(data: bytes) -> int:
    r"""Read a number in the format of Go's binary.PutUvarint; -1 if it is invalid.

    >>> uvarint(b"\x05"), uvarint(b"\x80\x01"), uvarint(b"")
    (5, 128, -1)
    """
    if not data or len(data) > 10 or data[-1] & 0x80:
        return -1
    return sum((byte & 0x7F) << 7 * at for at, byte in enumerate(data))
