"""The tar around an image: its members by name, found without reading their data."""

from typing import Final, NoReturn

from ..errors import FormatError, quoted
from ..host.files import LayerBytes, Window, read_whole
from ..host.limits import RATIO_COUNTS_FROM
from ..host.sparse import Sparse
from ..host.spools import Pool
from ..tar.magic import START
from ..tar.members import FILE, LINK, NO_EXTRA, SYMLINK, Members
from ..tar.reader import TarReader
from ..tar.wire import normalise
from .documents import Documents, Files

MAX_HOPS: Final = 40  # links from member to member
MAX_FILES: Final = 1 << 20  # in an archive of images: 250 bytes of memory each
_STEP: Final = 1 << 20  # bytes compared at once


class Archive(Files):
    """An index of an archive; of a file that is not a tar, an empty one.

    Names are keys of the index, never paths on the host. Some tools take the first
    member of a name, others the last, so two that differ are refused when they are
    opened.

    Attributes:
        name: The file's name in messages, as the user gave it.
        pool: Inflates compressed layers.
        documents: The documents that have been parsed.
        is_tar: Whether it begins as a tar does.
        ended: Whether it has its end-of-archive mark, so that it is not truncated.
        failure: The error that ended the index early, or None.
    """

    def __init__(
        self, source: LayerBytes, name: str, pool: Pool, *, parts: bool = False
    ) -> None:
        """Index the archive with one small read per member; data is skipped.

        Args:
            source: The archive, not compressed.
            name: Its name in messages.
            pool: Inflates compressed layers.
            parts: Whether layers may be read in parts, if the archive can.
        """
        self.name = name
        self.pool = pool
        self.documents = Documents()
        self.failure: FormatError | None = None
        self._source = source
        self._parts = parts and source.fetches_parts()
        self._rows: dict[bytes, int] = {}  # of files and links, by name
        self._earlier: dict[bytes, list[int]] = {}  # others of a name, until compared
        self._members = Members(
            limit=MAX_FILES, limited="files around an image", hint=""
        )
        reader = TarReader(source, name)
        try:
            reader.read(self._members)
        except FormatError as error:
            self.failure = error
        complete = min(len(self._members), MAX_FILES)  # the last may be only a name
        for row, path in enumerate(reader.paths[:complete]):
            self._add(row, path)
        self.is_tar = bool(reader.paths) or reader.ended
        self.ended = reader.ended

    def _add(self, row: int, path: bytes) -> None:
        """Enter a member under its name."""
        earlier = self._rows.get(path)
        if earlier is not None:
            self._earlier.setdefault(path, []).append(earlier)
        elif self._members.kinds[row] not in (FILE, LINK, SYMLINK):
            return
        self._rows[path] = row

    def __contains__(self, name: bytes) -> bool:
        """Return True if a file or link has that name."""
        return name in self._rows

    def names(self) -> list[bytes]:
        """List the names of files and links, in archive order."""
        return list(self._rows)

    def start(self) -> bytes:
        """Return the first bytes of the file, for telling what it is."""
        return self._source.read(0, START)

    def fail(self, what: str) -> NoReturn:
        """Raise FormatError for the archive as a whole."""
        if self.failure is not None:  # what is missing may be behind that place
            raise self.failure
        raise FormatError(what, where=self.name)

    def open(self, name: str, what: str) -> LayerBytes:
        """Return the file that a document of the archive names, following links.

        Raises:
            FormatError: It does not exist, links lead nowhere, or several members have
                that name and differ.
        """
        return self._bytes(self._find(name, what), what)

    def open_parts(self, name: str, what: str) -> LayerBytes | None:
        """Return a file, or None if the archive is here or is to be read whole."""
        return self.open(name, what) if self._parts else None

    def place(self, name: str, what: str) -> tuple[int, int]:
        """Return the offset and the size of a file, which two names may share.

        Raises:
            FormatError: As for ``open``.
        """
        row = self._find(name, what)
        return self._members.data[row], self._members.sizes[row]

    def read(self, name: str, what: str, limit: int) -> bytes:
        """Return all of a small file.

        Raises:
            FormatError: As for ``open``, or it has more than ``limit`` bytes.
        """
        return read_whole(self.open(name, what), limit, f"{self.name}, {what}")

    def _find(self, name: str, what: str) -> int:
        """Return the row of a file, following links."""
        shown = quoted(name)
        path = name.encode("utf-8", "surrogatepass")
        hops = 0
        while True:
            try:
                path = normalise(path)
            except ValueError as error:
                self.fail(f"{what}, {shown}, is {error}")
            row = self._rows.get(path)
            if row is None:
                self.fail(f"{what}, {shown}, is not in the archive")
            others = self._earlier.get(path, ())
            if not all(self._are_equal(row, other) for other in others):
                self.fail(
                    f"{what}, {shown}, is in the archive twice, and the two differ; "
                    "tools differ in which to take"
                )
            self._earlier.pop(path, None)  # compared once
            kind = self._members.kinds[row]
            if kind not in (LINK, SYMLINK):
                return row
            hops += 1
            if hops > MAX_HOPS:
                self.fail(f"{what}, {shown}, is behind a circle of links")
            target = self._members.targets[row]
            if kind == SYMLINK and not target.startswith(b"/"):
                target = path.rpartition(b"/")[0] + b"/" + target
            path = target if b"\\" not in target else self._slashed(target, what)

    def _slashed(self, target: bytes, what: str) -> bytes:
        """Return the target of a link with slashes, if docker for Windows wrote it."""
        try:
            slashed = normalise(target.replace(b"\\", b"/"))
            literal = normalise(target)
        except ValueError as error:
            self.fail(f"{what} is behind a link to {quoted(target)}, {error}")
        if slashed in self._rows and literal in self._rows:
            both = f"{quoted(literal)} and {quoted(slashed)}"
            self.fail(f"{what} is behind a link that may be to either of {both}")
        return slashed if slashed in self._rows else literal

    def _bytes(self, row: int, what: str) -> LayerBytes:
        """Return the content of a file, with its holes if it is sparse."""
        members, where = self._members, f"{self.name}, {what}"
        size = members.sizes[row]
        stored = Window(self._source, members.data[row], members.stored(row), where)
        regions = members.extras.get(row, NO_EXTRA).sparse
        if regions is None:
            return stored
        limits = self.pool.limits
        if size > limits.size or (
            size > RATIO_COUNTS_FROM and size > limits.ratio * stored.size()
        ):
            raise FormatError(
                f"a sparse file of {size:,} bytes, of which {stored.size():,} are "
                "stored; if that is right, allow more with --max-size and --max-ratio",
                where=where,
            )
        return Sparse(stored, regions, size, where)

    def _are_equal(self, row: int, other: int) -> bool:
        """Return True if two members have the same content, or lead to the same."""
        members = self._members
        kind, target = members.kinds[row], members.targets.get(row)
        if (kind, target) != (members.kinds[other], members.targets.get(other)):
            return False
        regions = members.extras.get(row, NO_EXTRA).sparse
        size, stored = members.sizes[row], members.stored(row)
        if (size, stored, regions) != (
            members.sizes[other],
            members.stored(other),
            members.extras.get(other, NO_EXTRA).sparse,
        ):
            return False
        start, place = members.data[row], members.data[other]
        return kind != FILE or all(
            self._source.read(start + at, min(_STEP, stored - at))
            == self._source.read(place + at, min(_STEP, stored - at))
            for at in range(0, stored, _STEP)
        )
