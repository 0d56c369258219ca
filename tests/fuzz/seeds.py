"""Seeds for the fuzzers: small, and made by the builders of the tests."""

import base64
import bz2
import gzip
import json
import lzma
from collections.abc import Iterator

import zstandard

import bolts
import headers
from builders import (
    archive,
    docker_archive,
    hybrid_archive,
    layer,
    layers,
    legacy_archive,
    long_name,
    member,
    oci_files,
    pax,
    podman_archive,
    record,
)

REGIONS = [(512, 512), (2048, 100)]
DATA = b"d" * 612


def seeds(target: str) -> list[bytes]:
    """Return the seeds of a target."""
    return list(globals()[f"_{target}"]())


def _header() -> Iterator[bytes]:
    for table in (headers.NAMES, headers.KINDS):
        for head, _ in table.values():
            yield head[-512:]
    yield headers.sparse_gnu(b"x", REGIONS, 4096, DATA)


def _records() -> Iterator[bytes]:
    yield record(b"path", b"a") + record(b"mtime", b"-1.5") + record(b"size", b"0")
    yield record(b"SCHILY.xattr.user.a", b"\0\xff\n") + record(b"uid", b"3000000")
    yield record(b"LIBARCHIVE.xattr.user.a%20b", b"AAAA")
    yield record(b"GNU.sparse.map", b"0,1,2,3") + record(b"GNU.sparse.size", b"9")


def _layer() -> Iterator[bytes]:
    yield layer("d/", "d/a", "b=d/a", "s->d", "s/c", "-x", "d/*", "./y", "d/../z")
    yield layer(member("p/q", b"1", type=b"3", device=(1, 3)), member("f", type=b"6"))
    yield layer("b=a", "c=b", "a", member("n" * 150, b"long"), "l/" + "m" * 101)
    yield layer(
        member("x", b"x", records={b"SCHILY.xattr.user.a": b"b", b"mtime": b"1.5"})
    )
    yield pax({b"mtime": b"7", b"SCHILY.xattr.user.g": b"h"}, b"g") + layer("a", "b/")
    yield long_name(b"n" * 120) + layer("x", member("s", type=b"2", target="t" * 120))
    yield headers.sparse_gnu(b"x", REGIONS, 4096, DATA) + layer("a")
    for version in ("0.0", "0.1", "1.0"):
        yield headers.sparse_pax(version, b"x", REGIONS, 4096, DATA) + layer("a")
    yield layer(member(".wh..wh.plnk/1.2", b"x"), "a=.wh..wh.plnk/1.2")


def _kernel() -> Iterator[bytes]:
    yield layer("d/", "d/a", "b=d/a", "s->d", "-x", "./y", member("n" * 101))
    yield pax({b"path": b"n" * 120}) + layer("x", "y")
    for head, _ in headers.NAMES.values():
        yield head


def _image() -> Iterator[bytes]:
    tars = layers(["d/", "d/a", "s->d"], ["-d/a", "s/b"])
    yield docker_archive(tars)
    yield hybrid_archive(tars)
    yield podman_archive(tars)
    yield legacy_archive(tars, tags={"app": {"1": f"{2:064x}"}})
    yield archive(oci_files(tars).items())
    yield archive(oci_files(tars, pack=gzip.compress).items())
    yield gzip.compress(docker_archive(tars))


def _tar_split() -> Iterator[bytes]:
    head = base64.b64encode(layer("a", end=b"")).decode()
    crc = base64.b64encode(bytes(8)).decode()
    lines: list[dict[str, object]] = [
        {"type": 2, "payload": head, "position": 0},
        {"type": 1, "name": "a", "size": 5, "payload": crc, "position": 1},
        {"type": 1, "name": "b", "payload": None, "position": 2},
        {"type": 1, "name_raw": "YQ==", "size": 5, "payload": crc, "position": 3},
    ]
    yield b"".join(
        json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in lines
    )


def _bolt() -> Iterator[bytes]:
    yield bolts.bolt({b"v1": {b"moby": {b"images": {b"a": {b"b": b"c"}}}}, b"k": {}})
    yield bolts.bolt({b"a": {b"%d" % n: b"v" * n for n in range(12)}})


def _compressed() -> Iterator[bytes]:
    data = layer("a", "b")
    for pack in (gzip.compress, lzma.compress, bz2.compress, zstandard.compress):
        yield pack(data)
        yield pack(data) + pack(b"more") + bytes(9)
