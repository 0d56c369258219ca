"""What a cpio archive cannot hold; test_disks has its other tests."""

import subprocess

import pytest

from builders import docker_archive, layers, member
from command import run
from needs import needs_bsdtar

TRAILERS = {
    "a file": ["TRAILER!!!"],
    "a directory": ["TRAILER!!!/"],
    "a symlink": ["TRAILER!!!->x"],
    "a second name": ["a", "TRAILER!!!=a"],
    "a FIFO": [member("TRAILER!!!", type=b"6")],
}


@pytest.mark.parametrize("words", TRAILERS.values(), ids=TRAILERS)
def test_the_name_of_the_trailer_is_refused(tmp_path, words):
    (tmp_path / "i.tar").write_bytes(docker_archive(layers([*words, "z"])))

    got = run("i.tar", "-o", "o.cpio", cwd=tmp_path)

    assert got.returncode == 1
    assert got.stderr == (
        "flatten: 'TRAILER!!!': a cpio archive ends at a member with this name; leave "
        "it out with --exclude, or write a tar\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["i.tar"]


@needs_bsdtar
def test_that_name_below_a_directory_is_an_ordinary_one(tmp_path):
    (tmp_path / "i.tar").write_bytes(
        docker_archive(layers(["d/", "d/TRAILER!!!", "TRAILER!!!!", "z"]))
    )

    assert run("i.tar", "-o", "o.cpio", cwd=tmp_path).returncode == 0

    listed = subprocess.run(
        ["bsdtar", "-tf", tmp_path / "o.cpio"], check=True, capture_output=True
    ).stdout.split()
    assert listed[-3:] == [b"d", b"d/TRAILER!!!", b"z"]


def test_fractions_of_a_second_are_counted(tmp_path):
    words = ["a", member("b", records={b"mtime": b"5.25"})]
    (tmp_path / "i.tar").write_bytes(docker_archive(layers(words)))

    got = run("i.tar", "-o", "o.cpio", cwd=tmp_path)

    want = "1 mtimes have a fraction of a second, which the output cannot hold"
    assert (got.returncode, got.stderr) == (0, f"flatten: warning: {want}\n")
