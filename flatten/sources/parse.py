"""Parse the JSON documents of images as Go's encoding/json reads them.

Docker, podman, skopeo, containerd and umoci are written in Go:

- The keys of structures match in any case. A document with two keys that are one field
  to Go, or with one key twice, is refused: other parsers take another of the two.
- Bytes that are not UTF-8 are read as U+FFFD.
- NaN, Infinity, a byte-order mark, UTF-16 and UTF-32 are refused.

Keys of maps, such as labels and annotations, are exact, as they are for Go.

Reference: Go encoding/json, Unmarshal and foldName.
"""

import json
import re
from collections import Counter
from typing import Any, Final, NoReturn

from ..errors import quoted

_NOT_UTF_8: Final = re.compile("[\udc80-\udcff]")
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_MAX_DIGITS: Final = 1000  # int() takes a time that grows with their square


def folded(key: str) -> str:
    """Return a key as Go compares it: simple case folding, a character for each.

    Reference: Go 1.24 encoding/json fold.go.

    >>> folded("CONFIG") == folded("config"), folded("Con\N{LATIN SMALL LIGATURE FI}g")
    (True, 'con\N{LATIN SMALL LIGATURE FI}g')
    """
    if key.isascii():
        return key.lower()
    return "".join(c if len(c.casefold()) > 1 else c.casefold() for c in key)


class Fields:
    """The fields of a JSON object, or of each object in a list, by their keys.

    >>> Fields("Config", rootfs=Fields("diff_ids")).fields["rootfs"][0]
    'rootfs'
    """

    def __init__(self, *keys: str, **nested: "Fields") -> None:
        """Name the fields: those with any value, and those that are objects again."""
        self.fields: dict[str, tuple[str, Fields | None]] = {
            **{folded(key): (key, None) for key in keys},
            **{folded(key): (key, shape) for key, shape in nested.items()},
        }


_DESCRIPTOR: Final = Fields(
    "mediaType",
    "digest",
    "size",
    "urls",
    "annotations",
    "artifactType",
    platform=Fields("os", "architecture", "variant"),
)
INDEX_OR_MANIFEST: Final = Fields(
    "schemaVersion",
    "mediaType",
    "artifactType",
    "annotations",
    "fsLayers",
    config=_DESCRIPTOR,
    layers=_DESCRIPTOR,
    manifests=_DESCRIPTOR,
)
"""An index or a manifest, of OCI or docker."""

DOCKER_MANIFEST: Final = Fields(
    "Config", "RepoTags", "Layers", "Parent", "LayerSources"
)
"""An image in the manifest.json of ``docker save``."""

_SETTINGS: Final = Fields(
    "ArgsEscaped",
    "AttachStderr",
    "AttachStdin",
    "AttachStdout",
    "Cmd",
    "Domainname",
    "Entrypoint",
    "Env",
    "ExposedPorts",
    "Healthcheck",
    "Hostname",
    "Image",
    "Labels",
    "OnBuild",
    "OpenStdin",
    "Shell",
    "StdinOnce",
    "StopSignal",
    "StopTimeout",
    "Tty",
    "User",
    "Volumes",
    "WorkingDir",
)

REPOSITORIES: Final = Fields("Repositories")
"""The names of images in docker's data root."""

CONFIG: Final = Fields(
    "Size",
    "architecture",
    "author",
    "comment",
    "container",
    "created",
    "docker_version",
    "id",
    "layer_id",
    "os",
    "os.features",
    "os.version",
    "parent",
    "parent_id",
    "variant",
    config=_SETTINGS,
    container_config=_SETTINGS,
    rootfs=Fields("type", "diff_ids"),
    history=Fields("created", "created_by", "author", "comment", "empty_layer"),
)
"""An image's config; also the ``json`` of a layer before docker 1.10."""


class _Repeating(dict[str, Any]):
    """An object of which one key or more are there twice."""

    repeated: set[str]


def parse_json(data: bytes, shape: Fields | None = None) -> Any:
    """Return a document; known fields get the keys that ``shape`` has for them.

    Raises:
        ValueError: It is not JSON, or a field is there twice.
        RecursionError: It is nested too deep.

    >>> parse_json(b'[{"config": "c.json"}]', DOCKER_MANIFEST)
    [{'Config': 'c.json'}]
    """
    document = json.loads(
        _text(data),
        object_pairs_hook=_object,
        parse_int=_integer,
        parse_constant=_refuse_constant,
    )
    return document if shape is None else _spelled(document, shape)


def _text(data: bytes) -> str:
    if data.startswith(_BYTE_ORDER_MARK):
        raise ValueError("it begins with a byte-order mark")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in data[:2]:
        raise ValueError("it is UTF-16 or UTF-32, not UTF-8")
    try:
        return data.decode()
    except UnicodeDecodeError:
        return _NOT_UTF_8.sub("\ufffd", data.decode("utf-8", "surrogateescape"))


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    times = Counter(key for key, _ in pairs)
    repeating = _Repeating(found)
    repeating.repeated = {key for key, count in times.items() if count > 1}
    return repeating


def _integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"it has a number of {len(digits):,} digits")
    return int(digits)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


def _spelled(value: Any, shape: Fields) -> Any:
    """Give the known fields of an object, or of a list's objects, their usual keys."""
    if isinstance(value, list):
        return [_spelled(item, shape) for item in value]
    if not isinstance(value, dict):
        return value
    repeated = value.repeated if isinstance(value, _Repeating) else ()
    spelled: dict[str, Any] = {}
    for key, item in value.items():
        name, nested = shape.fields.get(folded(key), (key, None))
        if name in spelled or (key in repeated and folded(key) in shape.fields):
            raise ValueError(
                f"it has {quoted(name)} twice; tools differ in which to take"
            )
        spelled[name] = item if nested is None else _spelled(item, nested)
    return spelled
