"""Profiles for hypothesis: few examples, always the same, or a long hunt. Data roots, an image."""

import os

import pytest
from hypothesis import HealthCheck, settings

from builders import docker_archive, layers, member
from fixtures import FIXTURES, restored_root
from flatten.tar import kernel

SLOW = (HealthCheck.too_slow, HealthCheck.data_too_large)  # images are large

settings.register_profile(
    "ci",
    max_examples=150,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=SLOW,
)
settings.register_profile(
    "fuzz",
    max_examples=20_000,
    derandomize=False,
    deadline=None,
    suppress_health_check=SLOW,
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Keep the indexes that commands keep out of the user's cache."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def data_root(tmp_path_factory):
    """Return what unpacks a data root of the fixtures, once, and gives its path."""
    known = {}

    def unpack(name):
        archive = FIXTURES / "roots" / f"{name}.tar.xz"
        if os.geteuid() != 0:
            pytest.skip("needs root, for devices and trusted xattrs")
        if not archive.is_file():
            pytest.skip(f"needs the fixture {archive}")
        if name not in known:
            known[name] = restored_root(name, tmp_path_factory.mktemp(name))
        return known[name]

    return unpack


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """Return an image of 12 MB, in two layers: writing it takes a while."""
    path = tmp_path_factory.mktemp("image") / "image.tar"
    words = [member(f"{n}", os.urandom(200_000)) for n in range(60)]
    path.write_bytes(docker_archive(layers(words[::2], words[1::2])))
    return path


@pytest.fixture
def folder(tmp_path):
    """Return a directory for the output, with one that was there before."""
    path = tmp_path / "out"
    path.mkdir()
    (path / "old.tar").write_text("precious")
    return path


@pytest.fixture(params=["kernel", "pure"])
def headers_by(request, monkeypatch):
    """Read and write headers with the kernel, and then without it."""
    if request.param == "pure":
        monkeypatch.setenv("FLATTEN_PURE", "1")
        monkeypatch.setattr(kernel, "scan", None)
    elif kernel.scan is None:
        pytest.skip("needs the compiled kernel")
    return request.param
