"""A batch in a control group: its processes stay within the memory that is promised."""

import os
from pathlib import Path

import pytest

from builders import layer, member
from command import run
from fleets import delta, oci_archive, singly

GROUPS = Path("/sys/fs/cgroup")
MEMBERS = 20_000
KEPT = 8 << 20
PROMISED = KEPT + (60 << 20) + 350 * MEMBERS


@pytest.fixture
def group():
    """Return the file of a control group that a process joins by writing its id."""
    old = (GROUPS / "memory").is_dir()
    folder = (GROUPS / "memory" if old else GROUPS) / f"flatten-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"needs control groups: {error.strerror}")
    try:
        limit = folder / ("memory.limit_in_bytes" if old else "memory.max")
        if not limit.exists():
            pytest.skip("needs the memory controller of control groups")
        limit.write_text(str(PROMISED))
        swap = folder / ("memory.memsw.limit_in_bytes" if old else "memory.swap.max")
        if swap.exists():
            swap.write_text(str(PROMISED) if old else "0")
        yield folder / "cgroup.procs"
    finally:
        folder.rmdir()


def test_a_batch_stays_within_the_memory_that_is_promised(group, tmp_path):
    """The base is larger than what may be kept, and than the control group."""
    text = b"".join(b"%07d\n" % at for at in range(1 << 17))
    base = layer(
        *(member(f"d{at}/", type=b"5") for at in range(100)),
        *(member(f"d{at % 100}/f{at}", b"x") for at in range(MEMBERS)),
        *(member(f"large{at}", text[at * 8 :] + text[: at * 8]) for at in range(77)),
    )
    assert len(base) > PROMISED
    (tmp_path / "in").mkdir()
    paths = [tmp_path / "in" / f"app{at}.tar" for at in range(2)]
    for at, path in enumerate(paths):
        path.write_bytes(oci_archive([base, *delta(at)]))
    done = run(
        "batch", tmp_path / "in", "-o", f"{tmp_path}/out/{{name}}.tar",
        "--jobs", "1", "--memory", KEPT, "--retries", "0", timeout=200,
        preexec_fn=lambda: group.write_text(str(os.getpid())),
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    for path in paths:
        out = tmp_path / "out" / path.name
        assert out.read_bytes() == singly(path, tmp_path / "single.tar")
