"""An OCI image layout in a tar, as podman and skopeo write it."""

from typing import Final

from .archive import Archive
from .documents import Files
from .oci_layout import entries

__all__ = ["KIND", "detect", "entries"]

KIND: Final = "oci-archive"


def detect(files: Files) -> bool:
    """Say whether the archive holds a layout."""
    return isinstance(files, Archive) and b"index.json" in files
