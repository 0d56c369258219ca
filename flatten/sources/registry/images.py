"""The images that a reference to a registry names: one, or one a platform."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, cast

from ...errors import FormatError
from ...image.image import Image
from ..choice import Entry, Platform
from ..documents import Files
from ..oci_layout import (
    MAX_DEPTH,
    MAX_DOCUMENTS,
    Manifest,
    is_attestation,
    listed_platform,
    parse_descriptor,
    read_manifest,
)
from .repository import Repository


def detect(files: Files) -> bool:
    """Return True for a repository of a registry."""
    return isinstance(files, Repository)


def entries(files: Files) -> Sequence[Entry]:
    """List the images: of an index, without fetching their manifests.

    Raises:
        FormatError: A document breaks its format.
        IntegrityError: A document has another digest than it should.
    """
    repository = cast("Repository", files)
    found = list(_entries(repository, repository.descriptor(), MAX_DEPTH, ()))
    if len(found) > MAX_DOCUMENTS:
        raise FormatError(f"more than {MAX_DOCUMENTS:,} manifests", where=files.name)
    return found


def _entries(
    files: Repository, descriptor: dict[str, Any], depth: int, ids: tuple[str, ...]
) -> Iterator[Entry]:
    """Yield the images of a manifest or index, those of indexes in it too."""
    digest, size = parse_descriptor(descriptor, files.name)
    document = read_manifest(files, descriptor, digest, size)
    ids = (digest.removeprefix("sha256:"), *ids)
    names = (str(files.reference),)
    if document is None or "manifests" not in document:
        load = partial(_load, files, descriptor, names, ids)
        yield Entry(
            ids,
            names,
            load,
            lambda: _manifest(files, descriptor, names, ids).platform(),
        )
        return
    if not depth:
        raise FormatError(
            f"indexes in indexes, over {MAX_DEPTH} deep", where=files.name
        )
    listed = document["manifests"]
    if not isinstance(listed, list):
        raise FormatError("not an index: manifests is not a list", where=files.name)
    for each in listed:
        below, _ = parse_descriptor(each, f"{files.name}, index {digest}")
        platform = listed_platform(each)
        if is_attestation(each, platform):
            continue
        if platform is None or "index" in str(each.get("mediaType")):
            yield from _entries(files, each, depth - 1, ids)
        else:
            known = (below.removeprefix("sha256:"), *ids)
            load = partial(_load, files, each, names, known, platform)
            yield Entry(known, names, load, partial(_listed, platform))


def _listed(platform: Platform) -> Platform:
    return platform


def _manifest(
    files: Repository,
    descriptor: dict[str, Any],
    names: tuple[str, ...],
    ids: tuple[str, ...],
    platform: Platform | None = None,
) -> Manifest:
    """Fetch a manifest that is no index."""
    digest, size = parse_descriptor(descriptor, files.name)
    document = read_manifest(files, descriptor, digest, size)
    where = f"{files.name}, manifest"
    if document is None or "manifests" in document:
        raise FormatError("an index where a manifest is listed", where=where)
    config, _ = parse_descriptor(document.get("config"), where)
    all_ids = (ids[0], config.removeprefix("sha256:"), *ids[1:])
    return Manifest(files, all_ids, names, platform)


def _load(
    files: Repository,
    descriptor: dict[str, Any],
    names: tuple[str, ...],
    ids: tuple[str, ...],
    platform: Platform | None = None,
) -> Image:
    return _manifest(files, descriptor, names, ids, platform).load()
