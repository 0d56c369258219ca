"""Layers with a table of contents, zstd:chunked or eStargz, of which parts are read.

The table lists the metadata of each member and, for each chunk of a file, its place in
the blob and its SHA-256. A chunk begins its own zstd frame or gzip member. The manifest
has the digest of the table, so everything that is read is what the manifest says. Only
reading the whole layer can show that it also unpacks to that.

The layer becomes a tar again, whose contents are fetched when they are read. Its
headers are those of the tar-split record that zstd:chunked has since 2024. Without one,
they are written from the table, which has no PAX records but xattrs and, in eStargz, no
fractions of times.

Reference: containers/storage pkg/chunked/internal/minimal/compression.go;
stargz-snapshotter docs/estargz.md.
"""

import json
import re
import threading
from array import array
from binascii import a2b_base64
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Final, NamedTuple

from ..errors import FormatError, IntegrityError, quoted, shown
from ..host.decompress import decompress
from ..host.files import LayerBytes, Window
from ..host.spools import Pool
from ..tar.members import (
    BLOCK,
    CHAR,
    DIRECTORY,
    FIFO,
    FILE,
    LINK,
    SYMLINK,
    Extra,
)
from ..tar.wire import BLOCK_SIZE, normalise, padded
from ..tar.write_header import posix_member
from .assembly import Assembly
from .blob import WholeLayerNeededError
from .tarsplit import add_record

MAX_TABLE: Final = 1 << 27  # bytes of a table, as JSON
MAX_ENTRIES: Final = 1 << 19  # objects in it, of about 1 KB each once parsed
GAP: Final = 1 << 20  # bytes that are fetched too, instead of one more request
MAX_CHUNK: Final = 1 << 28  # bytes of a chunk, and of what is before it in its frame

_ZSTD: Final = "io.github.containers.zstd-chunked."
_CHECKSUM: Final = f"{_ZSTD}manifest-checksum"
_POSITION: Final = f"{_ZSTD}manifest-position"
_RECORD: Final = f"{_ZSTD}tarsplit-position"
_ESTARGZ: Final = "containerd.io/snapshot/stargz/toc.digest"
_NUMBERS: Final = re.compile(r"([0-9]{1,15}):([0-9]{1,15}):([0-9]{1,15})(?::1)?")
_FRAME_HEADER: Final = 8  # bytes before the table, which is in a skippable frame
_FOOTER: Final = 51  # bytes; the table's offset is in the extra field of a gzip header
_OFFSET: Final = re.compile(rb".{12}SG\x16\0([0-9a-f]{16})STARGZ.*", re.DOTALL)
_DIGEST: Final = re.compile(r"sha256:([0-9a-f]{64})")
_TIME: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8})(?:\.([0-9]{1,9}))?(Z|[+-][0-9:]{5})"
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND: Final = timedelta(seconds=1)
_REPLACED: Final = "\ufffd"  # what Go writes for bytes that are not UTF-8
_KINDS: Final = {
    "reg": FILE,
    "hardlink": LINK,
    "symlink": SYMLINK,
    "char": CHAR,
    "block": BLOCK,
    "dir": DIRECTORY,
    "fifo": FIFO,
}
_ZEROS: Final = b""  # instead of the digest of a chunk of zeros

_Entry = dict[str, Any]


class _Chunk(NamedTuple):
    """A part of a file.

    Attributes:
        size: Its length.
        start: Where its frame starts in the blob.
        stop: Where the next frame with a chunk starts.
        inner: Bytes before it in the frame.
        digest: Its SHA-256.
    """

    size: int
    start: int
    stop: int
    inner: int
    digest: bytes


