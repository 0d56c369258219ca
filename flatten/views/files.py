"""The files of the flattened tree: their status, and their contents at offsets."""

import errno
import io
import os
import stat
import threading
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from ..errors import FormatError
from ..host.limits import Limits
from ..image.image import Image
from ..image.read import read_index
from ..tar.members import (
    BLOCK,
    CHAR,
    DIRECTORY,
    FIFO,
    FILE,
    NO_EXTRA,
    SYMLINK,
)
from .describe import readable_xattrs
from .paths import PathEntry, find, path_error

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_FORMATS: Final = {
    FILE: stat.S_IFREG,
    DIRECTORY: stat.S_IFDIR,
    SYMLINK: stat.S_IFLNK,
    FIFO: stat.S_IFIFO,
    CHAR: stat.S_IFCHR,
    BLOCK: stat.S_IFBLK,
}
_IMPLIED_ROOT: Final = stat.S_IFDIR | 0o755  # the mode of a root that no layer lists
_ZEROS: Final = bytes(1 << 20)
_ROOT_NUMBER: Final = 1  # its st_ino; other inodes are counted from 2


class FileTree:
    """The flattened tree of an open image, for reading by any number of threads.

    Attributes:
        index: The index of the image.
    """

    def __init__(self, image: Image, limits: Limits) -> None:
        """Read the headers of all layers.

        Args:
            image: An open image, which stays open until ``close``.
            limits: The maximum size of a file, and limits for reading the headers.

        Raises:
            FormatError: A layer breaks its format or cannot be applied to the tree, or
                a limit is exceeded.
        """
        self.index = read_index(image, limits)
        self._source = image.source
        self._check_unchanged = image.check_unchanged
        self._limit = limits.size
        self._names = [layer.name for layer in image.layers]
        self._layers = [layer.open() for layer in image.layers]
        self._changed = threading.Condition()
        self._readers = 0
        self._closed = False

    def close(self) -> None:
        """Refuse further use; return when the reads in progress have ended."""
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: not self._readers)

    def find(self, path: bytes, *, follow: bool = True) -> PathEntry:
        """Return the entry at a path.

        Raises:
            OSError: As for ``paths.find``.
            ValueError: The image is closed.
        """
        self._check_open()
        return find(self.index, path, follow=follow)

    def is_directory(self, inode: int) -> bool:
        """Return True if an inode is a directory."""
        return inode in self.index.tree.children

    def is_file(self, entry: PathEntry) -> bool:
        """Return True if an entry is a regular file."""
        return entry.inode is not None and self.index.members.kinds[entry.inode] == FILE

    def layer(self, entry: PathEntry) -> int | None:
        """Return the number of the layer that an entry comes from, from 1.

        None is for a root that no layer lists.
        """
        return (
            None if entry.inode is None else self.index.members.layers[entry.inode] + 1
        )

    def target(self, entry: PathEntry) -> bytes | None:
        """Return the text of a symlink, or None if the entry is not a symlink."""
        members, inode = self.index.members, entry.inode
        if inode is None or members.kinds[inode] != SYMLINK:
            return None
        return members.targets[inode]

    def xattrs(self, entry: PathEntry) -> dict[bytes, bytes]:
        """Return the extended attributes of an entry by name, in byte order."""
        if entry.inode is None:
            return {}
        extra = self.index.members.extras.get(entry.inode, NO_EXTRA)
        return dict(sorted(readable_xattrs(extra.records).items()))

    def status(self, entry: PathEntry) -> os.stat_result:
        """Return what ``os.lstat`` would return for an entry.

        Hard links share ``st_ino``, and ``st_nlink`` counts the names of all but
        directories, for which it is 1. The image records one time: all three are it.
        """
        if entry.inode is None:
            return _stat_result(_IMPLIED_ROOT, _ROOT_NUMBER)
        members, inode = self.index.members, entry.inode
        mode, uid, gid = members.owner_table[members.owners[inode]]
        kind, size = members.kinds[inode], members.sizes[inode]
        extra = members.extras.get(inode, NO_EXTRA)
        return _stat_result(
            _FORMATS[kind] | mode,
            inode + _ROOT_NUMBER + 1,
            links=self._links.get(inode, 1),
            owner=(uid, gid),
            size=len(members.targets[inode]) if kind == SYMLINK else size,
            stored=members.stored(inode),
            nanoseconds=members.mtimes[inode] * 10**9 + extra.nanoseconds,
            device=os.makedev(*extra.device) if kind in (CHAR, BLOCK) else 0,
        )

    def open(self, entry: PathEntry, path: bytes) -> "FileReader":
        """Return the content of a file, for reading at offsets.

        Args:
            entry: The file.
            path: Its path, for messages.

        Raises:
            OSError: The entry is a directory, or otherwise not a regular file.
            FormatError: The file is larger than the limit.
            FlattenError: The image's files were modified since they were opened.
            ValueError: The image is closed.
        """
        members, inode = self.index.members, entry.inode
        if inode is None or entry.names is not None:
            raise path_error(errno.EISDIR, path)
        if members.kinds[inode] != FILE:
            raise path_error(errno.ENXIO, path, "Not a regular file")
        with self._reading():
            self._check_unchanged()
        if members.sizes[inode] > self._limit:
            raise FormatError(
                f"a file of {members.sizes[inode]:,} bytes, over {self._limit:,}; if "
                "that is right, allow more with Limits.size",
                where=self._names[members.layers[inode]],
                offset=members.data[inode],
            )
        return FileReader(self, inode)

    def read_stored(self, inode: int, offset: int, view: memoryview) -> None:
        """Fill a view from the bytes of a file that its layer stores, without holes."""
        members = self.index.members
        with self._reading():
            layer = self._layers[members.layers[inode]]
            layer.readinto(members.data[inode] + offset, view)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Keep the image's files open while the body reads them."""
        with self._changed:
            self._check_open()
            self._readers += 1
        try:
            yield
        finally:
            with self._changed:
                self._readers -= 1
                self._changed.notify_all()

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError(f"{self._source}: the image is closed")

    @cached_property
    def _links(self) -> Counter[int]:
        """The number of names of each inode that may have more than one."""
        tree = self.index.tree
        directories = (tree.root, *tree.children.values()) if tree.linked else ()
        return Counter(
            inode
            for names in directories
            for inode in names.values()
            if inode in tree.linked
        )


