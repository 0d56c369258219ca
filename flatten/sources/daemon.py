"""Images in a running engine: the stream of ``docker save``, from the engine's socket.

Docker's daemon is at ``$DOCKER_HOST`` or /var/run/docker.sock. The service of podman,
which answers the same request, is at ``$CONTAINER_HOST`` or where
``podman system service`` listens.

Reference: Docker Engine API 1.24 and later, "Export an image".
"""

import http.client
import json
import os
import re
import socket
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Final
from urllib.parse import quote, urlsplit

from ..errors import FlattenError, SourceError, UsageError, quoted, shown
from ..host.decompress import CHUNK
from ..host.spools import Pool, Spool

_TIMEOUT: Final = 600  # seconds: docker assembles the archive before it sends a byte
_MAX_ERROR: Final = 1 << 16
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,4095}")
_ID: Final = re.compile(r"(sha256:)?[0-9a-f]{12,64}")


def open_daemon(kind: str, name: str, pool: Pool) -> Spool:
    """Fetch the archive of an image, to its end.

    Args:
        kind: One of ``references.DAEMONS``.
        name: A name, to which ``:latest`` is added if it has no tag; or an id of at
            least 12 digits.
        pool: Stores the archive.

    Raises:
        UsageError: The name is not valid, or the daemon's address is not supported.
        SourceError: The daemon cannot be reached, or has no such image.
        FlattenError: The stream ends too soon.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(f"{kind}: {quoted(name)} is not the name or id of an image")
    name = _with_tag(name)
    where = f"{kind}:{shown(name)}"
    address = _address(kind)
    with closing(_connection(address, where)) as connection:
        try:
            connection.request("GET", f"/v1.24/images/{quote(name, safe='')}/get")
            answer = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            why = getattr(error, "strerror", None) or shown(str(error))
            raise SourceError(
                f"{where}: cannot reach the daemon at {shown(address)}: {why} "
                f"({_variable(kind)} sets another address)"
            ) from error
        if answer.status != 200:
            raise SourceError(f"{where}: {_reason(answer)}")
        spool = pool.spool(where)
        pool.fill(spool, _chunks(answer, where))
        spool.finish()
        return spool


def _with_tag(name: str) -> str:
    """Return a name with its tag: without one, docker sends the images of all tags.

    >>> _with_tag("app"), _with_tag("host:5000/app"), _with_tag("0123456789ab")
    ('app:latest', 'host:5000/app:latest', '0123456789ab')
    """
    is_complete = "@" in name or ":" in name.rpartition("/")[2] or _ID.fullmatch(name)
    return name if is_complete else f"{name}:latest"


def _variable(kind: str) -> str:
    return "$CONTAINER_HOST" if kind == "podman" else "$DOCKER_HOST"


def _address(kind: str) -> str:
    """Return where the daemon listens."""
    if found := os.environ.get(_variable(kind).removeprefix("$")):
        return found
    if kind == "docker-daemon":
        return "unix:///var/run/docker.sock"
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if os.geteuid() and runtime:
        return f"unix://{runtime}/podman/podman.sock"
    return "unix:///run/podman/podman.sock"


def _connection(address: str, where: str) -> http.client.HTTPConnection:
    parts = urlsplit(address)
    if parts.scheme == "unix":
        return _UnixConnection(parts.path)
    with suppress(ValueError):  # not the number of a port
        port = parts.port or 2375
        plain = parts.scheme == "tcp" and not os.environ.get("DOCKER_TLS_VERIFY")
        if plain and parts.hostname:
            return http.client.HTTPConnection(parts.hostname, port, timeout=_TIMEOUT)
    raise UsageError(
        f"{where}: cannot use the daemon at {quoted(address)}: only unix:// and tcp:// "
        "without TLS are supported; for others: docker save IMAGE | flatten -"
    )


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_TIMEOUT)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_TIMEOUT)
        self.sock.connect(self._path)


def _reason(answer: http.client.HTTPResponse) -> str:
    """Return the daemon's message, in one line."""
    text = b""
    with suppress(OSError, http.client.HTTPException):  # then the status has to do
        text = answer.read(_MAX_ERROR)
    with suppress(ValueError, KeyError, TypeError, RecursionError):
        text = str(json.loads(text)["message"]).encode()
    said = text.decode("utf-8", "replace").strip()
    return shown(said) if said else f"HTTP {answer.status}"


def _chunks(answer: http.client.HTTPResponse, where: str) -> Iterator[bytes]:
    """Yield the stream in chunks of one size, so that chunks of zeros are found.

    Raises:
        FlattenError: It ends too soon.
    """
    while True:
        try:
            data = answer.read(CHUNK)
        except (OSError, http.client.HTTPException) as error:
            why = shown(str(error))
            raise FlattenError(f"{where}: the stream ended too soon: {why}") from error
        if not data and answer.length:
            raise FlattenError(
                f"{where}: the stream ended too soon: {answer.length:,} bytes are "
                "missing"
            )
        if not data:
            return
        yield data
