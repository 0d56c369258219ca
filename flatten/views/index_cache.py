"""Indexes of layers, kept between runs: views of the next image on a base are instant.

An index depends only on the bytes of its layer. So there is one file per layer, named
by its diff_id, and any image that has the layer uses it. Layers are hashed before their
index is kept. Another file records that the bytes at a place of the host were hashed,
so that a layer that has not changed since need not be hashed again.

An index file is a line that names the format, the XXH3 (128 bits) of the diff_id and
the rest, and the rest: a JSON description and columns, compressed with zstd. A file is
believed if it belongs to this user or to root and nobody else may write it. If it has
another version, another checksum, or contents that ``pack`` does not write, it is
removed and made again. Files are written under another name and renamed, so runs may
share a directory. When the cache exceeds its size, the least recently used files go
first.
"""

import json
import os
import re
import stat
import sys
from array import array
from contextlib import suppress
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from ..image.columns import Rows
from ..tar.layer import Removal
from ..tar.members import (
    BLOCK,
    CHAR,
    DIRECTORY,
    FIFO,
    FILE,
    LINK,
    NO_SOURCE,
    SYMLINK,
    Extra,
)
from .identity import Location

MAGIC: Final = b"flatten index 3\n"  # the number changes with what an index holds
SUFFIX: Final = ".index"
HASHED: Final = ".hashed"
BOUND: Final = 1 << 29  # bytes of all files; 280,000 members take about 3 MB
BLOCK_SIZE: Final = 4096  # bytes that a small file takes on most file systems
_INFLATED: Final = 1 << 30  # bytes of one index at most: some 10 million members
_DIFF_ID: Final = re.compile(r"sha256:[0-9a-f]{64}")
_CODES: Final = {"kinds": "B", "owners": "I", "sizes": "q", "data": "q", "mtimes": "q"}
"""Columns of ``Rows``, and the type of each."""
_LINKED: Final = "linked"  # one more column: the members that have a target
_KINDS: Final = {FILE, LINK, SYMLINK, CHAR, BLOCK, DIRECTORY, FIFO}
_WITH_TARGET: Final = re.compile(b"[%c%c]" % (LINK, SYMLINK))
_NO_PART: Final = re.compile(rb"\0\.{0,2}\0")
"""An empty component, ``.`` or ``..``, which normalised paths do not have."""


