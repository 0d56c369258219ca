"""Registries for tests: Debian's docker-registry, and a proxy before it that misbehaves.

All of them listen on loopback only.
"""

import base64
import contextlib
import json
import os
import random
import shutil
import socket
import subprocess
import threading
import time
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import flatten
from builders import layer, member
from command import FLATTEN

NOISE = random.Random(1).randbytes(700_000)
LAYERS = [
    layer(member("etc/", type=b"5"), member("etc/a", b"1"), member("gone", NOISE)),
    layer(member("etc/b", NOISE[:300_000]), member(".wh.gone")),
    layer(member("bin/", type=b"5"), member("bin/c", NOISE[300_000:])),
]
ENCODINGS = {
    "gzip": ("--dest-compress-format", "gzip"),
    "zstd": ("--dest-compress-format", "zstd", "--format", "oci"),
    "as OCI": ("--format", "oci"),
}

need_registry = pytest.mark.skipif(
    not (shutil.which("docker-registry") and shutil.which("skopeo")),
    reason="needs docker-registry and skopeo",
)


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextlib.contextmanager
def registry(folder, extra="", tls=""):
    """Run a registry; yields its address."""
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yml").write_text(
        "version: 0.1\nlog: {accesslog: {disabled: true}, level: error}\n"
        f"storage: {{filesystem: {{rootdirectory: {folder}/data}}}}\n"
        f"http:\n  addr: 127.0.0.1:{port}\n{tls}{extra}"
    )
    with subprocess.Popen(
        ["docker-registry", "serve", folder / "config.yml"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        try:
            until_it_answers(port)
            yield f"localhost:{port}"
        finally:
            process.terminate()


def until_it_answers(port):
    for _ in range(200):
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", port)),
        ):
            return
        time.sleep(0.05)
    raise AssertionError(f"nothing answers on port {port}")


def push(source, target, *options):
    """Copy an image with skopeo."""
    subprocess.run(
        ["skopeo", "copy", "-q", "--dest-tls-verify=false", *options,
         source, f"docker://{target}"],
        check=True,
    )  # fmt: skip


class Proxy(ThreadingHTTPServer):
    """Passes requests on to a registry, badly.

    Attributes:
        seen: (path, headers) of each request.
        sent: Bytes of blobs sent.
        trouble: Called with the handler before it answers; True if it has answered.
        spoil: Called with (handler, status, headers, body) of a registry's answer;
            returns what to send instead.
    """

    daemon_threads = True

    def __init__(self, upstream, trouble=None, spoil=None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.upstream = upstream
        self.trouble = trouble or (lambda _: False)
        self.spoil = spoil or (lambda _, *answer: answer)
        self.seen = []
        self.sent = 0
        self.cut = lambda _handler, _body: None
        self.lock = threading.Lock()

    @property
    def address(self):
        return f"localhost:{self.server_address[1]}"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()

    def handle_error(self, *_):
        """Say nothing: clients may leave."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        """Say nothing."""

    def do_GET(self):
        with self.server.lock:
            self.server.seen.append((self.path, dict(self.headers)))
        if self.server.trouble(self):
            return
        with contextlib.closing(HTTPConnection(self.server.upstream, timeout=30)) as up:
            headers = {k: v for k, v in self.headers.items() if k.lower() != "host"}
            method = "HEAD" if self.command == "HEAD" else "GET"
            up.request(method, self.path, headers=headers)
            answer = up.getresponse()
            kept = {
                k: v for k, v in answer.getheaders()
                if k.lower() not in ("transfer-encoding", "connection", "date")
            }  # fmt: skip
            body = answer.read()
        self.answer(*self.server.spoil(self, answer.status, kept, body))

    do_POST = do_HEAD = do_GET  # noqa: N815 - names that http.server looks for

    def answer(self, status, headers, body):
        """Send an answer; maybe not all of it."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        at = self.server.cut(self, body)
        with self.server.lock:
            self.server.sent += len(body if at is None else body[:at])
        self.wfile.write(body if at is None else body[:at])
        if at is not None:
            self.wfile.flush()
            self.close_connection = True

    def say(self, status, document=None, **headers):
        """Send a JSON document; header names have _ for -."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        body = json.dumps(document or {}).encode()
        self.answer(status, {"Content-Type": "application/json"} | named, body)
        return True


def cut_at_random(seed, chance=0.5):
    """Return a ``cut`` that ends many answers of blobs at a random byte."""
    dice = random.Random(seed)

    def cut(handler, body):
        if "/blobs/" in handler.path and body and dice.random() < chance:
            return dice.randrange(len(body))
        return None

    return cut


def wrong_range(_handler, status, headers, body):
    """Spoil an answer: it says that it has another range than it was asked for."""
    if status == 206:
        headers["Content-Range"] = "bytes 0-9/10"
    return status, headers, body


def exported(reference, folder, **options):
    flatten.export(reference, folder / "got.tar", sync=False, **options)
    return (folder / "got.tar").read_bytes()


def run(*arguments, **environment):
    return subprocess.run(
        [*FLATTEN, *arguments], capture_output=True, text=True, check=False,
        env={**os.environ, **environment},
    )  # fmt: skip


def digest_of(reference):
    shown = subprocess.run(
        ["skopeo", "inspect", "--tls-verify=false", "--format", "{{.Digest}}",
         f"docker://{reference}"], check=True, capture_output=True, text=True,
    )  # fmt: skip
    return shown.stdout.strip()


def basic(user, password):
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def authfile(folder, host, user="me", password="secret"):
    path = folder / "auth.json"
    entry = {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}
    path.write_text(json.dumps({"auths": {host: entry}}))
    return str(path)


class Tokens:
    """A registry that wants tokens, and a server of its own that gives them."""

    def __init__(self, host):
        self.proxy = Proxy(host, trouble=self.challenge)
        self.server = Proxy(host, trouble=self.give)
        self.storage = Proxy(host)

    def __enter__(self):
        for server in (self.proxy, self.server, self.storage):
            server.__enter__()
        return self

    def __exit__(self, *error):
        for server in (self.proxy, self.server, self.storage):
            server.__exit__(*error)

    def challenge(self, handler):
        if handler.headers.get("Authorization") != "Bearer good":
            realm = f'realm="http://{self.server.address}/token"'
            return handler.say(
                401, WWW_Authenticate=f'Bearer {realm},service="me",scope="a:b:push"'
            )
        if "/blobs/" in handler.path:
            there = f"http://{self.storage.address}{handler.path}"
            return handler.say(307, Location=there)
        return False

    def give(self, handler):
        if handler.headers.get("Authorization") == basic("me", "secret"):
            return handler.say(200, {"token": "good"})
        return handler.say(401, {"errors": [{"message": "who are you"}]})
