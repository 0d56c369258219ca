"""Images from a real registry, and through a proxy that misbehaves."""

import contextlib
import gzip
import hashlib
import os
import random
import shutil
import socket
import subprocess
import time

import pytest

import flatten
from command import FLATTEN
from registries import (
    LAYERS,
    authfile,
    basic,
    cut_at_random,
    digest_of,
    exported,
    need_registry,
    push,
    registry,
    run,
    wrong_range,
)

pytestmark = need_registry

ROUNDS = int(os.environ.get("FLATTEN_ROUNDS", "8"))


@pytest.mark.parametrize("name", ["gzip", "zstd", "oci"])
def test_the_bytes_are_those_of_the_archive(host, want, tmp_path, name):
    assert exported(f"docker://{host}/a/{name}:1", tmp_path) == want


def test_by_digest(host, want, tmp_path):
    digest = digest_of(f"{host}/a/gzip:1")

    assert exported(f"docker://{host}/a/gzip@{digest}", tmp_path) == want
    assert exported(f"docker://{host}/a/gzip:other@{digest}", tmp_path) == want


def test_views_read_registries(host, tmp_path):
    for view in ("ls", "history", "config", "layers"):
        got = subprocess.run(
            [*FLATTEN, view, f"docker://{host}/a/gzip:1"], capture_output=True, text=True,
            check=True, env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
        )  # fmt: skip
        assert got.stdout


def test_each_byte_is_fetched_once(proxy, want, tmp_path):
    assert exported(f"docker://{proxy.address}/a/gzip:1", tmp_path) == want

    paths = [path for path, _ in proxy.seen]
    assert len(paths) == len(set(paths)), "each document and blob once"


# --- transfers that break


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_a_broken_transfer_is_resumed(proxy, want, tmp_path, seed):
    proxy.cut = cut_at_random(seed)

    assert exported(f"docker://{proxy.address}/a/gzip:1", tmp_path) == want

    size = sum(len(gzip.compress(data)) for data in LAYERS)
    assert proxy.sent < 1.1 * size + 20_000, "only what was lost is sent again"


def test_a_stalled_transfer_is_resumed(proxy, want, tmp_path):
    stalled = []

    def trouble(handler):
        if "/blobs/" in handler.path and not stalled:
            stalled.append(handler.path)
            time.sleep(2.5)
            handler.close_connection = True
            return True
        return False

    proxy.trouble = trouble
    said = []
    access = flatten.Access(waiting=said.append)
    reference = f"docker://{proxy.address}/a/gzip:1"
    assert exported(reference, tmp_path, access=access) == want
    assert stalled
    assert said
    assert all(line.endswith("no byte in 1 s; trying again") for line in said)


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_all_troubles_end_right_or_with_an_error(proxy, want, tmp_path, seed):
    dice = random.Random(seed)
    proxy.cut = cut_at_random(seed, 0.2)

    def trouble(handler):
        kind = dice.choice([*range(6), *[None] * 10])
        if kind == 0:
            return handler.say(dice.choice([429, 503]), Retry_After="0")
        if kind == 1:
            return handler.say(dice.choice([500, 502, 504]))
        if kind == 2:
            return handler.say(307, Location=handler.path)
        if kind == 3 and dice.random() < 0.3:
            time.sleep(1.2)
            handler.close_connection = True
            return True
        if kind == 4:
            del handler.headers["Range"]
        return False

    def spoil(_handler, status, headers, body):
        if dice.random() < 0.02:
            headers["Content-Range"] = "bytes 0-9/10"
        return status, headers, body

    proxy.trouble, proxy.spoil = trouble, spoil
    out = tmp_path / "got.tar"
    failed = None
    try:
        assert exported(f"docker://{proxy.address}/a/gzip:1", tmp_path) == want
    except flatten.FlattenError as error:
        failed = str(error)
    assert failed is None or ("\n" not in failed and not out.exists())


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_registry_is_asked_again(proxy, want, tmp_path, status):
    told = []

    def trouble(handler):
        if len(told) < 4:
            told.append(handler.path)
            return handler.say(status, Retry_After="1" if len(told) == 4 else "0")
        return False

    proxy.trouble = trouble
    out = tmp_path / "got.tar"
    done = run(f"docker://{proxy.address}/a/gzip:1", "-o", str(out), "--verbose")
    assert out.read_bytes() == want
    assert done.stderr.count(f"HTTP {status}; trying again") == 4
    assert f"HTTP {status}; trying again in 1 s\n" in done.stderr


