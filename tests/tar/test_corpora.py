"""The corpora that other readers of tar are tested with, as layers: FLATTEN_CORPORA=DIR.

They are not in this repository; docs/security.md says which there are. Each file below
DIR, as it is and without its compression, is flattened within the limits of
``test_hostile``. That must end in the tree that every reader here makes of it, too; or
in an error of one line, where a reader refuses it or readers differ. What is otherwise
is in two tables, with the reason. ``FLATTEN_ROUNDS`` changes each in more ways.
"""

import bz2
import gzip
import hashlib
import lzma
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import zstandard

import flatten
import listers
import readings
from bounded import run
from builders import archive, config, docker_archive, layer, layers, oci_files

sys.path.append(str(Path(__file__).parents[1] / "fuzz"))

from targets import TARGETS

CORPORA = os.environ.get("FLATTEN_CORPORA")
FILES = sorted(p for p in Path(CORPORA or ".").rglob("*") if CORPORA and p.is_file())
ROUNDS = int(os.environ.get("FLATTEN_ROUNDS", "20"))
WIDE = 1 << 28  # bytes of a layer: what is wider takes its time, and room on a disk
SMALL = 1 << 21  # bytes of what is changed in many ways

pytestmark = pytest.mark.skipif(
    not FILES, reason="needs a directory of archives named by FLATTEN_CORPORA"
)
every_file = pytest.mark.parametrize(
    "path", FILES, ids=[str(path.relative_to(CORPORA or ".")) for path in FILES]
)

_PREFIX = {"python": "takes the times of GNU's header for a prefix of the name"}
_SIZE = {"python": "does not take the map off the data where a record says the size"}
_TEXT = {"bsdtar": "loses the target of a symlink whose header holds none"}
OTHERWISE = {
    "test-times-gnu-incremental.tar": _PREFIX,
    "test-times-gnutar.tar": _PREFIX,
    "test-times-oldgnu-incremental.tar": _PREFIX,
    "gnu-incremental.tar": _PREFIX,
    "pax-nil-sparse-data.tar": _SIZE,
    "pax-nil-sparse-hole.tar": _SIZE,
    "pax-sparse-big.tar": _SIZE,
    "tar.utf8.tar.bz2": _TEXT,
    "t155.tar.lz": _TEXT,
    "t155_fv7.tar.lz": _TEXT,
    "nil-uid.tar": {"bsdtar": "takes what stands there for the size of a sparse file"},
    "test_read_format_tar_empty_with_gnulabel.tar": {"python": "has no labels"},
    "testtar.tar": {"gnu_tar": "chown(2) leaves an owner of 4294967295 alone"},
    "1-attack.tar.bz2": {"gnu_tar": "makes absolute symlinks last, over other members"},
    "2-attack.tar.bz2": {"gnu_tar": "makes absolute symlinks last, over other members"},
}
"""Readers that make another tree of what is accepted, and why."""

REFUSED = {
    "gnu-sparse-many-zeros.tar.bz2": "2**20 regions: CVE-2025-58183; Go 1.25 refuses it",
    "hdr-only.tar": "tar -t skips data behind symlinks and devices, tar -x does not",
}
"""What all readers here make one tree of, and why it is refused all the same."""


@pytest.fixture(scope="module")
def go(tmp_path_factory):
    return listers.go_program(tmp_path_factory.mktemp("go"))


def plain(path):
    """Return a file without its compression, whoever can undo that; else as it is."""
    data = path.read_bytes()
    if not shutil.which("bsdcat"):
        return data
    with subprocess.Popen(
        ["bsdcat", path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as unpacking:
        assert unpacking.stdout is not None
        out = unpacking.stdout.read(WIDE + 1)
        if len(out) > WIDE:
            unpacking.kill()
    if len(out) > WIDE:
        pytest.skip("needs more room than a test should take")
    return data if unpacking.returncode > 0 else out


def image_of(blob, tar):
    """Write an image of one layer, whose uncompressed bytes are known."""
    return docker_archive([blob], config_document=config([tar]))


def flattened(image, folder):
    """Return the tar, or what is said in its place."""
    (folder / "image.tar").write_bytes(image)
    try:
        flatten.export(folder / "image.tar", folder / "out.tar", sync=False)
    except flatten.FlattenError as error:
        return str(error)
    return folder / "out.tar"


def tree(image, folder):
    """Return the tree of an image; None where it is refused."""
    out = flattened(image, folder)
    return None if isinstance(out, str) else readings.python(out)


def read_by_others(path, folder, go):
    """Return what each reader that is here makes of a tar."""
    found = {"python": readings.python(path)}
    if go is not None:
        (found["go"],) = readings.go([path], go)
    if any(found.values()):  # what the model makes no tree of may be any size
        for name, command in readings.unpackers().items():
            (folder / name).mkdir()
            found[name] = readings.unpacked(command, path, folder / name)
    return found


@every_file
def test_a_file_is_read_as_others_read_it_or_refused(path, tmp_path, go):
    tar = plain(path)
    for blob in {path.read_bytes(), tar}:
        code, said = run(image_of(blob, tar), tmp_path, "-q")
        assert code in (0, 4, 5), said
        assert (said.count("\n"), "Traceback" in said) == (int(code > 0), False), said
    (tmp_path / "layer.tar").write_bytes(tar)
    others = read_by_others(tmp_path / "layer.tar", tmp_path, go)
    ours = tree(docker_archive([tar]), tmp_path)

    if ours is None:
        read = [readings.on_disk(rows) for rows in others.values() if rows is not None]
        agreed = len(read) == 4 and all(rows == read[0] for rows in read)
        assert not agreed or path.name in REFUSED
        return
    wrong = {
        name
        for name, rows in others.items()
        if rows is not None
        and rows != (readings.on_disk(ours) if name in readings.UNPACKERS else ours)
    }
    assert wrong <= OTHERWISE.get(path.name, {}).keys()


PACKERS = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstandard.compress,
}


@every_file
def test_a_file_is_the_same_in_every_image(path, tmp_path):
    tar = plain(path)
    want = tree(docker_archive([tar]), tmp_path)

    for pack in PACKERS.values():
        image = archive(oci_files([tar], pack=pack).items())
        assert tree(image, tmp_path) == want
    (base,) = layers([".base/", ".base/file"])
    above = tree(docker_archive([base, tar]), tmp_path)
    if want is None:
        assert above is None
    else:
        assert above is not None
        assert {p: row for p, row in above.items() if not p.startswith(".base")} == want
        assert len(above) == len(want) + 2
        hidden = tree(docker_archive([tar, layer("*")]), tmp_path)
        assert hidden == {path: row for path, row in want.items() if not path}
    flattened(tar, tmp_path)  # as an image


@every_file
def test_nothing_escapes_from_a_changed_file(path):
    tar = plain(path)
    if not 0 < len(tar) <= SMALL:
        pytest.skip("is empty, or large")
    chance = random.Random(hashlib.sha256(tar).digest())
    ends = range(512, len(tar), 512)
    for end in chance.sample(ends, min(ROUNDS, len(ends))):
        TARGETS["layer"](tar[:end])
    for _ in range(ROUNDS):
        changed = flipped(tar, chance)
        TARGETS["layer"](changed)
        TARGETS["image"](changed)


def flipped(tar, chance):
    """Change a bit, half the times of what is a header's field if it is in a header."""
    at = chance.randrange(len(tar))
    if chance.random() < 0.5:
        at = min(at // 512 * 512 + chance.randrange(345), len(tar) - 1)
    return tar[:at] + bytes([tar[at] ^ 1 << chance.randrange(8)]) + tar[at + 1 :]
