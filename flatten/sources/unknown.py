"""Describe a file or directory that is not an image, for the error message."""

import os
import re
from collections.abc import Iterable
from typing import Final

from ..errors import quoted
from ..tar import magic
from .archive import Archive
from .documents import Files
from .folder import Folder

_TOP: Final = ("manifest.json", "index.json", "repositories", "oci-layout")
_ROOTS: Final = frozenset(("bin", "etc", "lib", "sbin", "usr", "var"))
_ARCHIVE: Final = re.compile(r".+\.(tar|tgz|tar\.(gz|bz2|xz|zst))", re.DOTALL)
_ENOUGH: Final = 2  # of them make a root file system
_REMEDIES: Final = {
    magic.UTF_16: "write it with docker save -o FILE",
    magic.LFS_POINTER: "fetch the file with git lfs pull",
    magic.HTML: "the download got a page instead of the file",
    magic.ZIP: "unpack it first",
}


def describe(files: Files) -> str | None:
    """Return what it is, and what to do about it; None if that is unknown."""
    if isinstance(files, Folder):
        return _directory(files)
    assert isinstance(files, Archive), "there are no other files"
    if files.is_tar:
        return _tar(files)
    what = magic.recognise(files.start())
    remedy = _REMEDIES.get(what or "")
    return what and what + (f"; {remedy}" if remedy else "")


def _directory(folder: Folder) -> str | None:
    names = folder.names()
    if not names:
        return "an empty directory"
    for name in names:
        if any(f"{name}/{top}".encode() in folder for top in _TOP):
            inside = os.path.join(folder.path, name)
            return f"a directory with an image in it; name {quoted(inside)}"
    return _root(names)


def _tar(archive: Archive) -> str | None:
    names = [os.fsdecode(name) for name in archive.names()]
    if not names and archive.ended:
        return "a tar without files"
    for name in names:
        folder, slash, last = name.rpartition("/")
        if slash and last in _TOP:
            return (
                f"a tar whose {last} is in its directory {quoted(folder)}; pack what "
                "is in that directory, not the directory itself"
            )
    root = _root({name.partition("/")[0] for name in names})
    inner = [name for name in names if _ARCHIVE.fullmatch(name)]
    if root is None and len(inner) == 1:
        return f"a tar that contains {quoted(inner[0])}; unpack it first"
    return root


def _root(names: Iterable[str]) -> str | None:
    found = len(_ROOTS.intersection(names))
    return "a root file system already" if found >= _ENOUGH else None
