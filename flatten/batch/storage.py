"""Outputs of a batch on this machine or behind URLs, and the document beside each.

The document is written after its output. So an output is complete exactly if its
document is there and gives its size.
"""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from ..errors import FlattenError, quoted, shown
from ..host.compress import PlainSink
from ..outputs import atomic
from ..sources.references import is_url
from ..sources.remote import fsspec_errors, fsspec_files
from .names import key_path

FORMAT: Final = 1
"""The version of the document."""

_MAX_DOCUMENT: Final = 1 << 20


def finished(output: str, digest: str, fingerprint: str) -> dict[str, Any] | None:
    """Return the document of an output that is complete; None if it is not.

    Args:
        output: The output's path or URL.
        digest: The digest of the image that it must have been made from.
        fingerprint: The digest of the options that it must have been made with.

    Raises:
        FlattenError: The storage cannot be read.
    """
    document = _document(output)
    wanted = {"digest": digest, "options": fingerprint}
    if document is None or not wanted.items() <= document.items():
        return None
    size = _store(output).size(output)
    return document if size == (document.get("bytes"),) else None


@contextmanager
def replacing(output: str, *, force: bool) -> Iterator[bool]:
    """Yield True if the output may replace a directory that is not empty.

    It may if the document beside it says that a batch made that directory. Until the
    new output is recorded, the document says no more than this: after a kill in between
    nobody knows which of the two outputs is there.

    Args:
        output: The output's path or URL.
        force: Replace any directory.

    Raises:
        FlattenError: The storage cannot be read or written.
    """
    known = _document(output) is not None
    mark = known or (_is_directory(output) and (force or _is_free(output)))
    if mark:
        if not known:
            make_parent(output)
        record(output, {})
    try:
        yield known or force
    except BaseException:
        if mark and not known:
            with suppress(OSError):
                os.unlink(key_path(output))
        raise


def _document(output: str) -> dict[str, Any] | None:
    """Return the document beside an output; None if a batch has written none."""
    try:
        document = json.loads(_store(output).read(key_path(output)) or b"null")
    except (ValueError, RecursionError):  # another program's file
        return None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        return None
    return document


def _is_directory(output: str) -> bool:
    return output.endswith("/") and not is_url(output)


def _is_free(path: str) -> bool:
    """Return True if a directory is missing or empty."""
    try:
        return not os.listdir(path)
    except FileNotFoundError:
        return True
    except OSError as error:
        raise FlattenError(f"{quoted(path)}: {error.strerror}") from error


@contextmanager
def placed(output: str) -> Iterator[str]:
    """Yield a path to write; what is there at the end appears under the output's name.

    Raises:
        FlattenError: The storage cannot be written; nothing new appears there.
    """
    store = _store(output)
    with store.placed(output) as path:
        yield path


def record(output: str, document: dict[str, Any]) -> None:
    """Write the document beside an output, which is complete.

    Raises:
        FlattenError: The storage cannot be written.
    """
    text = json.dumps({"format": FORMAT, **document}, indent=2) + "\n"
    _store(output).write(key_path(output), text.encode())


def make_parent(path: str) -> None:
    """Create the directory that a path is in, if it is missing.

    Raises:
        FlattenError: It cannot be created.
    """
    folder = os.path.dirname(path.removesuffix("/"))
    try:
        os.makedirs(folder or ".", exist_ok=True)
    except OSError as error:
        raise FlattenError(f"{quoted(folder)}: {error.strerror}") from error


class _Local:
    """The file system of this machine."""

    @staticmethod
    def read(path: str) -> bytes | None:
        """Return the bytes of a document, or None if there is none."""
        try:
            with open(path, "rb") as file:
                return file.read(_MAX_DOCUMENT)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None
        except OSError as error:
            raise FlattenError(f"{quoted(path)}: {error.strerror}") from error

    @staticmethod
    def size(path: str) -> tuple[int | None] | None:
        """Return a file's size, ``(None,)`` for a directory, None if it is missing."""
        try:
            return (None,) if os.path.isdir(path) else (os.stat(path).st_size,)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise FlattenError(f"{quoted(path)}: {error.strerror}") from error

    @staticmethod
    @contextmanager
    def placed(path: str) -> Iterator[str]:
        """Yield the path itself, as outputs on this machine are atomic."""
        make_parent(path)
        yield path

    @staticmethod
    def write(path: str, data: bytes) -> None:
        """Write a document, which appears as a whole."""
        with atomic.create(Path(path)) as descriptor:
            sink = PlainSink(descriptor, quoted(path))
            view = memoryview(data)
            while view:
                view = view[sink.write(view) :]


class _Remote:
    """Object storage, or another file system that fsspec reaches."""

    def __init__(self, url: str) -> None:
        """Prepare to connect.

        Raises:
            FlattenError: fsspec, or its package for this kind of URL, is missing.
        """
        with fsspec_errors(shown(url)):
            self._files, _ = fsspec_files(url, shown(url))

    def read(self, url: str) -> bytes | None:
        """Return the bytes of a document, or None if there is none."""
        with fsspec_errors(shown(url)):
            try:
                data = self._files.cat_file(url, start=0, end=_MAX_DOCUMENT)
                return bytes(data)
            except FileNotFoundError:
                return None

    def size(self, url: str) -> tuple[int | None] | None:
        """Return an object's size, or None if it is missing."""
        with fsspec_errors(shown(url)):
            try:
                return (int(self._files.info(url)["size"]),)
            except FileNotFoundError:
                return None

    @contextmanager
    def placed(self, url: str) -> Iterator[str]:
        """Yield a path in scratch space, whose file is uploaded at the end.

        The object appears at the end of one upload. An object that was not there before
        is created only if it still is not: another worker that was faster has written
        the same bytes.
        """
        if url.endswith("/"):
            raise FlattenError(f"{shown(url)}: a directory cannot be written to a URL")
        known = self.size(url) is not None
        with tempfile.TemporaryDirectory(prefix="flatten-") as folder:
            path = os.path.join(folder, url.rpartition("/")[2])
            yield path
            with fsspec_errors(shown(url)):
                try:
                    mode = "overwrite" if known else "create"
                    self._files.put_file(path, url, mode=mode)
                except FileExistsError:
                    pass

    def write(self, url: str, data: bytes) -> None:
        """Write a document, which appears as a whole."""
        with fsspec_errors(shown(url)):
            self._files.pipe_file(url, data)


def _store(output: str) -> _Local | _Remote:
    return _Remote(output) if is_url(output) else _Local()
