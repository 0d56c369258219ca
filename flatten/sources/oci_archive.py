"""An OCI image layout in a tar, as podman and skopeo write it."""

from .archive import Archive
from .documents import Files
from .oci_layout import entries

__all__ = ["detect", "entries"]


def detect(files: Files) -> bool:
    """Return True if the archive holds a layout."""
    return isinstance(files, Archive) and b"index.json" in files
