"""A file on a web server or in a bucket, of which only what is read is fetched.

Blocks are fetched once, and kept in a scratch file, from which the kernel copies as
from any other. The longer the run of blocks that are here, the more are fetched after
it in one request. So an export fetches the file in few requests, and a view of a plain
archive fetches little more than the headers.

HTTP ranges are closed, and an answer counts only if its Content-Range is the range that
was asked for. A server without ranges sends the whole file. Other URLs that fsspec
opens (``s3://``, ``gs://``, ``az://``, ``sftp://``) need the extra ``[remote]``.
"""

import os
import re
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import urlsplit, urlunsplit

from ..errors import FlattenError, FormatError, SourceError, UsageError, shown
from ..host.files import LayerBytes, fill
from ..host.spools import Pool
from ..image.image import Transfer
from ..options import Access

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

BLOCK: Final = 1 << 16  # bytes that are fetched at least, unless told otherwise
MOST: Final = 1 << 23  # and at most, in one request
MAX_SIZE: Final = 1 << 42  # bytes of a file


class Fetch(Protocol):
    """Fetches ranges of a remote file.

    Attributes:
        size: The size of the file.
    """

    size: int

    def __call__(self, start: int, stop: int) -> bytes:
        """Return the bytes of a range that is within the file."""


class RemoteFile(LayerBytes):
    """A remote file with random access.

    Attributes:
        where: Its name in messages, without credentials.
        fetched: Bytes fetched so far.
    """

    def __init__(self, fetch: Fetch, where: str, block: int = BLOCK) -> None:
        """Prepare to fetch, without fetching yet.

        Args:
            fetch: Fetches parts of the file.
            where: Its name in messages.
            block: Bytes that are fetched at least; it divides ``MOST``.

        Raises:
            FormatError: The file is too large.
            FlattenError: There is no scratch space.
        """
        if fetch.size > MAX_SIZE:
            raise FormatError(f"{fetch.size:,} bytes, over {MAX_SIZE:,}", where=where)
        self.where = where
        self.fetched = 0
        self._fetch = fetch
        self._block = block
        self._here = bytearray(-(-fetch.size // block))  # by block, 1 if it is here
        self._lock = threading.Lock()
        try:
            with tempfile.TemporaryFile() as scratch:
                self.descriptor = os.dup(scratch.fileno())
            os.truncate(self.descriptor, fetch.size)
        except OSError as error:
            raise _no_space(error) from error

    def close(self) -> None:
        """Delete what was fetched; a second call does nothing."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def size(self) -> int:
        """Return the size that the server says."""
        return self._fetch.size

    def read(self, offset: int, count: int) -> bytes:
        """Return ``count`` bytes; fewer only at the end."""
        out = bytearray(max(min(count, self._fetch.size - offset), 0))
        self.readinto(offset, memoryview(out))
        return bytes(out)

    def readinto(self, offset: int, view: memoryview) -> None:
        """Fill ``view``."""
        if offset + len(view) > self._fetch.size:
            raise FormatError(
                "ends too soon", where=self.where, offset=self._fetch.size
            )
        self.fetch(offset, offset + len(view))
        fill(self.descriptor, view, offset)

    def extent(self, offset: int) -> tuple[int, int, int] | None:
        """Return the scratch file, ``offset``, and how many bytes can be copied."""
        if offset >= self._fetch.size:
            return None
        self.fetch(offset, offset + 1)
        end = self._here.find(0, offset // self._block)
        stop = self._fetch.size if end < 0 else end * self._block
        return self.descriptor, offset, stop - offset

    def is_here(self) -> bool:
        """Return False: a process that was forked cannot share the connections."""
        return False

    def fetches_parts(self) -> bool:
        """Return True."""
        return True

    def fetch(self, start: int, stop: int) -> None:
        """Fetch the blocks of a range that are not here yet."""
        with self._lock:
            block, last = start // self._block, -(-stop // self._block)
            while (block := self._here.find(0, block, last)) >= 0:
                before = self._here.rfind(0, 0, block)
                run = block - 1 - before  # blocks before it that are here
                most = min(max(run, last - block), MOST // self._block)
                end = self._here.find(1, block, block + most)
                end = min(block + most, len(self._here)) if end < 0 else end
                self._keep(block, end)
                block = end

    def _keep(self, first: int, end: int) -> None:
        """Fetch some blocks, and keep them."""
        start = first * self._block
        stop = min(end * self._block, self._fetch.size)
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
                part = memoryview(data)[done:]
                done += os.pwrite(self.descriptor, part, start + done)
        except OSError as error:
            raise _no_space(error) from error
        self._here[first:end] = b"\1" * (end - first)


def _no_space(error: OSError) -> FlattenError:
    return FlattenError(
        f"cannot write scratch space in {tempfile.gettempdir()}: {error.strerror}; set "
        "TMPDIR to another directory"
    )


def open_url(
    url: str, pool: Pool, access: Access, resources: ExitStack
) -> tuple[LayerBytes, str, Callable[[], Transfer]]:
    """Open a URL; what a server cannot send in parts is read to its end.

    Returns:
        The file; its name in messages; and what returns how much of it was fetched.

    Raises:
        UsageError: The URL is not valid, or has a password in it.
        SourceError: There is no such file.
        FlattenError: The server cannot be reached; or fsspec, or what it needs for this
            kind of URL, is not installed.
    """
    try:
        where = without_secrets(url)
    except ValueError as error:  # which may show a password
        raise UsageError("the URL of the image is not valid") from error
    if urlsplit(url).scheme not in ("http", "https"):
        file = RemoteFile(_Fsspec(url, where), where)
    else:
        http = _Http(url, where, access, resources)
        whole = http.begin()
        if whole is not None:
            spool = pool.spool(where)
            pool.fill(spool, whole)
            spool.finish()
            return spool, where, lambda: Transfer(spool.length(), spool.length())
        file = RemoteFile(http, where)
    resources.callback(file.close)
    return file, where, lambda: Transfer(file.fetched, file.size())


def without_secrets(url: str) -> str:
    """Return a URL for messages: without a password and a query.

    >>> without_secrets("https://me:secret@example.org/a.tar?token=1")
    'https://example.org/a.tar'
    """
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return shown(urlunsplit((parts.scheme, host, parts.path, "", "")))


class _Http:
    """Ranges of a file on a web server.

    Attributes:
        size: The size of the file, once ``begin`` has returned None.
    """

    def __init__(
        self, url: str, where: str, access: Access, resources: ExitStack
    ) -> None:
        """Prepare to connect, without connecting yet."""
        from .transport import Transport, Trust, is_http  # urllib3, 60 ms

        if not is_http(url):
            raise UsageError(f"{where}: not a valid host or port")
        if "@" in urlsplit(url).netloc:
            raise UsageError(
                f"{where}: a URL with a user name or password, which other users of "
                "this machine could see, is not supported"
            )
        self.size = 0
        self._where = where
        self._url = url
        self._version: list[str | None] | None = None
        self._transport = Transport(
            where, urlsplit(url).netloc, Trust.by(access), access.waiting
        )
        resources.callback(self._transport.close)

    def begin(self) -> Iterator[bytes] | None:
        """Learn the size; if the server has no ranges, return the whole file."""
        whole = self._transport.retrying(self._begin)
        first = next(whole, None)
        return None if first is None else chain((first,), whole)

    def _begin(self, done: int) -> Iterator[bytes]:
        """Ask for one byte; if all come, yield them but for the first ``done``."""
        with self._get(0, 1) as answer:
            found = answer.headers.get("Content-Range", "")
            known = re.fullmatch(r"bytes 0-0/([0-9]{1,18})", found)
            if answer.status == 206 and known:
                self.size = int(known[1])
            elif answer.status == 200:
                yield from _skipping(done, self._transport.chunks(answer))
            elif answer.status == 206:
                raise FormatError("the server does not say its size", where=self._where)
            elif answer.status != 416:  # an empty file has no first byte
                raise SourceError(f"{self._where}: HTTP {answer.status}")

    def __call__(self, start: int, stop: int) -> bytes:
        """Return the bytes of a range."""
        attempt = partial(self._range, start, stop)
        return b"".join(self._transport.retrying(attempt))

    def _range(self, start: int, stop: int, done: int) -> Iterator[bytes]:
        """Yield the bytes of a range but for the first ``done``, in one request."""
        with self._get(start + done, stop) as answer:
            want = f"bytes {start + done}-{stop - 1}/{self.size}"
            found = answer.headers.get("Content-Range") or f"HTTP {answer.status}"
            if answer.status != 206 or found != want:
                raise FormatError(
                    f"the server sent {shown(found)}, asked for {want}",
                    where=self._where,
                )
            left = stop - start - done
            for data in self._transport.chunks(answer):
                left -= len(data)
                if left < 0:
                    raise FormatError(
                        f"the server sends more than {want}", where=self._where
                    )
                yield data
            if left:
                raise ConnectionError(f"ended {left:,} bytes too soon")

    @contextmanager
    def _get(self, start: int, stop: int) -> Iterator["BaseHTTPResponse"]:
        """Yield the answer to a request for a range.

        Raises:
            FlattenError: The file is another one than at the first request.
        """
        headers = {
            "Accept-Encoding": "identity",
            "Range": f"bytes={start}-{stop - 1}",
        }
        with self._transport.get(self._url, headers) as answer:
            if answer.status in (200, 206):
                names = ("ETag", "Last-Modified")
                version = [answer.headers.get(name) for name in names]
                if self._version not in (None, version):
                    raise FlattenError(f"{self._where}: changed while being read")
                self._version = version
            yield answer


def _skipping(count: int, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the bytes of chunks after the first ``count``."""
    for chunk in chunks:
        if part := chunk[count:]:
            yield part
        count = max(count - len(chunk), 0)


class _Fsspec:
    """Ranges of a file that fsspec opens.

    Attributes:
        size: The size of the file.
    """

    def __init__(self, url: str, where: str) -> None:
        """Learn the size."""
        self._where = where
        with fsspec_errors(where):
            self._files, self._path = fsspec_files(url, where)
            size = self._files.size(self._path)
        if size is None:
            raise SourceError(f"{where}: its size is not known")
        self.size = int(size)

    def __call__(self, start: int, stop: int) -> bytes:
        """Return the bytes of a range."""
        with fsspec_errors(self._where):
            # By keyword: in s3fs, the second parameter is the object's version.
            return bytes(self._files.cat_file(self._path, start=start, end=stop))


def fsspec_files(url: str, where: str) -> tuple[Any, str]:
    """Return the file system of a URL, and the path in it.

    Where fsspec's own package for object storage is missing, obstore is used.

    Raises:
        FlattenError: fsspec is missing.
        Exception: The package for this kind of URL is missing, or does not like it.
    """
    try:
        from fsspec.core import url_to_fs  # 80 ms
    except ImportError as error:
        raise FlattenError(
            f"{where}: needs fsspec: pip install 'flatten-image[remote]'"
        ) from error
    try:
        files, path = url_to_fs(url)
    except ImportError:
        try:
            from obstore.fsspec import register
        except ImportError:
            pass
        else:
            register(urlsplit(url).scheme)
        files, path = url_to_fs(url)
    return files, path


@contextmanager
def fsspec_errors(where: str) -> Iterator[None]:
    """Turn exceptions into those of flatten.

    fsspec's packages raise their own: there is no common base but Exception.
    """
    try:
        yield
    except FlattenError:
        raise
    except FileNotFoundError as error:
        raise SourceError(f"{where}: No such file or directory") from error
    except Exception as error:
        why = shown(getattr(error, "strerror", None) or str(error) or repr(error))
        raise FlattenError(f"{where}: {why}") from error
