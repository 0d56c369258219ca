"""File systems whose files can share extents, on loop devices, as long as needed."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MAKE = {
    "xfs": ("mkfs.xfs", "-q", "-m", "reflink=1"),
    "btrfs": ("mkfs.btrfs", "-q"),
}


def missing(kind: str) -> str:
    """Say why there can be none of a kind here, or nothing."""
    if os.geteuid():
        return "only root mounts"
    tool = MAKE[kind][0]
    return "" if shutil.which(tool) else f"no {tool} on PATH"


@contextmanager
def mounted(kind: str, folder: Path, size: int) -> Iterator[Path]:
    """Make a file system of ``size`` bytes, in a sparse file, and mount it.

    Raises:
        subprocess.CalledProcessError: It cannot be mounted.
    """
    with tempfile.TemporaryDirectory(prefix="volume-", dir=folder) as home:
        disk, place = Path(home, "disk"), Path(home, "mounted")
        place.mkdir()
        with disk.open("wb") as file:
            file.truncate(size)
        subprocess.run([*MAKE[kind], str(disk)], check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["mount", "-o", "loop", str(disk), str(place)], check=True)
        try:
            yield place
        finally:
            subprocess.run(["umount", str(place)], check=True)
