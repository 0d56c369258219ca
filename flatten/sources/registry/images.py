"""The images that a reference to a registry names: one, or one a platform."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, cast

from ...errors import FormatError
from ...image.image import Image
from ..choice import Entry
from ..documents import Files
from ..oci_layout import (
    REF_NAME,
    Manifest,
    index_entries,
    is_attestation,
    listed_platform,
    manifests,
    parse_descriptor,
    read_manifest,
)
from .repository import Repository


def detect(files: Files) -> bool:
    """Return True for a repository of a registry."""
    return isinstance(files, Repository)


def entries(files: Files) -> Sequence[Entry]:
    """List the images; the manifests that an index lists are fetched on demand.

    Raises:
        FormatError: A document breaks its format.
        IntegrityError: A document has another digest than it should.
    """
    repository = cast("Repository", files)
    root = repository.descriptor()
    named = {REF_NAME: str(repository.reference)}
    document = read_manifest(files, root, *parse_descriptor(root, files.name))
    listed = document.get("manifests")
    if not isinstance(listed, list):
        return index_entries(files, {"manifests": [root | {"annotations": named}]}, "")
    return [
        entry for each in listed for entry in _entries(repository, each, named)
    ]  # fmt: skip


def _entries(
    files: Repository, descriptor: object, named: dict[str, str]
) -> Iterator[Entry]:
    """Yield the images of what an index lists: one, if it says its platform."""
    digest, _ = parse_descriptor(descriptor, f"{files.name}, index")
    found = cast("dict[str, Any]", descriptor)
    platform = listed_platform(found)
    if is_attestation(found, platform):
        return
    found = found | {"annotations": (found.get("annotations") or {}) | named}
    if platform is None or "manifest" not in str(found.get("mediaType")):
        yield from index_entries(files, {"manifests": [found]}, "index")
        return
    ids = digest.removeprefix("sha256:"), files.root.removeprefix("sha256:")
    names = tuple(named.values())
    yield Entry(ids, names, partial(_load, files, found), lambda: platform)


def _load(files: Repository, descriptor: dict[str, Any]) -> Image:
    """Fetch a manifest that an index lists, and find the layers."""
    found: list[Manifest] = list(manifests(files, {"manifests": [descriptor]}, "index"))
    if len(found) != 1 or found[0].artifact is not None:
        where = f"{files.name}, manifest {descriptor['digest']}"
        raise FormatError("not the manifest of one image", where=where)
    return found[0].load()