class Chunked(Assembly):
    """A layer's tar, whose contents are fetched chunk by chunk when they are read.

    Attributes:
        exact: Whether its bytes are those of the layer: not if its headers were written
            from the table.
        files: The chunks of the files that are not added yet, by path.
    """

    def __init__(
        self, blob: LayerBytes, kind: str, pool: Pool, where: str, packed: int
    ) -> None:
        """Create an empty stream.

        Args:
            blob: The layer as it is stored.
            kind: How it is compressed.
            pool: As for ``Assembly``.
            where: As for ``Assembly``.
            packed: As for ``Assembly``.
        """
        super().__init__(pool, where, packed)
        self.exact = False
        self.files: dict[bytes, list[_Chunk]] = {}
        self._blob = blob
        self._kind = kind
        # Columns of chunks: start in the stream; the fields of _Chunk.
        self._at = array("q")
        self._from = array("q")
        self._until = array("q")
        self._inner = array("q")
        self._digests: list[bytes] = []
        self._last = -1, b""  # the chunk that was read last
        self._lock = threading.Lock()

    def add_file(
        self,
        path: bytes,
        size: int,
        *,
        tree: int = 0,  # noqa: ARG002 - for files of this machine, and below
        crc: int = 0,  # noqa: ARG002 - the chunks have stronger digests
        part: tuple[int, int] | None = None,
    ) -> None:
        """Append the content of a file that the table lists.

        Raises:
            FormatError: The table does not list it, or has another size for it.
            WholeLayerNeededError: It is sparse.
        """
        if part is not None:
            raise WholeLayerNeededError(f"{self.where}: a sparse file")
        chunks = self.files.pop(path, []) if size else []
        found = sum(chunk.size for chunk in chunks)
        if found != size:
            raise FormatError(
                f"the table of contents has {found:,} bytes of {quoted(path)}, its "
                f"header says {size:,}",
                where=self.where,
            )
        at = self.size()
        super().add_file(path, size)
        for chunk in chunks:
            self._at.append(at)
            self._from.append(chunk.start)
            self._until.append(chunk.stop)
            self._inner.append(chunk.inner)
            self._digests.append(chunk.digest)
            at += chunk.size

    def extent(self, offset: int) -> None:  # noqa: ARG002 - as of LayerBytes
        """Return None: the bytes are in no file."""
        return

    def origin(self, offset: int) -> None:  # noqa: ARG002 - as of LayerBytes
        """Return None, as ``extent``."""
        return

    def sample(self) -> None:
        """Return None, as ``extent``."""
        return

    def is_here(self) -> bool:
        """Return False: a process that was forked cannot share the connections."""
        return False

    def fetches_parts(self) -> bool:
        """Return True."""
        return True

    def fetch_contents(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Fetch the chunks of contents that will be read, in few requests.

        Args:
            ranges: Start and end of each in the tar.
        """
        chunks = {
            (self._from[chunk], self._until[chunk])
            for start, stop in ranges
            for chunk in range(
                bisect_right(self._at, start) - 1, bisect_left(self._at, stop)
            )
            if self._digests[chunk] != _ZEROS
        }
        begin = end = 0
        for start, stop in sorted(chunks):
            if start - end > GAP:
                self._blob.fetch(begin, end)
                begin = start
            end = max(end, stop)
        self._blob.fetch(begin, end)

    def _content(self, number: int, skip: int, view: memoryview) -> None:
        """Read part of a content, from the chunks that it is in."""
        offset = self._starts[number] + skip
        with self._lock:
            while view:
                chunk = bisect_right(self._at, offset) - 1
                data = self._chunk(chunk, number)
                part = data[offset - self._at[chunk] :][: len(view)]
                view[: len(part)] = part
                view = view[len(part) :]
                offset += len(part)

    def _chunk(self, chunk: int, number: int) -> bytes:
        """Return a chunk of a content, which is checked when it is fetched."""
        if self._last[0] != chunk:
            later = self._at[chunk + 1] if chunk + 1 < len(self._at) else 1 << 62
            size = min(later, self._ends[number]) - self._at[chunk]
            digest = self._digests[chunk]
            self._last = -1, b""  # two at once would take twice the memory
            data = bytes(size)
            if digest != _ZEROS:
                data = self._inflate(chunk, size)
                self._check(data, digest, chunk, number)
            self._last = chunk, data
        return self._last[1]

    def _inflate(self, chunk: int, size: int) -> bytes:
        start, inner = self._from[chunk], self._inner[chunk]
        frame = Window(self._blob, start, self._until[chunk] - start, self.where)
        out = bytearray()
        for piece in decompress(frame, self._kind, self.where):
            out += piece
            if len(out) >= inner + size:
                break
        return bytes(out[inner : inner + size])

    def _check(self, data: bytes, expected: bytes, chunk: int, number: int) -> None:
        found = sha256(data).digest()
        if found != expected:
            raise IntegrityError(
                f"{self.where}: digest mismatch in {quoted(self._path(number))}, "
                f"in the chunk at byte {self._from[chunk]:,} of the layer: expected "
                f"sha256:{expected.hex()}, found sha256:{found.hex()}"
            )


def table_digest(annotations: Mapping[str, object]) -> str | None:
    """Return the digest of a layer's table of contents, or None if it has none."""
    found = annotations.get(_CHECKSUM) or annotations.get(_ESTARGZ)
    return found if isinstance(found, str) and _DIGEST.fullmatch(found) else None


def read_table(
    blob: LayerBytes, annotations: Mapping[str, object], pool: Pool, where: str
) -> Chunked:
    """Read a layer's table of contents, and return the layer's tar.

    Args:
        blob: The layer as it is stored.
        annotations: Those of its descriptor; they have a ``table_digest``.
        pool: The pool that holds the headers.
        where: The layer's name in messages.

    Raises:
        IntegrityError: The table, or the record of headers, has another digest.
        FormatError: The table is not where the annotations say, breaks its format, or
            does not fit the record.
        WholeLayerNeededError: The table cannot tell what is in the layer, or would take
            too much memory, or the registry sends no parts of a blob.
    """
    try:
        if _CHECKSUM in annotations:
            return _zstd_chunked(blob, annotations, pool, where)
        return _estargz(blob, annotations, pool, where)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FormatError(
            f"its table of contents is not valid: {shown(str(error))}", where=where
        ) from error


def _zstd_chunked(
    blob: LayerBytes, annotations: Mapping[str, object], pool: Pool, where: str
) -> Chunked:
    start, length, plain = _position(annotations, _POSITION)
    packed = _window(blob, start, length, where)
    _check_digest(packed, str(annotations[_CHECKSUM]), where, "its table of contents")
    text = _inflated(packed, "zstd", plain, where)
    document, entries = _parse(text, where)
    tar = Chunked(blob, "zstd", pool, where, blob.size())
    tar.files = _files(entries, start - _FRAME_HEADER, where)
    promised = document.get("tarSplitDigest")
    if not promised:  # before 2024
        _add_entries(tar, entries)
        return tar
    start, length, _ = _position(annotations, _RECORD)
    packed = _window(blob, start, length, where)
    _check_digest(packed, promised, where, "its tar-split record")
    add_record(tar, decompress(packed, "zstd", where), pool)
    tar.exact = True
    if tar.files:
        raise FormatError(
            f"its tar-split record lacks {quoted(next(iter(tar.files)))}, which its "
            "table of contents lists",
            where=where,
        )
    return tar


def _estargz(
    blob: LayerBytes, annotations: Mapping[str, object], pool: Pool, where: str
) -> Chunked:
    size = blob.size()
    footer = _OFFSET.fullmatch(blob.read(max(size - _FOOTER, 0), _FOOTER))
    if footer is None:
        raise WholeLayerNeededError(f"{where}: a table of contents elsewhere")
    start = int(footer[1], 16)
    packed = _window(blob, start, size - _FOOTER - start, where)
    member = _inflated(packed, "gzip", MAX_TABLE, where, exact=False)
    length = int(member[124:135], 8)  # the size in its header
    text = member[BLOCK_SIZE : BLOCK_SIZE + length]
    found = f"sha256:{sha256(text).hexdigest()}"
    _compare(found, str(annotations[_ESTARGZ]), where, "its table of contents")
    _, entries = _parse(text, where)
    tar = Chunked(blob, "gzip", pool, where, size)
    tar.files = _files(entries, start, where)
    _add_entries(tar, entries)
    return tar


# --- the bytes of a table


def _position(annotations: Mapping[str, object], name: str) -> tuple[int, int, int]:
    """Return the offset, length and inflated length that an annotation gives."""
    found = _NUMBERS.fullmatch(str(annotations.get(name)))
    if found is None:
        raise ValueError(f"the annotation {name} is {annotations.get(name)!r}")
    start, length, plain = map(int, found.groups())
    return start, length, plain


def _window(blob: LayerBytes, start: int, length: int, where: str) -> Window:
    if not 0 < length <= blob.size() - start:
        raise ValueError(
            f"{length:,} bytes at byte {start:,}, of a layer of {blob.size():,} bytes"
        )
    if length > MAX_TABLE:
        raise WholeLayerNeededError(f"{where}: a table of {length:,} bytes")
    return Window(blob, start, length, where)


def _check_digest(packed: Window, expected: object, where: str, what: str) -> None:
    found = sha256(packed.read(0, packed.size())).hexdigest()
    _compare(f"sha256:{found}", expected, where, what)


def _compare(found: str, expected: object, where: str, what: str) -> None:
    if found != expected:
        raise IntegrityError(
            f"{where}: digest mismatch of {what}: expected {shown(str(expected))}, "
            f"found {found}"
        )


def _inflated(
    packed: Window, kind: str, most: int, where: str, *, exact: bool = True
) -> bytes:
    """Inflate bytes that are at most ``most`` bytes long, or exactly."""
    if most > MAX_TABLE:
        raise WholeLayerNeededError(f"{where}: a table of {most:,} bytes")
    out = bytearray()
    for piece in decompress(packed, kind, where):
        out += piece
        if len(out) > most:
            break
    if len(out) > MAX_TABLE:
        raise WholeLayerNeededError(f"{where}: a table of over {MAX_TABLE:,} bytes")
    if exact and len(out) != most:
        raise ValueError(f"it inflates to other than {most:,} bytes")
    return bytes(out)


# --- the entries of a table


def _parse(text: bytes, where: str) -> tuple[dict[str, Any], list[_Entry]]:
    """Return a table, and its entries.

    Raises:
        WholeLayerNeededError: It has too many, or names that JSON does not hold.
        ValueError: It is not a table of contents.
    """
    if text.count(b"{") > MAX_ENTRIES or text.count(b"[") > MAX_ENTRIES:
        raise WholeLayerNeededError(f"{where}: more than {MAX_ENTRIES:,} entries")
    document = json.loads(text)
    entries = document["entries"]
    if not isinstance(entries, list):
        raise TypeError("entries is not a list")
    for entry in entries:
        if _REPLACED in entry["name"] or _REPLACED in (entry.get("linkName") or ""):
            raise WholeLayerNeededError(f"{where}: a name that is not UTF-8")
    return document, entries


def _files(entries: list[_Entry], end: int, where: str) -> dict[bytes, list[_Chunk]]:
    """Return the chunks of each file that is not empty.

    Args:
        entries: The table.
        end: Where the chunks end in the blob.
        where: The layer's name in messages.
    """
    starts = sorted({_number(entry, "offset") for entry in entries} | {end})
    found: dict[bytes, list[_Chunk]] = {}
    seen: set[bytes] = set()
    path, size, done = b"", 0, 0  # of the file that the chunks are of
    for entry in entries:
        if entry["type"] != "chunk":
            path, done = normalise(_text(entry, "name")), 0
            size = _number(entry, "size") if entry["type"] == "reg" else 0
            if path in seen:  # a tar-split record tells them apart only by name
                raise WholeLayerNeededError(f"{where}: two members of one name")
            seen.add(path)
            if not size:
                continue
            found[path] = []
        elif normalise(_text(entry, "name")) != path or not size:
            raise ValueError(f"a chunk of no file, {entry['name']!r}")
        if _number(entry, "chunkOffset") != done:
            raise ValueError(f"a gap between the chunks of {entry['name']!r}")
        length = _number(entry, "chunkSize") or size - done
        done += length
        start, inner = _number(entry, "offset"), _number(entry, "innerOffset")
        if not 0 < length <= size or done > size or not 0 <= start < end:
            raise ValueError(f"a chunk outside of {entry['name']!r}, or of the layer")
        if inner + length > MAX_CHUNK:
            raise WholeLayerNeededError(f"{where}: a chunk of {length:,} bytes")
        stop = starts[bisect_right(starts, start)]
        digest = _chunk_digest(entry, whole=length == size)
        found[path].append(_Chunk(length, start, stop, inner, digest))
    return found


def _chunk_digest(entry: _Entry, *, whole: bool) -> bytes:
    if entry.get("chunkType") == "zeros":
        return _ZEROS
    text = entry.get("chunkDigest") or (whole and entry.get("digest")) or ""
    digest = _DIGEST.fullmatch(text)
    if digest is None:
        raise ValueError(f"no SHA-256 of a chunk of {entry['name']!r}")
    return bytes.fromhex(digest[1])


def _add_entries(tar: Chunked, entries: list[_Entry]) -> None:
    """Write a tar's headers from the table, each before the content of its file."""
    for entry in entries:
        if entry["type"] == "chunk":
            continue
        kind = _KINDS[entry["type"]]
        name = _text(entry, "name")
        size = _number(entry, "size") if kind == FILE else 0
        seconds, nanoseconds = _time(entry.get("modtime"))
        records = sorted(
            (b"SCHILY.xattr." + key.encode(), a2b_base64(value, strict_mode=True))
            for key, value in (entry.get("xattrs") or {}).items()
        )
        device = _number(entry, "devMajor"), _number(entry, "devMinor")
        owner = (
            _number(entry, "mode") & 0o7777,
            _number(entry, "uid"),
            _number(entry, "gid"),
        )
        header = posix_member(
            name,
            kind,
            owner=owner,
            size=size,
            mtime=seconds,
            target=_text(entry, "linkName") if kind in (LINK, SYMLINK) else b"",
            extra=Extra(tuple(records), None, device, nanoseconds),
        )
        tar.add_bytes(header)
        tar.add_file(normalise(name), size)
        tar.add_bytes(bytes(padded(size) - size))
    tar.add_bytes(bytes(2 * BLOCK_SIZE))
    tar.finish()


def _number(entry: _Entry, key: str) -> int:
    found = entry.get(key) or 0
    if type(found) is not int or not 0 <= found < 1 << 62:
        raise ValueError(f"{key} of {entry.get('name')!r} is {found!r}")
    return found


def _text(entry: _Entry, key: str) -> bytes:
    return str(entry[key]).encode()


def _time(text: str | None) -> tuple[int, int]:
    """Return seconds since the epoch, and nanoseconds, for an RFC 3339 time."""
    if not text:
        return 0, 0
    found = _TIME.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not a time")
    seconds = (datetime.fromisoformat(found[1] + found[3]) - _EPOCH) // _SECOND
    return seconds, int((found[2] or "0").ljust(9, "0"))
