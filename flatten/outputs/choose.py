"""What writes what: one module a kind of output, imported only when it is the one.

Each has a class ``Output(out, options)``; what that does, ``job.Output`` says.
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
    ".erofs": "disks.erofs",
    ".ext4": "disks.ext4",
    ".qcow2": "disks.qcow2",
    ".cpio": "cpio",
    ".cpio.gz": "cpio",
    ".cpio.zst": "cpio",
}
"""Ends of names, and the module for each; any other name is a tar's."""

_OTHERS: Final = (
    ".7z", ".bz2", ".btrfs", ".ext2", ".ext3", ".f2fs", ".img", ".iso", ".lz4", ".raw",
    ".vdi", ".vhd", ".vhdx", ".vmdk", ".xfs", ".zip",
)  # fmt: skip
"""What is not made here, and nobody means a tar by."""


def choose(out: str | os.PathLike[str] | int, options: Options) -> Output:
    """Return the output that a name, or a descriptor, means.

    Raises:
        UsageError: It means none that is made here.
    """
    if isinstance(out, int):
        return _load("tar", out, options)
    name = os.fspath(out)
    if options.image_kind is not None:
        return _load("image", Path(name), options)
    for suffix, module in KINDS.items():
        if name.endswith(suffix):
            return _load(module, Path(name), options)
    if _is_another(name) and (os.path.isfile(name) or not os.path.exists(name)):
        made = ", ".join(KINDS).replace("/", "DIRECTORY/")
        raise UsageError(
            f"{quoted(name)}: no such kind of output; there are .tar, .tar.gz, "
            f".tar.zst, .tar.xz, {made}"
        )
    return _load("tar", Path(name), options)


def _is_another(name: str) -> bool:
    """Say whether a name promises what is not made here, compressed or not."""
    stem, suffix = os.path.splitext(name)
    packed = suffix in SUFFIXES and stem.endswith(tuple(KINDS)) and stem[-1:] != "/"
    return packed or name.endswith(_OTHERS)


def _load(module: str, out: Path | int, options: Options) -> Output:
    found = import_module(f".{module}", __package__).Output(out, options)
    return cast("Output", found)  # as every module here
