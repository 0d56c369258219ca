"""skopeo's ``dir:``: a manifest, and its blobs beside it, each named by its digest.

=========================  =========================================================
``manifest.json``          the manifest or, of several platforms, the index
``<hex>.manifest.json``    the manifests that the index lists
``<hex>``                  configs and layers; of sha512 digests ``sha512-<hex>``
``version``                the version of the format
=========================  =========================================================

``podman save --format docker-dir`` writes such a directory too. A tar of one is read as
well. There are no names.

Reference: containers/image directory/directory_transport.go.
"""

import hashlib
from collections.abc import Sequence
from typing import Final

from ..host.files import LayerBytes
from ..host.spools import Pool
from .choice import Entry
from .documents import MAX_DOCUMENT, Documents, Files, begins_with, blob_digest
from .oci_layout import index_entries

MANIFEST: Final = "manifest.json"


class _Layout(Files):
    """The files of the directory under the names that they have in an OCI layout.

    Attributes:
        name: The directory's name in messages.
        pool: Inflates compressed layers.
        documents: The documents that have been parsed.
        top: The digest of ``manifest.json``.
        size: Its size in bytes.
    """

    def __init__(self, files: Files) -> None:
        """Read the manifest for its digest."""
        self.name = files.name
        self.pool: Pool = files.pool
        self.documents: Documents = files.documents
        self._files = files
        data = files.read(MANIFEST, "manifest", MAX_DOCUMENT)
        self.top = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.size = len(data)

    def __contains__(self, name: bytes) -> bool:
        """Return True if there is a file of that name."""
        return self._own(name.decode("utf-8", "replace")).encode() in self._files

    def open(self, name: str, what: str) -> LayerBytes:
        """Return a file's bytes; it stays open as long as the image.

        Raises:
            FormatError: It does not exist.
        """
        return self._files.open(self._own(name), what)

    def read(self, name: str, what: str, limit: int) -> bytes:
        """Return all of a small file, which is closed again.

        Raises:
            FormatError: It does not exist, or has more than ``limit`` bytes.
        """
        return self._files.read(self._own(name), what, limit)

    def _own(self, name: str) -> str:
        """Return the directory's own name of a blob."""
        digest = blob_digest(name)
        if digest is None:
            return name
        if digest == self.top:
            return MANIFEST
        algorithm, _, hexdigits = digest.partition(":")
        known = [f"{hexdigits}.manifest.json", hexdigits, f"{algorithm}-{hexdigits}"]
        there = [name for name in known if name.encode() in self._files]
        return there[0] if there else hexdigits


def detect(files: Files) -> bool:
    """Return True if there is a manifest.json that is a manifest, and no layout."""
    return (
        MANIFEST.encode() in files
        and b"index.json" not in files
        and begins_with(files, MANIFEST, b"{")
    )


def entries(files: Files) -> Sequence[Entry]:
    """List the images: one, or one for each platform.

    Raises:
        FormatError: The manifest breaks its format.
    """
    layout = _Layout(files)
    index = {"manifests": [{"digest": layout.top, "size": layout.size}]}
    return index_entries(layout, index, MANIFEST)
