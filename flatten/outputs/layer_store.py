"""A directory of plain layer tars, which many images and many runs share.

::

    DIR/sha256/<hex>         a layer's uncompressed tar, named by its diff_id
    DIR/sha256/.<hex>.lock   locked with flock(2) while that layer is being written

The names are those of the blobs in an OCI layout, since the digest of a plain layer
blob is its diff_id. A layer is written once and never changed. It is complete or not
there, and its bytes have been hashed. Runs that need the same layer at the same time
wait for the one that writes it.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import compress
from pathlib import Path
from typing import Final

from ..errors import FlattenError, IntegrityError, UsageError, quoted
from ..host.compress import PlainSink
from ..host.files import File, LayerBytes
from ..host.inputs import compression
from ..image.image import Image, Layer, Place
from ..image.shared import SharedLayer
from . import atomic

_STEP: Final = 1 << 20  # bytes that are written and hashed at once


@dataclass(slots=True)
class StoredLayer:
    """A layer of an image whose bytes are read from a layer store.

    Attributes:
        name: The layer's name in messages.
        diff_id: The digest of the file, which is the name that it is stored under.
        digest: None, since the blob of the image is not read.
        place: The layer's location in an engine's root, if it came from one.
        path: The file.
    """

    name: str
    diff_id: str
    place: Place | None
    path: Path
    digest: str | None = None
    _file: File | None = field(default=None, repr=False)

    def blob(self) -> LayerBytes:
        """Return the same as ``open``."""
        return self.open()

    def open(self) -> File:
        """Return the file, which is opened at the first call.

        Raises:
            FlattenError: It cannot be opened.
        """
        if self._file is None:
            try:
                descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise _failed(self.path, "open", error) from error
            size = os.fstat(descriptor).st_size
            self._file = File(descriptor, f"{self.name} in {self.path}", size)
        return self._file

    def headers(self) -> LayerBytes:
        """Return the same as ``open``."""
        return self.open()

    def mismatch_reason(self) -> str:
        """Return the only reason there can be, and what to do."""
        return f"{quoted(str(self.path))} was changed; remove it"

    def check_unchanged(self) -> None:
        """Check that the file has not been modified since it was opened.

        Raises:
            FlattenError: It was.
        """
        if self._file is not None:
            self._file.check_unchanged()

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self._file is not None:
            self._file.close()


class LayerStore:
    """A directory of plain layer tars."""

    def __init__(self, folder: Path, *, sync: bool = True) -> None:
        """Use a directory, which is created with the first layer.

        Args:
            folder: The directory.
            sync: Wait until a layer is on the disk before it gets its name.
        """
        self._folder = folder
        self._sync = sync

    def stored(self, image: Image) -> Image:
        """Return an image whose layers are all plain in files.

        Layers that are so already stay where they are; the others are read from the
        store. What it does not have is added to it; what it has is neither fetched nor
        inflated. The image that is passed in remains the owner of all files: closing
        either closes both.

        Raises:
            IntegrityError: A layer does not have its diff_id.
            FlattenError: A layer cannot be read or written.
        """
        wanted = [not is_in_file(image, layer) for layer in image.layers]
        missing = [
            layer
            for layer in compress(image.layers, wanted)
            if layer.diff_id is None or not self._path(layer.diff_id).exists()
        ]
        for layer in missing:
            layer.blob()  # start fetching all of them
        for layer in missing:
            layer.open()  # start inflating all of them
        stored = [self.open(layer) for layer in compress(image.layers, wanted)]
        for layer in stored:
            image.resources.callback(layer.close)

        def check_unchanged() -> None:
            image.check_unchanged()
            for layer in stored:
                layer.check_unchanged()

        rest = iter(stored)
        layers = [
            next(rest) if want else layer
            for layer, want in zip(image.layers, wanted, strict=True)
        ]
        return replace(image, layers=tuple(layers), check_unchanged=check_unchanged)

    def open(self, layer: Layer) -> StoredLayer:
        """Return a layer that is read from the store, and add it first if necessary.

        Its bytes were hashed when they were stored. ``image.verify`` hashes them again,
        as those of any layer.

        Raises:
            IntegrityError: The layer does not have its diff_id.
            FlattenError: The layer cannot be read or written.
        """
        diff_id = layer.diff_id or _hashed(layer.open())
        path = self._path(diff_id)
        if not path.exists():
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise _failed(path.parent, "create", error) from error
            with _locked(path.with_name(f".{path.name}.lock")):
                if not path.exists():
                    self._add(layer, diff_id, path)
        return StoredLayer(layer.name, diff_id, layer.place, path)

    def _path(self, diff_id: str) -> Path:
        algorithm, _, digest = diff_id.partition(":")
        return self._folder / algorithm / digest

    def _add(self, layer: Layer, diff_id: str, path: Path) -> None:
        source = layer.open()
        with atomic.create(path, sync=self._sync) as out:
            found = _hashed(source, PlainSink(out, quoted(str(path))), diff_id)
            if found != diff_id:
                reason = layer.mismatch_reason()
                raise IntegrityError(
                    f"{layer.name}: digest mismatch: expected {diff_id}, found {found}"
                    f"{reason and ': '}{reason}"
                )


def is_in_file(image: Image, layer: Layer) -> bool:
    """Return True if a layer's plain tar is in a file of this machine.

    Nothing is fetched to find out.
    """
    if isinstance(layer, StoredLayer | SharedLayer):
        return layer.open().origin(0) is not None
    if image.transfer is not None:
        return False
    blob = layer.blob()
    return blob.origin(0) is not None and compression(blob) is None


def require_files(image: Image) -> None:
    """Check that all layers of an image are plain in files.

    Raises:
        UsageError: One is not, and the user can choose where to keep it.
    """
    for layer in image.layers:
        if not is_in_file(image, layer):
            raise UsageError(
                f"{layer.name}: not a plain tar in a file, which an index could point "
                "at; name a directory to keep one in with --layers DIR"
            )


def _hashed(
    source: LayerBytes, sink: PlainSink | None = None, like: str = "sha256:"
) -> str:
    """Return the digest of all bytes of a layer, and write them to a sink if given.

    Scratch space is freed as the bytes are written.

    Args:
        source: The bytes.
        sink: Where to write them.
        like: A digest by the same algorithm.
    """
    algorithm = like.partition(":")[0]
    digest = hashlib.new(algorithm)
    offset = 0
    while data := source.read(offset, _STEP):
        digest.update(data)
        if sink is not None:
            view = memoryview(data)
            while view:
                view = view[sink.write(view) :]
            source.release(offset, len(data))
        offset += len(data)
    return f"{algorithm}:{digest.hexdigest()}"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of a name while the body runs; the file is removed at the end.

    Who has waited for the lock of a file that was removed meanwhile tries again. The
    lock of a process that was killed is free.
    """
    while True:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise _failed(path, "create", error) from error
        try:
            with suppress(OSError):  # without locks, two runs may write the same bytes
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_nlink:
                try:
                    yield
                finally:
                    with suppress(OSError):
                        os.unlink(path)
                return
        finally:
            os.close(descriptor)


def _failed(path: Path, verb: str, error: OSError) -> FlattenError:
    return FlattenError(f"{quoted(str(path))}: cannot {verb}: {error.strerror}")
