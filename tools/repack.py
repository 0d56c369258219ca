"""Write an sdist again, so that the same commit gives the same bytes.

    SOURCE_DATE_EPOCH=... python tools/repack.py build/release/built/*.tar.gz dist

setuptools gives the files that it makes the time at which it made them, and all files
the user and group that built it.
"""

import gzip
import os
import sys
import tarfile
from pathlib import Path


def repack(sdist: Path, out: Path) -> None:
    """Write ``sdist`` to the directory ``out``: members by name, all with one time."""
    time = int(os.environ["SOURCE_DATE_EPOCH"])
    out.mkdir(parents=True, exist_ok=True)
    with (
        tarfile.open(sdist) as old,
        (out / sdist.name).open("wb") as file,
        gzip.GzipFile("", "wb", fileobj=file, mtime=time) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for info in sorted(old, key=lambda info: info.name):
            content = old.extractfile(info) if info.isfile() else None
            info.mtime, info.uid, info.gid, info.uname, info.gname = time, 0, 0, "", ""
            info.mode = 0o755 if info.mode & 0o100 else 0o644
            info.pax_headers = {}
            new.addfile(info, content)


if __name__ == "__main__":
    repack(Path(sys.argv[1]), Path(sys.argv[2]))
