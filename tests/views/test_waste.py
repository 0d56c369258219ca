"""Waste: dive's figures, and files that the image does not show."""

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings

import dive
import flatten
from builders import docker_archive, layer, layers, member
from flatten.views.listing import list_rows
from flatten.views.reading import read_index
from flatten.views.waste import efficiency, find_hidden
from random_images import images, repaired, tar_member


def indexed(tars):
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "image.tar")
        path.write_bytes(docker_archive(tars))
        with flatten.open_image(str(path)) as image:
            return read_index(image)


def figures(tars):
    got = efficiency(indexed(tars))
    return got.score, got.size, got.user_size, got.wasted


@settings(max_examples=settings.default.max_examples // 2)
@given(images().map(repaired))
def test_the_figures_equal_those_of_dive(image):
    empty = [
        [replace(e, content=e.content * (b".wh." not in e.name)) for e in each]
        for each in image
    ]
    tars = [layer(*map(tar_member, each)) for each in empty]  # marks have no content

    got, want = figures(tars), dive.efficiency(tars)

    assert got == pytest.approx(want)


def file(name, size):
    return member(name, bytes(size))


SCORES = {
    "dive's own test: a file that is replaced, a directory that is never listed removed": (
        [[file("etc/nginx/nginx.conf", 2000), file("etc/nginx/public", 3000)],
         [file("etc/nginx/nginx.conf", 5000), file("etc/athing", 10_000)],
         ["-etc/nginx"]],
        0.75, 7000,
    ),
    "dive's own test: nothing of any size": ([[file("nothing", 0)], [], []], 1.0, 0),
    "no layers": ([], 1.0, 0),
    "a removed file": ([[file("a", 60), file("b", 40)], ["-a"]], 0.4, 60),
    "a removed directory counts in both sums": (
        [["d/", file("d/a", 60), file("b", 40)], ["-d"]], 1.0, 0,
    ),
    "an opaque mark is ignored": ([["d/", file("d/a", 60)], ["d/", "d/*"]], 1.0, 0),
    "a whiteout of a missing path ends the layer": (
        [[file("a", 50)], ["-x", file("y", 100), file("z", 100)]], 49 / 50, 0,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("words", "score", "wasted"), SCORES.values(), ids=SCORES)
def test_scores(words, score, wasted):
    tars = layers(*words)
    got = figures(tars)

    assert (got[0], got[3]) == (pytest.approx(score), wasted)
    assert got == pytest.approx(dive.efficiency(tars))


HIDDEN = {
    "replaced and removed": (
        [[file("a", 5), file("b", 7)], [file("a", 1), "-b"]], [("b", 7, 0, False), ("a", 5, 0, True)],
    ),
    "below a directory that was removed": ([["d/", file("d/a", 5)], ["-d"]], [("d/a", 5, 0, False)]),
    "below an opaque mark": ([["d/", file("d/a", 5)], ["d/", "d/*"]], [("d/a", 5, 0, False)]),
    "a file with another hard link is not hidden": ([[file("a", 5), "b=a"], ["-a"]], []),
    "twice in one layer": ([[file("a", 5), file("a", 6)]], [("a", 5, 0, True)]),
    "an empty file": ([[file("a", 0)], ["-a"]], []),
}  # fmt: skip


@pytest.mark.parametrize(("words", "want"), HIDDEN.values(), ids=HIDDEN)
def test_hidden_files(words, want):
    index = indexed(layers(*words))
    rows = list(list_rows(index))

    got = find_hidden(index, [row.path for row in rows], {row.inode for row in rows})

    assert [(h.path.decode(), h.size, h.layer, h.replaced) for h in got] == want
