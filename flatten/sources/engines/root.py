"""Read the data root of an engine: its documents, and the directories of its layers.

Nothing is written, mounted or locked, and nothing outside the root is read: the root
may have been moved, and may come from an untrusted machine.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from typing import Final

from ...errors import FlattenError, FormatError, quoted
from ...host.beneath import Beneath
from ...host.files import File, read_whole
from ...host.spools import Pool
from ...image.assembly import Assembly
from ...image.tarsplit import assemble
from ...tar.wire import normalise
from ..documents import Documents, Files
from ..folder import Folder, regular_file, unreadable

ID: Final = re.compile(r"[0-9a-f]{64}")
"""An id of an image, a container or a layer; it may become part of a path."""

BUILD_ID: Final = re.compile(r"[0-9a-z]{25}")
"""An id that BuildKit makes: 128 random bits in base 36 (identity/randomid.go)."""

TREE_ID: Final = re.compile(rf"{ID.pattern}(-init)?|{BUILD_ID.pattern}")
"""The name of a layer's directory; ``-init`` is docker's layer for a container."""

REMAPPED: Final = re.compile(r"([0-9]{1,9})\.([0-9]{1,9})")
"""Docker's name for the root of a user namespace (``userns-remap``): UID.GID."""

NOT_SHIFTED: Final = (0, 0)

_LINE: Final = 1 << 12  # maximum bytes of a file that contains an id


def check_readable(folder: Folder, *names: str) -> None:
    """Check that a directory and some of its subdirectories can be listed.

    A directory that cannot be listed would look like an empty one; a missing one is
    accepted.

    Raises:
        FlattenError: A directory exists but cannot be listed.
    """
    for name in ("", *names):
        try:
            os.scandir(folder.path / name).close()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise unreadable(folder.path / name, error) from error


def shift_in(name: str) -> tuple[int, int]:
    """Return where uids and gids begin on the disk, by what docker calls a namespace.

    >>> shift_in("100000.200000"), shift_in("docker")
    ((100000, 200000), (0, 0))
    """
    found = REMAPPED.fullmatch(name)
    return (int(found[1]), int(found[2])) if found else NOT_SHIFTED


def usual_and_remapped(folder: Folder) -> Iterator[Folder]:
    """Yield docker's data root, and the one of a user namespace in it.

    Of several user namespaces none is yielded: the user has to name one.
    """
    yield folder
    try:
        names = [each.name for each in os.scandir(folder.path)]
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise unreadable(folder.path, error) from error
    remapped = [name for name in names if REMAPPED.fullmatch(name)]
    if len(remapped) == 1:
        yield folder.below(remapped[0])


class Root(Files):
    """The data root of an engine.

    Attributes:
        name: The path as given by the user, for messages.
        pool: The pool that holds the headers of layers.
        documents: The parsed documents.
        resources: Closes the opened files.
        top: The directory.
        owner: The uid and gid on the disk that root has in docker's user namespace
            (``userns-remap``), after which docker names the directory.
    """

    def __init__(self, folder: Folder) -> None:
        """Open the directory; it is closed with the folder's resources."""
        self.name = folder.name
        self.pool: Pool = folder.pool
        self.documents = Documents()
        self.resources: ExitStack = folder.resources
        try:
            self.top = Beneath(str(folder.path), moved=True)
        except OSError as error:
            raise self._failed("", error) from error
        self.resources.callback(self.top.close)
        self.owner = shift_in(folder.path.resolve().name)

    def __contains__(self, name: bytes) -> bool:
        """Return True if there is a file or directory of that name."""
        try:
            return self.top.exists(name)
        except OSError as error:
            raise self._failed(os.fsdecode(name), error) from error

    def status(self) -> os.stat_result:
        """Return the status of the directory itself."""
        return self.top.status(b"")

    def open(self, name: str, what: str) -> File:
        """Return a file's bytes; the file stays open until ``resources`` closes it.

        Raises:
            FormatError: The file is missing.
        """
        file = self._open(name, what)
        self.resources.callback(file.close)
        return file

    def read(self, name: str, what: str, limit: int) -> bytes:
        """Return the contents of a small file.

        Raises:
            FormatError: The file is missing, or has more than ``limit`` bytes.
        """
        with closing(self._open(name, what)) as file:
            return read_whole(file, limit, f"{self.name}, {what}")

    def text(self, name: str) -> str | None:
        """Return the text of a one-line file, or None if the file is missing."""
        if name.encode() not in self:
            return None
        return self.read(name, name, _LINE).decode("utf-8", "replace").strip()

    def names(self, path: str) -> list[str]:
        """List a directory, sorted. A missing directory counts as empty."""
        try:
            return [os.fsdecode(name) for name in self.top.names(os.fsencode(path))]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise self._failed(path, error) from error

    def ids(self, path: str) -> list[str]:
        """List the names in a directory that are ids, sorted."""
        return [name for name in self.names(path) if ID.fullmatch(name)]

    def tree(self, path: str) -> Beneath | None:
        """Return a directory as a root for symlinks, or None if it is missing."""
        try:
            if self.top.is_directory(os.fsencode(path)):
                return self.top.below(os.fsencode(path))
        except OSError as error:
            raise self._failed(path, error) from error
        return None

    def assemble(
        self,
        record: str,
        tree: Beneath | str,
        where: str,
        contents: Mapping[bytes, bytes] | None = None,
    ) -> Assembly:
        """Return a layer from its tar-split record and its directory.

        If ``tree`` is the reason why there is no directory, reading a content raises
        it; headers can be read all the same. ``contents`` is as of ``tarsplit``.
        """
        with closing(self._open(record, "tar-split record")) as split:
            return assemble(split, tree, self.pool, where, contents)

    def _open(self, name: str, what: str) -> File:
        where = f"{self.name}, {what}"
        try:
            descriptor = self.top.open(normalise(os.fsencode(name)))
        except FileNotFoundError as error:
            path = quoted(self.path(name))
            raise FormatError(f"{path} is missing", where=where) from error
        except ValueError as error:
            raise FormatError(f"{quoted(name)} is {error}", where=where) from error
        except OSError as error:
            raise self._failed(name, error) from error
        return regular_file(descriptor, name, where)

    def path(self, name: str) -> str:
        """Return the path of a file in the root, for messages."""
        return f"{self.top.name}/{name}"

    def _failed(self, path: str, error: OSError) -> FlattenError:
        hint = "; read it as root" if isinstance(error, PermissionError) else ""
        return FlattenError(
            f"{self.name}: cannot read {quoted(path)}: {error.strerror}{hint}"
        )
