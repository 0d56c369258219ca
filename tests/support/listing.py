"""What is in a tar, as plain data: read by Python's tarfile, not by the package."""

import base64
import hashlib
import io
import os
import stat
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
        out["sha256"] = hashlib.file_digest(stream, "sha256").hexdigest()
    elif info.ischr() or info.isblk():
        out["rdev"] = f"{info.devmajor}:{info.devminor}"
    if xattrs:
        out["xattrs"] = xattrs
    return out


def disk_listing(top: Path) -> list[dict[str, Any]]:
    """List a directory of the host, in the same words and in walk order."""
    rows: list[dict[str, Any]] = []
    first: dict[tuple[int, int], str] = {}
    todo = [("", top)]
    while todo:
        name, path = todo.pop()
        rows.append(disk_entry(path, name, first))
        if rows[-1]["type"] == "dir":
            below = sorted(os.listdir(os.fsencode(path)), reverse=True)
            todo += [
                (f"{name}/{child}" if name else child, path / child)
                for child in map(os.fsdecode, below)
            ]
    return rows


def disk_entry(
    path: Path, name: str, first: dict[tuple[int, int], str]
) -> dict[str, Any]:
    """Describe one name; ``first`` has the first name of each inode."""
    status = path.lstat()
    kind = {
        stat.S_IFREG: "file", stat.S_IFLNK: "symlink", stat.S_IFDIR: "dir",
        stat.S_IFIFO: "fifo", stat.S_IFCHR: "chr", stat.S_IFBLK: "blk",
    }[stat.S_IFMT(status.st_mode)]  # fmt: skip
    xattrs = {
        key: base64.b64encode(os.getxattr(path, key, follow_symlinks=False)).decode()
        for key in os.listxattr(path, follow_symlinks=False)
        if key.startswith(("user.", "security.capability"))
    }
    out: dict[str, Any] = {
        "path": name,
        "type": kind,
        "mode": f"{stat.S_IMODE(status.st_mode):04o}",
        "uid": status.st_uid,
        "gid": status.st_gid,
        "mtime": status.st_mtime_ns // 10**9,
    }
    if kind == "symlink":
        out["linkname"] = os.readlink(path)
    elif kind == "file":
        out["size"] = status.st_size
        out["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    elif kind in {"chr", "blk"}:
        out["rdev"] = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    if xattrs:
        out["xattrs"] = xattrs
    earlier = first.setdefault((status.st_dev, status.st_ino), name)
    if kind != "dir" and status.st_nlink > 1 and earlier != name:
        out |= {"type": "hardlink", "linkname": earlier}
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
