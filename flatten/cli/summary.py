"""What was written, for programs: one JSON document."""

import hashlib
import json
import os
import sys
from typing import Any

from ..pipeline import Exported


def summary(done: Exported, output: str | None, seconds: float) -> dict[str, Any]:
    """Return what there is to say of an export.

    Args:
        done: What it returned.
        output: Where it went; None is standard output.
        seconds: How long it took.
    """
    return {
        "image": {"id": done.image, "names": done.names},
        "layers": [{"diff_id": diff_id} for diff_id in done.diff_ids],
        "verified": done.verified,
        "members": done.members,
        "bytes": done.size,
        "output": output and _described(output),
        "seconds": round(seconds, 3),
        "warnings": done.warnings,
    }


def _described(path: str) -> dict[str, Any]:
    """Describe a file; of anything else there is only the name to tell."""
    found: dict[str, Any] = {"path": path}
    if os.path.isfile(path):
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        found |= {"bytes": os.path.getsize(path), "sha256": digest.hexdigest()}
    return found


def print_summary(document: dict[str, Any], *, to_stdout: bool) -> None:
    """Print a document where no data goes: standard output, or standard error."""
    stream = sys.stdout if to_stdout else sys.stderr
    if stream is not None:
        print(json.dumps(document, indent=2), file=stream)
