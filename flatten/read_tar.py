"""A layer tar to its members: the columns of ``Members`` and a ``LayerIndex``.

Reads v7, ustar, star, GNU and PAX headers and all GNU sparse kinds. The data of
members is skipped, not read. What readers in use understand differently is refused,
since the tree would depend on who reads (CVE-2025-62518).

=========  ===============================================================
typeflag   read as
=========  ===============================================================
0 NUL 7    file (NUL with a trailing slash: directory, as before POSIX)
1 to 6     hard link, symlink, char, block, directory, FIFO; no data follows
S          sparse file, old GNU
D          directory, GNU incremental; its data is skipped
x X, g     PAX records for the next member, for all that follow
L, K       GNU long name, long link target
V          GNU volume label; skipped
=========  ===============================================================
"""

from collections.abc import Iterator
from typing import Final, NoReturn

from . import tarball, whiteout
from .errors import FormatError, quoted
from .model import (
    DIRECTORY,
    FILE,
    LINK,
    MAX_NAME,
    NO_EXTRA,
    SYMLINK,
    Allowance,
    Extra,
    LayerBytes,
    LayerIndex,
    Members,
    Owner,
    Removal,
)
from .read_header import (
    MAX_NUMBER,
    Ahead,
    Fields,
    meant,
    parse_owner,
    read_header,
)
from .tarball import BLOCK_SIZE, MAX_RECORDS, ZEROS, parse_number

READ_AHEAD: Final = 1 << 18  # while headers follow each other closely
READ_ONE: Final = 1 << 12  # after a jump over data: often only one header is there

MAX_GLOBAL: Final = 1 << 16  # bytes of PAX records for all members

_REGION: Final = 128  # bytes of memory for a region of a sparse map: three objects
_TOC: Final = b"stargz.index.json"
_ESTARGZ: Final = frozenset((_TOC, b".prefetch.landmark", b".no.prefetch.landmark"))
"""What eStargz adds to a layer: its table of contents, which comes last, and marks.

Reference: stargz-snapshotter docs/estargz.md, "TOC" and "Prioritized Files".
"""

_PLAIN: Final = frozenset((FILE, LINK, SYMLINK, DIRECTORY))  # nothing else in them
_META_FLAGS: Final = frozenset(b"xXgLK")
_LABEL: Final = ord("V")

Entry = tuple[bytes, int, Owner, int, int, int, bytes | None, Extra | None]
"""A member, as it is read: path, kind, owner, mtime, size, data, target, extra."""


