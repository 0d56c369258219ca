"""An image as an fsspec file system: ``flatten://PATH_IN_IMAGE`` with ``fo=IMAGE``.

>>> import fsspec
>>> file = fsspec.open("flatten://etc/os-release", fo="image.tar")  # doctest: +SKIP
>>> fsspec.open("flatten://etc/os-release::image.tar")              # doctest: +SKIP

Only fsspec imports this module, by its entry point.
"""

import errno
import os
import stat
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import IO, Any, NoReturn, cast

from fsspec import AbstractFileSystem, filesystem
from fsspec.core import split_protocol
from fsspec.implementations.local import LocalFileSystem

from .api import ImagePath, open_image


class FlattenFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec is untyped
    """The flattened tree of an image, read-only.

    Paths are relative to the root of the image. In a listing, a symlink to a file has
    the type ``file``, and any other symlink ``link``, so that recursive operations
    visit each directory once. ``info`` follows symlinks to directories too.

    Attributes:
        image: The open image.
        root: Its root directory.
    """

    protocol = "flatten"
    root_marker = ""
    cachable = False  # the image may be replaced by another one

    def __init__(  # noqa: PLR0913 - all by keyword
        self,
        fo: str | os.PathLike[str] = "",
        *,
        platform: str | None = None,
        store: str | None = None,
        verify: bool = False,
        target_protocol: str | None = None,
        target_options: Mapping[str, Any] | None = None,
        **storage_options: Any,
    ) -> None:
        """Open an image.

        Args:
            fo: The image, as for ``flatten.open_image``, or a URL.
            platform: As for ``flatten.open_image``.
            store: As for ``flatten.open_image``.
            verify: As for ``flatten.open_image``.
            target_protocol: The protocol of ``fo``, if it is a URL without one.
            target_options: Options of that protocol's file system.
            storage_options: Options of ``fsspec.AbstractFileSystem``.

        Raises:
            ValueError: ``fo`` is a URL of a remote file that is not cached locally.
            FlattenError: As for ``flatten.open_image`` and ``Image.root``.
        """
        super().__init__(**storage_options)
        reference = _local(os.fspath(fo), target_protocol, target_options or {})
        self.image = open_image(
            reference, platform=platform, store=store, verify=verify
        )
        try:
            self.root = self.image.root
        except BaseException:
            self.image.close()
            raise

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        stripped = super()._strip_protocol(path)
        return stripped if isinstance(stripped, list) else stripped.lstrip("/")

    def ls(self, path: str, detail: bool = True, **_kwargs: Any) -> list[Any]:
        """List a directory, or a file as the only entry of the list."""
        top = self._at(path)
        children = list(top.iterdir()) if top.is_dir() else None
        if not detail:
            return [_name(child) for child in ([top] if children is None else children)]
        if children is None:
            return [_info(top, follow=True)]
        return [_info(child, follow=False) for child in children]

    def info(self, path: str, **_kwargs: Any) -> dict[str, Any]:
        """Return the keys of fsspec's local files, and ``layer``, from 1."""
        return _info(self._at(path), follow=True)

    def exists(self, path: str, **_kwargs: Any) -> bool:
        """Return True if the path exists."""
        return self._at(path).exists()

    def lexists(self, path: str, **_kwargs: Any) -> bool:
        """Return True if the path exists, even as a broken symlink."""
        return self._at(path).exists(follow_symlinks=False)

    def isdir(self, path: str) -> bool:
        """Return True if the path is a directory or a symlink to one."""
        return self._at(path).is_dir()

    def isfile(self, path: str) -> bool:
        """Return True if the path is a regular file or a symlink to one."""
        return self._at(path).is_file()

    def modified(self, path: str) -> datetime:
        """Return the mtime of a path."""
        return datetime.fromtimestamp(self._at(path).stat().st_mtime, UTC)

    def cat_file(
        self,
        path: str,
        start: int | None = None,
        end: int | None = None,
        **_kwargs: Any,
    ) -> bytes:
        """Return the content of a file, or a slice of it."""
        with self._at(path).open("rb") as file:
            first, last, _ = slice(start, end).indices(file.seek(0, os.SEEK_END))
            file.seek(first)
            return file.read(max(last - first, 0))

    def _open(self, path: str, mode: str = "rb", **_kwargs: Any) -> IO[bytes]:
        if mode != "rb":
            self._read_only(path)
        file: Any = self._at(path).open("rb")
        file.size = file.seek(0, os.SEEK_END)  # expected by ``tail`` and others
        file.seek(0)
        return cast("IO[bytes]", file)

    def _read_only(self, path: str, *_args: Any, **_kwargs: Any) -> NoReturn:
        """Refuse to change the image."""
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)

    mkdir = makedirs = rmdir = _rm = rm_file = cp_file = touch = _read_only

    def _at(self, path: str) -> ImagePath:
        return self.root.joinpath(self._strip_protocol(path))


def _local(fo: str, protocol: str | None, options: Mapping[str, Any]) -> str:
    """Return the reference to an image on this machine that a URL stands for."""
    found, path = split_protocol(fo)
    protocol = protocol or found
    if protocol is None:
        return fo
    target = filesystem(protocol, **options)
    if isinstance(target, LocalFileSystem):
        return str(target._strip_protocol(path))  # noqa: SLF001 - for such subclasses
    if not getattr(target, "local_file", False):
        raise ValueError(
            f"{fo!r}: an image must be a local file; prefix the URL with "
            "'simplecache::' to copy it"
        )
    with target.open(path) as file:
        return str(file.name)


def _name(path: ImagePath) -> str:
    return "/".join(path.parts)


def _info(path: ImagePath, *, follow: bool) -> dict[str, Any]:
    """Describe a path; ``follow`` symlinks to directories too."""
    status = path.lstat()
    more: dict[str, Any] = {"islink": stat.S_ISLNK(status.st_mode)}
    if more["islink"]:
        more["destination"] = path.readlink()
        if path.is_file() or (follow and path.is_dir()):
            status = path.stat()
    types = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link"}
    return {
        "name": _name(path),
        "size": status.st_size,
        "type": types.get(stat.S_IFMT(status.st_mode), "other"),
        "mode": status.st_mode,
        "uid": status.st_uid,
        "gid": status.st_gid,
        "mtime": status.st_mtime,
        "ino": status.st_ino,
        "nlink": status.st_nlink,
        "layer": path.layer,
        **more,
    }
