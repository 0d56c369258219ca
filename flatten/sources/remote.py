"""A file on a web server or in a bucket, of which only what is read is fetched.

Blocks are fetched once and kept in a scratch file, of which the kernel copies as of any
other. Reads that follow one another fetch more at a time, so an export transfers the
file in few requests, and a view of a plain archive little more than its headers.

HTTP ranges are closed, and count only with the right Content-Range. A server without
ranges sends everything at once. Whatever else fsspec opens (``s3://``, ``gs://``,
``az://``, ``sftp://``) needs the extra ``[remote]``.
"""

import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import urlsplit, urlunsplit

from ..errors import FlattenError, FormatError, SourceError, shown
from ..host.decompress import CHUNK
from ..host.spools import Pool, Spool

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

BLOCK: Final = 1 << 16  # bytes fetched at least
MOST: Final = 1 << 23  # and at most, in one request
_TIMEOUT: Final = 20.0
_TRIES: Final = 5


class Fetch(Protocol):
    """How bytes of a remote file are had.

    Attributes:
        size: Of the file.
    """

    size: int

    def __call__(self, start: int, stop: int) -> bytes:
        """Return the bytes of a range that is within the file."""


class RemoteFile:
    """A remote file with random access.

    Attributes:
        where: Its name in messages, without credentials.
        fetched: Bytes fetched so far.
    """

    def __init__(self, fetch: Fetch, where: str) -> None:
        """Fetch nothing yet."""
        self.where = where
        self.fetched = 0
        self._fetch = fetch
        self._have = bytearray(-(-fetch.size // BLOCK))  # by block
        self._next = 0  # the block after those fetched last
        self._ahead = 1  # blocks to fetch in the next request
        self._lock = threading.Lock()
        try:
            with tempfile.TemporaryFile() as scratch:
                self.descriptor = os.dup(scratch.fileno())
            os.truncate(self.descriptor, fetch.size)
        except OSError as error:
            raise FlattenError(
                f"cannot write scratch space in {tempfile.gettempdir()}: "
                f"{error.strerror}; set TMPDIR to another directory"
            ) from error

    def close(self) -> None:
        """Forget what was fetched; a second call does nothing."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def size(self) -> int:
        """Return the size that the server says."""
        return self._fetch.size

    def read(self, offset: int, count: int) -> bytes:
        """Return ``count`` bytes; fewer only at the end."""
        count = max(min(count, self._fetch.size - offset), 0)
        self._need(offset, offset + count)
        return os.pread(self.descriptor, count, offset)

    def readinto(self, offset: int, view: memoryview) -> None:
        """Fill ``view``."""
        if offset + len(view) > self._fetch.size:
            raise FormatError(
                "ends too soon", where=self.where, offset=self._fetch.size
            )
        self._need(offset, offset + len(view))
        while view:
            done = os.preadv(self.descriptor, [view], offset)
            view, offset = view[done:], offset + done

    def extent(self, offset: int) -> tuple[int, int, int] | None:
        """Return the scratch file, ``offset``, and how many bytes can be copied."""
        if offset >= self._fetch.size:
            return None
        stop = min(offset + MOST, self._fetch.size)
        self._need(offset, stop)
        return self.descriptor, offset, stop - offset

    def origin(self, offset: int) -> None:  # noqa: ARG002 - of LayerBytes
        """Return None: the bytes are in no permanent file."""
        return

    def sample(self) -> None:
        """Return None."""
        return

    def release(self, offset: int, count: int) -> None:
        """Do nothing: they may be read again."""

    def _need(self, start: int, stop: int) -> None:
        """Fetch the blocks of a range that are not here yet."""
        with self._lock:
            block, last = start // BLOCK, -(-stop // BLOCK)
            while block < last:
                if self._have[block]:
                    block += 1
                    continue
                self._ahead = (
                    min(self._ahead * 2, MOST // BLOCK) if block == self._next else 1
                )
                most = block + max(self._ahead, min(last - block, MOST // BLOCK))
                end = block
                while end < min(most, len(self._have)) and not self._have[end]:
                    end += 1
                self._keep(block, end)
                block = self._next = end

    def _keep(self, first: int, end: int) -> None:
        """Fetch some blocks, and keep them."""
        start, stop = first * BLOCK, min(end * BLOCK, self._fetch.size)
        data = self._fetch(start, stop)
        self.fetched += len(data)
        if len(data) != stop - start:
            raise FlattenError(
                f"{self.where}: got {len(data):,} of {stop - start:,} bytes at byte "
                f"{start:,}"
            )
        try:
            done = 0
            while done < len(data):
                done += os.pwrite(
                    self.descriptor, memoryview(data)[done:], start + done
                )
        except OSError as error:
            raise FlattenError(
                f"cannot write scratch space: {error.strerror}; set TMPDIR to another "
                "directory"
            ) from error
        self._have[first:end] = b"\1" * (end - first)


def open_url(url: str, pool: Pool, resources: ExitStack) -> RemoteFile | Spool:
    """Open a URL; what a server cannot send in parts is read to its end.

    Raises:
        SourceError: There is no such file, or its server cannot be used.
        FlattenError: fsspec, or what it needs for this kind of URL, is not installed.
    """
    where = without_secrets(url)
    if urlsplit(url).scheme not in ("http", "https"):
        file = RemoteFile(_Fsspec(url, where, resources), where)
    else:
        http = _Http(url, where, resources)
        whole = http.begin()
        if whole is not None:
            spool = pool.spool(where)
            pool.fill(spool, whole)
            spool.finish()
            return spool
        file = RemoteFile(http, where)
    resources.callback(file.close)
    return file


def without_secrets(url: str) -> str:
    """Return a URL as it may be shown: without a password and a query.

    >>> without_secrets("https://me:secret@example.org/a.tar?token=1")
    'https://example.org/a.tar'
    """
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return shown(urlunsplit((parts.scheme, host, parts.path, "", "")))


class _Http:
    """Ranges of a file on a web server.

    Attributes:
        size: Of the file, once ``begin`` has returned None.
    """

    def __init__(self, url: str, where: str, resources: ExitStack) -> None:
        import urllib3  # 60 ms, for URLs only

        self.size = 0
        self._where = where
        self._url = url
        self._errors = urllib3.exceptions.HTTPError
        self._version = ""
        retries = urllib3.Retry(
            _TRIES, backoff_factor=0.2, status_forcelist=(429, 500, 502, 503, 504),
            raise_on_status=False,
        )  # fmt: skip
        self._pool = urllib3.PoolManager(
            retries=retries, timeout=urllib3.Timeout(_TIMEOUT)
        )
        resources.callback(self._pool.clear)

    def begin(self) -> Iterator[bytes] | None:
        """Learn the size; where the server knows no ranges, return the whole file."""
        answer = self._get(0, 1)
        total = answer.headers.get("Content-Range", "").rpartition("/")[2]
        if answer.status == 200:
            return self._chunks(answer)
        if answer.status == 206 and total.isdecimal():
            self.size = int(total)
        elif answer.status != 416:  # an empty file has no first byte
            raise SourceError(f"{self._where}: HTTP {answer.status}")
        self._version = _version(answer)
        answer.drain_conn()
        answer.release_conn()
        return None

    def _chunks(self, answer: "BaseHTTPResponse") -> Iterator[bytes]:
        try:
            yield from answer.stream(CHUNK, decode_content=False)
        except self._errors as error:
            raise FlattenError(f"{self._where}: {shown(str(error))}") from error

    def __call__(self, start: int, stop: int) -> bytes:
        """Return the bytes of a range."""
        answer = self._get(start, stop)
        want = f"bytes {start}-{stop - 1}/{self.size}"
        found = answer.headers.get("Content-Range") or f"HTTP {answer.status}"
        if answer.status != 206 or found != want:
            raise FormatError(
                f"the server sent {shown(found)}, asked for {want}", where=self._where
            )
        if _version(answer) != self._version:
            raise FlattenError(f"{self._where}: changed while being read")
        data = b"".join(self._chunks(answer))
        answer.release_conn()
        return data

    def _get(self, start: int, stop: int) -> "BaseHTTPResponse":
        headers = {
            "Range": f"bytes={start}-{stop - 1}", "User-Agent": "flatten",
            "Accept-Encoding": "identity",
        }  # fmt: skip
        try:
            return self._pool.request(
                "GET", self._url, headers=headers, preload_content=False
            )
        except self._errors as error:
            reason = getattr(error, "reason", None) or error
            raise SourceError(f"{self._where}: {shown(str(reason))}") from error


def _version(answer: "BaseHTTPResponse") -> str:
    return answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""


class _Fsspec:
    """Ranges of a file that fsspec opens."""

    def __init__(self, url: str, where: str, resources: ExitStack) -> None:
        try:
            import fsspec  # 60 ms, for other URLs only
        except ImportError as error:
            raise FlattenError(
                f"{where}: needs fsspec: pip install 'flatten[remote]'"
            ) from error
        self._where = where
        try:
            file = fsspec.open(url, "rb", cache_type="none").open()
        except (ImportError, ValueError) as error:
            raise FlattenError(f"{where}: {shown(str(error))}") from error
        except OSError as error:
            raise SourceError(
                f"{where}: {shown(error.strerror or str(error))}"
            ) from error
        resources.callback(file.close)
        self._file = file
        self.size: int = file.seek(0, os.SEEK_END)

    def __call__(self, start: int, stop: int) -> bytes:
        """Return the bytes of a range."""
        read: Callable[[int], bytes] = self._file.read
        try:
            self._file.seek(start)
            out = bytearray()
            while len(out) < stop - start and (data := read(stop - start - len(out))):
                out += data
        except OSError as error:
            raise FlattenError(f"{self._where}: {shown(str(error))}") from error
        return bytes(out)
