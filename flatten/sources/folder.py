"""A directory that holds an image: its files by name."""

import os
import stat
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NoReturn

from ..errors import FlattenError, FormatError, quoted, shown
from ..host.files import File, read_whole
from ..host.spools import Pool
from ..tar.wire import normalise
from .documents import Documents, Files


class Folder(Files):
    """Files below a directory on the host.

    Symlinks are followed, as bazel's layouts consist of them; the content of a blob is
    checked against the digest that names it.

    Attributes:
        name: The directory's name in messages, as the user gave it.
        path: The directory.
        pool: Inflates compressed layers.
        documents: The documents that have been parsed.
        resources: Closes the files that were opened.
        opened: Those files.
        confined: Whether symlinks that leave the directory are refused.
    """

    def __init__(self, path: str, pool: Pool) -> None:
        """Prepare to open files, without opening any."""
        self.name = shown(path)
        self.pool = pool
        self.documents = Documents()
        self.resources = ExitStack()
        self.opened: list[File] = []
        self.path = Path(path)
        self.confined = False

    def below(self, name: str) -> "Folder":
        """Return a subdirectory; its files are closed with those of this directory."""
        folder = Folder(str(self.path / name), self.pool)
        folder.resources, folder.opened = self.resources, self.opened
        return folder

    def within(self) -> "Folder":
        """Return this directory with symlinks confined to it."""
        folder = Folder(str(self.path), self.pool)
        folder.resources, folder.opened = self.resources, self.opened
        folder.confined = True
        return folder

    def __contains__(self, name: bytes) -> bool:
        """Return True if there is a file of that name."""
        try:
            return (self.path / os.fsdecode(normalise(name))).is_file()
        except ValueError:  # a name that leaves the directory is not one in it
            return False
        except OSError as error:
            raise FlattenError(f"{self.name}: {error.strerror}") from error

    def names(self) -> list[str]:
        """List what is in the directory, sorted; nothing if it is no directory.

        Raises:
            FlattenError: It cannot be listed.
        """
        try:
            return sorted(os.listdir(self.path))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise unreadable(self.path, error) from error

    def fail(self, what: str) -> NoReturn:
        """Raise FormatError for the directory as a whole."""
        raise FormatError(what, where=self.name)

    def open(self, name: str, what: str) -> File:
        """Return a file's bytes; it stays open until ``resources`` closes it.

        Raises:
            FormatError: It does not exist.
        """
        file = self._open(name, what)
        self.resources.callback(file.close)
        self.opened.append(file)
        return file

    def place(self, name: str, what: str) -> tuple[int, int]:
        """Return the device and the inode of a file, which two names may share.

        Raises:
            FormatError: It does not exist.
        """
        with closing(self._open(name, what)) as file:
            status = os.fstat(file.descriptor)
        return status.st_dev, status.st_ino

    def read(self, name: str, what: str, limit: int) -> bytes:
        """Return all of a small file.

        Raises:
            FormatError: It does not exist, or has more than ``limit`` bytes.
        """
        with closing(self._open(name, what)) as file:
            return read_whole(file, limit, f"{self.name}, {what}")

    def _open(self, name: str, what: str) -> File:
        where = f"{self.name}, {what}"
        try:
            relative = os.fsdecode(normalise(name.encode("utf-8", "surrogatepass")))
            path = self.path / relative
            if self.confined and not path.resolve().is_relative_to(self.path.resolve()):
                raise ValueError("a symlink that leaves the directory")
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError as error:
            raise FormatError(f"{quoted(name)} is not there", where=where) from error
        except ValueError as error:
            raise FormatError(f"{quoted(name)} is {error}", where=where) from error
        except OSError as error:
            raise FlattenError(f"{where}: {path}: {error.strerror}") from error
        return regular_file(descriptor, name, where)


def unreadable(path: Path, error: OSError) -> FlattenError:
    """Return the error for a directory that cannot be listed."""
    return FlattenError(
        f"cannot read {quoted(str(path))}: {error.strerror}; read it as root"
    )


def regular_file(descriptor: int, name: str, where: str) -> File:
    """Return an open descriptor as a file.

    Raises:
        FormatError: It is not a regular file; the descriptor is closed.
    """
    status = os.fstat(descriptor)
    file = File(descriptor, where, status.st_size)
    if not stat.S_ISREG(status.st_mode):
        file.close()
        raise FormatError(f"{quoted(name)} is not a file", where=where)
    return file
