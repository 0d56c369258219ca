"""The tar around an image: its members by name, found without reading their data."""

from typing import Final, NoReturn

from ..errors import FormatError, quoted
from ..host.files import LayerBytes, Window, read_whole
from ..host.spools import Pool
from ..tar.members import FILE, LINK, NO_EXTRA, SYMLINK, Members
from ..tar.reader import TarReader
from ..tar.wire import normalise
from .documents import Documents

MAX_HOPS: Final = 40  # links from member to member
MAX_FILES: Final = 1 << 20  # in an archive of images: 250 bytes of memory each


class Archive:
    """An index of an archive; of a file that is no tar, an empty one.

    Names are keys of the index, never paths of the host.

    Attributes:
        name: As the user gave it, for messages.
        pool: What inflates compressed layers.
        documents: What was parsed.
        is_tar: It begins as a tar does.
        ended: It has its end-of-archive mark, so that it was not cut off.
        failure: Why the index is not complete, if it is not.
    """

    def __init__(self, source: LayerBytes, name: str, pool: Pool) -> None:
        """Index the archive: one small read a member, its data is skipped."""
        self.name = name
        self.pool = pool
        self.documents = Documents()
        self.failure: FormatError | None = None
        self._source = source
        self._files: dict[bytes, int] = {}  # rows of the columns
        self._links: dict[bytes, bytes] = {}
        self._members = Members(limit=MAX_FILES, limited="files around an image")
        reader = TarReader(source, name)
        try:
            reader.read(self._members)
        except FormatError as error:
            self.failure = error
        whole = min(len(self._members), MAX_FILES)  # of the last, maybe only a name
        for row, path in enumerate(reader.paths[:whole]):
            self._add(row, path)
        self.is_tar = bool(reader.paths) or reader.ended
        self.ended = reader.ended

    def _add(self, row: int, path: bytes) -> None:
        """Enter a member under its name; the last of several counts."""
        kind, extra = self._members.kinds[row], self._members.extras.get(row, NO_EXTRA)
        self._files.pop(path, None)
        self._links.pop(path, None)
        if kind == FILE and extra.sparse is None:
            self._files[path] = row
        elif kind == SYMLINK:
            target = self._members.targets[row]
            parent = b"" if target.startswith(b"/") else path.rpartition(b"/")[0]
            self._links[path] = parent + b"/" + target
        elif kind == LINK:
            self._links[path] = self._members.targets[row]

    def __contains__(self, name: bytes) -> bool:
        """Say whether a file or link has that name."""
        return name in self._files or name in self._links

    def names(self) -> list[bytes]:
        """List the names of files and links, in archive order."""
        return [*self._files, *self._links]

    def fail(self, what: str) -> NoReturn:
        """Raise FormatError for the archive as a whole."""
        if self.failure is not None:  # what is missing may be behind that place
            raise self.failure
        raise FormatError(what, where=self.name)

    def open(self, name: str, what: str) -> Window:
        """Return the file that a document of the archive names, through links.

        Raises:
            FormatError: It is not there, or links lead nowhere.
        """
        shown = quoted(name)
        path = name.encode("utf-8", "surrogatepass")
        hops = 0
        while path not in self._files:
            if hops > MAX_HOPS:
                self.fail(f"{what}, {shown}, is behind a circle of links")
            try:
                path = normalise(path)
            except ValueError as error:
                self.fail(f"{what}, {shown}, is {error}")
            if path in self._files:
                break
            if path not in self._links:
                self.fail(f"{what}, {shown}, is not in the archive")
            path = self._links[path]
            hops += 1
        row = self._files[path]
        where = f"{self.name}, {what}"
        data, size = self._members.data[row], self._members.sizes[row]
        return Window(self._source, data, size, where)

    def read(self, name: str, what: str, limit: int) -> bytes:
        """Return all of a small file.

        Raises:
            FormatError: As ``open``, or it has more than ``limit`` bytes.
        """
        return read_whole(self.open(name, what), limit, f"{self.name}, {what}")
