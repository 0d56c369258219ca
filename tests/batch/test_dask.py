"""Batches on Dask: a cluster on this machine, and workers that are processes apart."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from command import FLATTEN, run
from fleets import fleet, singly
from registries import free_port, until_it_answers

pytest.importorskip("distributed", reason="needs distributed (Dask)")

COUNT = 8


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return fleet(tmp_path_factory.mktemp("in"), COUNT)


@pytest.fixture(scope="module")
def want(images, tmp_path_factory):
    out = tmp_path_factory.mktemp("want") / "out.tar"
    return {path.stem: singly(path, out) for path in images}


def arguments(images, folder):
    return (
        "batch", images[0].parent, "-o", f"{folder}/out/{{name}}.tar",
        "--results", folder / "r.jsonl",
    )  # fmt: skip


def outputs(folder):
    return {path.stem: path.read_bytes() for path in (folder / "out").glob("*.tar")}


def results(folder):
    lines = (folder / "r.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@contextlib.contextmanager
def processes(*commands):
    """Run programs of Dask's until the end of the block."""
    with contextlib.ExitStack() as stack:
        for command in commands:
            process = subprocess.Popen(
                [sys.executable, "-m", *command],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            stack.callback(process.wait)
            stack.callback(process.terminate)
        yield


@pytest.fixture(scope="module")
def scheduler():
    """Run a scheduler and two workers, each with a nanny; yield the address."""
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    own = ("--host", "127.0.0.1", "--no-dashboard")
    worker = (
        "distributed.cli.dask_worker", address, "--nthreads", "1", "--memory-limit", "0",
        *own,
    )  # fmt: skip
    start = ("distributed.cli.dask_scheduler", "--port", str(port), *own)
    with processes(start):
        until_it_answers(port)
        with processes(worker, worker):
            wait_for_workers(address, 2)
            yield address


def wait_for_workers(address, count):
    wait = (
        "from distributed import Client\n"
        f"with Client({address!r}) as client: client.wait_for_workers({count}, 60)"
    )
    subprocess.run([sys.executable, "-c", wait], check=True, timeout=90)


def test_a_cluster_on_this_machine_makes_what_single_runs_make(images, want, tmp_path):
    done = run(
        *arguments(images, tmp_path), "--cluster", "local", "--jobs", "2", timeout=120
    )

    assert done.returncode == 0, done.stderr
    assert outputs(tmp_path) == want


def test_workers_elsewhere_make_what_single_runs_make(
    scheduler, images, want, tmp_path
):
    done = run(*arguments(images, tmp_path), "--cluster", scheduler, timeout=120)

    assert done.returncode == 0, done.stderr
    assert outputs(tmp_path) == want
    assert all(result["shared_bytes"] for result in results(tmp_path))


def test_a_worker_that_is_killed_fails_no_job_for_good(
    scheduler, images, want, tmp_path
):
    victim, _ = pids(scheduler)
    with subprocess.Popen(
        [*FLATTEN, *map(str, arguments(images, tmp_path)), "--cluster", scheduler],
        stderr=subprocess.PIPE, text=True,
    ) as batch:  # fmt: skip
        until_there(tmp_path / "out")
        os.kill(victim, signal.SIGKILL)
        _, said = batch.communicate(timeout=120)

    assert batch.returncode == 0, said
    assert outputs(tmp_path) == want
    wait_for_workers(scheduler, 2)


def pids(address):
    """Return the ids of the workers' processes."""
    ask = (
        "import os; from distributed import Client\n"
        f"with Client({address!r}) as client: print(*client.run(os.getpid).values())"
    )
    done = subprocess.run(
        [sys.executable, "-c", ask], check=True, timeout=90, stdout=subprocess.PIPE
    )
    return map(int, done.stdout.split())


def until_there(folder):
    """Wait for the first output, finished or not."""
    end = time.monotonic() + 60
    while time.monotonic() < end and not folder.exists():
        time.sleep(0.005)
    assert folder.exists()


def test_a_scheduler_that_is_not_there_is_an_error(images, tmp_path):
    done = run(
        *arguments(images, tmp_path), "--cluster", f"tcp://127.0.0.1:{free_port()}",
        timeout=120,
    )  # fmt: skip

    assert done.returncode == 1
    assert "cannot connect" in done.stderr
    assert "Traceback" not in done.stderr
