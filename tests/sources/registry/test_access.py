"""Options about access on every command, and what the command says was fetched."""

import json

import pytest

import flatten
from registries import NOISE, authfile, digest_of, exported, need_registry, run

pytestmark = need_registry


def test_the_summary_says_what_was_fetched(host, tmp_path):
    digest = digest_of(f"{host}/a/gzip:1")
    out = str(tmp_path / "out.tar")
    done = run(f"docker://{host}/a/gzip:1", "-o", out, "--json", "-v")

    found = json.loads(done.stdout)
    transfer = found["transfer"]
    assert transfer["digest"] == found["image"]["manifest"] == digest
    assert transfer["fetched"] == transfer["size"] > len(NOISE)
    assert f"fetched {transfer['size']:,} of {transfer['size']:,} bytes" in done.stderr
    assert digest in done.stderr


def test_an_image_on_this_machine_is_not_fetched(archive, tmp_path):
    done = run(str(archive), "-o", str(tmp_path / "out.tar"), "--json", "-v")

    assert json.loads(done.stdout)["transfer"] is None
    assert "fetched" not in done.stderr


@pytest.mark.parametrize("command", ["ls", "history", "layers", "config", "images"])
def test_every_command_takes_credentials(tokens, tmp_path, command):
    address = tokens.proxy.address
    reference = f"docker://{address}/a/gzip:1"
    refused = run(command, reference, XDG_CACHE_HOME=str(tmp_path))
    given = run(command, reference, "--authfile", authfile(tmp_path, address),
                XDG_CACHE_HOME=str(tmp_path))  # fmt: skip

    assert (refused.returncode, given.returncode) == (3, 0), given.stderr
    assert "unauthorized" in refused.stderr
    assert given.stdout


def test_a_second_image_takes_the_same_credentials(tokens, tmp_path):
    address = tokens.proxy.address
    one, two = f"docker://{address}/a/gzip:1", f"docker://{address}/a/zstd:1"
    given = "--authfile", authfile(tmp_path, address)

    assert run("diff", one, two, *given, XDG_CACHE_HOME=str(tmp_path)).returncode == 0
    assert "3 layers" in run("common", one, two, *given).stdout


def test_the_api_takes_credentials(tokens, want, tmp_path):
    address = tokens.proxy.address
    access = flatten.Access(authfile=authfile(tmp_path, address))

    assert exported(f"docker://{address}/a/gzip:1", tmp_path, access=access) == want
    with flatten.open_image(f"docker://{address}/a/gzip:1", access=access) as image:
        assert (image.root / "etc/a").read_bytes() == b"1"


@pytest.mark.parametrize("name", ["alpine:3", "alpine", "quay.io/podman/hello:latest"])
def test_the_name_of_no_file_may_be_an_image_of_a_registry(tmp_path, name):
    with pytest.raises(flatten.SourceError) as caught:
        exported(name, tmp_path)
    assert str(caught.value) == (
        f"'{name}': No such file or directory; an image in a registry is named "
        f"docker://{name}"
    )


@pytest.mark.parametrize("name", ["missing.tar", "./alpine:3", "/srv/alpine", "Image"])
def test_the_name_of_no_file_that_is_no_image(tmp_path, name):
    with pytest.raises(flatten.SourceError) as caught:
        exported(name, tmp_path)
    assert str(caught.value) == f"'{name}': No such file or directory"


def test_a_file_of_the_name_of_an_image_may_be_written(host, tmp_path, monkeypatch):
    """The image docker://localhost:1/a is no file, so it cannot be the output."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / host / "a").mkdir(parents=True)
    flatten.export(f"docker://{host}/a/gzip:1", f"{host}/a/gzip:1", sync=False)

    assert (tmp_path / host / "a" / "gzip:1").stat().st_size > len(NOISE)
