"""A layer's tar from tar-split's record of it and the directory it was unpacked to.

The record is gzip of JSON, a line an entry, in the order of the stream:

=====================================================  =============================
``{"type":2,"payload":BASE64,"position":N}``           bytes as they are: headers,
                                                       padding, the end
``{"type":1,"name":NAME,"size":N,"payload":BASE64,     the content of a file of the
"position":N}``                                        directory, and its CRC-64;
                                                       no size: nothing
=====================================================  =============================

``name_raw``, in base64, stands for a ``name`` that is not UTF-8.

Reference: vbatts/tar-split tar/storage/{entry,packer}.go, tar/asm/assemble.go.
"""

import json
import re
from binascii import a2b_base64
from collections.abc import Iterable, Iterator
from typing import Final

from .assembly import Assembly
from .beneath import Beneath
from .decompress import decompress
from .errors import FormatError
from .model import LayerBytes
from .streams import Pool
from .tarball import normalise

MAX_LINE: Final = 1 << 26  # bytes of one entry; junk behind an archive is one

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
    split: LayerBytes, tree: Beneath | str, pool: Pool, where: str
) -> Assembly:
    """Return a layer's tar stream, byte for byte, whose contents are read later.

    Args:
        split: The record, in gzip.
        tree: The directory, or why there is none: headers can be read without.
        pool: What holds the headers.
        where: The layer's name in messages.

    Raises:
        FormatError: The record breaks its format, or names what leaves the tree.
    """
    assembly = Assembly(pool, where, split.size())
    assembly.add_tree(tree)
    for number, line in enumerate(_lines(decompress(split, "gzip", where), where)):
        try:
            _add(line, assembly)
        except ValueError as error:
            raise FormatError(
                f"entry {number:,} of its tar-split record: {error}", where=where
            ) from error
    assembly.finish()
    return assembly


def _lines(chunks: Iterable[bytes], where: str) -> Iterator[bytes]:
    """Split at line ends; an entry may be longer than a chunk."""
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


def _add(line: bytes, assembly: Assembly) -> None:
    """Add an entry: the two usual spellings at once, others as JSON."""
    if line.startswith(_BYTES):
        assembly.add_bytes(
            a2b_base64(line[len(_BYTES) : line.index(b'"', len(_BYTES))])
        )
    elif found := _FILE.fullmatch(line):
        name, size, crc = found.groups()
        assembly.add_file(normalise(name), int(size), crc=_crc(a2b_base64(crc)))
    elif line and not _EMPTY.fullmatch(line):
        _add_json(line, assembly)


def _add_json(line: bytes, assembly: Assembly) -> None:
    try:
        entry = json.loads(line)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    kind = entry.get("type") if isinstance(entry, dict) else None
    if kind == 2:
        assembly.add_bytes(_decoded(entry.get("payload")))
    elif kind == 1:
        raw, size = _decoded(entry.get("name_raw")), entry.get("size") or 0
        path = raw or str(entry.get("name", "")).encode("utf-8", "surrogatepass")
        if not isinstance(size, int) or size < 0:
            raise ValueError(f"a size of {size!r}")
        payload = _decoded(entry.get("payload"))
        assembly.add_file(normalise(path), size, crc=_crc(payload) if payload else 0)
    else:
        raise ValueError("of no known type")


def _decoded(text: object) -> bytes:
    if text is not None and not isinstance(text, str):
        raise ValueError("a text that is none")
    return a2b_base64(text or "")


def _crc(crc: bytes) -> int:
    if len(crc) != _CRC_SIZE:
        raise ValueError(f"a CRC-64 of {len(crc)} bytes")
    return int.from_bytes(crc, "big")