class TarReader:
    """Iterates over the members of one tar stream, in archive order.

    Attributes:
        where: The stream's name in messages.
        offset: Of the header that was read last.
        ended: An end-of-archive block was seen.
    """

    def __init__(
        self, source: LayerBytes, where: str, allowance: Allowance | None = None
    ) -> None:
        """Prepare to read from the start of ``source``."""
        self.where = where
        self.offset = 0
        self.ended = False
        self._source = source
        self._allowance = allowance or Allowance()
        self._defaults: dict[bytes, bytes] = {}

    def fail(self, what: str) -> NoReturn:
        """Raise FormatError at the current header."""
        raise FormatError(what, where=self.where, offset=self.offset)

    def __iter__(self) -> Iterator[Entry]:
        """Yield the members.

        Raises:
            FormatError: The stream breaks the format.
        """
        try:
            yield from self._members()
        except ValueError as error:
            self.fail(str(error))

    def _members(self) -> Iterator[Entry]:  # noqa: C901 - the hot loop, in line
        """Yield the members; headers that are not plain go another way."""
        owners: dict[bytes, Owner] = {}
        ahead: Ahead | None = None
        buffer, base = b"", 0  # what was read last, and where it begins
        offset = reached = 0  # of the next header; the end of the last data
        while True:
            at = offset - base
            block = buffer[at : at + BLOCK_SIZE]
            if len(block) < BLOCK_SIZE:
                walking = at <= len(buffer)
                buffer = self._source.read(offset, READ_AHEAD if walking else READ_ONE)
                base = offset
                block = buffer[:BLOCK_SIZE]
            self.offset = offset
            if block == ZEROS or len(block) < BLOCK_SIZE:
                self._check_end(block, reached, ahead)
                return
            if wrong := tarball.checksum_error(block):
                raise ValueError(wrong)

            flag = block[156]
            size = parse_number(block[124:136])
            if (
                flag in _PLAIN
                and ahead is None
                and not self._defaults
                and not size >> 62
            ):
                name = tarball.parse_name(block)
                owner = owners.get(block[100:124])
                if owner is None:
                    owner = owners[block[100:124]] = parse_owner(block, {})
                kind, extra, target = flag, None, None
                if flag != FILE:
                    size = 0  # no data follows, whatever the header says
                    if flag != DIRECTORY:
                        target = tarball.text_field(block, 157, 257)
                        owner = (0o777, *owner[1:]) if flag == SYMLINK else owner
                stored = size
                mtime = parse_number(block[136:148])
                data = offset + BLOCK_SIZE
            elif flag in _META_FLAGS:
                ahead = self._describe(flag, size, ahead or Ahead())
                reached = offset + BLOCK_SIZE + size
                offset += BLOCK_SIZE + tarball.padded(size)
                continue
            elif flag == _LABEL:
                offset += BLOCK_SIZE
                continue
            else:
                fields = read_header(
                    block, offset, ahead or Ahead(), self._defaults, self._source
                )
                self._allowance.take(_memory(fields))
                name, kind, owner, mtime, size, data, stored, target, extra = fields
                ahead = None
            yield _path(name), kind, owner, mtime, size, data, target, extra
            reached = data + stored
            offset = data + (stored + 511 & -512)

    def _check_end(self, block: bytes, reached: int, ahead: Ahead | None) -> None:
        """Check that the archive may end here: zeros, or the end of the stream."""
        size = self._source.size()
        if reached > size:
            raise ValueError(
                f"truncated: the last member reaches byte {reached:,}, "
                f"the stream has {size:,}"
            )
        if ahead is not None and not block:
            raise ValueError("truncated: a header that describes the next, and no next")
        if block.strip(b"\0"):
            raise ValueError(f"truncated: {len(block)} bytes of a header")
        self.ended = bool(block)
        # GNU tar, bsdtar and Python stop at a lone zero block, Go refuses it.
        behind = self._source.read(self.offset + BLOCK_SIZE, BLOCK_SIZE)
        full = len(behind) == BLOCK_SIZE and behind != ZEROS
        if full and not tarball.checksum_error(behind):
            raise ValueError("a lone zero block, with more members behind it")

    def _describe(self, flag: int, size: int, ahead: Ahead) -> Ahead | None:
        """Read a member that describes the next one, or all that follow."""
        limit = MAX_RECORDS if flag in b"xXg" else MAX_NAME + BLOCK_SIZE
        if not 0 <= size <= limit:
            raise ValueError(f"{size:,} bytes of records, over the {limit:,} allowed")
        body = self._source.read(self.offset + BLOCK_SIZE, size)
        if len(body) < size:
            raise ValueError(f"truncated: {len(body):,} of {size:,} bytes of records")
        if flag == ord("L"):
            ahead.name = body.split(b"\0", 1)[0]
        elif flag == ord("K"):
            ahead.target = body.split(b"\0", 1)[0]
        elif flag == ord("g"):
            records = self._defaults | dict(tarball.parse_records(body))
            self._defaults = meant(records)
            total = sum(len(key) + len(value) for key, value in self._defaults.items())
            if total > MAX_GLOBAL:
                raise ValueError(f"{total:,} bytes of records for all members, "
                                 f"over {MAX_GLOBAL:,}")  # fmt: skip
            return ahead if ahead != Ahead() else None
        elif ahead.records:
            raise ValueError("two PAX headers for one member")
        else:
            ahead.records = tarball.parse_records(body)
        return ahead


