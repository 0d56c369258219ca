"""The image of real packages: wheels from PyPI, as ``pip install`` lays them out.

Each group is a layer under site-packages; a later version of a package replaces an
earlier one. Sources are compiled as pip does, to ``.pyc`` files that depend on the
Python that runs this; all else is the wheels' own bytes, whatever the machine.
"""

import importlib.util
import marshal
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from zipfile import ZipFile, ZipInfo

from layer import UNKNOWN, WHITEOUT, Layer, file, put

SITE = "usr/local/lib/python3.11/site-packages"
CHUNK = 1 << 20
CHECKED_HASH = (3).to_bytes(4, "little")  # PEP 552: no time in the file
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
GROUPS = (
    ("numpy==1.26.4", "scipy==1.11.4", "django==4.2.7"),
    ("pandas==2.1.4", "pyarrow==14.0.2"),
    ("matplotlib==3.8.2", "scikit-learn==1.3.2"),
    ("sympy==1.12", "django==4.2.8", "babel==2.14.0"),
    # What follows is in full runs only.
    ("tensorflow-cpu==2.15.0",),
    ("jaxlib==0.4.23", "statsmodels==0.14.1"),
    ("ansible==9.1.0", "ansible-core==2.16.2"),
    ("opencv-python-headless==4.8.1.78", "polars==0.20.2", "bokeh==3.3.2"),
    (
        "transformers==4.36.2",
        "botocore==1.34.0",
        "google-api-python-client==2.111.0",
        "kubernetes==28.1.0",
    ),
)
QUICK, FULL = 4, len(GROUPS)


class UnreachableError(Exception):
    """PyPI cannot be reached, or has a wheel no more."""


def download(group: tuple[str, ...], folder: Path) -> list[Path]:
    """Fetch the wheels of a group that are not there yet, and return their paths."""
    missing = [each for each in group if each not in _wheels(folder)]
    if missing:
        print(f"fetching {', '.join(missing)}", file=sys.stderr)
        platforms = [word for each in PLATFORMS for word in ("--platform", each)]
        done = subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
             "--only-binary=:all:", "--implementation=cp", "--python-version=3.11",
             *platforms, "--dest", folder, *missing],
            stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise UnreachableError(f"is PyPI reachable? pip says: {reason}")
    found = _wheels(folder)
    return [found[each] for each in group]


def _wheels(folder: Path) -> dict[str, Path]:
    """Return the wheels of a folder by requirement."""
    found = {}
    for path in folder.glob("*.whl"):
        name, version = path.name.split("-")[:2]
        found[f"{re.sub('[-_.]+', '-', name).lower()}=={version}"] = path
    return found


def read(archive: ZipFile, item: ZipInfo) -> Iterator[bytes]:
    """Yield the content of a file in a wheel."""
    with archive.open(item) as stream:
        while data := stream.read(CHUNK):
            yield data


def compiled(archive: ZipFile, item: ZipInfo) -> Iterator[bytes]:
    """Yield the ``.pyc`` of a source; that of one with errors is empty."""
    source = archive.read(item)
    try:
        with warnings.catch_warnings(action="ignore"):
            code = compile(source, item.filename, "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return
    yield importlib.util.MAGIC_NUMBER + CHECKED_HASH
    yield importlib.util.source_hash(source) + marshal.dumps(code)


def add_wheel(layer: Layer, path: Path) -> None:
    """Put the files of a wheel, and their compiled form, in a layer."""
    archive = ZipFile(path)  # closed with the process: entries read it later
    for item in archive.infolist():
        if item.is_dir():
            continue
        mode = item.external_attr >> 16 & 0o777 or 0o644
        entry = file(item.file_size, partial(read, archive, item), mode)
        put(layer, f"{SITE}/{item.filename}", entry)
        if item.filename.endswith(".py"):
            folder, slash, name = item.filename.rpartition("/")
            cached = f"{folder}{slash}__pycache__/{name[:-3]}.cpython-311.pyc"
            entry = file(UNKNOWN, partial(compiled, archive, item))
            put(layer, f"{SITE}/{cached}", entry)


def python_like(folder: Path, groups: int) -> Iterator[Layer]:
    """Yield one layer a group, for the first ``groups``; wheels are in ``folder``.

    Raises:
        UnreachableError: A wheel is not here, and pip cannot fetch it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    installed: dict[str, Path] = {}
    for group in GROUPS[:groups]:
        layer: Layer = {}
        for requirement, path in zip(group, download(group, folder), strict=True):
            add_wheel(layer, path)
            project = requirement.partition("==")[0]
            if project in installed:
                stale = "-".join(installed[project].name.split("-")[:2])
                put(layer, f"{SITE}/{stale}.dist-info", WHITEOUT)
            installed[project] = path
        yield layer