def _stat_result(  # noqa: PLR0913 - the fields of a stat_result
    mode: int,
    number: int,
    *,
    links: int = 1,
    owner: tuple[int, int] = (0, 0),
    size: int = 0,
    stored: int = 0,
    nanoseconds: int = 0,
    device: int = 0,
) -> os.stat_result:
    seconds = nanoseconds // 10**9
    fields = (mode, number, 0, links, *owner, size, seconds, seconds, seconds)
    more = {f"st_{kind}time": nanoseconds / 10**9 for kind in "amc"}
    more |= {f"st_{kind}time_ns": nanoseconds for kind in "amc"}
    more |= {"st_blksize": 4096, "st_blocks": -(-stored // 512), "st_rdev": device}
    return os.stat_result(fields, more)


class FileReader(io.RawIOBase):
    """The content of a file of the image, holes included."""

    def __init__(self, tree: FileTree, inode: int) -> None:
        """Read nothing yet."""
        members = tree.index.members
        size = members.sizes[inode]
        sparse = members.extras.get(inode, NO_EXTRA).sparse
        regions = ((0, size),) if sparse is None else sparse
        self._tree = tree
        self._inode = inode
        self._size = size
        self._starts = [start for start, _ in regions]
        self._regions: Sequence[tuple[int, int]] = regions
        self._stored = [0, *accumulate(length for _, length in regions)]
        self._position = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move to an offset, and return it from the start of the file."""
        self._check_open()
        bases = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}
        if whence not in bases:
            raise ValueError(f"{whence!r} is not a valid whence")
        if bases[whence] + offset < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self._position = bases[whence] + offset
        return self._position

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        """Fill a buffer, except at the end of the file; return the number of bytes."""
        self._check_open()
        view = memoryview(buffer).cast("B")
        view = view[: max(self._size - self._position, 0)]
        self._fill(view)
        self._position += len(view)
        return len(view)

    def readall(self) -> bytes:
        """Return the rest of the file."""
        out = bytearray(max(self._size - self._position, 0))
        self.readinto(out)
        return bytes(out)

    def _fill(self, view: memoryview) -> None:
        """Fill a view from the position on, which the file has enough bytes for."""
        at = self._position
        while view:
            region = bisect_right(self._starts, at) - 1
            start, length = self._regions[region] if region >= 0 else (0, 0)
            skip = at - start
            if skip < length:
                part = view[: length - skip]
                self._tree.read_stored(self._inode, self._stored[region] + skip, part)
            else:
                later = self._starts[region + 1 : region + 2]
                hole = (later[0] if later else self._size) - at
                part = view[: min(hole, len(_ZEROS))]
                part[:] = _ZEROS[: len(part)]
            view = view[len(part) :]
            at += len(part)

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")
