"""A registry with images, and a proxy before it that misbehaves."""

import pytest

import flatten
from builders import docker_archive
from registries import ENCODINGS, LAYERS, Proxy, Tokens, push, registry


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("archive") / "image.tar"
    path.write_bytes(docker_archive(LAYERS))
    return path


@pytest.fixture(scope="module")
def host(tmp_path_factory, archive):
    with registry(tmp_path_factory.mktemp("registry")) as address:
        for name, options in ENCODINGS.items():
            push(f"docker-archive:{archive}", f"{address}/a/{name.split()[-1].lower()}:1",
                 *options)  # fmt: skip
        yield address


@pytest.fixture
def proxy(host):
    with Proxy(host) as found:
        yield found


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    """Use nobody's credentials, and wait for less time than users would."""
    monkeypatch.setattr("flatten.sources.transport.TIMEOUT", 1.0)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("XDG_RUNTIME_DIR", "REGISTRY_AUTH_FILE", "DOCKER_CONFIG"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def want(archive, tmp_path):
    flatten.export(archive, tmp_path / "want.tar", sync=False)
    return (tmp_path / "want.tar").read_bytes()


@pytest.fixture
def tokens(host):
    with Tokens(host) as found:
        yield found
