"""The HTTP API of one registry: documents, blobs, and logging in.

- A realm is https, or on the registry's own host; an address that is not public only if
  it is the registry's own.
- A token is asked for with ``pull`` only. Two challenges in a row are an error.
- Ranges are closed (``bytes=A-B``) and sent whether or not Accept-Ranges announces
  them. An answer counts only if its Content-Range is the range that was asked for. 200
  instead of 206 is the whole blob.

Reference: OCI distribution-spec 1.1; distribution's docs/spec/auth/token.md.
"""

import json
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlencode, urlsplit

import urllib3

from ...errors import FlattenError, FormatError, quoted, shown
from .. import transport
from ..transport import Transport, discard, host_name, is_http, is_loopback
from .credentials import Credentials
from .settings import Endpoint

_MAX_ANSWER: Final = 1 << 20  # bytes of a token or an error
_PARAMETER: Final = re.compile(r'([A-Za-z_]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')


class Refused(Exception):  # noqa: N818 - an answer, of which the caller makes an error
    """A registry's answer that is not the one asked for.

    Attributes:
        status: The HTTP status.
    """

    def __init__(self, status: int, reason: str) -> None:
        """Keep the status, and what the registry says, in one line."""
        super().__init__(f"HTTP {status}{reason and ': '}{reason}")
        self.status = status


