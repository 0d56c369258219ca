"""The data root of an engine, on a disk that may be foreign: documents and trees.

Nothing is written, mounted or locked, and nothing outside the root is read: the disk
may be mounted elsewhere, or come from a stranger.
"""

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Final

from ...errors import FlattenError, FormatError, quoted
from ...host.beneath import Beneath
from ...host.files import File, read_whole
from ...host.spools import Pool
from ...image.assembly import Assembly
from ...image.tarsplit import assemble
from ...tar.wire import normalise
from ..documents import Documents
from ..folder import Folder, regular_file

ID: Final = re.compile(r"[0-9a-f]{64}")
"""An id of an image, a container or a layer; it may become part of a path."""

BUILD_ID: Final = re.compile(r"[0-9a-z]{25}")
"""An id that BuildKit makes: 128 random bits in base 36 (identity/randomid.go)."""

TREE_ID: Final = re.compile(rf"{ID.pattern}(-init)?|{BUILD_ID.pattern}")
"""The name of a layer's directory; ``-init`` is docker's layer for a container."""

REMAPPED: Final = re.compile(r"([0-9]{1,9})\.([0-9]{1,9})")
"""What docker calls the root of a user namespace (``userns-remap``): its ids."""

NOT_SHIFTED: Final = (0, 0)

_LINE: Final = 1 << 12  # bytes of a file that holds an id


def check_readable(folder: Folder, *names: str) -> None:
    """Check that a directory and some in it can be listed, if they are there.

    Raises:
        FlattenError: One cannot: what is in it would seem not to be there.
    """
    for name in ("", *names):
        try:
            os.scandir(folder.path / name).close()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise unreadable(folder.path / name, error) from error


def unreadable(path: Path, error: OSError) -> FlattenError:
    """Return the error for a directory that cannot be listed."""
    return FlattenError(
        f"cannot read {quoted(str(path))}: {error.strerror}; read it as root"
    )


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


class Root:
    """A directory that an engine keeps its images in; ``documents.Files``.

    Attributes:
        name: As the user gave it, for messages.
        pool: What holds the headers of layers.
        documents: What was parsed.
        resources: Closes what was opened.
        top: The directory.
        owner: Where the ids of a user namespace begin on the disk: of root's uid and
            gid. Docker names the directory after them (``userns-remap``).
    """

    def __init__(self, folder: Folder) -> None:
        """Open a directory; the folder's resources close it."""
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
        """Say whether there is a file or directory of that name."""
        try:
            return self.top.exists(name)
        except OSError as error:
            raise self._failed(os.fsdecode(name), error) from error

    def status(self) -> os.stat_result:
        """Return the status of the directory itself."""
        return self.top.status(b"")

    def open(self, name: str, what: str) -> File:
        """Return a file's bytes; it stays open until ``resources`` closes it.

        Raises:
            FormatError: There is none.
        """
        file = self._open(name, what)
        self.resources.callback(file.close)
        return file

    def read(self, name: str, what: str, limit: int) -> bytes:
        """Return all of a small file.

        Raises:
            FormatError: There is none, or it has more than ``limit`` bytes.
        """
        with closing(self._open(name, what)) as file:
            return read_whole(file, limit, f"{self.name}, {what}")

    def text(self, name: str) -> str | None:
        """Return what a file of one line holds, if there is one."""
        if name.encode() not in self:
            return None
        return self.read(name, name, _LINE).decode("utf-8", "replace").strip()

    def names(self, path: str) -> list[str]:
        """List a directory, sorted; none is empty."""
        try:
            return [os.fsdecode(name) for name in self.top.names(os.fsencode(path))]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise self._failed(path, error) from error

    def ids(self, path: str) -> list[str]:
        """List a directory's ids, sorted; what is no id is left out."""
        return [name for name in self.names(path) if ID.fullmatch(name)]

    def tree(self, path: str) -> Beneath | None:
        """Return a directory whose symlinks stay in it; None if there is none."""
        try:
            if self.top.is_directory(os.fsencode(path)):
                return self.top.below(os.fsencode(path))
        except OSError as error:
            raise self._failed(path, error) from error
        return None

    def assemble(self, record: str, tree: Beneath | str, where: str) -> Assembly:
        """Return a layer from tar-split's record of it, and its tree.

        ``tree`` may be the reason why there is none: it is said when a content is
        read, so that headers can be read without.
        """
        with closing(self._open(record, "tar-split's record")) as split:
            return assemble(split, tree, self.pool, where)

    def _open(self, name: str, what: str) -> File:
        where = f"{self.name}, {what}"
        try:
            descriptor = self.top.open(normalise(os.fsencode(name)))
        except FileNotFoundError as error:
            path = quoted(self.path(name))
            raise FormatError(f"{path} is not there", where=where) from error
        except ValueError as error:
            raise FormatError(f"{quoted(name)} is {error}", where=where) from error
        except OSError as error:
            raise self._failed(name, error) from error
        return regular_file(descriptor, name, where)

    def path(self, name: str) -> str:
        """Return a path for a message."""
        return f"{self.top.name}/{name}"

    def _failed(self, path: str, error: OSError) -> FlattenError:
        hint = "; read it as root" if isinstance(error, PermissionError) else ""
        return FlattenError(
            f"{self.name}: cannot read {quoted(path)}: {error.strerror}{hint}"
        )
