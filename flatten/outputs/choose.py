"""The choice of an output: one module for each kind, imported only when it is used.

Each has a class ``Output(out, options)``, which is a ``job.Output``.
"""

import os
from importlib import import_module
from pathlib import Path
from typing import Final, cast

from ..errors import UsageError, quoted
from ..host.compress import SUFFIXES
from ..options import Options
from .job import Output

KINDS: Final = {
    "/": "directory",
    ".squashfs": "disks.squashfs",
    ".sqfs": "disks.squashfs",
    ".sqsh": "disks.squashfs",
    ".erofs": "disks.erofs",
    ".ext4": "disks.ext4",
    ".qcow2": "disks.qcow2",
    ".cpio": "cpio",
    ".cpio.gz": "cpio",
    ".cpio.zst": "cpio",
}
"""Suffixes of outputs, and the module for each; any other name is a tar."""

_OTHERS: Final = (
    ".7z", ".btrfs", ".cramfs", ".dmg", ".ext2", ".ext3", ".f2fs", ".img",
    ".iso", ".lz4", ".raw", ".romfs", ".sfs", ".sqf", ".vdi", ".vhd", ".vhdx", ".vmdk",
    ".xfs", ".zip",
)  # fmt: skip
"""Suffixes of formats that flatten cannot write; refused, or they would be a tar."""

_ANY_DISK: Final = (".img", ".raw")
"""Those that do not say which file system is in it."""


def choose(out: str | os.PathLike[str] | int, options: Options) -> Output:
    """Return the output for a path, or for a descriptor.

    Raises:
        UsageError: The suffix of the path is of a format that flatten cannot write, or
            an image would be written to a directory.
    """
    if isinstance(out, int):
        return _load("tar", out, options)
    name = os.fspath(out)
    if options.image_kind is None:
        return _load(kind(name), Path(name), options)
    if name.endswith("/"):
        raise UsageError(
            f"{quoted(name)} is the name of a directory; an image is written to a file"
        )
    return _load("image", Path(name), options)


def kind(name: str) -> str:
    """Return the module that writes an output of that name.

    Raises:
        UsageError: Its suffix is of a format that flatten cannot write.

    >>> kind("app.tar.gz"), kind("app/"), kind("app.sqfs")
    ('tar', 'directory', 'disks.squashfs')
    """
    for suffix, module in KINDS.items():
        if name.endswith(suffix):
            return module
    if _is_another(name) and (os.path.isfile(name) or not os.path.exists(name)):
        if name.endswith(_ANY_DISK):
            raise UsageError(
                f"{quoted(name)}: the suffix does not say which file system; use "
                ".ext4, .erofs or .squashfs, or .qcow2 for a virtual machine"
            )
        suffixes = ", ".join(KINDS).replace("/", "DIRECTORY/")
        raise UsageError(
            f"{quoted(name)}: cannot write this format; use .tar, .tar.gz, .tar.zst, "
            f".tar.xz, .tar.bz2, {suffixes}"
        )
    return "tar"


def _is_another(name: str) -> bool:
    """Return True for the suffix of another format, or of a compressed disk."""
    stem, suffix = os.path.splitext(name)
    packed = suffix in SUFFIXES and stem.endswith(tuple(KINDS)) and stem[-1:] != "/"
    return packed or name.endswith(_OTHERS)


def _load(module: str, out: Path | int, options: Options) -> Output:
    found = import_module(f".{module}", __package__).Output(out, options)
    return cast("Output", found)  # as every module here
