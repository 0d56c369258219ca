r"""Images said in words, as bytes: layers, and the archives around them.

A word is one member of a layer:

==========  ========================================================
``a``       a file, whose content is the position of its layer
``d/``      a directory
``b=a``     a hard link ``b`` to ``a``
``s->t``    a symlink
``-d/a``    the whiteout ``d/.wh.a``
``d/*``     the opaque mark ``d/.wh..wh..opq``; ``*`` is the root's
==========  ========================================================

What words cannot say is a ``member(...)``: any header field, right or wrong. The
header writer here shares nothing with the package's.
"""

import gzip
import hashlib
import io
import json
import re
import tarfile
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

MTIME = 1_700_000_000
ZEROS = bytes(512)
END = bytes(1024)


class Bytes:
    """Bytes in memory, read at offsets as those of a file."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def read(self, offset: int, count: int) -> bytes:
        return self.data[offset : offset + count]

    def size(self) -> int:
        return len(self.data)


TRUSTED: Any = (
    {"filter": "fully_trusted"} if hasattr(tarfile, "fully_trusted_filter") else {}
)
"""Arguments with which tarfile extracts all as it is; before 3.11.4 it has no filters."""


def number(value: int, width: int) -> bytes:
    """Write a header's number: octal, or base-256 where that is too narrow."""
    if 0 <= value < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, value)
    return bytes([0xFF if value < 0 else 0x80]) + (value % 256 ** (width - 1)).to_bytes(
        width - 1, "big"
    )


def block(
    name: bytes,
    type: bytes = b"0",
    *,
    mode: int | bytes = 0o644,
    uid: int | bytes = 0,
    gid: int | bytes = 0,
    size: int | bytes = 0,
    mtime: int | bytes = MTIME,
    target: bytes = b"",
    magic: bytes = b"ustar\x0000",
    uname: bytes = b"somebody",
    device: tuple[int, int] = (0, 0),
    tail: bytes = b"",
    checksum: bytes | None = None,
) -> bytes:
    """Write one header block; numbers given as bytes stand there as they are."""

    def field(value: int | bytes, width: int) -> bytes:
        text = value if isinstance(value, bytes) else number(value, width)
        assert len(text) <= width, (text, width)
        return text.ljust(width, b"\0")

    out = b"".join((
        name[:100].ljust(100, b"\0"), field(mode, 8), field(uid, 8), field(gid, 8),
        field(size, 12), field(mtime, 12), b" " * 8, type,
        target[:100].ljust(100, b"\0"), magic.ljust(8, b"\0"), uname.ljust(32, b"\0"),
        bytes(32), field(device[0], 8), field(device[1], 8), tail,
    )).ljust(512, b"\0")  # fmt: skip
    assert len(out) == 512, len(out)
    if checksum is None:
        checksum = b"%06o\0 " % sum(out)
    return out[:148] + checksum + out[156:]


def padded(data: bytes, filler: bytes = b"\0") -> bytes:
    """Fill up to whole blocks."""
    return data + filler * (-len(data) % 512)


def record(key: bytes, value: bytes) -> bytes:
    """Write a PAX record."""
    length = len(key) + len(value) + 3
    while len(b"%d %b=%b\n" % (length, key, value)) != length:
        length += 1
    return b"%d %b=%b\n" % (length, key, value)


def pax(records: Mapping[bytes, bytes] | bytes, type: bytes = b"x") -> bytes:
    """Write a PAX header member."""
    if not isinstance(records, bytes):
        records = b"".join(record(key, value) for key, value in records.items())
    return block(b"PaxHeaders/x", type, size=len(records)) + padded(records)


def long_name(text: bytes, type: bytes = b"L") -> bytes:
    """Write a GNU long name, or with ``K`` a long target."""
    text += b"\0"
    magic = b"ustar  \0"
    return block(b"././@LongLink", type, size=len(text), magic=magic) + padded(text)


