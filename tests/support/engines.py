"""Running engines, and what their exports of a container list."""

import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from listing import listing

MADE_BY_ENGINES = ("etc/hostname", "etc/hosts", "etc/resolv.conf", "etc/mtab", "dev/",
                   "proc", "sys", "dev", ".dockerenv", "run/.containerenv", "run")  # fmt: skip


def call(*command, **options):
    """Run a command; return its standard output."""
    done = subprocess.run(
        list(map(str, command)), check=False, capture_output=True, text=True, **options
    )
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


@contextmanager
def running(command, log, ready):
    """Run a daemon until the body ends; skip if it does not become ready."""
    with log.open("w") as out:
        daemon = subprocess.Popen(list(map(str, command)), stdout=out, stderr=out)
    try:
        for _ in range(200):
            if not subprocess.run(ready, check=False, capture_output=True).returncode:
                break
            time.sleep(0.1)
        else:
            pytest.skip(f"{command[0]} does not start: {log.read_text()[-500:]}")
        yield
    finally:
        daemon.terminate()
        daemon.wait()


def rows(tar):
    """List a container's tree, but for what engines put into every one."""
    return {
        row["path"]: row
        for row in listing(Path(tar))
        if row["path"] and not row["path"].startswith(MADE_BY_ENGINES)
    }
