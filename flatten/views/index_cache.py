"""Indexes of layers, kept between runs: views of the next image on a base are instant.

An index depends on the bytes of its layer only. So there is a file for each layer,
named by its diff_id, and any image that has the layer uses it. Layers are hashed before
their index is kept: what an image promises falsely cannot get in.

A file is a line that names the format, the XXH3 (128 bits) of the rest, and the rest: a
JSON description and columns, in zstd. What has another version, another checksum or an
odd shape is not there: it is removed and made again. Files are written under another
name and renamed, so that runs may share a directory. When it is over its bound, what
was not used for the longest time goes first.
"""

import json
import os
import re
import sys
from array import array
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from ..image.columns import Rows
from ..tar.layer import Removal
from ..tar.members import Extra

MAGIC: Final = b"flatten index 1\n"  # the number changes with what an index holds
SUFFIX: Final = ".index"
BOUND: Final = 1 << 29  # bytes of all files; 280,000 members take about 3 MB
_DIFF_ID: Final = re.compile(r"sha256:[0-9a-f]{64}")
_CODES: Final = {"kinds": "B", "owners": "I", "sizes": "q", "data": "q", "mtimes": "q"}
"""Columns of ``Rows``, and the type of each."""
_LINKED: Final = "linked"  # one more: the members that have a target


class IndexCache:
    """A directory of indexes.

    Attributes:
        folder: Made when the first index is kept.
        keeps: Indexes of layers that are new are kept.
        bound: The most bytes that all files may have together.
    """

    def __init__(self, folder: Path, *, keeps: bool = True, bound: int = BOUND) -> None:
        """Touch nothing yet."""
        self.folder = folder
        self.keeps = keeps
        self.bound = bound

    def find(self, diff_id: str | None) -> Rows | None:
        """Return the index of a layer, if it is there."""
        path = self._path(diff_id)
        if path is None:
            return None
        try:
            found = unpack(path.read_bytes())
            os.utime(path)  # it was used now
        except OSError:
            return None
        except _BrokenError:
            with suppress(OSError):
                path.unlink()
            return None
        return found

    def keep(self, diff_id: str | None, data: bytes) -> None:
        """Keep what ``pack`` made of a layer that was checked.

        A cache is no reason to fail: what cannot be written is not there the next time.
        """
        path = self._path(diff_id)
        if path is None:
            return
        scratch = path.with_name(f"{path.name}.{os.urandom(6).hex()}")
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            scratch.write_bytes(data)
            os.replace(scratch, path)
        except OSError:
            with suppress(OSError):
                scratch.unlink()
            return
        self._trim()

    def _path(self, diff_id: str | None) -> Path | None:
        if diff_id is None or not _DIFF_ID.fullmatch(diff_id):
            return None
        return self.folder / f"{diff_id.removeprefix('sha256:')}{SUFFIX}"

    def _trim(self) -> None:
        """Remove what was not used for the longest time, until all fits the bound."""
        files = []
        with suppress(OSError), os.scandir(self.folder) as entries:
            for entry in entries:
                if entry.name.endswith(SUFFIX) or SUFFIX + "." in entry.name:
                    with suppress(OSError):  # another run has removed it
                        status = entry.stat()
                        files.append((status.st_mtime_ns, status.st_size, entry.path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= self.bound:
                return
            with suppress(OSError):
                os.unlink(path)
            total -= size


def default_folder() -> Path | None:
    """Return where caches are by the XDG base directory specification, if anywhere."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        try:
            base = str(Path.home() / ".cache")
        except RuntimeError:  # no home
            return None
    return Path(base, "flatten")


# --- the bytes of a file


class _BrokenError(Exception):
    """A file that is not what it should be."""


def pack(rows: Rows) -> bytes:
    """Return the file of an index."""
    import zstandard  # noqa: PLC0415 - 15 ms, only where something is kept
    from xxhash import xxh3_128_digest  # noqa: PLC0415 - 1 ms, likewise

    columns: dict[str, Any] = {name: getattr(rows, name) for name in _CODES}
    columns[_LINKED] = array("I", rows.targets)
    head = {
        "order": sys.byteorder,
        "columns": {name: len(column) for name, column in columns.items()},
        "owners": rows.owner_table,
        "removals": [(removal.path.decode("latin-1"), removal.opaque, removal.offset)
                     for removal in rows.removals],
        "aside": sorted(rows.aside),
        "extras": [(at, _plain(extra)) for at, extra in rows.extras.items()],
    }  # fmt: skip
    parts = [
        json.dumps(head).encode(),
        *(bytes(memoryview(column)) for column in columns.values()),
        b"\0".join(rows.paths),
        b"\0".join(rows.targets.values()),
    ]
    sizes = array("Q", [len(part) for part in parts])
    plain = b"".join([bytes([len(parts)]), sizes.tobytes(), *parts])
    body = zstandard.ZstdCompressor(1).compress(plain)
    return MAGIC + xxh3_128_digest(body) + body


def unpack(data: bytes) -> Rows:
    """Read the file of an index.

    Raises:
        _BrokenError: It is none, or of another version.
    """
    import zstandard  # noqa: PLC0415 - 15 ms, only where something was kept
    from xxhash import xxh3_128_digest  # noqa: PLC0415 - 1 ms, likewise

    body = data[len(MAGIC) + 16 :]
    if data[: len(MAGIC) + 16] != MAGIC + xxh3_128_digest(body):
        raise _BrokenError
    try:
        plain = memoryview(zstandard.ZstdDecompressor().decompress(body))
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
        return Rows(
            paths=_split(parts[-2], lengths["kinds"]),
            removals=[Removal(path.encode("latin-1"), opaque, offset)
                      for path, opaque, offset in head["removals"]],
            aside=set(head["aside"]),
            owner_table=[(mode, uid, gid) for mode, uid, gid in head["owners"]],
            kinds=columns["kinds"].tobytes(),
            owners=columns["owners"],
            sizes=columns["sizes"],
            data=columns["data"],
            mtimes=columns["mtimes"],
            targets=dict(zip(columns[_LINKED], targets, strict=True)),
            extras={at: _extra(extra) for at, extra in head["extras"]},
        )  # fmt: skip
    except (ValueError, KeyError, IndexError, TypeError, zstandard.ZstdError) as error:
        raise _BrokenError from error


def _split(joined: memoryview, count: int) -> list[bytes]:
    """Split names at NULs, which none of them has; one that has gives another count."""
    names = bytes(joined).split(b"\0") if count else []
    if len(names) != count:
        raise _BrokenError
    return names


def _plain(extra: Extra) -> list[Any]:
    records = [(key.decode("latin-1"), value.decode("latin-1"))
               for key, value in extra.records]  # fmt: skip
    return [records, extra.sparse, extra.device, extra.nanoseconds]


def _extra(plain: list[Any]) -> Extra:
    records, sparse, device, nanoseconds = plain
    return Extra(
        tuple(
            (key.encode("latin-1"), value.encode("latin-1")) for key, value in records
        ),
        None if sparse is None else tuple((start, length) for start, length in sparse),
        (device[0], device[1]),
        nanoseconds,
    )