def member(
    name: bytes | str,
    data: bytes = b"",
    *,
    records: Mapping[bytes, bytes] | None = None,
    type: bytes = b"0",
    target: bytes | str = b"",
    **fields: Any,
) -> bytes:
    """Write a member: what long names and records need, the header, the data."""
    name = name.encode() if isinstance(name, str) else name
    target = target.encode() if isinstance(target, str) else target
    out = b""
    if len(target) > 100:
        out += long_name(target, b"K")
    if len(name) > 100:
        out += long_name(name)
    if records:
        out += pax(records)
    fields.setdefault("size", len(data))
    return out + block(name, type, target=target, **fields) + padded(data)


def word(text: str, layer: int) -> bytes:
    """Write the member that a word says."""
    if text.startswith("-"):
        parent, slash, name = text[1:].rpartition("/")
        return member(f"{parent}{slash}.wh.{name}", mode=0)
    if text.endswith("*"):
        return member(f"{text[:-1]}.wh..wh..opq", mode=0)
    if "->" in text:
        name, target = text.split("->")
        return member(name, type=b"2", target=target, mode=0o777)
    if "=" in text:
        name, target = text.split("=")
        return member(name, type=b"1", target=target)
    if text.endswith("/"):
        return member(text, type=b"5", mode=0o755)
    return member(text, b"%d" % layer)


def layer(*words: str | bytes, position: int = 0, end: bytes = END) -> bytes:
    """Write a layer tar from words and members."""
    parts = [word(w, position) if isinstance(w, str) else w for w in words]
    return b"".join(parts) + end


def layers(*each: Sequence[str | bytes] | bytes) -> list[bytes]:
    """Write a list of layer tars, each from its words, or as it is."""
    return [
        words if isinstance(words, bytes) else layer(*words, position=position)
        for position, words in enumerate(each)
    ]


def digest(data: bytes) -> str:
    """Return the hex digest that names a blob."""
    return hashlib.sha256(data).hexdigest()


def config(tars: Iterable[bytes], **more: Any) -> dict[str, Any]:
    """Return an image config for some layers."""
    diff_ids = [f"sha256:{digest(tar)}" for tar in tars]
    return {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        **more,
    }


def archive(files: Iterable[tuple[str, bytes] | bytes], end: bytes = END) -> bytes:
    """Write the outer tar from (name, content) pairs, or members as they are."""
    out = io.BytesIO()
    for item in files:
        out.write(item if isinstance(item, bytes) else member(item[0], item[1]))
    return out.getvalue() + end


def docker_archive(
    tars: Sequence[bytes],
    *,
    tags: Sequence[str] | None = ("app:1",),
    config_document: Any = None,
    end: bytes = END,
) -> bytes:
    """Write what docker 1.10 to 24 saves for one image."""
    document = json.dumps(
        config(tars) if config_document is None else config_document
    ).encode()
    names = [f"{position:064x}/layer.tar" for position, _ in enumerate(tars)]
    manifest = [
        {"Config": f"{digest(document)}.json", "RepoTags": tags, "Layers": names}
    ]
    return archive(
        [
            *zip(names, tars, strict=True),
            (f"{digest(document)}.json", document),
            ("manifest.json", json.dumps(manifest).encode()),
        ],
        end,
    )


def hybrid_archive(tars: Sequence[bytes], tags: Sequence[str] = ("app:1",)) -> bytes:
    """Write what docker 25 and later saves: blobs by digest, and a manifest.json.

    The index.json beside it is wrong on purpose, as that of 25.0.0 was.
    """
    document = json.dumps(config(tars)).encode()
    blobs = {f"blobs/sha256/{digest(data)}": data for data in (*tars, document)}
    manifest = [{
        "Config": f"blobs/sha256/{digest(document)}",
        "RepoTags": tags,
        "Layers": [f"blobs/sha256/{digest(tar)}" for tar in tars],
    }]  # fmt: skip
    return archive([
        *blobs.items(),
        ("index.json", b'{"schemaVersion": 2, "manifests": []}'),
        ("manifest.json", json.dumps(manifest).encode()),
        ("oci-layout", b'{"imageLayoutVersion": "1.0.0"}'),
    ])  # fmt: skip


