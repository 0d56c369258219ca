"""The public API for reading an image: open it, and use its tree like ``pathlib``."""

import errno
import fnmatch
import io
import os
import re
import threading
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from importlib.resources.abc import Traversable
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING, Literal, Unpack, overload

from .host.limits import Limits
from .image import image
from .image.verify import checking
from .options import Selection, SelectionFields
from .sources import open as sources
from .tree.tree import Names
from .views.files import FileTree
from .views.paths import PathEntry, path_error

if TYPE_CHECKING:
    from _typeshed import StrPath

_WILD = re.compile(r"[*?[]")


@dataclass(slots=True)
class Image(image.Image):
    """An open image: its layers, its metadata, and the files in its flattened tree.

    It is a context manager that closes the image on exit. An image whose ``root`` was
    used is also closed when the last reference to it, its paths and files is gone.

    Attributes:
        limits: Limits on the resources that reading it may take.
    """

    limits: Limits = field(default_factory=Limits)
    _tree: FileTree | None = field(default=None, init=False, repr=False)
    _closed: bool = field(default=False, init=False, repr=False)
    _lock: threading.Lock = field(
        default_factory=threading.Lock, init=False, repr=False, compare=False
    )

    @property
    def root(self) -> "ImagePath":
        """The root directory of the flattened tree.

        The first access reads the headers of all layers, and starts to decompress
        compressed layers, once each. The content of a file is read when it is needed.

        Raises:
            FormatError: A layer breaks its format or cannot be applied to the tree, or
                a limit is exceeded.
            ValueError: The image is closed.
        """
        with self._lock:
            if self._closed:
                raise ValueError(f"{self.source}: the image is closed")
            if self._tree is None:
                self._tree = FileTree(self, self.limits)
                unused = weakref.finalize(self._tree, self.resources.close)
                unused.atexit = False  # the process closes everything then
            return ImagePath(self._tree)

    def close(self) -> None:
        """Close the image; a second call does nothing.

        After that, its paths and open files raise ValueError. A read in progress in
        another thread ends first.
        """
        with self._lock:
            self._closed = True
            if self._tree is not None:
                self._tree.close()
            self.resources.close()


def open_image(
    reference: str | os.PathLike[str],
    *,
    verify: bool = False,
    **selection: Unpack[SelectionFields],
) -> Image:
    """Open an image, to read its metadata, its layers and the files in it.

    Layers are opened when they are first needed, and their digests are not checked,
    unless ``verify`` is set.

    Args:
        reference: ``[KIND:]PATH[#NAME]``; PATH ``-`` is standard input. NAME is one
            of the image's names, its id or a prefix of that, or ``@N``, its position.
            It can be omitted if the source has one image.
        verify: Read all layers now, and check them against the image's digests.
        selection: ``platform``, ``store``, ``at``, ``with_init``, ``limits`` and
            ``access``, as in ``Options``.

    Raises:
        SourceError: The path does not exist or is not an image of a known kind, or no
            image in it has that name or platform.
        UsageError: The source has several images and the reference matches more than
            one.
        FormatError: The source breaks its format.
        IntegrityError: With ``verify``: a digest does not match.
    """
    wanted = Selection(**selection)
    if verify:  # whole layers
        wanted = replace(wanted, access=replace(wanted.access, parts=False))
    found = sources.open_image(os.fspath(reference), wanted, verify=verify)
    try:
        if verify:
            with checking(found.layers) as check:
                check.start_rest()
                check.finish()
    except BaseException:
        found.close()
        raise
    values = {each.name: getattr(found, each.name) for each in fields(found)}
    return Image(**values, limits=wanted.limits)


