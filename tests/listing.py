"""What is in a tar, as plain data: read by Python's tarfile, not by the package."""

import base64
import hashlib
import io
import tarfile
from pathlib import Path
from typing import Any

TYPES = {
    tarfile.REGTYPE: "file",
    tarfile.AREGTYPE: "file",
    tarfile.GNUTYPE_SPARSE: "file",
    tarfile.LNKTYPE: "hardlink",
    tarfile.SYMTYPE: "symlink",
    tarfile.DIRTYPE: "dir",
    tarfile.FIFOTYPE: "fifo",
    tarfile.CHRTYPE: "chr",
    tarfile.BLKTYPE: "blk",
}


def open_tar(tar: bytes | Path) -> tarfile.TarFile:
    """Open a tar, names as bytes in disguise."""
    encoding = {"encoding": "utf-8", "errors": "surrogateescape"}
    if isinstance(tar, bytes):
        return tarfile.open(fileobj=io.BytesIO(tar), mode="r:", **encoding)
    return tarfile.open(tar, mode="r:", **encoding)


def listing(tar: bytes | Path) -> list[dict[str, Any]]:
    """List a tar's members, in its order, in the words of the expected listings."""
    with open_tar(tar) as opened:
        seen: dict[str, dict[str, Any]] = {}
        for info in opened:
            name = info.name.removeprefix("./").rstrip("/")
            name = "" if name == "." else name
            assert name not in seen, f"{name} stands twice in the output"
            seen[name] = entry(opened, info, name, seen)
    return list(seen.values())


def entry(
    opened: tarfile.TarFile,
    info: tarfile.TarInfo,
    name: str,
    seen: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """Describe one member; a hard link has what its first name has."""
    xattrs = {
        key.removeprefix("SCHILY.xattr."): base64.b64encode(
            value.encode("utf-8", "surrogateescape")
        ).decode()
        for key, value in info.pax_headers.items()
        if key.startswith("SCHILY.xattr.")
    }
    out: dict[str, Any] = {
        "path": name,
        "type": TYPES[info.type],
        "mode": f"{info.mode:04o}",
        "uid": info.uid,
        "gid": info.gid,
        "mtime": int(info.mtime // 1),
    }
    if info.issym():
        out["linkname"] = info.linkname
    elif info.islnk():
        first = seen[info.linkname]  # a link comes after its target
        same = ("mode", "uid", "gid", "mtime")
        assert {k: out[k] for k in same} == {k: first[k] for k in same}, name
        out |= {key: first[key] for key in ("size", "sha256", "xattrs") if key in first}
        out["linkname"] = info.linkname
    elif info.isreg():
        out["size"] = info.size
        stream = opened.extractfile(info)
        assert stream is not None, name
        digest = hashlib.sha256()
        while data := stream.read(1 << 20):
            digest.update(data)
        out["sha256"] = digest.hexdigest()
    elif info.ischr() or info.isblk():
        out["rdev"] = f"{info.devmajor}:{info.devminor}"
    if xattrs:
        out["xattrs"] = xattrs
    return out


def contents(tar: bytes | Path) -> dict[str, str]:
    """Map each path to its content; ``/`` for directories, ``->t`` for symlinks."""
    out = {}
    with open_tar(tar) as opened:
        for info in opened:
            if info.isdir():
                out[f"{info.name}/"] = ""
            elif info.issym():
                out[info.name] = f"->{info.linkname}"
            elif info.isreg() or info.islnk():
                stream = opened.extractfile(info)
                assert stream is not None, info.name
                out[info.name] = stream.read().decode("latin-1")
            else:
                out[info.name] = TYPES[info.type]
    return out