class IndexCache:
    """A directory of indexes.

    Attributes:
        folder: Created when the first index is kept.
        bound: The maximum size of all files together, in bytes; each file counts as
            at least ``BLOCK_SIZE``.
    """

    def __init__(self, folder: Path, *, bound: int = BOUND) -> None:
        """Touch nothing yet."""
        self.folder = folder
        self.bound = bound

    def find(self, diff_id: str | None) -> Rows | None:
        """Return the index of the layer with a diff_id, or None if there is none."""
        path = self._index_path(diff_id)
        if diff_id is None or path is None:
            return None
        try:
            return unpack(diff_id, _read_own(path))
        except OSError:
            return None
        except _BrokenError:
            with suppress(OSError):
                path.unlink()
            return None

    def keep(self, diff_id: str, data: bytes) -> None:
        """Keep what ``pack`` made of a layer whose bytes have that diff_id."""
        path = self._index_path(diff_id)
        if path is not None:
            self._write(path, data)

    def was_hashed(
        self, where: Location, diff_id: str | None, digest: str | None
    ) -> bool:
        """Return True if the bytes at a location are known to have these digests."""
        text = _record(where, diff_id, digest)
        try:
            return _read_own(self._hashed_path(text)) == text
        except OSError:
            return False

    def keep_hashed(
        self, where: Location, diff_id: str | None, digest: str | None
    ) -> None:
        """Record that the bytes at a location have these digests."""
        text = _record(where, diff_id, digest)
        self._write(self._hashed_path(text), text)

    def _index_path(self, diff_id: str | None) -> Path | None:
        if diff_id is None or not _DIFF_ID.fullmatch(diff_id):
            return None
        return self.folder / f"{diff_id.removeprefix('sha256:')}{SUFFIX}"

    def _hashed_path(self, text: bytes) -> Path:
        return self.folder / f"{sha256(text).hexdigest()}{HASHED}"

    def _write(self, path: Path, data: bytes) -> None:
        """Write a file; if that fails, it is made again the next time."""
        scratch = path.with_name(f"{path.name}.{os.urandom(6).hex()}")
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(os.open(scratch, _CREATE, 0o600), "wb") as file:
                file.write(data)
            os.replace(scratch, path)
        except OSError:
            with suppress(OSError):
                scratch.unlink()

    def trim(self) -> None:
        """Remove the least recently used files until the rest fits the bound."""
        files = []
        with suppress(OSError), os.scandir(self.folder) as entries:
            for entry in entries:
                if SUFFIX in entry.name or HASHED in entry.name:
                    with suppress(OSError):  # another run has removed it
                        status = entry.stat(follow_symlinks=False)
                        size = max(status.st_size, BLOCK_SIZE)
                        files.append((status.st_mtime_ns, size, entry.path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= self.bound:
                return
            with suppress(OSError):
                os.unlink(path)
            total -= size


def default_folder() -> Path | None:
    """Return the cache directory of the XDG base directory specification, or None."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        try:
            base = str(Path.home() / ".cache")
        except RuntimeError:  # no home
            return None
    return Path(base, "flatten")


_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def _read_own(path: Path) -> bytes:
    """Return a file's bytes, and note that it was used now.

    Raises:
        OSError: It cannot be read, or somebody else than this user and root owns it or
            may write it.
    """
    with open(os.open(path, _OPEN), "rb") as file:
        status = os.fstat(file.fileno())
        others = stat.S_IWGRP | stat.S_IWOTH
        trusted = status.st_uid in (os.geteuid(), 0) and not status.st_mode & others
        if not trusted or not stat.S_ISREG(status.st_mode):
            raise PermissionError(f"{path}: not a file of this user")
        data = file.read()
        with suppress(OSError):  # root's
            os.utime(file.fileno())
        return data


def _record(where: Location, diff_id: str | None, digest: str | None) -> bytes:
    """Return the contents of the file for bytes that were hashed."""
    return json.dumps([MAGIC.decode(), *where, diff_id, digest]).encode()


# --- the bytes of a file


class _BrokenError(Exception):
    """A file that ``pack`` did not write, or not with these contents."""


def pack(diff_id: str, rows: Rows) -> bytes:
    """Return the file of an index."""
    import zstandard  # 15 ms, only where something is kept

    columns: dict[str, Any] = {name: getattr(rows, name) for name in _CODES}
    columns[_LINKED] = array("I", rows.targets)
    head = {
        "order": sys.byteorder,
        "columns": {name: len(column) for name, column in columns.items()},
        "owners": rows.owner_table,
        "removals": [
            (removal.path.decode("latin-1"), removal.opaque, removal.offset)
            for removal in rows.removals
        ],
        "bookkeeping": sorted(rows.bookkeeping),
        "extras": [(at, _plain(extra)) for at, extra in rows.extras.items()],
    }
    parts = [
        json.dumps(head).encode(),
        *(bytes(memoryview(column)) for column in columns.values()),
        b"\0".join(rows.paths),
        b"\0".join(rows.targets.values()),
    ]
    sizes = array("Q", [len(part) for part in parts])
    plain = b"".join([bytes([len(parts)]), sizes.tobytes(), *parts])
    body = zstandard.ZstdCompressor(1).compress(plain)
    return MAGIC + _checksum(diff_id, body) + body


def unpack(diff_id: str, data: bytes) -> Rows:
    """Read the file of an index.

    Raises:
        _BrokenError: It is not one, of another version, or of another layer.
    """
    import zstandard  # 15 ms, only where something was kept

    body = data[len(MAGIC) + 16 :]
    if data[: len(MAGIC) + 16] != MAGIC + _checksum(diff_id, body):
        raise _BrokenError
    try:
        if zstandard.frame_content_size(body) > _INFLATED:
            raise _BrokenError
        return _unpack(memoryview(zstandard.ZstdDecompressor().decompress(body)))
    except (
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        ArithmeticError,
        RecursionError,
        MemoryError,
        zstandard.ZstdError,
    ) as error:
        raise _BrokenError from error


def _checksum(diff_id: str, body: bytes) -> bytes:
    from xxhash import xxh3_128  # 1 ms, only with a cache

    digest = xxh3_128(diff_id.encode())
    digest.update(body)
    return digest.digest()


def _unpack(plain: memoryview) -> Rows:
    """Read what was compressed; raise any error of Python's for what is not valid."""
    sizes = array("Q", bytes(plain[1 : 1 + 8 * plain[0]]))
    parts, at = [], 1 + 8 * plain[0]
    for size in sizes:
        parts.append(plain[at : at + size])
        at += size
    head = json.loads(bytes(parts[0]))
    codes = {**_CODES, _LINKED: "I"}
    columns = {
        name: array(code, bytes(part))
        for (name, code), part in zip(codes.items(), parts[1:-2], strict=True)
    }
    lengths = {name: len(column) for name, column in columns.items()}
    if head["order"] != sys.byteorder or head["columns"] != lengths:
        raise _BrokenError
    targets = _split(parts[-1], lengths[_LINKED])
    rows = Rows(
        paths=_split(parts[-2], lengths["kinds"]),
        removals=[
            Removal(path.encode("latin-1"), opaque, offset)
            for path, opaque, offset in head["removals"]
        ],
        bookkeeping=set(head["bookkeeping"]),
        owner_table=[(mode, uid, gid) for mode, uid, gid in head["owners"]],
        kinds=columns["kinds"].tobytes(),
        owners=columns["owners"],
        sizes=columns["sizes"],
        data=columns["data"],
        mtimes=columns["mtimes"],
        targets=dict(zip(columns[_LINKED], targets, strict=True)),
        extras={at: _extra(extra) for at, extra in head["extras"]},
    )
    even = len({lengths[name] for name in _CODES}) == 1
    if not even or not _is_valid(rows):
        raise _BrokenError
    return rows


def _split(joined: memoryview, count: int) -> list[bytes]:
    """Split names at NULs; a name with a NUL would give another count."""
    names = bytes(joined).split(b"\0") if count else []
    if len(names) != count:
        raise _BrokenError
    return names


def _is_valid(rows: Rows) -> bool:
    """Return True if a reader of layers could have made rows of one length."""
    count = len(rows.paths)
    numbers = [*rows.bookkeeping, *rows.extras]
    paths = filter(None, [*rows.paths, *(removal.path for removal in rows.removals)])
    parts = b"\0".join([b"", *paths, b""]).replace(b"/", b"\0")
    linked = [found.start() for found in _WITH_TARGET.finditer(rows.kinds)]
    return (
        set(rows.kinds) <= _KINDS
        and linked == list(rows.targets)
        and not _NO_PART.search(parts)
        and max(rows.owners, default=-1) < len(rows.owner_table)
        and all(_are_counts(owner) and owner[0] <= 0o7777 for owner in rows.owner_table)
        and min(rows.sizes, default=0) >= 0
        and min(rows.data, default=0) >= NO_SOURCE
        and _are_counts(numbers)
        and max(numbers, default=-1) < count
        and all(_is_removal(removal) for removal in rows.removals)
        and all(_fits(extra, rows.sizes[at]) for at, extra in rows.extras.items())
    )


def _are_counts(values: Any) -> bool:
    """Return True if all values are integers from 0 on."""
    return all(type(value) is int and value >= 0 for value in values)


def _is_removal(removal: Removal) -> bool:
    return removal.opaque in (True, False) and _are_counts([removal.offset])


def _fits(extra: Extra, size: int) -> bool:
    """Return True if the rare fields of a member of that size are valid."""
    if not _are_counts([*extra.device, extra.nanoseconds]):
        return False
    if extra.nanoseconds >= 10**9 or len(extra.device) != 2:
        return False
    regions = (*(extra.sparse or ()), (size, 0))
    return all(map(_are_counts, regions)) and all(
        start + length <= after for (start, length), (after, _) in pairwise(regions)
    )


def _plain(extra: Extra) -> list[Any]:
    records = [
        (key.decode("latin-1"), value.decode("latin-1")) for key, value in extra.records
    ]
    return [records, extra.sparse, extra.device, extra.nanoseconds]


def _extra(plain: list[Any]) -> Extra:
    records, sparse, (major, minor), nanoseconds = plain
    return Extra(
        tuple(
            (key.encode("latin-1"), value.encode("latin-1")) for key, value in records
        ),
        None if sparse is None else tuple((start, length) for start, length in sparse),
        (major, minor),
        nanoseconds,
    )
