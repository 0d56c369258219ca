"""Images of a running engine: what ``docker save`` streams, from the engine's socket.

Docker's daemon is at ``$DOCKER_HOST`` or /var/run/docker.sock; podman's, which answers
the same request, at ``$CONTAINER_HOST`` or where ``podman system service`` listens.

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

DAEMONS: Final = ("docker-daemon", "podman")
_TIMEOUT: Final = 600  # seconds: a daemon assembles layers before it sends a byte
_MAX_ERROR: Final = 1 << 16
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,4095}")


def open_daemon(kind: str, name: str, pool: Pool) -> Spool:
    """Return the archive of an image, read to its end.

    Args:
        kind: One of ``DAEMONS``.
        name: The image's name or id there.
        pool: Keeps the archive.

    Raises:
        UsageError: The name is not one, or the daemon's address is of no known form.
        SourceError: There is no daemon, or no such image.
        FlattenError: The stream breaks off.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(f"{kind}: {quoted(name)} is not the name or id of an image")
    where = f"{kind}:{shown(name)}"
    address = _address(kind)
    with closing(_connection(address, where)) as connection:
        try:
            connection.request("GET", f"/v1.24/images/{quote(name, safe='')}/get")
            answer = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            why = getattr(error, "strerror", None) or shown(str(error))
            raise SourceError(
                f"{where}: no daemon at {shown(address)}: {why}; is it running, and "
                f"may you use it? ({_variable(kind)} says where it is)"
            ) from error
        if answer.status != 200:
            raise SourceError(f"{where}: {_reason(answer)}")
        spool = pool.spool(where)
        pool.fill(spool, _chunks(answer, where))
        spool.finish()
        return spool


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
    if (
        parts.scheme == "tcp"
        and parts.hostname
        and not os.environ.get("DOCKER_TLS_VERIFY")
    ):
        return http.client.HTTPConnection(
            parts.hostname, parts.port or 2375, timeout=_TIMEOUT
        )
    raise UsageError(
        f"{where}: cannot use the daemon at {quoted(address)}: only unix:// and plain "
        "tcp:// are supported; docker save IMAGE | flatten - reads any other"
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
    """Return what the daemon says, in one line."""
    text = answer.read(_MAX_ERROR)
    with suppress(ValueError, KeyError, TypeError, RecursionError):
        text = str(json.loads(text)["message"]).encode()
    return shown(text.decode("utf-8", "replace").strip()) or f"HTTP {answer.status}"


def _chunks(answer: http.client.HTTPResponse, where: str) -> Iterator[bytes]:
    """Yield the stream in chunks of one size, so that chunks of zeros are found."""
    while True:
        try:
            data = answer.read(CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise FlattenError(f"{where}: the stream broke off: {error}") from error
        if not data:
            return
        yield data