def test_the_whole_instead_of_a_range(proxy, want, tmp_path):
    """Registries that know no ranges answer 200 with everything."""
    proxy.cut = cut_at_random(3)

    def trouble(handler):
        del handler.headers["Range"]
        return False

    proxy.trouble = trouble
    assert exported(f"docker://{proxy.address}/a/gzip:1", tmp_path) == want


def test_another_range_than_asked_for(proxy, tmp_path):
    proxy.cut = cut_at_random(3, 1.0)

    proxy.spoil = wrong_range
    with pytest.raises(flatten.FormatError, match=r"bytes 0-9/10.*asked for bytes"):
        exported(f"docker://{proxy.address}/a/gzip:1", tmp_path)
    assert not (tmp_path / "got.tar").exists()


def test_a_transfer_that_never_gets_anywhere(proxy, tmp_path):
    proxy.cut = lambda handler, _: 0 if "/blobs/" in handler.path else None

    with pytest.raises(flatten.FlattenError, match=r"tried 5 times"):
        exported(f"docker://{proxy.address}/a/gzip:1", tmp_path)
    assert not (tmp_path / "got.tar").exists()


# --- wrong answers


def on(path, change):
    """Return a ``spoil`` that changes the bodies of answers to some requests."""

    def spoil(handler, status, headers, body):
        if path in handler.path:
            body = change(body)
            headers = {k: v for k, v in headers.items() if k != "Content-Length"}
        return status, headers, body

    return spoil


WRONG = {
    "a layer of other bytes": (
        on("/blobs/", lambda body: body if body[:1] == b"{" else body[:-9] + b"123456789"),
        "digest mismatch",
    ),
    "a layer that is too short": (
        on("/blobs/", lambda body: body if body[:1] == b"{" else body[:-9]),
        "sends .* bytes, the manifest says",
    ),
    "a layer that is too long": (
        on("/blobs/", lambda body: body if body[:1] == b"{" else body + b"x"),
        "sends .* bytes, the manifest says",
    ),
    "a config of other bytes": (
        on("/blobs/", lambda body: body.replace(b"amd64", b"arm64")), "its digest is",
    ),
    "HTML instead of a manifest": (
        on("/manifests/", lambda _: b"<html>Please log in</html>"), "not JSON",
    ),
    "an endless manifest": (
        on("/manifests/", lambda _: b" " * (9 << 20)), "more than 8,388,608 bytes",
    ),
    "a manifest that is a list": (on("/manifests/", lambda _: b"[]"), "not an object"),
    "a manifest that is an index too": (
        on("/manifests/", lambda body: body[:-1].rstrip(b"\n}") + b',"manifests":[]}'),
        "both an index and a manifest|media types|not JSON",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "why"), WRONG.values(), ids=WRONG)
def test_wrong_answers(proxy, tmp_path, spoil, why):
    proxy.spoil = spoil

    with pytest.raises(flatten.FlattenError, match=why) as caught:
        exported(f"docker://{proxy.address}/a/gzip:1", tmp_path)

    assert "\n" not in str(caught.value)
    assert not (tmp_path / "got.tar").exists()


def test_a_manifest_of_another_digest(proxy, tmp_path):
    digest = "sha256:" + "0" * 64
    proxy.trouble = lambda handler: handler.say(200, {"schemaVersion": 2})

    with pytest.raises(flatten.IntegrityError, match="digest mismatch"):
        exported(f"docker://{proxy.address}/a/gzip@{digest}", tmp_path)


def test_a_loop_of_redirects(proxy, tmp_path):
    proxy.trouble = lambda handler: handler.say(307, Location=handler.path)

    with pytest.raises(flatten.FlattenError, match="redirects in a row"):
        exported(f"docker://{proxy.address}/a/gzip:1", tmp_path)


def test_what_is_not_there(host, tmp_path):
    with pytest.raises(flatten.SourceError, match=r"no such tag; it has 1$"):
        exported(f"docker://{host}/a/gzip:l", tmp_path)
    with pytest.raises(flatten.SourceError, match="no such repository"):
        exported(f"docker://{host}/a/none:1", tmp_path)
    with pytest.raises(flatten.UsageError, match="not the name of an image"):
        exported(f"docker://{host}/a/UPPER:1", tmp_path)
    with pytest.raises(flatten.UsageError, match="not the name of an image"):
        exported("docker://localhost:99999/a", tmp_path)
    with pytest.raises(flatten.FlattenError, match="Connection refused"):
        exported("docker://localhost:1/a", tmp_path)


