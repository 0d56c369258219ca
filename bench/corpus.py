"""Images to measure with, made by recipe, the same everywhere, and cached.

    python bench/corpus.py NAME... [--quick] [--forms plain,gzip] [--cache DIR]

prints the path of each archive, and makes those that are not there yet. The cache is
``$FLATTEN_BENCH_CACHE``, or ``~/.cache/flatten-bench``. Forms:

===============  ==============================================================
``plain``        a docker-archive, as docker 1.10 to 24 saves it
``gzip``         an OCI archive, its layers as gzip
``gzip-one``     the same tree as one gzip layer
``gzip-hybrid``  ``gzip`` with a manifest.json, for tools that read no OCI layout
``zstd``         an OCI archive, its layers as zstd
===============  ==============================================================
"""

import argparse
import fcntl
import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import archive
import compression
import wheels
from archive import Blob
from layer import Layer, merged, write_layer
from recipes import RECIPES

VERSION = 1  # raise it when a recipe or a form changes
UNREACHABLE = 3
"""The exit code where an image is made of packages that cannot be fetched."""

FORMS = ("plain", "gzip", "gzip-one", "gzip-hybrid", "zstd")
NAMES = ("python-like", *RECIPES)


@dataclass(frozen=True)
class Made:
    """An image in one form.

    Attributes:
        path: The archive.
        layers: Its layers, oldest first, each as a file of its own.
        members: How many members the layers have together.
    """

    name: str
    form: str
    path: Path
    layers: tuple[Path, ...]
    members: int


def default_cache() -> Path:
    """Return where images are kept."""
    named = os.environ.get("FLATTEN_BENCH_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "flatten-bench"


def make(name: str, form: str, cache: Path, *, quick: bool) -> Made:
    """Return an image in one form, from the cache if it is there.

    Raises:
        wheels.UnreachableError: It is made of packages that cannot be fetched.
    """
    home = cache / f"{name}-{'quick' if quick else 'full'}-{VERSION}"
    home.mkdir(parents=True, exist_ok=True)
    path = home / f"{name}-{form}.tar"
    with _locked(home / "lock"):
        blobs = _tars(home, name, quick=quick, one=form == "gzip-one")
        if form != "plain":
            blobs = _packed(home, blobs, form.partition("-")[0])
        if not path.exists():
            print(f"making {path}", file=sys.stderr)
            _write_archive(path, home, blobs, form)
    layers = tuple(home / blob.path for blob in blobs)
    return Made(name, form, path, layers, sum(blob.members for blob in blobs))


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one process at a time make an image."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _layers(name: str, cache: Path, *, quick: bool) -> Iterable[Layer]:
    """Return the layers that a recipe yields."""
    if name == "python-like":
        groups = wheels.QUICK if quick else wheels.FULL
        return wheels.python_like(cache / "wheels", groups)
    recipe, small, large = RECIPES[name]
    return recipe(small if quick else large)


def _tars(home: Path, name: str, *, quick: bool, one: bool) -> list[Blob]:
    """Return the layers of an image as tars, or its tree as one."""
    stem = "one" if one else "layer"

    def build() -> Iterator[Blob]:
        print(f"making {home / stem}-*.tar", file=sys.stderr)
        layers = _layers(name, home.parent, quick=quick)
        for number, layer in enumerate([merged(layers)] if one else layers):
            path = home / f"{stem}-{number:03}.tar"
            digest = write_layer(path, layer)
            yield Blob(path.name, digest, digest, len(layer), path.stat().st_size)

    return _remembered(home / f"{stem}.json", build)


def _packed(home: Path, blobs: Sequence[Blob], how: str) -> list[Blob]:
    """Return layers compressed."""
    stem = blobs[0].path.partition("-")[0]

    def build() -> Iterator[Blob]:
        suffix = compression.SUFFIXES[how]
        print(f"making {home / stem}-*.tar{suffix}", file=sys.stderr)
        paths = [home / (blob.path + suffix) for blob in blobs]
        compression.pack(how, [home / blob.path for blob in blobs], paths)
        for blob, path in zip(blobs, paths, strict=True):
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            size = path.stat().st_size
            yield replace(blob, path=path.name, digest=digest, size=size)

    return _remembered(home / f"{stem}.{how}.json", build)


def _remembered(record: Path, build: Callable[[], Iterable[Blob]]) -> list[Blob]:
    """Return the blobs of a record; it is written last, when all of them are whole."""
    if not record.exists():
        text = archive.dump(list(build()))
        record.write_text(text)
    return archive.load(record.read_text())


def _write_archive(path: Path, home: Path, blobs: Sequence[Blob], form: str) -> None:
    """Write an image, whole or not at all."""
    part = path.with_suffix(".part")
    if form == "plain":
        archive.docker_archive(part, home, blobs)
    else:
        how = form.partition("-")[0]
        hybrid = form == "gzip-hybrid"
        archive.oci_archive(part, home, blobs, how, hybrid=hybrid)
    part.rename(path)


def main(argv: Sequence[str] | None = None) -> int:
    """Make images and print their paths."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", metavar="NAME", nargs="+", choices=NAMES)
    parser.add_argument("--quick", action="store_true", help="make the small ones")
    parser.add_argument("--forms", default="plain", help="some of " + ", ".join(FORMS))
    parser.add_argument("--cache", type=Path, default=default_cache())
    args = parser.parse_args(argv)
    forms = args.forms.split(",")
    if unknown := set(forms).difference(FORMS):
        parser.error(f"no such form: {', '.join(sorted(unknown))}")
    for name in args.names:
        for form in forms:
            try:
                print(make(name, form, args.cache, quick=args.quick).path, flush=True)
            except wheels.UnreachableError as error:
                print(f"corpus: {name}: {error}; many-small is made of nothing "
                      "from outside", file=sys.stderr)  # fmt: skip
                return UNREACHABLE
    return 0


if __name__ == "__main__":
    sys.exit(main())
