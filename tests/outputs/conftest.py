"""Engines with stores of their own, and a directory of another user."""

import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from engines import call, running
from needs import NOBODY, need


@pytest.fixture(scope="module", params=["its own store", "containerd's store"])
def docker(tmp_path_factory, request):
    """Return a function that runs docker, with its own daemon, on each store."""
    need("dockerd")
    need("docker")
    folder = tmp_path_factory.mktemp("d")  # a socket's path is short
    uses_containerd = request.param == "containerd's store"
    (folder / "config.json").write_text(
        json.dumps({"features": {"containerd-snapshotter": uses_containerd}})
    )
    address = f"unix://{folder}/s"
    client = [shutil.which("docker", path="/usr/bin") or "docker", "-H", address]
    daemon = [
        "dockerd", "--data-root", folder / "root", "--exec-root", folder / "exec",
        "--pidfile", folder / "pid", "--config-file", folder / "config.json",
        "-H", address, "--iptables=false", "--ip6tables=false", "--ip-masq=false",
        "--bridge=none",
    ]  # fmt: skip
    with running(daemon, folder / "log", [*client, "info"]):
        status = call(*client, "info", "-f", "{{.DriverStatus}}")
        if uses_containerd and "io.containerd.snapshotter" not in status:
            pytest.skip("needs a docker that can use containerd's store")
        yield lambda *args: call(*client, *args)


@pytest.fixture(scope="module")
def podman(tmp_path_factory):
    """Return a function that runs podman, with its own store."""
    need("podman")
    folder = tmp_path_factory.mktemp("p")
    return lambda *args: call(
        "podman", "--root", folder / "root", "--runroot", folder / "run",
        "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", *args,
    )  # fmt: skip


@pytest.fixture(scope="module")
def containerd(tmp_path_factory):
    """Return a function that runs ctr, with its own containerd."""
    need("containerd")
    need("ctr")
    folder = tmp_path_factory.mktemp("c")
    (folder / "config.toml").write_text(
        'version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
    )
    daemon = [
        "containerd", "--config", folder / "config.toml", "--root", folder / "root",
        "--state", folder / "state", "--address", folder / "s",
    ]  # fmt: skip
    client = ["ctr", "--address", str(folder / "s")]
    with running(daemon, folder / "log", [*client, "version"]):
        yield lambda *args: call(*client, *args)


@pytest.fixture
def theirs():
    """Return a directory that an ordinary user may write to."""
    folder = Path(tempfile.mkdtemp(prefix="flatten-test-"))
    os.chown(folder, NOBODY, NOBODY)
    yield folder
    shutil.rmtree(folder)
