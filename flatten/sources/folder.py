"""A directory that holds an image: its files by name."""

import os
import stat
from contextlib import ExitStack
from pathlib import Path

from ..errors import FlattenError, FormatError, quoted, shown
from ..streams import File, Pool
from ..tarball import normalise


class Folder:
    """Files below a directory of the host.

    Symlinks are followed: bazel's layouts consist of them, and blobs are checked
    against the digests that name them.

    Attributes:
        name: As the user gave it, for messages.
        pool: What inflates compressed layers.
        resources: Closes the files that were opened.
    """

    def __init__(self, path: str, pool: Pool) -> None:
        """Open nothing yet."""
        self.name = shown(path)
        self.pool = pool
        self.resources = ExitStack()
        self._path = Path(path)

    def __contains__(self, name: bytes) -> bool:
        """Say whether there is a file of that name."""
        try:
            return (self._path / os.fsdecode(name)).is_file()
        except OSError as error:
            raise FlattenError(f"{self.name}: {error.strerror}") from error

    def open(self, name: str, what: str) -> File:
        """Return a file's bytes.

        Raises:
            FormatError: There is none.
        """
        where = f"{self.name}, {what}"
        try:
            relative = os.fsdecode(normalise(name.encode("utf-8", "surrogatepass")))
            path = self._path / relative
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError as error:
            raise FormatError(f"{quoted(name)} is not there", where=where) from error
        except ValueError as error:
            raise FormatError(f"{quoted(name)} is {error}", where=where) from error
        except OSError as error:
            raise FlattenError(f"{where}: {path}: {error.strerror}") from error
        status = os.fstat(descriptor)
        file = File(descriptor, where, status.st_size)
        self.resources.callback(file.close)
        if not stat.S_ISREG(status.st_mode):
            raise FormatError(f"{quoted(name)} is not a file", where=where)
        return file
