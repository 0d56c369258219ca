"""Layers that podman keeps in composefs: their files are named by their digests.

=======================================  ============================================
``overlay/ID/composefs-data/``           present if composefs keeps the layer
``overlay/ID/diff/HH/HHH...``            the content of which this is the SHA-256, in
                                         hexadecimal
``overlay-layers/ID/``                   the layer's documents
``zstd-chunked-manifest``, among them    the table of contents: members, and the digests
                                         of their contents
=======================================  ============================================

Reference: containers/storage drivers/overlay/overlay.go, pkg/chunked at v1.60.
"""

from typing import Final

from ...errors import FormatError, quoted
from ...tar.wire import normalise
from ..documents import DIGEST, read_json
from ..parse import Fields
from .root import Root

CONTENTS: Final = "zstd-chunked-manifest"
_MAX_TABLE: Final = 1 << 26  # bytes; a file takes some 300
_TABLE: Final = Fields(entries=Fields("name", "digest"))


def is_kept(root: Root, layer_id: str) -> bool:
    """Return True if composefs keeps a layer of the driver ``overlay``."""
    return f"overlay/{layer_id}/composefs-data".encode() in root


def content_paths(root: Root, table: str, where: str) -> dict[bytes, bytes]:
    """Return where the contents of a layer's files are.

    Args:
        root: The store's root.
        table: Path of the table of contents.
        where: The layer's name in messages.

    Returns:
        Paths below the layer's directory, by the normalised paths of members.

    Raises:
        FormatError: The table is missing or malformed.
    """
    document, _ = read_json(root, table, CONTENTS, limit=_MAX_TABLE, shape=_TABLE)
    entries = document.get("entries") if isinstance(document, dict) else None
    if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
        raise FormatError(
            f'{CONTENTS}: "entries" is not a list of objects', where=where
        )
    found: dict[bytes, bytes] = {}
    for entry in entries:
        name, digest = entry.get("name"), entry.get("digest")
        if not digest:
            continue  # without a content, or a further chunk of one
        if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
            what = f"{CONTENTS}: {quoted(str(digest))} is not a sha256 digest"
            raise FormatError(what, where=where)
        content = digest.removeprefix("sha256:").encode()
        try:
            path = normalise(str(name).encode("utf-8", "surrogatepass"))
        except ValueError as error:
            what = f"{CONTENTS}: {quoted(str(name))} is {error}"
            raise FormatError(what, where=where) from error
        found[path] = content[:2] + b"/" + content[2:]
    return found
