"""Layers with a table of contents, zstd:chunked and eStargz, for tests.

They are written from the specifications, and share nothing with the package.
"""

import gzip
import hashlib
import io
import json
import tarfile
from base64 import b64encode
from datetime import UTC, datetime

import zstandard

from builders import block, oci_files, padded, split

TYPES = {
    tarfile.REGTYPE: "reg",
    tarfile.LNKTYPE: "hardlink",
    tarfile.SYMTYPE: "symlink",
    tarfile.CHRTYPE: "char",
    tarfile.BLKTYPE: "block",
    tarfile.DIRTYPE: "dir",
    tarfile.FIFOTYPE: "fifo",
}
CHUNK = 70_000
ZSTD = "io.github.containers.zstd-chunked."
ESTARGZ = "containerd.io/snapshot/stargz/toc.digest"


def sha256(data):
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def described(info):
    """Return the metadata of a member, without where its chunks are."""
    when = datetime.fromtimestamp(info.mtime, UTC).isoformat().replace("+00:00", "Z")
    entry = {
        "type": TYPES[info.type], "name": info.name, "mode": info.mode,
        "uid": info.uid, "gid": info.gid, "modtime": when,
        "xattrs": {
            key.removeprefix("SCHILY.xattr."): b64encode(value.encode()).decode()
            for key, value in info.pax_headers.items()
            if key.startswith("SCHILY.xattr.")
        },
    }  # fmt: skip
    if info.islnk() or info.issym():
        entry["linkName"] = info.linkname
    if info.isdev():
        entry |= {"devMajor": info.devmajor, "devMinor": info.devminor}
    return entry


def cut(tar, pack):
    """Compress a tar in pieces that begin and end where chunks do.

    Yields each member's entry and, for each chunk, its entry, offset and end.
    """
    blob, entries, done = bytearray(), [], 0
    with tarfile.open(fileobj=io.BytesIO(tar), mode="r:") as opened:
        for info in opened:
            entry = described(info)
            entries.append((entry, entry, None))
            if not info.isreg() or not info.size:
                continue
            blob += pack(tar[done : info.offset_data])
            content = tar[info.offset_data :][: info.size]
            entry |= {"size": info.size, "digest": sha256(content)}
            entries.pop()
            for at in range(0, info.size, CHUNK):
                chunk = content[at : at + CHUNK]
                own = entry if not at else {"type": "chunk", "name": info.name}
                start = len(blob)
                blob += pack(chunk)
                entries.append((entry, own, (at, chunk, start, len(blob))))
            done = info.offset_data + info.size
    blob += pack(tar[done:])
    return blob, entries


def zstd_chunked(tar, *, record=True, edit=list, annotate=None):
    """Return a layer as podman pushes it, its descriptor's annotations, and its tar.

    Without ``record`` it is as of 2023, before the table had the digest of one.
    ``edit`` changes the entries of the table, ``annotate`` the annotations.
    """
    pack = zstandard.ZstdCompressor().compress
    blob, found = cut(tar, pack)
    for entry, own, chunk in found:
        if chunk is None:
            continue
        at, data, start, stop = chunk
        own["offset"] = start
        entry["endOffset"] = stop
        if len(data) < entry["size"]:
            own.update({
                "chunkOffset": at, "chunkSize": len(data), "chunkDigest": sha256(data),
                "chunkType": "" if data.strip(b"\0") else "zeros",
            })  # fmt: skip
    entries = [own for _, own, _ in found]
    edit(entries)
    document = {"version": 1, "entries": entries}
    plain = gzip.decompress(split(tar))
    packed = pack(plain)
    if record:
        document["tarSplitDigest"] = sha256(packed)
    annotations = {}
    text = json.dumps(document).encode()
    for name, data, size in (
        ("manifest", pack(text), len(text)), ("tarsplit", packed, len(plain)),
    ):  # fmt: skip
        blob += b"\x50\x2a\x4d\x18" + len(data).to_bytes(4, "little")
        tail = ":1" if name == "manifest" else ""
        where = f"{len(blob)}:{len(data)}:{size}{tail}"
        annotations[f"{ZSTD}{name}-position"] = where
        if name == "manifest":
            annotations[f"{ZSTD}manifest-checksum"] = sha256(data)
        blob += data
    annotations |= annotate or {}
    return bytes(blob), annotations, tar


def estargz(tar, *, edit=list, annotate=None):
    """Return a layer as stargz-snapshotter makes it, its annotations, and its tar.

    The table is a member of that tar, the last one.
    """
    body = without_end(tar)
    blob, found = cut(body, gzip.compress)
    for _, own, chunk in found:
        if chunk is not None:
            at, data, start, _ = chunk
            own.update({"offset": start, "chunkDigest": sha256(data)})
            own.update({"chunkOffset": at} if at else {})
            own.update({"chunkSize": len(data)} if len(data) == CHUNK else {})
    entries = [own for _, own, _ in found]
    edit(entries)
    text = json.dumps({"version": 1, "entries": entries}, indent="\t").encode()
    table = block(b"stargz.index.json", size=len(text), mode=0, mtime=0)
    table += padded(text) + bytes(1024)
    extra = b"SG\x16\0%016xSTARGZ" % len(blob)
    footer = b"\x1f\x8b\x08\x04" + bytes(5) + b"\xff\x1a\0" + extra
    footer += b"\1\0\0\xff\xff" + bytes(8)
    assert len(footer) == 51
    blob += gzip.compress(table) + footer
    return bytes(blob), {ESTARGZ: sha256(text)} | (annotate or {}), body + table


def without_end(tar):
    """Return a tar without the zeros after its last member."""
    with tarfile.open(fileobj=io.BytesIO(tar), mode="r:") as opened:
        last = opened.getmembers()[-1]
    size = last.size if last.isreg() else 0
    return tar[: last.offset_data + size + -size % 512]


def chunked_layout(packed):
    """Return the files of an OCI layout of what the functions above return."""
    blobs = iter([blob for blob, _, _ in packed])
    listed = [
        {"mediaType": "application/vnd.oci.image.layer.v1.tar+" + (
            "gzip" if blob[:1] == b"\x1f" else "zstd"),
         "digest": sha256(blob), "size": len(blob), "annotations": annotations}
        for blob, annotations, _ in packed
    ]  # fmt: skip
    return oci_files(
        [tar for _, _, tar in packed],
        pack=lambda _: next(blobs),
        documents={"manifest": {"layers": listed}},
    )
