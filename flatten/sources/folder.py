"""A directory that holds an image: its files by name."""

import os
import stat
from contextlib import ExitStack, closing
from pathlib import Path

from ..errors import FlattenError, FormatError, quoted, shown
from ..host.files import File, read_whole
from ..host.spools import Pool
from ..tar.wire import normalise
from .documents import Documents


class Folder:
    """Files below a directory of the host.

    Symlinks are followed: bazel's layouts consist of them, and blobs are checked
    against the digests that name them.

    Attributes:
        name: As the user gave it, for messages.
        path: Of the directory.
        pool: What inflates compressed layers.
        documents: What was parsed.
        resources: Closes the files that were opened.
    """

    def __init__(self, path: str, pool: Pool) -> None:
        """Open nothing yet."""
        self.name = shown(path)
        self.pool = pool
        self.documents = Documents()
        self.resources = ExitStack()
        self.path = Path(path)

    def below(self, name: str) -> "Folder":
        """Return a directory in this one; what is opened there is closed with it."""
        folder = Folder(str(self.path / name), self.pool)
        folder.resources = self.resources
        return folder

    def __contains__(self, name: bytes) -> bool:
        """Say whether there is a file of that name."""
        try:
            return (self.path / os.fsdecode(name)).is_file()
        except OSError as error:
            raise FlattenError(f"{self.name}: {error.strerror}") from error

    def open(self, name: str, what: str) -> File:
        """Return a file's bytes; it stays open until ``resources`` closes it.

        Raises:
            FormatError: There is none.
        """
        file = self._open(name, what)
        self.resources.callback(file.close)
        self.pool.files.append(file)
        return file

    def read(self, name: str, what: str, limit: int) -> bytes:
        """Return all of a small file.

        Raises:
            FormatError: There is none, or it has more than ``limit`` bytes.
        """
        with closing(self._open(name, what)) as file:
            return read_whole(file, limit, f"{self.name}, {what}")

    def _open(self, name: str, what: str) -> File:
        where = f"{self.name}, {what}"
        try:
            relative = os.fsdecode(normalise(name.encode("utf-8", "surrogatepass")))
            path = self.path / relative
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError as error:
            raise FormatError(f"{quoted(name)} is not there", where=where) from error
        except ValueError as error:
            raise FormatError(f"{quoted(name)} is {error}", where=where) from error
        except OSError as error:
            raise FlattenError(f"{where}: {path}: {error.strerror}") from error
        return regular_file(descriptor, name, where)


def regular_file(descriptor: int, name: str, where: str) -> File:
    """Return what was opened as bytes.

    Raises:
        FormatError: It is no regular file; it is closed then.
    """
    status = os.fstat(descriptor)
    file = File(descriptor, where, status.st_size)
    if not stat.S_ISREG(status.st_mode):
        file.close()
        raise FormatError(f"{quoted(name)} is not a file", where=where)
    return file
