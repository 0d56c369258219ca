"""HTTP to one registry: authentication, redirects, repeated requests, ranges.

What other clients learnt, and this one holds to:

- An Authorization header goes to the registry, or to the place of its tokens, and to no
  host that either redirects to.
- A realm is https, or on the registry's own host; an address that is not public only if
  it is the registry's own.
- A token is asked for with ``pull`` only. Two challenges in a row are an error.
- Ranges are closed (``bytes=A-B``) and sent whether or not Accept-Ranges announces
  them. An answer counts only if its Content-Range is the range that was asked for. 200
  instead of 206 is the whole blob.
- 429 and 503 wait as long as Retry-After says, within a bound.

Reference: OCI distribution-spec 1.1; distribution's docs/spec/auth/token.md.
"""

import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import urlencode, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3

from ...errors import FlattenError, FormatError, SourceError, shown
from .credentials import Credentials
from .settings import Endpoint, host_name, is_loopback

TIMEOUT: Final = 20.0  # seconds without a byte after which a transfer has stalled
TRIES: Final = 5  # in a row, without a byte gained
MAX_WAIT: Final = 60.0  # seconds that Retry-After may ask for
MAX_HOPS: Final = 5
MAX_ANSWER: Final = 1 << 20  # bytes of a token or an error
_CHUNK: Final = 1 << 18
_PARAMETER: Final = re.compile(r'([A-Za-z_]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_AGAIN: Final = frozenset((408, 429, 500, 502, 503, 504))
_REDIRECTS: Final = frozenset((301, 302, 303, 307, 308))


class Refused(Exception):  # noqa: N818 - an answer, of which the caller makes an error
    """A registry's answer that is not the one asked for.

    Attributes:
        status: The HTTP status.
        reason: What the registry says, in one line.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"HTTP {status}{reason and ': '}{reason}")
        self.status = status


class Client:
    """Requests to one endpoint, from any number of threads.

    Attributes:
        fetched: Bytes of bodies received.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        where: str,
        credentials: Callable[[], Credentials | None],
    ) -> None:
        """Connect to nothing yet.

        Args:
            endpoint: The registry.
            where: The image, in messages.
            credentials: Finds what to log in with, at the first challenge.
        """
        self.fetched = 0
        self._endpoint = endpoint
        self._where = where
        self._credentials = credentials
        self._authorization = ""
        self._lock = threading.Lock()
        self._closed = False
        self._scheme = ""  # not known yet
        self._active: set[urllib3.BaseHTTPResponse] = set()
        self._pools: dict[bool, urllib3.PoolManager] = {}

    def close(self) -> None:
        """End all requests; threads that wait for an answer get an error."""
        self._closed = True
        with self._lock:
            active = list(self._active)
        for response in active:
            with suppress(ValueError, OSError, RuntimeError):  # it is just ending
                response.shutdown()
        for pool in self._pools.values():
            pool.clear()

    def document(
        self, path: str, accept: str, limit: int
    ) -> tuple[bytes, dict[str, str]]:
        """Return a small body and the headers of the answer.

        Raises:
            Refused: The registry has no such document.
            FormatError: It has more than ``limit`` bytes.
            FlattenError: The registry cannot be reached.
        """
        last: Exception | None = None
        for attempt in self._attempts():
            try:
                with self._get(path, {"Accept": accept}) as response:
                    return self._body(response, limit), dict(response.headers)
            except (urllib3.exceptions.HTTPError, OSError) as error:
                last = error
                attempt(None)
        raise self._unreachable(last)

    def blob(self, path: str, size: int) -> Iterator[bytes]:
        """Yield the bytes of a blob, resuming where a transfer broke.

        Raises:
            Refused: The registry has no such blob.
            FormatError: It has another size.
            FlattenError: The registry cannot be reached, or sends no more bytes.
        """
        done = 0
        last: Exception | None = None
        for attempt in self._attempts():
            before = done
            try:
                for chunk in self._range(path, done, size):
                    done += len(chunk)
                    yield chunk
                if done == size:
                    return
                last = EOFError(f"ended {size - done:,} bytes too soon")
            except (urllib3.exceptions.HTTPError, OSError) as error:
                last = error
            attempt(done > before)
        raise self._unreachable(last)

    def _range(self, path: str, start: int, size: int) -> Iterator[bytes]:
        """Yield the bytes of a blob from ``start`` to its end, in one request."""
        headers = {"Accept": "*/*", "Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-{size - 1}"
        with self._get(path, headers) as response:
            skip = start
            if response.status == 206:
                want = f"bytes {start}-{size - 1}/"
                got = response.headers.get("Content-Range", "")
                if not start or not got.startswith(want):
                    raise FormatError(
                        f"the registry sent {shown(got or 'no Content-Range')!r}, "
                        f"asked for {want}{size}", where=self._where,
                    )  # fmt: skip
                skip = 0
            length = response.headers.get("Content-Length", "")
            if (
                skip == start
                and length.isdecimal()
                and int(length) != size - start + skip
            ):
                raise FormatError(
                    f"the registry sends {int(length):,} bytes, the manifest says "
                    f"{size - start + skip:,}", where=self._where,
                )  # fmt: skip
            left = size - start
            for data in response.stream(_CHUNK, decode_content=False):
                self.fetched += len(data)
                part = data[skip:] if skip < len(data) else b""
                skip = max(skip - len(data), 0)
                if len(part) > left:
                    what = f"the registry sends more than the {size:,} bytes promised"
                    raise FormatError(what, where=self._where)
                left -= len(part)
                if part:
                    yield part

    def _attempts(self) -> Iterator[Callable[[bool | None], None]]:
        """Yield until there were enough failures in a row, waiting longer each time.

        The caller tells each yielded function whether there was progress.
        """
        failed = 0

        def note(progress: bool | None) -> None:
            nonlocal failed
            failed = 0 if progress else failed + 1

        while failed < TRIES:
            if failed:
                self._sleep(0.1 * 2**failed)
            yield note

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self._closed:
            time.sleep(min(left, 0.1))
        if self._closed:
            raise FlattenError(f"{self._where}: cancelled")

    @contextmanager
    def _get(
        self, path: str, headers: dict[str, str]
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """Yield the answer to a request: 200 or 206.

        Raises:
            Refused: It is another one.
        """
        challenged = False
        waited = 0
        while True:
            response = self._follow(f"/v2/{self._endpoint.repository}/{path}", headers)
            if response.status == 401 and not challenged:
                challenged = True
                used = self._authorization
                header = response.headers.get("WWW-Authenticate", "")
                _discard(response)
                self._log_in(header, used)
                continue
            if response.status in _AGAIN and waited < TRIES:
                waited += 1
                wait = _retry_after(response.headers.get("Retry-After", ""))
                _discard(response)
                self._sleep(0.1 * 2**waited if wait is None else min(wait, MAX_WAIT))
                continue
            break
        with self._lock:
            self._active.add(response)
        finished = False
        try:
            if response.status not in (200, 206):
                raise Refused(response.status, _reason(response))
            yield response
            finished = True
        finally:
            with self._lock:
                self._active.discard(response)
            if finished:
                response.release_conn()
            else:
                response.close()

    def _follow(self, path: str, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
        """Send a request, and follow redirects; only the registry gets credentials."""
        url = f"{self._known_scheme()}://{self._endpoint.host}{path}"
        own = _origin(url)
        for _ in range(MAX_HOPS):
            sent = dict(headers)
            if self._authorization and _origin(url) == own:
                sent["Authorization"] = self._authorization
            response = self._send("GET", url, sent)
            if response.status not in _REDIRECTS:
                return response
            target = response.headers.get("Location", "")
            _discard(response)
            before, url = url, urljoin(url, target)
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise FlattenError(f"{self._where}: a redirect to {shown(target)!r}")
            if parts.scheme == "http" and before.startswith("https:"):
                raise FlattenError(
                    f"{self._where}: a redirect from https to http, which is refused"
                )
        raise FlattenError(f"{self._where}: more than {MAX_HOPS} redirects in a row")

    def _send(
        self, method: str, url: str, headers: dict[str, str], **more: Any
    ) -> urllib3.BaseHTTPResponse:
        """Send one request."""
        if self._closed:
            raise FlattenError(f"{self._where}: cancelled")
        try:
            return self._pool(url).request(
                method, url, headers={"User-Agent": "flatten", **headers},
                redirect=False, retries=False, preload_content=False,
                timeout=urllib3.Timeout(connect=TIMEOUT, read=TIMEOUT), **more,
            )  # fmt: skip
        except urllib3.exceptions.SSLError as error:
            raise FlattenError(
                f"{self._where}: TLS: {_one_line(error)}; name the registry's "
                "authority with --cacert, or use --insecure"
            ) from error

    def _known_scheme(self) -> str:
        """Return ``https``; or ``http`` if that is allowed and all that is spoken."""
        with self._lock:
            if not self._scheme:
                self._scheme = "https"
                if self._endpoint.is_plain() and not self._speaks_tls():
                    self._scheme = "http"
            return self._scheme

    def _speaks_tls(self) -> bool:
        """Return True if the registry answers a TLS handshake."""
        name = host_name(self._endpoint.host)
        port = urlsplit(f"//{self._endpoint.host}").port or 443
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # nothing is sent here
        try:
            with (
                socket.create_connection((name, port), TIMEOUT) as plain,
                context.wrap_socket(plain, server_hostname=name),
            ):
                return True
        except OSError:
            return False

    def _pool(self, url: str) -> urllib3.PoolManager:
        """Return the connections to the registry itself, or to others."""
        own = urlsplit(url).netloc == self._endpoint.host
        with self._lock:
            if own not in self._pools:
                self._pools[own] = self._new_pool(url, own)
            return self._pools[own]

    def _new_pool(self, url: str, own: bool) -> urllib3.PoolManager:
        context = ssl.create_default_context()
        try:
            for path in self._endpoint.authorities:
                context.load_verify_locations(path)
            if own and self._endpoint.client is not None:
                context.load_cert_chain(*self._endpoint.client)
        except (OSError, ssl.SSLError) as error:
            raise SourceError(
                f"{self._where}: cannot use the certificates for it: {error}"
            ) from error
        if self._endpoint.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        proxy = _proxy(url)
        if proxy is not None:
            return urllib3.ProxyManager(proxy, ssl_context=context, maxsize=8)
        return urllib3.PoolManager(ssl_context=context, maxsize=8)

    # --- logging in

    def _log_in(self, challenge: str, used: str) -> None:
        """Answer a challenge: with a token, or with name and password."""
        with self._lock:
            if self._authorization != used:
                return  # another thread has
        scheme, _, rest = challenge.partition(" ")
        found = self._credentials()
        if scheme.lower() == "basic":
            if found is None:
                raise Refused(401, "it asks for a name and a password")
            if used == found.basic():
                raise Refused(401, "name or password is wrong")
            authorization = found.basic()
        elif scheme.lower() == "bearer":
            parameters = {
                name.lower(): re.sub(r"\\(.)", r"\1", quoted_) or plain
                for name, quoted_, plain in _PARAMETER.findall(rest)
            }
            authorization = "Bearer " + self._token(parameters, found)
        else:
            raise FlattenError(
                f"{self._where}: the registry asks to log in by {shown(scheme)!r}, "
                "which is neither Basic nor Bearer"
            )
        with self._lock:
            self._authorization = authorization

    def _token(self, parameters: dict[str, str], found: Credentials | None) -> str:
        """Fetch a token to pull with."""
        realm = parameters.get("realm", "")
        self._check_realm(realm)
        query = {
            "service": parameters.get("service", ""),
            "scope": f"repository:{self._endpoint.repository}:pull",
        }
        headers = {"Accept": "application/json"}
        if found is not None and found.identity_token:
            form = {**query, "grant_type": "refresh_token", "client_id": "flatten",
                    "refresh_token": found.identity_token}  # fmt: skip
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            response = self._send("POST", realm, headers, body=urlencode(form))
        else:
            if found is not None:
                headers["Authorization"] = found.basic()
            joint = "&" if "?" in realm else "?"
            response = self._send("GET", f"{realm}{joint}{urlencode(query)}", headers)
        try:
            if response.status != 200:
                raise Refused(response.status if response.status in (401, 403) else 401,
                              f"no token: HTTP {response.status}")  # fmt: skip
            body = self._body(response, MAX_ANSWER)
        finally:
            _discard(response)
        try:
            document = json.loads(body)
            token = document.get("token") or document.get("access_token")
        except (ValueError, AttributeError, RecursionError) as error:
            what = "the answer with a token is not JSON"
            raise FormatError(what, where=self._where) from error
        if not isinstance(token, str) or not re.fullmatch(r"[!-~]+", token):
            raise FormatError("the answer has no token", where=self._where)
        return token

    def _check_realm(self, realm: str) -> None:
        """Check that credentials may be sent to a realm that a registry names."""
        parts = urlsplit(realm)
        name, own = parts.hostname or "", host_name(self._endpoint.host)
        if parts.scheme == "https":
            allowed = name == own or _is_public(name)
        else:
            allowed = name == own and self._endpoint.is_plain()
        both_here = is_loopback(name) and is_loopback(own)
        if parts.scheme not in ("http", "https") or not (allowed or both_here):
            raise FlattenError(
                f"{self._where}: the registry sends for tokens to {shown(realm)!r}, "
                "which is neither https on a public host nor on its own"
            )

    def _body(self, response: urllib3.BaseHTTPResponse, limit: int) -> bytes:
        """Return a body of at most ``limit`` bytes."""
        out = bytearray()
        for data in response.stream(_CHUNK, decode_content=False):
            self.fetched += len(data)
            out += data
            if len(out) > limit:
                what = f"an answer of more than {limit:,} bytes"
                raise FormatError(what, where=self._where)
        return bytes(out)

    def _unreachable(self, error: Exception | None) -> FlattenError:
        if self._closed:
            return FlattenError(f"{self._where}: cancelled")
        return FlattenError(
            f"{self._where}: {self._endpoint.host}: {_one_line(error)} "
            f"(tried {TRIES} times)"
        )


def _discard(response: urllib3.BaseHTTPResponse) -> None:
    """Finish with an answer; its connection is used again if little is left to read."""
    length = response.headers.get("Content-Length", "")
    if length.isdecimal() and int(length) <= _CHUNK:
        with suppress(urllib3.exceptions.HTTPError, OSError):
            response.drain_conn()
    response.close() if response.length_remaining else response.release_conn()


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


def _is_public(name: str) -> bool:
    """Return True unless a host is an address, or name, of this machine or network."""
    try:
        return ip_address(name).is_global
    except ValueError:
        return "." in name and not name.endswith((".local", ".internal", ".localhost"))


def _retry_after(text: str) -> float | None:
    """Return the seconds that a Retry-After header asks for; dates are not used."""
    return float(text) if text.isdecimal() else None


def _reason(response: urllib3.BaseHTTPResponse) -> str:
    """Return the message of an error document, if the answer is one."""
    with suppress(
        ValueError, KeyError, IndexError, TypeError, RecursionError,
        urllib3.exceptions.HTTPError, OSError,
    ):  # fmt: skip
        body = response.read(MAX_ANSWER, decode_content=False)
        return shown(str(json.loads(body)["errors"][0]["message"]))[:200]
    return ""


def _one_line(error: Exception | None) -> str:
    """Return what went wrong, without the wrapping of the library."""
    while error is not None and isinstance(error.__context__, OSError):
        error = error.__context__
    if isinstance(error, urllib3.exceptions.ReadTimeoutError | TimeoutError):
        return f"no byte in {TIMEOUT:.0f} s"
    text = getattr(error, "strerror", None) or str(error).rpartition(": ")[2]
    return shown(str(text))


def _proxy(url: str) -> str | None:
    """Return the proxy for a URL, by the environment."""
    parts = urlsplit(url)
    if parts.hostname is None or proxy_bypass(parts.netloc):
        return None
    proxy = getproxies().get(parts.scheme)
    if proxy is None:
        return None
    return proxy if "://" in proxy else f"http://{proxy}"
