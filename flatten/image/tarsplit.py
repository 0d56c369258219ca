"""Rebuild a layer's tar from its tar-split record and the directory it is unpacked in.

The record is gzipped JSON, with one entry per line, in stream order:

=====================================================  =============================
``{"type":2,"payload":BASE64,"position":N}``           raw bytes: headers, padding,
                                                       end blocks
``{"type":1,"name":NAME,"size":N,"payload":BASE64,     the content of a file in the
"position":N}``                                        directory, and its CRC-64;
                                                       without a size: no content
=====================================================  =============================

``name_raw``, in base64, replaces a ``name`` that is not UTF-8.

Reference: vbatts/tar-split tar/storage/{entry,packer}.go, tar/asm/assemble.go.
"""

import json
import re
from binascii import a2b_base64
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Final

from ..errors import FormatError, quoted
from ..host.beneath import Beneath
from ..host.decompress import decompress
from ..host.files import LayerBytes
from ..host.spools import Pool
from ..tar.members import NO_EXTRA, Members, SparseMap
from ..tar.reader import TarReader
from ..tar.wire import BLOCK_SIZE, normalise
from .assembly import Assembly

MAX_LINE: Final = 1 << 26  # bytes of one entry, such as trailing junk of a tar

_BYTES: Final = b'{"type":2,"payload":"'
_FILE: Final = re.compile(
    rb'\{"type":1,"name":"([^"\\]*)","size":([0-9]{1,18}),"payload":"([^"]*)",'
    rb'"position":[0-9]+\}'
)
_EMPTY: Final = re.compile(
    rb'\{"type":1,"name":"[^"\\]*","payload":null,"position":[0-9]+\}'
)
_CRC_SIZE: Final = 8


def assemble(
    split: LayerBytes,
    tree: Beneath | str,
    pool: Pool,
    where: str,
    contents: Mapping[bytes, bytes] | None = None,
) -> Assembly:
    """Return a layer's original tar stream; its contents are read later.

    Args:
        split: The gzipped record.
        tree: The directory, or the reason why it is missing; headers do not need it.
        pool: The pool that holds the headers.
        where: The layer's name in messages.
        contents: Where the contents of files are in the tree, by the files' paths, if
            they are not at these paths.

    Raises:
        FormatError: The record breaks its format, or has a name that leaves the tree.
    """
    assembly = Assembly(pool, where, split.size())
    assembly.add_tree(tree)
    add_record(assembly, decompress(split, "gzip", where), pool, contents)
    return assembly


def add_record(
    assembly: Assembly,
    chunks: Iterable[bytes],
    pool: Pool,
    contents: Mapping[bytes, bytes] | None = None,
) -> None:
    """Add what a record lists to an assembly, and finish it.

    Args:
        assembly: The assembly, which is empty.
        chunks: The record, inflated.
        pool: The pool that holds the headers.
        contents: As for ``assemble``.

    Raises:
        FormatError: As for ``assemble``.
    """
    record = _Record(assembly, pool, contents)
    for number, line in enumerate(_lines(chunks, assembly.where)):
        try:
            record.add(line)
        except ValueError as error:
            raise FormatError(
                f"entry {number:,} of its tar-split record: {error}",
                where=assembly.where,
            ) from error
    assembly.finish()


def _lines(chunks: Iterable[bytes], where: str) -> Iterator[bytes]:
    """Split chunks into lines; an entry may be longer than a chunk."""
    rest: list[bytes] = []
    length = 0
    for chunk in chunks:
        first, *more = chunk.split(b"\n")
        rest.append(first)
        length += len(first)
        if length > MAX_LINE:
            raise FormatError(
                f"an entry of its tar-split record is over {MAX_LINE:,} bytes",
                where=where,
            )
        if more:
            yield b"".join(rest)
            yield from more[:-1]
            rest = [more[-1]]
            length = len(more[-1])
    yield b"".join(rest)


class _Record:
    """Adds the entries of a record to an assembly."""

    def __init__(
        self, assembly: Assembly, pool: Pool, contents: Mapping[bytes, bytes] | None
    ) -> None:
        self._assembly = assembly
        self._pool = pool
        self._contents = contents
        self._encoded = b""  # encoded bytes since the last content
        self._padding = 0  # bytes at its start that pad that content

    def add(self, line: bytes) -> None:
        """Add an entry: the two usual forms by a fast path, others as JSON."""
        if line.startswith(_BYTES):
            end = line.index(b'"', len(_BYTES))
            self._add_bytes(a2b_base64(line[len(_BYTES) : end]))
        elif found := _FILE.fullmatch(line):
            name, size, crc = found.groups()
            self._add_file(normalise(name), int(size), _crc(a2b_base64(crc)))
        elif line and not _EMPTY.fullmatch(line):
            self._add_json(line)

    def _add_json(self, line: bytes) -> None:
        try:
            entry = json.loads(line)
        except RecursionError as error:
            raise ValueError("nested too deep") from error
        kind = entry.get("type") if isinstance(entry, dict) else None
        if kind == 2:
            self._add_bytes(_decoded(entry.get("payload")))
        elif kind == 1:
            raw, size = _decoded(entry.get("name_raw")), entry.get("size") or 0
            path = raw or str(entry.get("name", "")).encode("utf-8", "surrogatepass")
            if not isinstance(size, int) or size < 0:
                raise ValueError(f"a size of {size!r}")
            payload = _decoded(entry.get("payload"))
            self._add_file(normalise(path), size, _crc(payload) if payload else 0)
        else:
            raise ValueError("unknown entry type")

    def _add_bytes(self, data: bytes) -> None:
        self._encoded = self._encoded + data if self._encoded else data
        self._assembly.add_bytes(data)

    def _add_file(self, path: bytes, size: int, crc: int) -> None:
        """Add the content of the member whose header is before it."""
        if self._contents is not None and size:
            if path not in self._contents:
                raise ValueError(f"no digest of the content of {quoted(path)} is kept")
            path = self._contents[path]
        stored = self._encoded[-388:-377]  # the size in that header, in its usual form
        regions = None if stored == b"%011o" % size else self._regions(size)
        if regions is None:
            self._assembly.add_file(path, size, crc=crc)
        else:
            for start, length in regions:
                self._assembly.add_file(path, length, part=(start, size))
            size = sum(length for _, length in regions)
        self._encoded, self._padding = b"", -size % BLOCK_SIZE

    def _regions(self, size: int) -> SparseMap | None:
        """Return a file's data regions if it is sparse, else None.

        tar-split records such a file with its holes, but the tar only has the data, so
        docker itself can no longer save the layer. For a PAX 1.0 sparse file the record
        also lacks the map.
        """
        encoded = self._encoded[self._padding :]
        if not encoded:
            return None
        spool = self._pool.spool(self._assembly.where)
        spool.append(encoded)
        spool.finish()
        members = Members()
        with suppress(FormatError):  # no content, or an error that its reader reports
            TarReader(spool, spool.where).read(members)
        if not len(members) and b"GNU.sparse.major=1" in encoded:
            raise ValueError(
                "the map of a sparse file is missing, so docker cannot save it either"
            )
        if not len(members) or members.sizes[0] != size:
            return None
        return members.extras.get(0, NO_EXTRA).sparse


def _decoded(text: object) -> bytes:
    if text is not None and not isinstance(text, str):
        raise ValueError("a value is not a string")
    return a2b_base64(text or "")


def _crc(crc: bytes) -> int:
    if len(crc) != _CRC_SIZE:
        raise ValueError(f"a CRC-64 of {len(crc)} bytes")
    return int.from_bytes(crc, "big")