def _path(name: bytes) -> bytes:
    """Return the path that a name means; most names are one already."""
    if b"/." in name or b"//" in name or name[:1] in b"./" or len(name) > MAX_NAME:
        return _odd_path(name)
    return name[:-1] if name[-1] == 0x2F else name


def _odd_path(name: bytes) -> bytes:
    """Return the path that any name means."""
    try:
        path = tarball.normalise(name)
    except ValueError as error:
        raise ValueError(f"{error}: {quoted(name)}") from error
    if len(path) > MAX_NAME:
        raise ValueError(f"a name of {len(path):,} bytes, over {MAX_NAME:,}")
    return path


def _memory(fields: Fields) -> int:
    """Return the bytes that a member takes beside the columns, about."""
    extra = fields.extra or NO_EXTRA
    texts = sum(len(key) + len(value) for key, value in extra.records)
    regions = _REGION * len(extra.sparse or ())
    return len(fields.name) + len(fields.target or b"") + texts + regions


def read_layer(source: LayerBytes, where: str, layer: int, into: Members) -> LayerIndex:
    """Read the headers of a layer tar.

    Args:
        source: The uncompressed stream.
        where: The layer's name in messages.
        layer: The layer's position in its image.
        into: Receives a row for each member that is not a whiteout.

    Raises:
        FormatError: The stream breaks the format, or a name leaves the root.
    """
    index = LayerIndex(where, first=len(into))
    reader = TarReader(source, where, into.allowance)
    estargz: list[Entry] = []
    for entry in reader:
        path = entry[0]
        if b".wh." in path:
            meaning, path = _classify(reader, path)
            if meaning == whiteout.ASIDE:
                index.aside.add(len(into))
            elif meaning != whiteout.ORDINARY:
                opaque = meaning == whiteout.OPAQUE
                index.removals.append(Removal(path, opaque, reader.offset))
                continue
        if path in _ESTARGZ:
            estargz.append(entry)
            continue
        if not path and entry[1] != DIRECTORY:
            reader.fail("the root is not a directory")
        index.paths.append(path)
        _add(reader, entry, into)
    if estargz and estargz[-1][0] != _TOC:  # files that happen to be called so
        for entry in estargz:
            index.paths.append(entry[0])
            _add(reader, entry, into)
    into.layers.extend([layer] * (len(into) - index.first))
    return index


def _add(reader: TarReader, entry: Entry, into: Members) -> None:
    """Append a row for a member to all columns but that of layers."""
    _, kind, owner, mtime, size, data, target, extra = entry
    if not -MAX_NUMBER < mtime < MAX_NUMBER:
        reader.fail(f"an mtime of {mtime:,} seconds")
    if len(into.kinds) >= into.limit:
        into.check_limit(1, where=reader.where, offset=reader.offset)
    if target is not None:
        into.targets[len(into.kinds)] = _target(reader, kind, target)
    if extra is not None:
        into.extras[len(into.kinds)] = extra
    into.kinds.append(kind)
    into.owners.append(into.owner(owner))
    into.sizes.append(size)
    into.data.append(data)
    into.mtimes.append(mtime)


def _classify(reader: TarReader, path: bytes) -> tuple[int, bytes]:
    try:
        return whiteout.classify(path)
    except ValueError as error:
        reader.fail(f"{error}: {quoted(path)}")


def _target(reader: TarReader, kind: int, target: bytes) -> bytes:
    """Return a symlink's text as it is, and the path a hard link means."""
    if kind == SYMLINK:
        if len(target) > MAX_NAME:
            reader.fail(f"a symlink of {len(target):,} bytes, over {MAX_NAME:,}")
        return target
    try:
        return _path(target)
    except ValueError as error:
        reader.fail(f"hard link to {error}")
