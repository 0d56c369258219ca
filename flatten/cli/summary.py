"""The summary of an export for programs: one JSON document."""

import hashlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ..host.mounts import mount_command
from ..pipeline import Exported


def summary(done: Exported, output: str | None, seconds: float) -> dict[str, Any]:
    """Return the summary of an export.

    Args:
        done: The result of the export.
        output: The path of the output; None is standard output.
        seconds: The time that the export took.
    """
    return {
        "image": {
            "id": done.image,
            "names": done.names,
            "manifest": done.manifest,
        },
        "transfer": done.transfer and asdict(done.transfer),
        "layers": [{"diff_id": diff_id} for diff_id in done.diff_ids],
        "verified": done.verified,
        "verified_by_toc": done.verified_by_toc,
        "members": done.members,
        "bytes": done.size,
        "output": output and _described(output),
        "mount": output and _mounting(output, done.devices),
        "root_hash": done.root_hash,
        "seconds": round(seconds, 3),
        "warnings": done.warnings,
    }


def _mounting(output: str, devices: Sequence[str] | None) -> Sequence[str] | None:
    """Return the command that mounts an index, without the directory at its end."""
    if devices is None:
        return None
    return mount_command(os.path.abspath(output), devices)


def _described(path: str) -> dict[str, Any]:
    """Return the path and, of a file, its size and digest."""
    found: dict[str, Any] = {"path": path}
    if os.path.isfile(path):
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        found |= {"bytes": os.path.getsize(path), "sha256": digest.hexdigest()}
    return found


def print_summary(document: dict[str, Any], *, to_stdout: bool) -> None:
    """Print a document on standard output, or on standard error if data goes there."""
    stream = sys.stdout if to_stdout else sys.stderr
    if stream is not None:
        print(json.dumps(document, indent=2), file=stream)
