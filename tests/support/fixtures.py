"""Small real images and data-roots, and the right answers: beside the project, not in it.

Without them the tests that need them skip.
"""

import json
import lzma
import subprocess
from pathlib import Path
from typing import Any

import pytest

FIXTURES = Path(__file__).parents[3] / "shared" / "fixtures"

needs_fixtures = pytest.mark.skipif(
    not FIXTURES.is_dir(), reason=f"needs the fixtures in {FIXTURES}"
)


def fixture(folder: str, name: str) -> Path:
    """Return the path of a fixture; without it, skip the test by its name."""
    path = FIXTURES / folder / name
    if not path.exists():
        pytest.skip(f"needs the fixture {folder}/{name}")
    return path


def answer_rows(answer: str) -> dict[str, dict[str, Any]]:
    """Return the rows of an answer by path, without what a GNU tar does not hold."""
    lines = fixture("expected", f"{answer}.jsonl").read_text().splitlines()
    rows = {row["path"]: row for row in map(json.loads, lines)}
    for row in rows.values():
        row.pop("mtime_ns", None)
        row.pop("path_b64", None)
    return rows


def right(answer: str, got: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the right listing, in walk order, as far as a GNU tar can say it.

    The mtimes of directories that no layer lists are those that were ``got``.
    """
    want = answer_rows(answer).values()
    mtimes = {row["path"]: row["mtime"] for row in got}
    for row in want:
        if row.pop("implied", False):
            row["mtime"] = mtimes.get(row["path"])
    return sorted(
        want, key=lambda row: row["path"].encode(errors="surrogateescape").split(b"/")
    )


def unpacked_save(name: str, folder: Path) -> Path:
    """Put an archive into a folder, without its compression."""
    path = folder / f"{name}.tar"
    path.write_bytes(lzma.decompress(fixture("saves", f"{name}.tar.xz").read_bytes()))
    return path


def restored_root(name: str, folder: Path) -> Path:
    """Unpack a data-root into a folder, and return where it is."""
    packed = fixture("roots", f"{name}.tar.xz")
    options = ["--xattrs", "--xattrs-include=*", "--numeric-owner"]
    subprocess.run(["tar", *options, "-xJf", packed, "-C", folder], check=True)
    (root,) = folder.iterdir()
    return root