def podman_archive(tars: Sequence[bytes], tags: Sequence[str] = ("app:1",)) -> bytes:
    """Write what podman saves: layers by diff id, old names as symlinks to them."""
    document = json.dumps(config(tars)).encode()
    names = [f"{digest(tar)}.tar" for tar in tars]
    links = [
        member(f"{position:064x}/layer.tar", type=b"2", target=f"../{name}")
        for position, name in enumerate(names)
    ]
    config_name = f"sha256:{digest(document)}"
    manifest = [{
        "Config": config_name,
        "RepoTags": tags,
        "Layers": [f"{position:064x}/layer.tar" for position, _ in enumerate(tars)],
    }]  # fmt: skip
    return archive([
        *dict(zip(names, tars, strict=True)).items(),
        *links,
        (config_name, document),
        ("manifest.json", json.dumps(manifest).encode()),
    ])  # fmt: skip


def legacy_archive(
    tars: Sequence[bytes],
    *,
    tags: Mapping[str, Mapping[str, str]] | None = None,
    end: bytes = END,
) -> bytes:
    """Write what docker before 1.10 saves; ``tags`` None leaves repositories out."""
    files: list[tuple[str, bytes]] = []
    for position, tar in enumerate(tars):
        layer_id = f"{position + 1:064x}"
        document: dict[str, Any] = {"id": layer_id, "os": "linux"}
        if position:
            document["parent"] = f"{position:064x}"
        files += [
            (f"{layer_id}/VERSION", b"1.0"),
            (f"{layer_id}/json", json.dumps(document).encode()),
            (f"{layer_id}/layer.tar", tar),
        ]
    if tags is not None:
        files.append(("repositories", json.dumps(tags).encode()))
    return archive(files, end)


def oci_files(
    tars: Sequence[bytes],
    *,
    pack: Any = None,
    names: Sequence[str] = ("app:1",),
    documents: Mapping[str, Any] | None = None,
) -> dict[str, bytes]:
    """Return the files of an OCI layout: ``pack`` compresses each layer.

    ``documents`` are merged into the config, manifest and index of those names.
    """
    more = documents or {}
    packed = [tar if pack is None else pack(tar) for tar in tars]
    blobs = {digest(data): data for data in packed}

    def blob(document: Any, kind: str) -> dict[str, Any]:
        data = json.dumps(document).encode()
        blobs[digest(data)] = data
        return descriptor(data, f"application/vnd.oci.image.{kind}.v1+json")

    manifest = {
        "schemaVersion": 2,
        "config": blob(config(tars, **more.get("config", {})), "config"),
        "layers": [
            descriptor(data, "application/vnd.oci.image.layer.v1.tar")
            for data in packed
        ],
        **more.get("manifest", {}),
    }
    listed = blob(manifest, "manifest")
    index = {
        "schemaVersion": 2,
        "manifests": [
            listed | {"annotations": {"org.opencontainers.image.ref.name": name}}
            for name in names
        ],
        **more.get("index", {}),
    }
    return {
        "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
        "index.json": json.dumps(index).encode(),
        **{f"blobs/sha256/{name}": data for name, data in blobs.items()},
    }


def docker_root(
    folder: Path,
    tars: Sequence[bytes],
    *,
    driver: str = "overlay2",
    place: str = "overlay2/{}/diff",
    names: Sequence[str] = ("app:1",),
    **more: Any,
) -> str:
    """Write a data root of docker's, with one image; return its id.

    The cache-id of each layer is its position, many times. Trees hold files of any
    kind but devices, and whiteouts as plain files: enough where tar-split's record is
    there.
    """
    for position, tar in enumerate(tars):
        tree = folder / place.format(f"{position:02x}" * 32)
        tree.mkdir(parents=True, exist_ok=True)
        with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
            opened.extractall(tree, **TRUSTED)
    diff_ids = [f"sha256:{digest(tar)}" for tar in tars]
    places = docker_documents(folder / "image" / driver, diff_ids, names, **more)
    for layer_dir, tar in zip(places, tars, strict=True):
        (layer_dir / "tar-split.json.gz").write_bytes(split(tar))
    return digest(json.dumps(config(tars, **more)).encode())


