"""Processes of a batch that are killed: what is left, and what the next run makes."""

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from builders import docker_archive, layer, member
from command import FLATTEN
from fleets import fleet

MOMENTS = int(os.environ.get("FLATTEN_MOMENTS", "3"))


def start(folder, *options, **more):
    return subprocess.Popen(
        [*FLATTEN, "batch", "in", "-o", "out/{name}.tar.zst", "--results", "r.jsonl",
         "--compress", "zstd:12", *options],
        cwd=folder, stderr=subprocess.PIPE, text=True, **more,
    )  # fmt: skip


def children(pid):
    """Return the processes that a process has started and not waited for."""
    found = []
    with contextlib.suppress(OSError):  # it has ended
        for thread in Path(f"/proc/{pid}/task").iterdir():
            found += (thread / "children").read_text().split()
    return [int(child) for child in found]


def alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def until(condition, seconds=20.0):
    """Wait for a condition; return its value."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.002)
    raise AssertionError("it did not happen")


def outputs(folder):
    return {
        path.name: path.read_bytes()
        for path in (folder / "out").iterdir()
        if path.suffix == ".zst"
    }


def results(folder):
    lines = (folder / "r.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return a fleet's outputs, and the seconds that a batch takes."""
    folder = tmp_path_factory.mktemp("whole")
    fleet(folder / "in", 12)
    started = time.monotonic()
    batch = start(folder)
    _, said = batch.communicate()
    assert batch.returncode == 0, said
    return outputs(folder), time.monotonic() - started


@pytest.mark.parametrize("seed", range(MOMENTS))
def test_after_the_client_is_killed_the_next_run_makes_the_rest(seed, whole, tmp_path):
    expected, seconds = whole
    fleet(tmp_path / "in", 12)
    dice = random.Random(seed)
    batch = start(tmp_path)
    (server,) = until(lambda: children(batch.pid)) if seed else [0]
    time.sleep(dice.random() * seconds)
    others = [server, *children(server)] if server else []
    batch.kill()
    batch.communicate()
    until(lambda: not any(map(alive, others)))  # nothing goes on without the client
    found = outputs(tmp_path) if (tmp_path / "out").exists() else {}
    assert found.items() <= expected.items()

    again = start(tmp_path)
    _, said = again.communicate()

    assert again.returncode == 0, said
    assert outputs(tmp_path) == expected
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {*expected, *(f"{name}.json" for name in expected)}


@pytest.mark.parametrize("seed", range(MOMENTS))
@pytest.mark.parametrize("victim", ["a child", "the fork server"])
def test_a_killed_process_fails_no_job_for_good(victim, seed, whole, tmp_path):
    expected, seconds = whole
    fleet(tmp_path / "in", 12)
    batch = start(tmp_path, "--jobs", "3")
    (server,) = until(lambda: children(batch.pid))
    until(lambda: children(server))
    time.sleep(random.Random(seed).random() * seconds / 4)
    for pid in children(server)[:1] if victim == "a child" else [server]:
        with contextlib.suppress(ProcessLookupError):  # the batch was faster
            os.kill(pid, signal.SIGKILL)
    _, said = batch.communicate()

    assert batch.returncode == 0, said
    assert outputs(tmp_path) == expected
    assert {result["state"] for result in results(tmp_path)} == {"done"}


def test_a_job_that_is_killed_twice_has_failed_and_the_others_are_done(tmp_path):
    fleet(tmp_path / "in", 4)
    noise = random.Random(1).randbytes(40_000_000)
    large = docker_archive([layer(member("noise", noise))])
    (tmp_path / "in/large.tar").write_bytes(large)
    batch = start(tmp_path, "--retries", "5")
    (server,) = until(lambda: children(batch.pid))

    def maker():
        """Return the process that writes the large image's output."""
        for pid in children(server):
            with contextlib.suppress(OSError):  # it, or a file of it, is gone
                for file in Path(f"/proc/{pid}/fd").iterdir():
                    if re.search(r"large\S*part", os.readlink(file)):
                        return pid
        return None

    for _ in range(2):
        pid = until(maker)
        os.kill(pid, signal.SIGKILL)
        until(lambda pid=pid: not alive(pid))
    _, said = batch.communicate()

    assert batch.returncode == 1
    states = {Path(r["reference"]).stem: r["state"] for r in results(tmp_path)}
    assert states.pop("large") == "failed"
    assert set(states.values()) == {"done"}
    (failed,) = [r for r in results(tmp_path) if r["state"] == "failed"]
    assert failed["attempts"] == 2
    assert "out-of-memory" in failed["message"]
    assert "4 done, 0 unchanged, 1 failed" in said
    assert not (tmp_path / "out/large.tar.zst").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_only_whole_outputs(number, whole, tmp_path):
    expected, _ = whole
    fleet(tmp_path / "in", 12)
    batch = start(tmp_path)
    until(lambda: (tmp_path / "out").exists() and any((tmp_path / "out").iterdir()))
    batch.send_signal(number)
    _, said = batch.communicate(timeout=60)

    assert batch.returncode == 128 + number, said
    assert "Traceback" not in said
    assert outputs(tmp_path).items() <= expected.items()
    assert not list((tmp_path / "out").glob(".*"))
