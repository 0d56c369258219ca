"""Random images against real extraction, layer by layer: the same tree on a disk.

GNU tar, bsdtar and Python's tarfile extract each layer over those before it. An image
that one of them refuses is not compared with it. The images have only what they can
extract: no names with ``..``, no links to later names, no AUFS; test_random compares
those with the model. ``FLATTEN_ROUNDS`` makes more images.
"""

import os
import posixpath
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import Phase, event, given, settings
from hypothesis import strategies as st

import extraction
from listing import disk_listing, listing
from oracle import Entry
from random_images import (
    METADATA,
    Image,
    Pick,
    chosen,
    exported,
    make_mark,
    numbered,
    pools,
    repaired,
    tar_member,
)

ROUNDS = int(os.environ.get("FLATTEN_ROUNDS", "120"))

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for owners")

KINDS = ["file"] * 6 + ["dir"] * 5 + ["symlink"] * 4 + ["hardlink"] * 5 + [
    "whiteout"] * 4 + ["opaque"] * 2 + ["fifo", "chr"]  # fmt: skip
PLAIN = [
    replace(
        entry, mode=entry.mode & 0o7777, xattrs=()
    )  # to Python other bits are kinds
    for entry in METADATA
    if entry.mtime >= 0 or entry.mtime == int(entry.mtime)  # -1.5 is -0.5 to bsdtar
]


def make_entry(kind: str, name: Pick, target: Pick, plain: Entry) -> Entry:
    """Make an entry that every extractor understands."""
    path, form = name
    if kind in ("whiteout", "opaque"):
        return replace(make_mark(kind, path, (target[0], 0), plain), type="file")
    entry = replace(plain, name=[path, b"./" + path][form % 5 == 0], type=kind)
    if kind == "dir":
        return replace(entry, name=entry.name + b"/")
    if kind == "chr":
        return replace(entry, device=(1, 3))
    if kind == "hardlink":
        return replace(entry, target=target[0])
    if kind == "symlink":
        text = posixpath.relpath(target[0], posixpath.dirname(path) or b".")
        texts = [text, text, text + b"/nowhere", text + b"/.", target[0]]
        return replace(entry, target=chosen(texts, target[1]))
    return entry


@st.composite
def images(draw: st.DrawFn) -> Image:
    """Draw an image that makes a tree."""
    pool = [path for path in draw(pools()) if b"\n" not in path and len(path) < 90]
    picks = st.tuples(st.sampled_from(pool or [b"a"]), st.integers(0, 99))
    entry = st.builds(
        make_entry, st.sampled_from(KINDS), picks, picks, st.sampled_from(PLAIN)
    )
    layers = st.lists(st.lists(entry, max_size=8), min_size=1, max_size=4)
    image = numbered(draw(layers), 1)
    return repaired(
        [
            [replace(e, content=b"") if e.type == "hardlink" else e for e in each]
            for each in image
        ]
    )


def behind(image: Image) -> list[bytes]:
    """Return the names that may lie behind a symlink of the image."""
    names = [posixpath.normpath(entry.name) for each in image for entry in each]
    ways = [name + b"/" for name in symlinks(image)]
    return [name for name in names if any(map(name.startswith, ways))]


def symlinks(image: Image) -> set[bytes]:
    """Return the names of symlinks."""
    entries = [entry for each in image for entry in each]
    return {posixpath.normpath(e.name) for e in entries if e.type == "symlink"}


def behind_itself(image: Image) -> bool:
    """Return True if a name may be that of a symlink on the way to it.

    GNU tar removes such a symlink, and then creates a directory with its name.
    """
    links = set(map(posixpath.basename, symlinks(image)))
    return any(posixpath.basename(name) in links for name in behind(image))


def behind_or_of_windows(image: Image) -> bool:
    """Return True if a name may be below a symlink, or has a backslash."""
    entries = [entry for each in image for entry in each]
    return bool(behind(image)) or any(b"\\" in entry.name for entry in entries)


def links_to_symlinks_or_themselves(image: Image) -> bool:
    """Say whether a hard link may name a symlink, which is copied, or itself."""
    links = [entry for each in image for entry in each if entry.type == "hardlink"]
    targets = {link.target for link in links}
    itself = any(
        posixpath.basename(link.name) == posixpath.basename(link.target)
        for link in links
    )
    return itself or bool(targets & symlinks(image))


EXTRACTORS = {
    "tar": (extraction.gnu_tar, behind_itself),
    "bsdtar": (extraction.bsdtar, behind_or_of_windows),
    "python": (extraction.python, links_to_symlinks_or_themselves),
}
"""What extracts, and the images that it understands in another way."""


def compared(entries: list[dict[str, object]]) -> dict[object, dict[str, object]]:
    """Leave out what not all extraction keeps: the root, times of what is no file."""
    out = {}
    for entry in entries:
        kept = {key: value for key, value in entry.items() if key != "path"}
        if entry["type"] != "file":
            del kept["mtime"]
        if entry["type"] == "hardlink":
            kept.pop("rdev", None)
        out[entry["path"]] = kept
    out.pop("", None)
    return out


def extracted(image: Image, extractor: extraction.Extractor) -> object:
    """List what an extractor makes of an image; None if it refuses it."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as scratch:
        folder = Path(scratch, "1", "2", "3", "4", "root")  # links may lead above it
        folder.mkdir(parents=True)
        try:
            extraction.extract(image, tar_member, extractor, folder)
        except (OSError, KeyError, subprocess.CalledProcessError, tarfile.TarError):
            return None
        return compared(disk_listing(folder))


@pytest.mark.parametrize("name", EXTRACTORS)
@settings(max_examples=max(ROUNDS // 4, 1), phases=(Phase.generate, Phase.shrink))
@given(images())
def test_extraction_layer_by_layer_gives_the_same_tree(name: str, image: Image) -> None:
    if name != "python" and shutil.which(name) is None:
        pytest.skip(f"needs {name}")
    extractor, differs = EXTRACTORS[name]
    if differs(image):
        event("differs")
        return
    want = extracted(image, extractor)
    event("refused" if want is None else "compared")
    if want is not None:
        tar = exported(image)
        assert tar is not None
        assert compared(listing(tar)) == want