class ImagePath(Traversable):
    """A path in the flattened tree of an open image, used like a ``pathlib.Path``.

    Names are text; bytes that are not UTF-8 are surrogate escapes, as in
    ``os.fsdecode``. Symlinks are resolved inside the image. Making a path does not look
    at the image. The methods that do raise:

    * OSError, for a path error: FileNotFoundError, NotADirectoryError,
      IsADirectoryError, or OSError with ELOOP. Its ``filename`` is the path in the
      image.
    * FlattenError, if the image is damaged or its files were modified.
    * ValueError, if the image is closed.
    """

    def __init__(self, tree: FileTree, parts: tuple[str, ...] = ()) -> None:
        """Name a path; use ``Image.root`` and ``joinpath`` instead."""
        self._tree = tree
        self._parts = parts

    # --- the path itself

    @property
    def name(self) -> str:
        """The last component; "" for the root."""
        return self._parts[-1] if self._parts else ""

    @property
    def parts(self) -> tuple[str, ...]:
        """The components, from the root; none for the root."""
        return self._parts

    @property
    def parent(self) -> "ImagePath":
        """The path without its last component; of the root, the root."""
        return ImagePath(self._tree, self._parts[:-1])

    @property
    def path(self) -> PurePosixPath:
        """The path relative to the root, for ``suffix``, ``match`` and the like."""
        return PurePosixPath(*self._parts)

    def joinpath(self, *descendants: "StrPath") -> "ImagePath":
        """Return a path below this one; an absolute path starts at the image's root.

        So ``path.parent / path.readlink()`` is what a symlink refers to.
        """
        parts = list(self._parts)
        for descendant in descendants:
            text = os.fspath(descendant)
            if text.startswith("/"):
                parts.clear()
            parts += [part for part in text.split("/") if part not in ("", ".")]
        return ImagePath(self._tree, tuple(parts))

    def __truediv__(self, child: "StrPath") -> "ImagePath":
        """Return ``joinpath(child)``."""
        return self.joinpath(child)

    def __eq__(self, other: object) -> bool:
        """Compare the image and the components; symlinks are not resolved."""
        if not isinstance(other, ImagePath):
            return NotImplemented
        return self._tree is other._tree and self._parts == other._parts

    def __lt__(self, other: "ImagePath") -> bool:
        """Compare the components, so that paths can be sorted."""
        return self._parts < other._parts

    def __hash__(self) -> int:
        return hash((id(self._tree), self._parts))

    def __str__(self) -> str:
        """Return the path relative to the root; "." for the root."""
        return "/".join(self._parts) or "."

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    # --- what it refers to

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        """Return True if the path exists."""
        return self._find_if_any(follow=follow_symlinks) is not None

    def is_dir(self) -> bool:
        """Return True if the path is a directory or a symlink to one."""
        entry = self._find_if_any()
        return entry is not None and entry.names is not None

    def is_file(self) -> bool:
        """Return True if the path is a regular file or a symlink to one."""
        entry = self._find_if_any()
        return entry is not None and self._tree.is_file(entry)

    def is_symlink(self) -> bool:
        """Return True if the path is a symlink, even a broken one."""
        entry = self._find_if_any(follow=False)
        return entry is not None and self._tree.target(entry) is not None

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """Return the status of the path, as ``os.stat`` does.

        Names of one inode have the same ``st_ino``, and ``st_nlink`` counts them; for
        directories it is 1. The image records one time, the mtime. A directory that no
        layer lists has mode 0755 and owner 0:0.
        """
        return self._tree.status(self._find(follow=follow_symlinks))

    def lstat(self) -> os.stat_result:
        """Return the status of the path itself, even if it is a symlink."""
        return self.stat(follow_symlinks=False)

    def readlink(self) -> str:
        """Return the text of a symlink.

        Raises:
            OSError: EINVAL: the path is not a symlink.
        """
        target = self._tree.target(self._find(follow=False))
        if target is None:
            raise path_error(errno.EINVAL, self._bytes)
        return _text(target)

    def xattrs(self, *, follow_symlinks: bool = True) -> dict[str, bytes]:
        """Return the extended attributes by name, ACLs in the kernel's binary form."""
        found = self._tree.xattrs(self._find(follow=follow_symlinks))
        return {_text(name): value for name, value in found.items()}

    @property
    def layer(self) -> int | None:
        """The number of the layer that the path itself comes from, from 1.

        It is the number that ``flatten ls`` shows: layer N is ``image.layers[N - 1]``.
        It is None for a root that no layer lists.
        """
        return self._tree.layer(self._find(follow=False))

    # --- directories

    def iterdir(self) -> Iterator["ImagePath"]:
        """Return the paths in a directory, sorted bytewise by name."""
        return map(self.joinpath, map(_text, sorted(self._names(self._parts))))

    def walk(self) -> Iterator[tuple["ImagePath", list[str], list[str]]]:
        """Walk the tree top-down, as ``os.walk`` and ``pathlib.Path.walk`` do.

        Yield each directory, the names of the directories in it, and all other names,
        among them symlinks to directories, which are not followed. The caller may
        remove names from the first list, or sort it, to control where the walk goes.
        """
        todo = [self._parts]
        while todo:
            parts = todo.pop()
            names = self._names(parts)
            directories: list[str] = []
            others: list[str] = []
            for name in sorted(names):
                below = self._tree.is_directory(names[name])
                (directories if below else others).append(_text(name))
            yield ImagePath(self._tree, parts), directories, others
            todo += [(*parts, name) for name in reversed(directories)]

    def glob(self, pattern: str) -> Iterator["ImagePath"]:
        """Yield the paths below this one that match a pattern, each once.

        The syntax is that of ``pathlib``: ``*``, ``?`` and ``[...]`` match within one
        component, and ``**`` any number of directories, without following symlinks.
        A ``**`` at the end matches files and directories, as from Python 3.13 on.

        Raises:
            ValueError: The pattern is empty or absolute.
        """
        parts = [part for part in pattern.split("/") if part not in ("", ".")]
        if not parts or pattern.startswith("/"):
            raise ValueError(f"{pattern!r} is not a relative pattern")
        seen: set[ImagePath] = set()
        for path in _select(self, parts):
            if path not in seen:
                seen.add(path)
                yield path

    def rglob(self, pattern: str) -> Iterator["ImagePath"]:
        """Yield the paths at any depth that match a pattern: ``glob("**/" + ...)``."""
        return self.glob(f"**/{pattern}")

    # --- contents

    @overload
    def open(
        self,
        mode: Literal["r", "rt"] = "r",
        *,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> IO[str]: ...
    @overload
    def open(self, mode: Literal["rb"]) -> IO[bytes]: ...
    def open(
        self,
        mode: str = "r",
        *,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> IO[str] | IO[bytes]:
        """Open a file for reading; the file object can seek.

        Args:
            mode: ``r`` for text, ``rb`` for bytes.
            encoding: By default UTF-8, whatever the host's locale.
            errors: As for ``io.TextIOWrapper``.
            newline: As for ``io.TextIOWrapper``.
        """
        if mode not in ("r", "rt", "rb"):
            if set(mode) & set("wax+"):
                raise path_error(errno.EROFS, self._bytes)
            raise ValueError(f"{mode!r} is not a valid mode")
        reader = io.BufferedReader(self._tree.open(self._find(), self._bytes))
        if mode == "rb":
            return reader
        return io.TextIOWrapper(reader, encoding or "utf-8", errors, newline)

    def read_bytes(self) -> bytes:
        """Return the content of a file."""
        with self.open("rb") as file:
            return file.read()

    def read_text(
        self,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> str:
        """Return the content of a file as text; the default encoding is UTF-8."""
        with self.open(encoding=encoding, errors=errors, newline=newline) as file:
            return file.read()

    # --- looking up

    @property
    def _bytes(self) -> bytes:
        return _joined(self._parts)

    def _find(self, *, follow: bool = True) -> PathEntry:
        return self._tree.find(self._bytes, follow=follow)

    def _find_if_any(self, *, follow: bool = True) -> PathEntry | None:
        """Return the entry, or None if the path leads nowhere."""
        try:
            return self._find(follow=follow)
        except OSError:
            return None

    def _names(self, parts: tuple[str, ...]) -> Names:
        """Return the names in a directory."""
        names = self._tree.find(_joined(parts)).names
        if names is None:
            raise path_error(errno.ENOTDIR, _joined(parts))
        return names


def _select(path: ImagePath, pattern: Sequence[str]) -> Iterator[ImagePath]:
    """Yield the paths that match the components of a pattern, some more than once."""
    if not pattern:
        yield path
    elif pattern[0] == "**":
        if path.is_dir():
            yield from _select_at_any_depth(path, pattern[1:])
    elif not _WILD.search(pattern[0]):
        child = path / pattern[0]
        if child.exists(follow_symlinks=False):
            yield from _select(child, pattern[1:])
    elif path.is_dir():
        matches = re.compile(fnmatch.translate(pattern[0])).match
        for child in path.iterdir():
            if matches(child.name):
                yield from _select(child, pattern[1:])


def _select_at_any_depth(top: ImagePath, pattern: Sequence[str]) -> Iterator[ImagePath]:
    """Yield the paths that match a pattern in a directory or in any below it."""
    for path, _, others in top.walk():
        yield from _select(path, pattern)
        if not pattern:
            yield from map(path.joinpath, others)


def _joined(parts: tuple[str, ...]) -> bytes:
    return "/".join(parts).encode("utf-8", "surrogateescape")


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
