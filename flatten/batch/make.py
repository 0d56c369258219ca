"""Make the outputs of one job."""

import hashlib
import os
import time
from dataclasses import replace
from typing import Any

from .. import __version__, pipeline
from ..errors import FlattenError, shown
from ..image.image import Image
from ..image.read import Stack
from ..image.shared import SharedLayer
from ..options import Options
from ..sources.references import REGISTRY, parse_reference
from . import storage
from .jobs import Common, Job, Target
from .resolve import image_digest
from .results import Result, failed


def make(job: Job, common: Common, reuse: pipeline.Reuse) -> list[Result]:
    """Make a job's outputs; return a result for each.

    Args:
        job: The job.
        common: The options.
        reuse: Replaces layers by those that are shared.
    """
    results: list[Result] = []
    for target in job.targets:
        try:
            results.append(_Making(job, common, reuse).make(target))
        except FlattenError as error:
            results.append(
                failed(
                    target.reference, error, error.exit_code,
                    digest=job.digest, output=target.path,
                )
            )  # fmt: skip
    return results


class _Making:
    """The making of one output."""

    def __init__(self, job: Job, common: Common, reuse: pipeline.Reuse) -> None:
        self._job = job
        self._common = common
        self._reuse = reuse
        self._shared = 0

    def make(self, target: Target) -> Result:
        """Make one output and the document beside it.

        Raises:
            FlattenError: The output could not be made; it is not there.
        """
        started = time.monotonic()
        force = self._common.options.force
        with (
            storage.replacing(target.path, force=force) as force,
            storage.placed(target.path) as path,
        ):
            done = pipeline.run(
                self._job.source,
                path,
                self._options(target, force=force),
                sync=self._common.sync,
                reuse=self._reused,
            )
            size, sha256 = _described(path)
        result = Result(
            reference=target.reference,
            state="done",
            digest=self._job.digest,
            image=done.image,
            layers=len(done.diff_ids),
            members=done.members,
            output=target.path,
            bytes=size,
            sha256=sha256,
            seconds=round(time.monotonic() - started, 3),
            bytes_fetched=done.transfer.fetched if done.transfer else 0,
            shared_bytes=self._shared,
            root_hash=done.root_hash,
            devices=done.devices,
            warnings=done.warnings,
        )
        storage.record(target.path, _document(result, self._common.fingerprint))
        return result

    def _options(self, target: Target, *, force: bool) -> Options:
        """Return the options of one export."""
        documents: dict[str, Any] = dict(target.documents)
        for path in documents.values():
            storage.make_parent(path)
        options = replace(self._common.options, force=force, **documents)
        kind, _, _ = parse_reference(self._job.source)
        if options.image_kind is not None and not options.tags and kind == REGISTRY:
            name = target.reference.removeprefix(f"{REGISTRY}://").partition("@")[0]
            options = replace(options, tags=(name,))
        return options

    def _reused(self, image: Image) -> tuple[Image, Stack | None]:
        """Return the image with the layers that are shared.

        Raises:
            FlattenError: It is another image than when the batch began.
        """
        kind, _, _ = parse_reference(self._job.source)
        if kind != REGISTRY and image_digest(image) != self._job.digest:
            raise FlattenError(
                f"{shown(self._job.source)}: changed since the batch began"
            )
        image, stack = self._reuse(image)
        self._shared = sum(
            layer.shared.size()
            for layer in image.layers
            if isinstance(layer, SharedLayer)
        )
        return image, stack


def _described(path: str) -> tuple[int | None, str | None]:
    """Return the size and the SHA-256 of a file; None for a directory."""
    if os.path.isdir(path):
        return None, None
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256")
            return os.fstat(file.fileno()).st_size, digest.hexdigest()
    except OSError as error:
        raise FlattenError(f"{shown(path)}: {error.strerror}") from error


def _document(result: Result, fingerprint: str) -> dict[str, Any]:
    """Return the document beside an output."""
    return {
        "digest": result.digest,
        "options": fingerprint,
        "version": __version__,
        "reference": result.reference,
        "image": result.image,
        "layers": result.layers,
        "members": result.members,
        "output": os.path.basename(result.output.rstrip("/")) if result.output else "",
        "bytes": result.bytes,
        "sha256": result.sha256,
        "root_hash": result.root_hash,
        "devices": result.devices,
        "warnings": result.warnings,
        "seconds": result.seconds,
        "bytes_fetched": result.bytes_fetched,
        "shared_bytes": result.shared_bytes,
    }
