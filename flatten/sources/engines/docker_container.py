"""Docker's record of a container, with any storage driver or snapshotter.

``containers/ID/config.v2.json`` has ``Name``, ``Image``, ``Driver`` (a storage driver,
or a snapshotter of containerd) and, with the containerd image store, ``ImageManifest``.

Reference: moby container/container.go at v28.5.
"""

from dataclasses import dataclass
from typing import Final, TypeVar

from ...errors import FormatError
from ..documents import read_json
from ..parse import Fields
from .root import Root

_FOLDER: Final = "containers"
_RECORD: Final = Fields("Name", "Image", "Driver", ImageManifest=Fields("digest"))

T = TypeVar("T")

_KINDS: Final[dict[type, str]] = {str: "a string", dict: "an object"}


@dataclass(frozen=True, slots=True)
class ContainerRecord:
    """A container's record; each attribute is "" if it is not recorded.

    Attributes:
        name: The name, without docker's leading slash.
        image: ``sha256:<hex>``, the digest of the image's config, manifest or index.
        driver: The storage driver or snapshotter that keeps its layers.
        manifest: ``sha256:<hex>`` of the image's manifest.
    """

    name: str = ""
    image: str = ""
    driver: str = ""
    manifest: str = ""


def has_record(root: Root, id_: str) -> bool:
    """Return True if docker's data root has a record of a container."""
    return _path(id_).encode() in root


def read_record(root: Root, id_: str) -> ContainerRecord:
    """Return a container's record, or an empty one if the file is missing.

    Raises:
        FormatError: The file is not a JSON object, or a value has the wrong type.
    """
    if not has_record(root, id_):
        return ContainerRecord()
    what = f"container {id_[:12]}"
    document, _ = read_json(root, _path(id_), what, shape=_RECORD)
    where = root.path(_path(id_))
    manifest = _value(document, "ImageManifest", dict, where) or {}
    return ContainerRecord(
        (_value(document, "Name", str, where) or "").removeprefix("/"),
        _value(document, "Image", str, where) or "",
        _value(document, "Driver", str, where) or "",
        _value(manifest, "digest", str, where) or "",
    )


def _path(id_: str) -> str:
    return f"{_FOLDER}/{id_}/config.v2.json"


def _value(document: object, key: str, kind: type[T], where: str) -> T | None:
    if not isinstance(document, dict):
        raise FormatError("not a JSON object", where=where)
    value = document.get(key)
    if value is not None and not isinstance(value, kind):
        raise FormatError(f"{key} is not {_KINDS[kind]}", where=where)
    return value
