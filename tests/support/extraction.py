"""Layers extracted one on the other by programs that do nothing else: a tree on a disk.

Whiteouts are applied between layers, by the naive model, to what is on the disk. What
an extractor cannot do, as GNU tar to replace a directory that is not empty, it refuses.
"""

import os
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

from builders import TRUSTED, layer
from oracle import Entry, Inode, Tree, is_whiteout, remove_hidden

Extractor = Callable[[Path, Path], None]
"""Extracts a tar into a directory; raises OSError or CalledProcessError."""

_KINDS = {stat.S_IFDIR: "dir", stat.S_IFLNK: "symlink"}


def gnu_tar(tar: Path, folder: Path) -> None:
    """Extract with GNU tar, which writes through symlinks.

    With ``-P`` it makes them at once; else those with ``..`` come last, and where there
    are two of a name, the first one stays.
    """
    _run("tar", "--numeric-owner", "-xpPf", tar, "-C", folder)


def bsdtar(tar: Path, folder: Path) -> None:
    """Extract with bsdtar, which removes symlinks on the way to a member."""
    _run("bsdtar", "--numeric-owner", "-xpUf", tar, "-C", folder)


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=300)


def python(tar: Path, folder: Path) -> None:
    """Extract with Python's tarfile, which overwrites what it finds: that goes first.

    It would also give an inode the metadata of the headers of its later names.
    """
    with tarfile.open(tar, encoding="utf-8", errors="surrogateescape") as opened:
        for info in opened:
            _clear(folder / info.name, keep_directory=info.isdir())
            opened.extract(
                info, folder, set_attrs=not info.islnk(), numeric_owner=True,
                **TRUSTED,
            )  # fmt: skip


def _clear(path: Path, *, keep_directory: bool) -> None:
    """Remove what is in a member's way."""
    if path.is_dir() and not path.is_symlink():
        if not keep_directory:
            shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()


def extract(
    image: Sequence[Sequence[Entry]],
    write: Callable[[Entry], bytes],
    extractor: Extractor,
    folder: Path,
) -> None:
    """Extract the layers of an image into a directory, oldest first."""
    tar = folder.with_name("layer.tar")
    for entries in image:
        _remove_hidden(folder, entries)
        added = [entry for entry in entries if not _is_mark(entry)]
        tar.write_bytes(layer(*map(write, added)))
        extractor(tar, folder)


def _is_mark(entry: Entry) -> bool:
    parts = entry.name.split(b"/")
    return is_whiteout(tuple(part for part in parts if part not in (b"", b".")))


def _remove_hidden(folder: Path, entries: Sequence[Entry]) -> None:
    """Remove what the whiteouts of a layer hide, as the model finds it."""
    tree = _tree(os.fsencode(folder))
    left = dict(tree)
    remove_hidden(left, entries)
    for path in sorted(tree.keys() - left.keys(), key=len, reverse=True):
        name = os.path.join(os.fsencode(folder), *path)
        if tree[path].type == "dir":
            os.rmdir(name)
        else:
            os.unlink(name)


def _tree(folder: bytes) -> Tree:
    """Read what the model needs of a directory."""
    tree: Tree = {}
    todo: list[tuple[bytes, ...]] = [()]
    while todo:
        path = todo.pop()
        for name in os.listdir(os.path.join(folder, *path)):
            there = (*path, name)
            where = os.path.join(folder, *there)
            kind = _KINDS.get(stat.S_IFMT(os.lstat(where).st_mode), "file")
            target = os.readlink(where) if kind == "symlink" else b""
            tree[there] = Inode(kind, target=target)
            if kind == "dir":
                todo.append(there)
    return tree
