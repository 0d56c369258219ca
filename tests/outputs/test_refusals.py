"""Calls that the kernel refuses: the message names the file, and nothing is left."""

import pytest

from builders import docker_archive, layers, member
from refusals import run_without

CHMOD = ("chmod", "fchmod", "fchmodat", "fchmodat2")
OUTPUTS = {
    "a tar": ("o.tar", "'o.tar': cannot set the mode: Operation not permitted"),
    "a compressed tar": ("o.tar.gz", "'o.tar.gz': cannot set the mode: Operation not permitted"),
    "a cpio": ("o.cpio", "'o.cpio': cannot set the mode: Operation not permitted"),
    "a directory": ("o/", "cannot write 'd': Operation not permitted"),
}  # fmt: skip


@pytest.fixture
def image(tmp_path):
    words = ["d/", member("d/f", b"x", mode=0o640)]
    (tmp_path / "i.tar").write_bytes(docker_archive(layers(words)))


@pytest.mark.parametrize(("out", "why"), OUTPUTS.values(), ids=OUTPUTS)
@pytest.mark.usefixtures("image")
def test_a_refused_chmod_names_the_file_and_leaves_nothing(tmp_path, out, why):
    got = run_without(CHMOD, "i.tar", "-o", out, cwd=tmp_path)

    assert (got.returncode, got.stderr) == (1, f"flatten: {why}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["i.tar"]


@pytest.mark.parametrize(
    ("out", "options"),
    [("o.tar", ()), ("o.tar.zst", ()), ("o/", ("--ownership", "current"))],
)
@pytest.mark.usefixtures("image")
def test_a_refused_sched_getaffinity_does_no_harm(tmp_path, out, options):
    got = run_without(["sched_getaffinity"], "i.tar", "-o", out, *options, cwd=tmp_path)

    assert (got.returncode, got.stderr) == (0, "")
    assert (tmp_path / out).exists()
