"""What some layers add, as one layer: on top of those below it makes the whole."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flatten
from builders import docker_archive, layer, layers, member
from flatten.image.history import Point
from listing import listing
from random_images import images, repaired, tar_member


def rebuilt(tars, base):
    """Flatten an image whole, and from its first layers and the delta; list both."""
    with tempfile.TemporaryDirectory() as scratch:
        image, out = Path(scratch, "image.tar"), Path(scratch, "out.tar")
        image.write_bytes(docker_archive(tars))
        flatten.export(image, out, format="pax")
        whole = out.read_bytes()
        flatten.export(image, out, format="pax", since=Point(layer=base))
        delta = out.read_bytes()
        image.write_bytes(docker_archive([*tars[:base], delta]))
        flatten.export(image, out, format="pax")
        return whole, out.read_bytes(), delta


@settings(max_examples=settings.default.max_examples // 3)
@given(images().map(repaired), st.integers(0, 5))
def test_a_delta_on_its_base_is_the_whole(image, base):
    tars = [layer(*map(tar_member, each)) for each in image]

    whole, got, _ = rebuilt(tars, min(base, len(tars)))

    assert got == whole


DELTAS = {
    "a new file": ([["a"], ["b"]], ["b"]),
    "nothing new": ([["a"], []], []),
    "a removed file": ([["a", "b"], ["-a"]], [".wh.a"]),
    "what came and went in between": ([["a"], ["b"], ["-b"]], []),
    "removed and put back as it was is new": ([["a"], ["-a"], ["a"]], ["a"]),
    "the directories on the way": (
        [["d/", "d/e/", "d/e/a"], ["d/e/b"]], ["d", "d/e", "d/e/b"],
    ),
    "a directory that lost all": (
        [["d/", "d/a", "d/b"], ["-d/a", "-d/b"]], ["d", "d/.wh..wh..opq"],
    ),
    "the root is never opaque": ([["a", "b"], ["-a", "-b"]], [".wh.a", ".wh.b"]),
    "a file in a directory's place": ([["d/", "d/a"], ["d"]], ["d"]),
    "a directory in a file's place": ([["d"], ["-d"], ["d/", "d/a"]], ["d", "d/a"]),
    "a new name for an old file brings all": (
        [["a"], ["b=a"]], ["a", "b->a"],
    ),
    "a name less is a whiteout": ([["a", "b=a"], ["-a"]], [".wh.a"]),
    "metadata of the root": ([["a"], ["./"]], [""]),
}  # fmt: skip


@pytest.mark.parametrize(("words", "want"), DELTAS.values(), ids=DELTAS)
def test_what_is_in_a_delta(words, want):
    whole, got, delta = rebuilt(layers(*words), 1)

    assert [name(row) for row in listing(delta)] == want
    assert got == whole


def name(row):
    return row["path"] + ("->" + row["linkname"] if "linkname" in row else "")


def test_a_whiteout_is_an_empty_file_of_no_time():
    (row,) = listing(rebuilt(layers(["a"], ["-a"]), 1)[2])

    assert (row["type"], row["size"], row["mode"], row["mtime"]) == (
        "file",
        0,
        "0000",
        0,
    )


def test_a_delta_is_posix_and_keeps_fractions_of_seconds(tmp_path):
    late = member("b", b"1", records={b"mtime": b"1.5"})
    (tmp_path / "image.tar").write_bytes(docker_archive(layers(["a"], [late])))

    done = subprocess.run(
        [sys.executable, "-m", "flatten", "delta", tmp_path / "image.tar", "--from-layer", "1"],
        capture_output=True, check=True,
    )  # fmt: skip

    assert b"mtime=1.5" in done.stdout
    assert [row["path"] for row in listing(done.stdout)] == ["b"]


def test_a_deep_directory_takes_no_deep_stack():
    deep = "/".join("d" * 1500) + "/"
    whole, got, _ = rebuilt(layers([deep], [deep + "x"]), 1)

    assert got == whole


def test_without_a_beginning_all_is_new(tmp_path):
    (tmp_path / "image.tar").write_bytes(docker_archive(layers(["a", "b"], ["-a"])))

    done = subprocess.run(
        [sys.executable, "-m", "flatten", "delta", tmp_path / "image.tar"],
        capture_output=True, check=True,
    )  # fmt: skip

    assert [row["path"] for row in listing(done.stdout)] == ["b"]


def test_a_start_after_the_end_is_refused(tmp_path):
    (tmp_path / "image.tar").write_bytes(docker_archive(layers(["a"], ["b"], ["c"])))

    with pytest.raises(flatten.UsageError, match="no layer 3; it has 2"):
        flatten.export(
            tmp_path / "image.tar", tmp_path / "out.tar",
            at=Point(layer=2), since=Point(layer=3),
        )  # fmt: skip
