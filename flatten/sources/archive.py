"""The tar around an image: its members by name, found without reading their data."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from ..errors import FormatError, IntegrityError, quoted
from ..model import DIRECTORY, FILE, LINK, SYMLINK
from ..read_tar import TarReader
from ..streams import File, Window
from ..tarball import normalise

MAX_DOCUMENT: Final = 1 << 23  # bytes of a JSON document; registries stop at 4 MiB
MAX_HOPS: Final = 40  # links from member to member


@dataclass(frozen=True, slots=True)
class Found:
    """A file in the archive: where its content is."""

    name: bytes
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class TarLayer:
    """A layer that lies uncompressed in an archive."""

    name: str
    diff_id: str | None
    file: File
    found: Found

    def open(self) -> Window:
        """Return the layer's bytes."""
        return Window(self.file, self.found.offset, self.found.size, self.name)


class Archive:
    """An index of an archive; of a file that is no tar, an empty one.

    Names are keys of the index, never paths of the host.

    Attributes:
        file: What it is read from.
        name: As the user gave it, for messages.
        is_tar: It begins as a tar does.
        ended: It has its end-of-archive mark, so that it was not cut off.
    """

    def __init__(self, file: File) -> None:
        """Index the archive: one small read a member, its data is skipped."""
        self.file = file
        self.name = file.name
        self._files: dict[bytes, Found] = {}
        self._links: dict[bytes, bytes] = {}
        self.directories: set[bytes] = set()
        self.failure: FormatError | None = None
        reader = TarReader(Window(file, 0, file.length, self.name), self.name)
        count = 0
        try:
            for path, kind, _, _, size, data, target, extra in reader:
                count += 1
                self._files.pop(path, None)
                self._links.pop(path, None)
                if kind == FILE and (extra is None or extra.sparse is None):
                    self._files[path] = Found(path, data, size)
                elif kind == SYMLINK and target is not None:
                    parent = (
                        b"" if target.startswith(b"/") else path.rpartition(b"/")[0]
                    )
                    self._links[path] = parent + b"/" + target
                elif kind == LINK and target is not None:
                    self._links[path] = target
                elif kind == DIRECTORY:
                    self.directories.add(path)
        except FormatError as error:
            self.failure = error
        self.is_tar = count > 0 or reader.ended
        self.ended = reader.ended

    def __contains__(self, name: bytes) -> bool:
        """Say whether a member has that name."""
        return name in self._files or name in self._links

    def names(self) -> list[bytes]:
        """List the names of files and links, in archive order."""
        return [*self._files, *self._links]

    def fail(self, what: str) -> NoReturn:
        """Raise FormatError for the archive as a whole."""
        if self.failure is not None:  # what is missing may be behind that place
            raise self.failure
        raise FormatError(what, where=self.name)

    def find(self, name: str, what: str) -> Found:
        """Return the file that a document of the archive names, through links.

        Args:
            name: A name in the archive.
            what: What it is, for messages: "layer 3", "config".

        Raises:
            FormatError: It is not there, or links lead nowhere.
        """
        shown = quoted(name)
        path = name.encode("utf-8", "surrogateescape")
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
        return self._files[path]

    def read(self, found: Found, what: str) -> bytes:
        """Return the content of a document."""
        if found.size > MAX_DOCUMENT:
            self.fail(f"{what} has {found.size:,} bytes, over {MAX_DOCUMENT:,}")
        return Window(self.file, found.offset, found.size, self.name).read(
            0, found.size
        )

    def read_json(self, name: str, what: str) -> tuple[Any, bytes]:
        """Return a document as parsed, and its bytes.

        Raises:
            FormatError: It is not there, or is not JSON.
            IntegrityError: It is a blob, named by its digest, and has another.
        """
        found = self.find(name, what)
        data = self.read(found, what)
        check_blob_name(found.name, data, f"{self.name}: {what}")
        return parse_json(data, f"{self.name}: {what}, {quoted(name)},"), data


def check_blob_name(name: bytes, data: bytes, what: str) -> None:
    """Check a blob against the digest that it is named by, if it is.

    Raises:
        IntegrityError: It has another.
    """
    parent, _, hexdigest = name.rpartition(b"/")
    if parent != b"blobs/sha256":
        return
    actual = hashlib.sha256(data).hexdigest()
    if actual.encode() != hexdigest:
        raise IntegrityError(
            f"{what}: its digest is sha256:{actual}, its name is {quoted(name)}"
        )


def parse_json(data: bytes, what: str) -> Any:
    """Parse a document.

    Raises:
        FormatError: It is not JSON, or is nested too deep to read.
    """
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else error
        raise FormatError(f"is not JSON: {reason}", where=what) from error
