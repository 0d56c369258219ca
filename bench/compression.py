"""Layer tars to gzip and zstd files, with what is at hand, as registries hold them.

gzip at level 6, as docker and skopeo write it, and zstd at level 3, as BuildKit.
"""

import shutil
import subprocess
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CHUNK = 1 << 20
GZIP = 16 + zlib.MAX_WBITS
SUFFIXES = {"gzip": ".gz", "zstd": ".zst"}
PROGRAMS = {
    "gzip": ("pigz", "-6", "--no-name", "--stdout"),
    "zstd": ("zstd", "-3", "--quiet", "--threads=0", "--stdout"),
}


def pack(how: str, sources: Sequence[Path], targets: Sequence[Path]) -> None:
    """Compress files, with pigz or zstd where they are, else in Python's threads."""
    program = PROGRAMS[how]
    if shutil.which(program[0]):
        for source, target in zip(sources, targets, strict=True):
            with target.open("wb") as out:
                subprocess.run([*program, source], stdout=out, check=True)
        return
    in_python: Callable[[Path, Path], None] = _gzip if how == "gzip" else _zstd
    with ThreadPoolExecutor() as threads:
        list(threads.map(in_python, sources, targets))


def _gzip(source: Path, target: Path) -> None:
    """Write gzip with zlib, which lets other threads run meanwhile."""
    packer = zlib.compressobj(6, zlib.DEFLATED, GZIP)
    with source.open("rb") as stream, target.open("wb") as out:
        while data := stream.read(CHUNK):
            out.write(packer.compress(data))
        out.write(packer.flush())


def _zstd(source: Path, target: Path) -> None:
    """Write zstd with the package that flatten reads it with."""
    import zstandard  # only where the program is missing

    with source.open("rb") as stream, target.open("wb") as out:
        zstandard.ZstdCompressor(level=3).copy_stream(stream, out)
