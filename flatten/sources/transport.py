"""HTTP to a registry or a web server: redirects, repeated requests, TLS, proxies.

What other clients learnt, and this one holds to:

- An Authorization header goes to the host that it is for, and to no host that this one
  redirects to.
- Plain HTTP is for this machine only, unless the user allows it. A redirect from HTTPS
  to HTTP is always refused.
- 429 and 503 wait as long as Retry-After says, within a bound.
- A transfer that brings no byte for a while has stalled, and is begun again.
"""

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3

from ..errors import FlattenError, FormatError, SourceError, quoted, shown
from ..options import Access

CONNECT: Final = 10.0  # seconds until a connection is given up
TIMEOUT: Final = 20.0  # seconds without a byte after which a transfer has stalled
TRIES: Final = 5  # in a row, without a byte gained
MAX_WAIT: Final = 60.0  # seconds that Retry-After may ask for
MAX_HOPS: Final = 5
_CHUNK: Final = 1 << 18
_AGAIN: Final = frozenset((408, 429, 500, 502, 503, 504))
_REDIRECTS: Final = frozenset((301, 302, 303, 307, 308))
_BROKEN: Final = (urllib3.exceptions.HTTPError, OSError)

LogIn = Callable[[str, str], None]
"""Takes a WWW-Authenticate header, and the Authorization that was not enough."""


@dataclass(frozen=True, slots=True)
class Trust:
    """Which servers are trusted.

    Attributes:
        authorities: PEM files of certificate authorities to trust as well.
        client: PEM files of a certificate and its key to show to the server, if any.
        insecure: Allow plain HTTP, and certificates that cannot be verified.
    """

    authorities: tuple[str, ...] = ()
    client: tuple[str, str] | None = None
    insecure: bool = False

    @classmethod
    def by(cls, access: Access) -> "Trust":
        """Return what the user's options say."""
        authorities = () if access.cacert is None else (access.cacert,)
        return cls(authorities, insecure=access.insecure)

    def allows_plain(self, host: str) -> bool:
        """Return True if plain HTTP to a host is allowed."""
        return self.insecure or is_loopback(host)