def test_a_host_that_never_answers(tmp_path, monkeypatch):
    """Its queue of connections is full."""
    monkeypatch.setattr("flatten.sources.transport.CONNECT", 1.0)
    monkeypatch.setattr("flatten.sources.transport.TRIES", 2)
    with contextlib.ExitStack() as sockets:
        full = sockets.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        address = full.getsockname()
        for _ in range(4):
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(address)
        with pytest.raises(flatten.FlattenError, match=r"no connection in 1 s"):
            exported(f"docker://127.0.0.1:{address[1]}/a", tmp_path)


# --- who may read


def test_no_authorization_reaches_another_host(tokens, want, tmp_path, monkeypatch):
    address = tokens.proxy.address
    monkeypatch.setenv("REGISTRY_AUTH_FILE", authfile(tmp_path, address))

    assert exported(f"docker://{address}/a/gzip:1", tmp_path) == want

    sent = {
        name: {headers.get("Authorization") for _, headers in server.seen}
        for name, server in vars(tokens).items()
    }
    assert sent["server"] == {basic("me", "secret")}
    assert sent["proxy"] == {None, "Bearer good"}
    assert sent["storage"] == {None}
    (asked,) = {path for path, _ in tokens.server.seen}
    assert "scope=repository%3Aa%2Fgzip%3Apull" in asked, "to pull, whatever it says"


def test_who_may_not_read(tokens, tmp_path, monkeypatch):
    address = tokens.proxy.address
    with pytest.raises(flatten.SourceError, match=r"unauthorized.*podman login"):
        exported(f"docker://{address}/a/gzip:1", tmp_path)

    wrong = authfile(tmp_path, address, password="hunter2")
    monkeypatch.setenv("REGISTRY_AUTH_FILE", wrong)
    with pytest.raises(flatten.SourceError, match="unauthorized") as caught:
        exported(f"docker://{address}/a/gzip:1", tmp_path)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("realm", [
    "http://169.254.169.254/latest", "https://10.0.0.1/token", "https://localhost.internal/t",
    "http://example.org/token", "ftp://example.org/", "", "http://[::1", "https://a.org:99999",
])  # fmt: skip
def test_realms_that_get_no_credentials(proxy, tmp_path, realm):
    proxy.trouble = lambda handler: handler.say(
        401, WWW_Authenticate=f'Bearer realm="{realm}"'
    )

    with pytest.raises(flatten.FlattenError, match="sends for tokens to"):
        exported(f"docker://{proxy.address}/a/gzip:1", tmp_path)


def test_challenges_in_a_row_end(tokens, tmp_path):
    tokens.server.trouble = lambda handler: handler.say(200, {"token": "bad"})

    with pytest.raises(flatten.SourceError, match="unauthorized"):
        exported(f"docker://{tokens.proxy.address}/a/gzip:1", tmp_path)
    assert len(tokens.server.seen) == 1


def test_basic(archive, want, tmp_path, monkeypatch):
    if shutil.which("htpasswd") is None:
        pytest.skip("needs htpasswd")
    line = subprocess.run(
        ["htpasswd", "-Bbn", "me", "secret"], check=True, capture_output=True, text=True
    ).stdout
    (tmp_path / "htpasswd").write_text(line)
    extra = f"auth: {{htpasswd: {{realm: a, path: {tmp_path}/htpasswd}}}}\n"
    with registry(tmp_path / "registry", extra) as host:
        push(f"docker-archive:{archive}", f"{host}/a:1", "--dest-creds", "me:secret")
        with pytest.raises(flatten.SourceError, match="a name and a password"):
            exported(f"docker://{host}/a:1", tmp_path)

        monkeypatch.setenv("REGISTRY_AUTH_FILE", authfile(tmp_path, host))
        assert exported(f"docker://{host}/a:1", tmp_path) == want


def test_a_mirror_is_asked_first(host, want, tmp_path, monkeypatch):
    (tmp_path / "registries.conf").write_text(f"""
[[registry]]
prefix = "example.org/x"
location = "localhost:1/x"
[[registry.mirror]]
location = "{host}/a"
[[registry]]
prefix = "blocked.example.org"
blocked = true
""")
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(tmp_path / "registries.conf"))

    assert exported("docker://example.org/x/gzip:1", tmp_path) == want
    with pytest.raises(flatten.SourceError, match="is blocked"):
        exported("docker://blocked.example.org/a", tmp_path)


def test_digest_of_layers(host):
    with flatten.open_image(f"docker://{host}/a/gzip:1") as image:
        assert [layer.diff_id for layer in image.layers] == [
            f"sha256:{hashlib.sha256(data).hexdigest()}" for data in LAYERS
        ]
