"""What is fuzzed: each target takes bytes, and lets nothing escape but ``FlattenError``.

Checksums would keep a fuzzer from going deep, so targets set them right first.
"""

import contextlib
import gzip
import os
import struct
import tempfile
from collections.abc import Callable
from typing import Final

import flatten
from flatten.host.decompress import MAGIC, decompress, sniff
from flatten.host.limits import Limits
from flatten.host.spools import Pool
from flatten.image.assembly import Assembly
from flatten.image.tarsplit import assemble
from flatten.outputs.write_tar import write_tar
from flatten.plan.make import make_plan
from flatten.plan.pieces import pieces
from flatten.sources.engines.bolt import Bucket, fnv64a, read_bolt
from flatten.tar import kernel as functions
from flatten.tar import wire
from flatten.tar.extended import Overrides, kept_records, meant
from flatten.tar.layer import read_layer
from flatten.tar.members import Members
from flatten.tar.read_header import read_header
from flatten.tree.tree import Tree

SMALL: Final = 1 << 24  # bytes of output that are looked at
LIMITS: Final = Limits(memory=1 << 24, size=1 << 26, members=20_000)
PAGE: Final = 4096


class Memory:
    """Bytes in memory, as a layer's."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def read(self, offset: int, count: int) -> bytes:
        assert offset >= 0, offset
        assert count >= 0, count
        return self.data[offset : offset + count]

    def readinto(self, offset: int, view: memoryview) -> None:
        if offset + len(view) > len(self.data):
            raise flatten.FormatError("ends too soon", where="memory")
        view[:] = self.data[offset : offset + len(view)]

    def size(self) -> int:
        return len(self.data)

    def extent(self, _offset: int) -> None:
        return None


class Sink:
    """What takes a tar, in memory."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, view: memoryview) -> int:
        self.data += view
        return len(view)

    def descriptor(self) -> None:
        return None


def with_checksums(data: bytes) -> bytes:
    """Set the checksums of all blocks that look like headers."""
    out = bytearray(data)
    for at in range(0, len(out) - 511, 512):
        if out[at + 257 : at + 262] == b"ustar":
            out[at + 148 : at + 156] = b" " * 8
            total = sum(out[at : at + 512])
            out[at + 148 : at + 156] = b"%06o\0 " % total
    return bytes(out)


def header(data: bytes) -> None:
    block = data[:512].ljust(512, b"\0")
    records = [(b"path", data[512:600])] if data[512:] else []
    try:
        wire.checksum_error(block)
        fields = read_header(block, 0, Overrides(records=records), {}, Memory(data))
    except ValueError:
        return
    assert 0 <= fields.size < 1 << 62
    assert fields.data >= 512
    assert fields.stored >= 0


def records(data: bytes) -> None:
    try:
        found = wire.parse_records(data)
        kept = kept_records(meant(dict(found)))
        for _, value in found:
            wire.parse_time(value)
    except ValueError:
        return
    assert wire.parse_records(wire.format_records(found)) == found
    assert wire.parse_records(wire.format_records(list(kept))) == list(kept)


def flattened(tar: bytes, posix: bool = False) -> bytes | None:
    """Flatten one layer in memory; None where the result is large."""
    source = Memory(tar)
    tree = Tree(Members(limit=LIMITS.members))
    tree.apply(read_layer(source, "layer", 0, tree.members))
    plan = make_plan(tree, posix=posix)
    if plan.size > SMALL:
        return None
    sink = Sink()
    assert write_tar(pieces(plan), [source], sink) == plan.size == len(sink.data)
    return bytes(sink.data)


def layer(data: bytes) -> None:
    """What is written is read, and is the same when it is written again."""
    tar = with_checksums(data)
    for posix in (False, True):
        try:
            first = flattened(tar, posix)
        except flatten.FlattenError:
            return
        if first is not None:
            assert flattened(first, posix) == first


def kernel(data: bytes) -> None:
    """The kernel and Python read the same rows, or the same error, and write the same."""
    tar = with_checksums(data)
    with_kernel = _read_and_written(tar)
    scan, encode = functions.scan, functions.encode
    functions.scan = functions.encode = None
    try:
        assert _read_and_written(tar) == with_kernel
    finally:
        functions.scan, functions.encode = scan, encode


def _read_and_written(tar: bytes) -> object:
    members = Members(limit=LIMITS.members)
    try:
        index = read_layer(Memory(tar), "layer", 0, members)
        owners = [members.owner_table[owner] for owner in members.owners]
        rows = [
            index, owners, members.kinds, members.sizes, members.data, members.mtimes,
            members.targets, members.extras,
        ]  # fmt: skip
        return str(rows), flattened(tar)
    except flatten.FlattenError as error:
        return str(error)


def image(data: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        file.write(with_checksums(data))
        file.flush()
        with open(os.devnull, "wb") as out, contextlib.suppress(flatten.FlattenError):
            flatten.export(file.name, out.fileno(), limits=LIMITS, verify=False)


def tar_split(data: bytes) -> None:
    pool = Pool(LIMITS)
    try:
        made: Assembly = assemble(
            Memory(gzip.compress(data, 1)), "there is none", pool, "layer"
        )
        made.size()
        made.read(0, 1 << 16)
    except flatten.FlattenError:
        pass
    finally:
        pool.close()


def bolt(data: bytes) -> None:
    out = bytearray(data)
    for at in (0, PAGE):
        if len(out) >= at + 80:
            struct.pack_into("<Q", out, at + 72, fnv64a(bytes(out[at + 16 : at + 72])))
    with contextlib.suppress(flatten.FlattenError):
        read_bolt(lambda: Memory(bytes(out)), "bolt", _everything)


def _everything(bucket: Bucket) -> int:
    count, todo = 0, [bucket]
    while todo:
        now = todo.pop()
        count += len(now.values())
        todo.extend(now.buckets().values())
    return count


def compressed(data: bytes) -> None:
    source = Memory(data)
    kind = sniff(source)
    if kind is None:
        return
    size = 0
    try:
        for chunk in decompress(source, kind, "blob"):
            size += len(chunk)
            if size > SMALL:
                return
    except flatten.FlattenError:
        pass


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "header": header,
    "records": records,
    "layer": layer,
    "kernel": kernel,
    "image": image,
    "tar_split": tar_split,
    "bolt": bolt,
    "compressed": compressed,
}
assert MAGIC, "what compressed data begins with is in the seeds"
