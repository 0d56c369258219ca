"""What other programs make of a tar, as a tree: all metadata, and contents by hash.

Go's archive/tar and Python's tarfile say members, which the naive model (``oracle``)
makes a tree of; GNU tar and bsdtar unpack into a directory, which takes root. A tree is
a dict from paths to rows, in the words of ``listing``, without hashes of what is
``LARGE``; None stands for an archive that the program refuses, or that the model makes
no tree of.
"""

import base64
import hashlib
import os
import resource
import shutil
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flatten.tar.extended import kept_records
from listers import KINDS, go_documents
from listing import disk_listing
from oracle import Entry, Refused, flattened, records

Row = dict[str, Any]
Reading = dict[str, Row] | None

TYPES = {"-": "file", "h": "hardlink", "l": "symlink", "c": "chr", "b": "blk",
         "d": "dir", "p": "fifo"}  # fmt: skip
LARGE = 1 << 26  # bytes of contents that are looked at: holes may be of any size
UNPACKERS = {
    "gnu_tar": ["tar", "--numeric-owner"],
    "bsdtar": ["bsdtar", "--numeric-owner"],
}
_XATTR = b"SCHILY.xattr."
_C = os.environ | {"LC_ALL": "C.UTF-8", "TZ": "UTC"}


def tree(entries: Iterable[Entry]) -> Reading:
    """Make a tree of members, whose content is a document of size and hash."""
    layer = list(entries)
    if any(len(entry.name) > os.pathconf("/", "PC_PATH_MAX") for entry in layer):
        return None  # the model takes the square of that
    try:
        rows = records(flattened([layer]))
    except Refused:
        return None
    contents = {hashlib.sha256(e.content).hexdigest(): e.content for e in layer}
    for row in rows:
        if "sha256" in row:
            size, _, digest = contents[row["sha256"]].decode().partition(" ")
            row |= {"size": int(size), "sha256": digest}
    return {row["path"]: row for row in rows}


def said(size: int, sha256: str) -> bytes:
    """Say a content, for the model."""
    return f"{size} {sha256 if size <= LARGE else '...'}".encode()


def go(paths: Iterable[Path], program: Path) -> list[Reading]:
    """Read with Go's archive/tar, in the program that ``listers.go_program`` builds."""
    return [_go(found) for found in go_documents(paths, program)]


def _go(found: dict[str, Any]) -> Reading:
    if found["error"]:
        return None
    members = [member for member in found["entries"] if member["Type"] != "g"]
    if any(member["Type"] not in KINDS for member in members):
        return None  # what docker and containerd do with a type that they do not know
    return tree(_go_entry(member) for member in members)


def _go_entry(member: dict[str, Any]) -> Entry:
    some = {
        key.encode(): base64.b64decode(value)
        for key, value in member["Records"].items()
    }
    return Entry(
        base64.b64decode(member["Name"]), TYPES[KINDS[member["Type"]]],
        said(member["Size"], member["Sha256"]), member["Mode"], member["Uid"],
        member["Gid"], member["Mtime"], base64.b64decode(member["Linkname"]),
        _xattrs(some), (member["Major"], member["Minor"]),
    )  # fmt: skip


def _xattrs(some: dict[bytes, bytes]) -> tuple[tuple[bytes, bytes], ...]:
    """Return the xattrs among records, those of libarchive's spelling too."""
    return tuple(
        (key.removeprefix(_XATTR), value)
        for key, value in kept_records(some)
        if key.startswith(_XATTR)
    )


def python(path: Path) -> Reading:
    """Read with Python's tarfile."""
    try:
        with tarfile.open(
            path, "r:", encoding="utf-8", errors="surrogateescape"
        ) as tar:
            return tree([_python_entry(tar, info) for info in tar])
    except (tarfile.TarError, ValueError, OverflowError, EOFError):
        return None


def _python_entry(tar: tarfile.TarFile, info: tarfile.TarInfo) -> Entry:
    content = b""
    if info.isfile():
        content = said(info.size, _hash(tar.extractfile(info), info.size))
    some = {_bytes(key): _bytes(value) for key, value in info.pax_headers.items()}
    return Entry(
        _bytes(info.name) + b"/" * info.isdir(),
        TYPES[KINDS.get(info.type.decode("latin-1"), "-")],
        content, info.mode, info.uid, info.gid, info.mtime, _bytes(info.linkname),
        _xattrs(some),
        (info.devmajor, info.devminor),
    )  # fmt: skip


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _hash(stream: Any, size: int) -> str:
    digest = hashlib.sha256()
    while size <= LARGE and (data := stream.read(1 << 20)):
        digest.update(data)
    return digest.hexdigest()


def unpackers() -> dict[str, list[str]]:
    """Return the programs that ``unpacked`` can run here."""
    if os.geteuid() != 0:
        return {}
    return {name: words for name, words in UNPACKERS.items() if shutil.which(words[0])}


def unpacked(command: list[str], path: Path, folder: Path) -> Reading:
    """Read by unpacking into an empty folder, with GNU tar or bsdtar.

    Left out are xattrs, the root, and of directories all but their names.
    """
    try:
        done = subprocess.run(
            [*command, "-xpf", path, "-C", folder], capture_output=True, env=_C,
            check=False, timeout=20, preexec_fn=_limited,
        )  # fmt: skip
    except subprocess.TimeoutExpired:  # GNU tar, where regions are a million
        return None
    if done.returncode:
        return None
    return on_disk({row["path"]: row for row in disk_listing(folder)})


def _limited() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGE, LARGE))


def on_disk(rows: dict[str, Row]) -> dict[str, Row]:
    """Leave out of a tree what ``unpacked`` leaves out."""
    return {
        path: {"path": path, "type": "dir"} if row["type"] == "dir"
        else {key: value for key, value in row.items() if key != "xattrs"}
        for path, row in rows.items() if path
    }  # fmt: skip