def docker_documents(
    image: Path,
    diff_ids: Sequence[str],
    names: Sequence[str] = ("app:1",),
    **more: Any,
) -> list[Path]:
    """Write what is below ``image/DRIVER``; return the layers' directories there."""
    places, chain = [], ""
    for position, diff in enumerate(diff_ids):
        parent, chain = chain, f"sha256:{digest(f'{chain} {diff}'.encode())}"
        chain = chain if parent else diff
        places.append(image / "layerdb" / "sha256" / chain.removeprefix("sha256:"))
        places[-1].mkdir(parents=True, exist_ok=True)
        cache_id = f"{position:02x}" * 32
        files = {"diff": diff, "cache-id": cache_id, "size": "1", "parent": parent}
        for name, text in files.items():
            if text:
                (places[-1] / name).write_text(text)
    rootfs = {"type": "layers", "diff_ids": diff_ids}
    document = json.dumps(config([], rootfs=rootfs, **more))
    content = image / "imagedb" / "content" / "sha256"
    content.mkdir(parents=True, exist_ok=True)
    (content / digest(document.encode())).write_text(document)
    repositories: dict[str, dict[str, str]] = {}
    for name in names:
        repository = name.partition("@")[0].rpartition(":")[0] or name
        ids = repositories.setdefault(repository, {})
        ids[name] = f"sha256:{digest(document.encode())}"
    text = json.dumps({"Repositories": repositories})
    (image / "repositories.json").write_text(text)
    return places


def in_capitals(text: str) -> str:
    """Return a JSON document whose keys are in capitals; keys with a ``/`` stay."""
    return re.sub('"[^"/]+":', lambda found: found[0].upper(), text)


def split(tar: bytes, *, edit: Mapping[str, Any] | None = None) -> bytes:
    """Write tar-split's record of a layer tar; ``edit`` goes into each file's entry."""
    entries: list[dict[str, Any]] = []
    done = 0
    with tarfile.open(fileobj=io.BytesIO(tar), mode="r:") as opened:
        for info in opened:
            head = tar[done : info.offset_data]
            done = info.offset_data
            content = tar[done : done + info.size] if info.isreg() else b""
            done += len(content)
            entries.append({"type": 2, "payload": b64encode(head).decode()})
            crc = b64encode(naive_crc64(content).to_bytes(8, "big")).decode()
            sized = {"size": len(content), "payload": crc} if content else {}
            entries.append(
                {"type": 1, "name": info.name, "payload": None, **sized, **(edit or {})}
            )
    entries.append({"type": 2, "payload": b64encode(tar[done:]).decode()})
    for position, entry in enumerate(entries):
        entry["position"] = position
    return split_lines(entries)


def split_lines(entries: Iterable[Any]) -> bytes:
    """Write entries of a tar-split record as Go does: without spaces, in gzip."""
    lines = [json.dumps(entry, separators=(",", ":")) for entry in entries]
    return gzip.compress("".join(f"{line}\n" for line in lines).encode())


def naive_crc64(data: bytes) -> int:
    """Return the CRC-64/ISO of some bytes, a byte at a time."""
    crc = (1 << 64) - 1
    for byte in data:
        crc = CRC64_TABLE[crc & 255 ^ byte] ^ crc >> 8
    return crc ^ ((1 << 64) - 1)


def crc64_of_byte(value: int) -> int:
    """Return an entry of the table, a bit at a time."""
    for _ in range(8):
        value = value >> 1 ^ (0xD800000000000000 if value & 1 else 0)
    return value


CRC64_TABLE = [crc64_of_byte(value) for value in range(256)]


def descriptor(data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
    """Describe a blob."""
    return {
        "mediaType": media_type,
        "digest": f"sha256:{digest(data)}",
        "size": len(data),
        **more,
    }
