"""Small real archives of docker, podman and by hand, with their right answers.

They lie beside the project, not in it; without them these tests skip.
"""

import lzma

import pytest

import flatten
from fixtures import fixture, needs_fixtures, right
from flatten.sources.open import open_source
from listing import listing

pytestmark = needs_fixtures

SAVES = {
    "docker 20.10": ("ovl-hand", None, "hand"),
    "podman, docker-archive": ("pod-overlay-hand", None, "hand"),
    "docker before 1.10": ("handmade-hand-v1", None, "hand"),
    "docker 25": ("handmade-hand-v25", None, "hand"),
    "docker 25.0.0, index in random order": (
        "handmade-hand-v25.0.0-misordered", None, "hand",
    ),
    "an image built on it": ("tovl-tiny-child", None, "tovl-tiny-child"),
    "one of four, by name": ("tovl-multi", "fx/tiny-child:1", "tovl-tiny-child"),
    "another of four": ("tovl-multi", "fx/tiny-sib:1", "tovl-tiny-sib"),
    "a committed one of four": ("tovl-multi", "fx/tiny-commit:1", "tovl-tiny-commit"),
    "the base of four": ("tovl-multi", "fx/hand:1", "hand"),
}  # fmt: skip


@pytest.fixture
def flat(tmp_path):
    def run(save, name=None):
        packed = fixture("saves", f"{save}.tar.xz").read_bytes()
        image = tmp_path / f"{save}.tar"
        image.write_bytes(lzma.decompress(packed))
        out = tmp_path / "rootfs.tar"
        flatten.export(f"{image}#{name}" if name else image, out)
        return listing(out)

    return run


@pytest.mark.parametrize(("save", "name", "answer"), SAVES.values(), ids=SAVES)
def test_save(flat, save, name, answer):
    got = flat(save, name)

    assert got == right(f"canon-{answer}", got)


def test_a_real_busybox_image_is_read_whole(flat):
    got = flat("small")

    assert len(got) == 278
    assert sum(row["type"] == "symlink" for row in got) == 267


def test_open_source_lists_all_or_those_that_a_name_fits():
    path = fixture("saves", "tovl-multi.tar.xz")
    with open_source(str(path)) as opened:
        names = {name for entry in opened.entries for name in entry.names}
        ids = [entry.ids[0] for entry in opened.entries]
    with open_source(f"{path}#{ids[1][:12]}") as opened:
        got = [entry.ids[0] for entry in opened.entries]

    assert len(set(ids)) == 4
    assert "fx/tiny-child:1" in names
    assert got == [ids[1]]
