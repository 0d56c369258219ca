"""Read an image's JSON documents within limits, and check their digests."""

import hashlib
import re
from dataclasses import dataclass
from typing import Any, Final, Protocol

from ..errors import FormatError, IntegrityError, quoted
from ..host.files import LayerBytes
from ..host.spools import Pool
from .parse import Fields, parse_json

MAX_DOCUMENT: Final = 1 << 23  # bytes of a JSON document; registries stop at 4 MiB
MAX_VALUES: Final = 1 << 18  # lists and objects in it: 3 bytes each, 64 once parsed
MAX_DOCUMENTS: Final = 1 << 28  # bytes of all documents: a few seconds of parsing
DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
CONTENT_DIGEST: Final = re.compile(r"(sha256):[0-9a-f]{64}|(sha512):[0-9a-f]{128}")
"""A digest of one of the algorithms that the OCI image-spec registers."""

_BLOB: Final = re.compile(r"blobs/(sha256|sha512)/([0-9a-f]+)")


@dataclass(slots=True)
class Documents:
    """The documents of a source that were parsed: only the last one is kept.

    Attributes:
        left: How many more bytes may be parsed.
        asked: Name, digest, limit and shape of the last document.
        last: The last document as parsed, and its bytes.
    """

    left: int = MAX_DOCUMENTS
    asked: tuple[str, str | None, int, Fields | None] | None = None
    last: tuple[Any, bytes] = (None, b"")


class Files(Protocol):
    """Named files around an image: the members of an archive, or a directory's files.

    Those that are on this machine inherit ``open_parts``.

    Attributes:
        name: The source's name in messages, as the user gave it.
        pool: Inflates compressed layers.
        documents: The documents that have been parsed.
    """

    name: str
    pool: Pool
    documents: Documents

    def __contains__(self, name: bytes) -> bool:
        """Return True if there is a file of that name."""

    def open(self, name: str, what: str) -> LayerBytes:
        """Return a file's bytes; it stays open as long as the image.

        Raises:
            FormatError: It does not exist; the message says that ``what`` is missing.
        """

    def read(self, name: str, what: str, limit: int) -> bytes:
        """Return all of a small file, which is closed again.

        Raises:
            FormatError: It does not exist, or it has more than ``limit`` bytes.
        """

    def open_parts(self, name: str, what: str) -> LayerBytes | None:  # noqa: ARG002
        """Return a blob of which only the parts that are read are fetched.

        Return None if it is read whole: it is on this machine, or the user wants it.
        """
        return None


def read_json(  # noqa: PLR0913 - the last two by keyword
    files: Files,
    name: str,
    what: str,
    digest: str | None = None,
    *,
    limit: int = MAX_DOCUMENT,
    shape: Fields | None = None,
) -> tuple[Any, bytes]:
    """Return a document as parsed, and its bytes.

    Args:
        files: The files that it is among.
        name: Its name there. A blob's name says its digest.
        what: The document's name in messages.
        digest: Its digest, if the name does not say it.
        limit: The maximum size, in bytes.
        shape: The fields whose keys match in any case; they get the spelling here.

    Raises:
        FormatError: It does not exist, is too large or not JSON, or has a field twice.
        IntegrityError: It has another digest.
    """
    documents = files.documents
    asked = name, digest, limit, shape
    if asked != documents.asked:
        documents.asked = None
        documents.last = _parse(files, name, what, digest, limit, shape)
        documents.asked = asked
    return documents.last


def _parse(  # noqa: PLR0913, PLR0917 - as of read_json
    files: Files,
    name: str,
    what: str,
    digest: str | None,
    limit: int,
    shape: Fields | None,
) -> tuple[Any, bytes]:
    """Read and parse a document."""
    where = f"{files.name}, {what}"
    data = files.read(name, what, limit)
    files.documents.left -= len(data)
    if files.documents.left < 0:
        raise FormatError(
            f"more than {MAX_DOCUMENTS:,} bytes of documents in total", where=where
        )
    if data.count(b"[") + data.count(b"{") > MAX_VALUES:
        raise FormatError(f"more than {MAX_VALUES:,} lists and objects", where=where)
    digest = digest or blob_digest(name)
    algorithm = "sha256" if digest is None else digest.partition(":")[0]
    actual = f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"
    if digest not in (None, actual):
        raise IntegrityError(
            f"{where}: its digest is {actual}, not that of its name, {quoted(name)}"
        )
    try:
        return parse_json(data, shape), data
    except (ValueError, RecursionError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else error
        where = f"{where}, {quoted(name)}"
        raise FormatError(f"is not JSON: {reason}", where=where) from error


def begins_with(files: Files, name: str, start: bytes) -> bool:
    """Return True if a document begins with ``start``, after white space.

    Raises:
        FormatError: It does not exist, or is too large.
    """
    return files.read(name, name, MAX_DOCUMENT).lstrip().startswith(start)


def blob_digest(name: str) -> str | None:
    """Return the digest that a name of a blob says, or None if it is not such a name.

    >>> blob_digest("blobs/sha256/" + "0" * 64) == "sha256:" + "0" * 64
    True
    >>> blob_digest("manifest.json")
    """
    found = _BLOB.fullmatch(name)
    digest = f"{found[1]}:{found[2]}" if found else ""
    return digest if CONTENT_DIGEST.fullmatch(digest) else None


def blob_path(digest: str) -> str:
    """Return the name of a blob in an OCI layout.

    >>> blob_path("sha256:00ff")
    'blobs/sha256/00ff'
    """
    return f"blobs/{digest.replace(':', '/')}"


MAX_LAYERS: Final = 4096  # docker makes 127


def diff_ids(config: dict[str, Any], count: int, where: str) -> list[str | None]:
    """Return the diff_id of each layer, or None for each if the config has none.

    Raises:
        FormatError: The config has another number of them, or they are not digests.
    """
    if count > MAX_LAYERS:
        raise FormatError(f"{count:,} layers, over {MAX_LAYERS:,}", where=where)
    rootfs = config.get("rootfs")
    if rootfs is None:  # as before docker 1.10
        return [None] * count
    found = rootfs.get("diff_ids", []) if isinstance(rootfs, dict) else None
    if not isinstance(found, list) or not all(
        isinstance(item, str) and CONTENT_DIGEST.fullmatch(item) for item in found
    ):
        raise FormatError("rootfs.diff_ids is not a list of digests", where=where)
    if len(found) != count:
        raise FormatError(
            f"{len(found)} diff_ids, but the manifest lists {count}", where=where
        )
    return list(found)
