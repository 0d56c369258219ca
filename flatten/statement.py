"""``--statement``: what an output was made from, as an in-toto statement.

The predicate is a SLSA provenance. The statement has no times and no paths but those of
``--add``, so that the same image, options and version give the same bytes.

Reference: in-toto attestation framework, spec/v1/statement.md and digest_set.md; SLSA
v1.0, provenance.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from . import __version__
from .errors import FlattenError, UsageError, quoted
from .image.image import Image, Layer
from .options import Options
from .outputs import atomic
from .outputs.disks.verity import root_hash_path

PACKAGE: Final = "pkg:pypi/flatten-image"
_NOT_SAID: Final = (
    "access", "config_out", "layers", "limits", "list_out", "statement", "verity",
)  # fmt: skip
"""Options that do not change the output, or would tell where it was made."""


@contextmanager
def stating(
    out: str | os.PathLike[str] | int,
    image: Image,
    options: Options,
    path: str | os.PathLike[str],
    *,
    sync: bool,
) -> Iterator[None]:
    """Write the statement about an output when the body, which makes it, has ended.

    The statement's file is created before, so that a path that cannot be written is
    noticed early, and gets its name after the output.

    Args:
        out: The output.
        image: The image, with the layers that were added.
        options: The options.
        path: Where to write the statement.
        sync: Wait until the statement is on the disk before it gets its name.

    Raises:
        UsageError: The output is a directory, or goes to a descriptor.
        FlattenError: A file cannot be read or written.
    """
    if isinstance(out, int) or os.fspath(out).endswith("/"):
        raise UsageError("--statement is about a file: name one with -o")
    with atomic.create(Path(path), sync=sync) as descriptor:
        yield
        text = json.dumps(statement(Path(out), image, options), indent=2) + "\n"
        try:
            with os.fdopen(os.dup(descriptor), "w", encoding="ascii") as file:
                file.write(text)
        except OSError as error:
            raise FlattenError(
                f"{quoted(str(path))}: cannot write: {error.strerror}"
            ) from error


def statement(out: Path, image: Image, options: Options) -> dict[str, Any]:
    """Return the statement about a finished output.

    Raises:
        FlattenError: A file cannot be read.
    """
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": _subjects(out, options),
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": f"{PACKAGE}#export-v1",
                "externalParameters": {
                    "image": list(image.names),
                    "options": _chosen(options),
                },
                "resolvedDependencies": list(_materials(image)),
            },
            "runDetails": {
                "builder": {
                    "id": f"{PACKAGE}@{__version__}",
                    "version": {"flatten": __version__},
                },
            },
        },
    }


def _subjects(out: Path, options: Options) -> list[dict[str, Any]]:
    """Return the output and, with a hash tree, its two files and the root hash."""
    found = [_file(out)]
    if options.verity is not None:
        tree = Path(options.verity)
        root = root_hash_path(tree)
        digests = _file(root)["digest"] | {"dmVerityRoot": root.read_text()}
        found += [_file(tree), {"name": root.name, "digest": digests}]
    return found


def _file(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise FlattenError(
            f"{quoted(str(path))}: cannot read: {error.strerror}"
        ) from error
    return {"name": path.name, "digest": {"sha256": digest}}


def _chosen(options: Options) -> dict[str, Any]:
    """Return the options that differ from their defaults, as JSON can hold them."""
    chosen = _changed(asdict(options), asdict(Options()))
    return {name: chosen[name] for name in chosen if name not in _NOT_SAID}


def _changed(values: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Return the values that differ from their defaults, as JSON can hold them."""
    return {
        name: _plain(value, defaults.get(name))
        for name, value in values.items()
        if value != defaults.get(name)
    }


def _plain(value: Any, default: Any = None) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, dict):
        return _changed(value, default or {})
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value if one is not None]
    return value


def _materials(image: Image) -> Iterator[dict[str, Any]]:
    """Yield what the output was made from, oldest layer first."""
    if image.manifest is not None:
        yield {"name": "manifest", "digest": _digest(image.manifest)}
    yield {"name": "config", "digest": {"sha256": image.id}}
    for number, layer in enumerate(image.layers, 1):
        yield {"name": f"layer {number}", "digest": _layer(layer)}
    for layer in image.added:
        yield {"name": "host files", "digest": _layer(layer)}


def _layer(layer: Layer) -> dict[str, str]:
    """Return the digest of a layer's plain tar, which is read if it is not recorded."""
    if layer.diff_id is not None:
        return _digest(layer.diff_id)
    source, offset = layer.open(), 0
    hashed = hashlib.sha256()
    while data := source.read(offset, 1 << 20):
        hashed.update(data)
        offset += len(data)
    return {"sha256": hashed.hexdigest()}


def _digest(text: str) -> dict[str, str]:
    algorithm, _, digest = text.partition(":")
    return {algorithm: digest}