class Client:
    """Requests to one endpoint, from any number of threads."""

    def __init__(
        self,
        endpoint: Endpoint,
        where: str,
        credentials: Callable[[], Credentials | None],
        waiting: Callable[[str], object] | None = None,
    ) -> None:
        """Prepare to connect, without connecting yet.

        Args:
            endpoint: The registry.
            where: The image, in messages.
            credentials: Finds what to log in with, at the first challenge.
            waiting: As of ``Access``.
        """
        self._endpoint = endpoint
        self._where = where
        self._credentials = credentials
        self._lock = threading.Lock()
        self._scheme = ""  # not known yet
        self._transport = Transport(where, endpoint.host, endpoint.trust, waiting)

    @property
    def fetched(self) -> int:
        """Bytes of bodies received so far."""
        return self._transport.fetched

    def close(self) -> None:
        """End all requests; threads that wait for an answer get an error."""
        self._transport.close()

    def document(self, path: str, accept: str, limit: int) -> tuple[bytes, str]:
        """Return a small body, and its media type.

        Raises:
            Refused: The registry has no such document.
            FormatError: It has more than ``limit`` bytes.
            FlattenError: The registry cannot be reached.
        """
        kind = ""

        def attempt(_done: int) -> Iterator[bytes]:
            nonlocal kind
            with self._get(path, {"Accept": accept}) as response:
                kind = response.headers.get("Content-Type", "")
                yield self._transport.body(response, limit)

        body = b"".join(self._transport.retrying(attempt))
        return body, kind.partition(";")[0].strip()

    def digest(self, path: str, accept: str) -> str | None:
        """Return the digest of a document by HEAD, or None if the registry omits it.

        Raises:
            Refused: The registry has no such document.
            FlattenError: The registry cannot be reached.
        """
        found: str | None = None

        def attempt(_done: int) -> Iterator[bytes]:
            nonlocal found
            with self._get(path, {"Accept": accept}, method="HEAD") as response:
                found = response.headers.get("Docker-Content-Digest")
            yield from ()

        for _ in self._transport.retrying(attempt):
            pass
        return found

    def page(self, path: str, limit: int) -> tuple[bytes, str | None]:
        """Return one page of a list, and the path of the next page, if there is one.

        Raises:
            Refused: The registry has no such list.
            FormatError: The page has more than ``limit`` bytes.
            FlattenError: The registry cannot be reached.

        Reference: distribution-spec 1.1, "Listing Tags"; RFC 5988.
        """
        link = ""

        def attempt(_done: int) -> Iterator[bytes]:
            nonlocal link
            with self._get(path, {"Accept": "application/json"}) as response:
                link = response.headers.get("Link", "")
                yield self._transport.body(response, limit)

        body = b"".join(self._transport.retrying(attempt))
        after = re.match(r'<[^>?]*\?([^>]*)>\s*;\s*rel="?next', link)
        return body, None if after is None else f"{path.partition('?')[0]}?{after[1]}"

    def blob(self, path: str, size: int) -> Iterator[bytes]:
        """Return the bytes of a blob, resuming where a transfer broke.

        Raises:
            Refused: The registry has no such blob.
            FormatError: It has another size.
            FlattenError: The registry cannot be reached, or sends no more bytes.
        """
        return self._transport.retrying(
            lambda done: self._range(path, size, done, size)
        )

    def part(self, path: str, size: int, start: int, stop: int) -> bytes:
        """Return a range of a blob of ``size`` bytes; not all of it.

        Raises:
            Refused: The registry has no such blob, or sends no ranges: status 200.
            FormatError: It has another size.
            FlattenError: The registry cannot be reached, or sends no more bytes.
        """

        def attempt(done: int) -> Iterator[bytes]:
            return self._range(path, size, start + done, stop, whole=False)

        return b"".join(self._transport.retrying(attempt))

    def _range(
        self, path: str, size: int, start: int, stop: int, *, whole: bool = True
    ) -> Iterator[bytes]:
        """Yield the bytes of a range, in one request.

        A registry without ranges sends the whole blob, of which the range is used;
        unless ``whole`` is allowed, that is ``Refused``.
        """
        headers = {"Accept": "*/*", "Accept-Encoding": "identity"}
        if start or stop < size:
            headers["Range"] = f"bytes={start}-{stop - 1}"
        with self._get(path, headers) as response:
            if response.status == 200 and not whole:
                raise Refused(200, "it sends no ranges")
            first = self._first_byte(response, start, stop, size)
            left = stop - first
            skip = start - first
            for data in self._transport.chunks(response):
                left -= len(data)
                if left < 0:
                    what = f"the registry sends more than the {size:,} bytes promised"
                    raise FormatError(what, where=self._where)
                if part := data[skip:]:
                    yield part
                skip = max(skip - len(data), 0)
            if left:
                raise ConnectionError(f"ended {left:,} bytes too soon")

    def _first_byte(
        self, response: urllib3.BaseHTTPResponse, start: int, stop: int, size: int
    ) -> int:
        """Return the offset in the blob at which the body of an answer begins.

        Raises:
            FormatError: The answer is another range than the one that was asked for,
                or has another length.
        """
        first = 0
        if response.status == 206:
            want = f"bytes {start}-{stop - 1}/"
            got = response.headers.get("Content-Range", "")
            asked = start or stop < size
            if not asked or not got.startswith(want):
                raise FormatError(
                    f"the registry sent {shown(got or 'no Content-Range')}, asked for "
                    f"{want}{size}",
                    where=self._where,
                )
            first = start
        length = response.headers.get("Content-Length", "")
        if length.isdecimal() and int(length) != stop - first:
            raise FormatError(
                f"the registry sends {int(length):,} bytes, the manifest says "
                f"{stop - first:,}",
                where=self._where,
            )
        return first

    @contextmanager
    def _get(
        self, path: str, headers: dict[str, str], *, method: str = "GET"
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """Yield the answer to a request: 200 or 206.

        Raises:
            Refused: It is another one.
        """
        host, repository = self._endpoint.host, self._endpoint.repository
        url = f"{self._known_scheme()}://{host}/v2/{repository}/{path}"
        with self._transport.get(url, headers, self._log_in, method=method) as response:
            if response.status not in (200, 206):
                raise Refused(response.status, _reason(response))
            yield response

    def _known_scheme(self) -> str:
        """Return ``https``; or ``http`` if that is allowed and all that is spoken."""
        with self._lock:
            if not self._scheme:
                plain = self._endpoint.trust.allows_plain(self._endpoint.host)
                self._scheme = "http" if plain and not self._speaks_tls() else "https"
            return self._scheme

    def _speaks_tls(self) -> bool:
        """Return True if the registry answers a TLS handshake."""
        name = host_name(self._endpoint.host)
        port = urlsplit(f"//{self._endpoint.host}").port or 443
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # without authorities, 20 ms
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # nothing is sent here
        try:
            with (
                socket.create_connection((name, port), transport.CONNECT) as plain,
                context.wrap_socket(plain, server_hostname=name),
            ):
                return True
        except OSError:
            return False

    # --- logging in

    def _log_in(self, challenge: str, used: str) -> None:
        """Answer a challenge: with a token, or with name and password.

        Raises:
            Refused: There are no credentials, or they are wrong.
        """
        with self._lock:
            if self._transport.authorization == used:
                self._transport.authorization = self._answer_to(challenge, used)

    def _answer_to(self, challenge: str, used: str) -> str:
        """Return the value of an Authorization header."""
        scheme, _, rest = challenge.partition(" ")
        found = self._credentials()
        if scheme.lower() == "basic":
            if found is None:
                raise Refused(401, "it asks for a name and a password")
            if used == found.basic():
                raise Refused(401, "name or password is wrong")
            return found.basic()
        if scheme.lower() == "bearer":
            parameters = {
                name.lower(): re.sub(r"\\(.)", r"\1", quoted_) or plain
                for name, quoted_, plain in _PARAMETER.findall(rest)
            }
            return "Bearer " + self._token(parameters, found)
        raise FlattenError(
            f"{self._where}: the registry asks to log in by {shown(scheme)!r}, "
            "which is neither Basic nor Bearer"
        )

    def _token(self, parameters: dict[str, str], found: Credentials | None) -> str:
        """Fetch a token to pull with."""
        realm = parameters.get("realm", "")
        self._check_realm(realm)
        body = b"".join(
            self._transport.retrying(
                lambda _done: iter((self._fetch_token(realm, parameters, found),))
            )
        )
        try:
            document = json.loads(body)
            token = document.get("token") or document.get("access_token")
        except (ValueError, AttributeError, RecursionError) as error:
            what = "the answer with a token is not JSON"
            raise FormatError(what, where=self._where) from error
        if not isinstance(token, str) or not re.fullmatch(r"[!-~]+", token):
            raise FormatError("the answer has no token", where=self._where)
        return token

    def _fetch_token(
        self, realm: str, parameters: dict[str, str], found: Credentials | None
    ) -> bytes:
        """Return the body of the answer to a request for a token."""
        query = {
            "service": parameters.get("service", ""),
            "scope": f"repository:{self._endpoint.repository}:pull",
        }
        headers = {"Accept": "application/json"}
        if found is not None and found.identity_token:
            form = {
                **query,
                "grant_type": "refresh_token",
                "client_id": "flatten",
                "refresh_token": found.identity_token,
            }
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            response = self._transport.send(
                "POST", realm, headers, body=urlencode(form)
            )
        else:
            if found is not None:
                headers["Authorization"] = found.basic()
            joint = "&" if "?" in realm else "?"
            url = f"{realm}{joint}{urlencode(query)}"
            response = self._transport.send("GET", url, headers)
        try:
            if response.status != 200:
                status = response.status if response.status in (401, 403) else 401
                raise Refused(status, f"no token: HTTP {response.status}")
            return self._transport.body(response, _MAX_ANSWER)
        finally:
            discard(response)

    def _check_realm(self, realm: str) -> None:
        """Check that credentials may be sent to a realm that a registry names."""
        if not self._is_allowed(realm):
            raise FlattenError(
                f"{self._where}: the registry sends for tokens to {quoted(realm)}, "
                "which is neither https on a public host nor on its own"
            )

    def _is_allowed(self, realm: str) -> bool:
        if not is_http(realm):
            return False
        parts = urlsplit(realm)
        name, own = parts.hostname or "", host_name(self._endpoint.host)
        if is_loopback(name) and is_loopback(own):
            return True
        if parts.scheme == "https":
            return name == own or _is_public(name)
        return name == own and self._endpoint.trust.allows_plain(own)


def _is_public(name: str) -> bool:
    """Return True unless a host is an address, or name, of this machine or network."""
    try:
        return ip_address(name).is_global
    except ValueError:
        return "." in name and not name.endswith((".local", ".internal", ".localhost"))


def _reason(response: urllib3.BaseHTTPResponse) -> str:
    """Return the message of an error document, if the answer is one."""
    with suppress(
        ValueError, KeyError, IndexError, TypeError, RecursionError,
        urllib3.exceptions.HTTPError, OSError,
    ):  # fmt: skip
        body = response.read(_MAX_ANSWER, decode_content=False)
        return shown(str(json.loads(body)["errors"][0]["message"]))[:200]
    return ""