class Transport:
    """Requests to one host, and to those it redirects to, from any number of threads.

    Attributes:
        authorization: The value of the Authorization header for the host, or "".
        fetched: Bytes of bodies received.
    """

    def __init__(
        self,
        where: str,
        host: str,
        trust: Trust,
        waiting: Callable[[str], object] | None = None,
    ) -> None:
        """Prepare to connect, without connecting yet.

        Args:
            where: What is fetched, in messages.
            host: The host, with its port if one is given.
            trust: The options of TLS for that host.
            waiting: As of ``Access``.
        """
        self._waiting = waiting
        self.authorization = ""
        self.fetched = 0
        self._where = where
        self._host = host
        self._trust = trust
        self._lock = threading.Lock()
        self._closed = False
        self._active: set[urllib3.BaseHTTPResponse] = set()
        self._pools: dict[tuple[str, bool, str | None], urllib3.PoolManager] = {}

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

    def retrying(self, attempt: Callable[[int], Iterator[bytes]]) -> Iterator[bytes]:
        """Yield the chunks of attempts, one after another, until one is complete.

        Args:
            attempt: Yields chunks, given how many bytes the attempts before it yielded.

        Raises:
            FlattenError: Too many attempts in a row brought no byte.
        """
        failed = done = 0
        while True:
            try:
                for chunk in attempt(done):
                    failed = 0
                    done += len(chunk)
                    yield chunk
            except _BROKEN as error:
                failed += 1
                if failed == TRIES or self._closed:
                    raise self._unreachable(error) from error
                self._wait(one_line(error), 0.1 * 2**failed)
            else:
                return

    @contextmanager
    def get(
        self,
        url: str,
        headers: dict[str, str],
        log_in: LogIn | None = None,
        *,
        method: str = "GET",
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """Yield the answer to a GET or HEAD request, whatever its status.

        Args:
            url: Of the host.
            headers: Headers for all hosts that are asked.
            log_in: Called once if the answer is 401, to set ``authorization``.
            method: ``GET`` or ``HEAD``.
        """
        response = self._answer(method, url, headers, log_in)
        with self._lock:
            self._active.add(response)
        finished = False
        try:
            yield response
            finished = True
        finally:
            with self._lock:
                self._active.discard(response)
            if finished:
                discard(response)
            else:
                response.close()

    def _answer(
        self, method: str, url: str, headers: dict[str, str], log_in: LogIn | None
    ) -> urllib3.BaseHTTPResponse:
        """Return the answer; log in, and wait for a busy server."""
        waited = 0
        while True:
            used = self.authorization
            response = self._follow(method, url, headers)
            if response.status == 401 and log_in is not None:
                challenge = response.headers.get("WWW-Authenticate", "")
                discard(response)
                log_in(challenge, used)
                log_in = None
            elif response.status in _AGAIN and waited < TRIES:
                waited += 1
                wait = _retry_after(response.headers.get("Retry-After", ""))
                discard(response)
                seconds = 0.1 * 2**waited if wait is None else min(wait, MAX_WAIT)
                self._wait(f"HTTP {response.status}", seconds)
            else:
                return response

    def _follow(
        self, method: str, url: str, headers: dict[str, str]
    ) -> urllib3.BaseHTTPResponse:
        """Send a request, and follow redirects."""
        own = _origin(url)
        for _ in range(MAX_HOPS):
            sent = dict(headers)
            if self.authorization and _origin(url) == own:
                sent["Authorization"] = self.authorization
            response = self.send(method, url, sent)
            if response.status not in _REDIRECTS:
                return response
            target = response.headers.get("Location", "")
            discard(response)
            url = self._redirected(url, target)
        raise FlattenError(f"{self._where}: more than {MAX_HOPS} redirects in a row")

    def _redirected(self, before: str, target: str) -> str:
        """Return the URL that a Location header refers to.

        Raises:
            FlattenError: It is not a URL, or not one to follow.
        """
        try:
            url = urljoin(before, target)
        except ValueError:
            url = ""
        if not is_http(url):
            raise FlattenError(f"{self._where}: a redirect to {quoted(target)}")
        if url.startswith("http:") and before.startswith("https:"):
            raise FlattenError(f"{self._where}: a redirect from https to http")
        return url

    def send(
        self, method: str, url: str, headers: dict[str, str], **more: Any
    ) -> urllib3.BaseHTTPResponse:
        """Send one request, and return the answer, whatever it is.

        Raises:
            FlattenError: Plain HTTP is not allowed, or the server's certificate cannot
                be verified.
        """
        if self._closed:
            raise FlattenError(f"{self._where}: cancelled")
        parts = urlsplit(url)
        if parts.scheme == "http" and not self._trust.allows_plain(parts.netloc):
            raise FlattenError(
                f"{self._where}: {shown(parts.netloc)} would be asked by plain HTTP; "
                "--insecure allows that"
            )
        timeout = urllib3.Timeout(connect=min(CONNECT, TIMEOUT), read=TIMEOUT)
        try:
            return self._pool(url).request(
                method, url, headers={"User-Agent": "flatten", **headers},
                redirect=False, retries=False, preload_content=False,
                timeout=timeout, **more,
            )  # fmt: skip
        except urllib3.exceptions.SSLError as error:
            why = one_line(error)
            if "alert" in why.lower():  # that is what the server says
                raise FlattenError(
                    f"{self._where}: TLS: the server refuses the connection: {why}; it "
                    "may ask for a client's certificate, from certs.d"
                ) from error
            raise FlattenError(
                f"{self._where}: TLS: {why}; name the authority of the certificate "
                "with --cacert, or use --insecure"
            ) from error

    def _pool(self, url: str) -> urllib3.PoolManager:
        """Return the connections to the host itself, or to others."""
        parts = urlsplit(url)
        key = parts.scheme, parts.netloc == self._host, _proxy(url)
        with self._lock:
            if key not in self._pools:
                self._pools[key] = self._new_pool(*key)
            return self._pools[key]

    def _new_pool(
        self, scheme: str, own: bool, proxy: str | None
    ) -> urllib3.PoolManager:
        if scheme == "http" and (proxy is None or proxy.startswith("http:")):
            context = None  # authorities take 20 ms to load
        else:
            context = self._context(own=own)
        if proxy is not None:
            return urllib3.ProxyManager(proxy, ssl_context=context, maxsize=8)
        return urllib3.PoolManager(ssl_context=context, maxsize=8)

    def _context(self, *, own: bool) -> ssl.SSLContext:
        """Return the options of TLS for the host itself, or for others."""
        context = ssl.create_default_context()
        for path in self._trust.authorities:
            with self._naming(path):
                context.load_verify_locations(path)
        if self._trust.authorities:  # the user's own, which often lack extensions
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # on from Python 3.13
        if own and self._trust.client is not None:
            with self._naming(self._trust.client[0]):
                context.load_cert_chain(*self._trust.client)
        if self._trust.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        return context

    @contextmanager
    def _naming(self, path: str) -> Iterator[None]:
        """Name a file of certificates in the error that ssl raises for it."""
        try:
            yield
        except OSError as error:  # SSLError is one
            is_ssl = isinstance(error, ssl.SSLError)
            why = "not a certificate in PEM, with its key" if is_ssl else error.strerror
            raise SourceError(f"{self._where}: {shown(path)}: {why}") from error

    def chunks(self, response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
        """Yield the bytes of a body, as they were sent."""
        for data in response.stream(_CHUNK, decode_content=False):
            with self._lock:
                self.fetched += len(data)
            yield data

    def body(self, response: urllib3.BaseHTTPResponse, limit: int) -> bytes:
        """Return a body of at most ``limit`` bytes.

        Raises:
            FormatError: It has more.
        """
        out = bytearray()
        for data in self.chunks(response):
            out += data
            if len(out) > limit:
                what = f"an answer of more than {limit:,} bytes"
                raise FormatError(what, where=self._where)
        return bytes(out)

    def _wait(self, why: str, seconds: float) -> None:
        """Wait before a request is repeated, and say so."""
        if self._waiting is not None and not self._closed:
            later = f" in {seconds:.0f} s" if seconds >= 1 else ""
            self._waiting(f"{self._where}: {self._host}: {why}; trying again{later}")
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self._closed:
            time.sleep(min(left, 0.1))

    def _unreachable(self, error: Exception) -> FlattenError:
        if self._closed:
            return FlattenError(f"{self._where}: cancelled")
        return FlattenError(
            f"{self._where}: {self._host}: {one_line(error)} (tried {TRIES} times)"
        )


def discard(response: urllib3.BaseHTTPResponse) -> None:
    """Finish with an answer; its connection is used again if little is left to read."""
    length = response.headers.get("Content-Length", "")
    if length.isdecimal() and int(length) <= _CHUNK:
        with suppress(*_BROKEN):
            response.drain_conn()
    response.close() if response.length_remaining else response.release_conn()


def is_http(url: str) -> bool:
    """Return True for a URL of HTTP or HTTPS with a valid host and port.

    >>> is_http("https://a.example:5000/b"), is_http("https://a:99999"), is_http("ftp://a")
    (True, False, False)
    """
    try:
        parts = urlsplit(url)
        valid = parts.port is None or parts.port > 0
    except ValueError:
        return False
    return valid and parts.scheme in ("http", "https") and bool(parts.hostname)


def is_loopback(host: str) -> bool:
    """Return True if a host is this machine.

    >>> is_loopback("localhost:5000"), is_loopback("[::1]"), is_loopback("10.0.0.1")
    (True, True, False)
    """
    name = host_name(host)
    try:
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False


def host_name(host: str) -> str:
    """Return a host without its port.

    >>> host_name("a.example:5000"), host_name("[::1]:5000")
    ('a.example', '::1')
    """
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def one_line(error: Exception) -> str:
    """Return what went wrong, without the wrapping of the library."""
    found: BaseException = error
    while isinstance(found.__context__, OSError):
        found = found.__context__
    if type(error) is urllib3.exceptions.ConnectTimeoutError:  # others inherit it
        return f"no connection in {min(CONNECT, TIMEOUT):.0f} s"
    if isinstance(found, urllib3.exceptions.ReadTimeoutError | TimeoutError):
        return f"no byte in {TIMEOUT:.0f} s"
    text = getattr(found, "strerror", None) or str(found).rpartition(": ")[2]
    return shown(str(text))


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


def _retry_after(text: str) -> float | None:
    """Return the seconds that a Retry-After header asks for; dates are not used."""
    return float(text) if text.isdecimal() and text.isascii() else None


def _proxy(url: str) -> str | None:
    """Return the proxy for a URL, by the environment; this machine needs none."""
    parts = urlsplit(url)
    if is_loopback(parts.netloc) or proxy_bypass(parts.netloc):
        return None
    proxy = getproxies().get(parts.scheme)
    if proxy is None:
        return None
    return proxy if "://" in proxy else f"http://{proxy}"
