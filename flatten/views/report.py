"""What is in an image, by layer, directory and file; and what of it is in vain."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from ..image.image import Image
from ..tar.members import FILE
from .contents import Contents
from .listing import Row, list_rows
from .reading import CheckedIndex
from .steps import list_steps
from .waste import Efficiency, Hidden, efficiency, find_hidden

DIRECTORY_SHARE: Final = 0.02  # of the whole: smaller directories are not listed


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory with all that is below it: bytes of content, and how many files."""

    path: bytes
    size: int
    files: int


@dataclass(frozen=True, slots=True)
class Equal:
    """Files of one content, that are not hard links of each other.

    Attributes:
        size: Bytes of each.
        xxh3: Of the content.
        paths: In walk order.
    """

    size: int
    xxh3: str
    paths: list[bytes]

    @property
    def spare(self) -> int:
        """Return the bytes of all but one."""
        return self.size * (len(self.paths) - 1)


@dataclass(frozen=True, slots=True)
class Report:
    """All that a report shows.

    Attributes:
        image: It.
        problem: Why steps and layers do not agree, or "".
        steps: As ``steps.list_steps`` makes them.
        rows: All paths of the tree.
        index: The members that they name.
        size: Bytes of content in the tree, hard links counted once.
        files: How many files that is.
        directories: In walk order, from the root.
        efficiency: dive's figures.
        hidden: What layers hold and no path shows, the largest first.
        equal: Files of equal content, those with most bytes to spare first; None if
            they were not looked for.
    """

    image: Image
    problem: str
    steps: list[dict[str, Any]]
    rows: list[Row]
    index: CheckedIndex
    size: int
    files: int
    directories: list[Directory]
    efficiency: Efficiency
    hidden: list[Hidden]
    equal: list[Equal] | None

    def largest(self, count: int) -> list[Row]:
        """Return the largest files, of those that have any content."""
        sizes = self.index.members.sizes
        own = [row for row in self.rows if row.first is None and sizes[row.inode]]
        own.sort(key=lambda row: (-sizes[row.inode], row.path))
        return own[:count]


def make_report(index: CheckedIndex, contents: Contents, *, equal: bool) -> Report:
    """Look at all of an image.

    Args:
        index: What is in it.
        contents: What its files hold.
        equal: Look for files of equal content, which reads them.
    """
    image = contents.image
    history, steps = list_steps(image, index.members, index.layers)
    rows = list(list_rows(index))
    own = [row for row in rows if row.first is None]
    kinds, sizes = index.members.kinds, index.members.sizes
    shown = {row.inode for row in own}
    hidden = find_hidden(index, {row.path.rstrip(b"/") for row in rows}, shown)
    by_layer = Counter[int]()
    for item in hidden:
        by_layer[item.layer] += item.size
    for step in steps:
        step["hidden"] = 0 if step["layer"] is None else by_layer[step["layer"] - 1]
    return Report(
        image=image,
        problem=history.problem,
        steps=steps,
        rows=rows,
        index=index,
        size=sum(sizes[inode] for inode in shown),
        files=sum(kinds[inode] == FILE for inode in shown),
        directories=_directories(own, index),
        efficiency=efficiency(index),
        hidden=hidden,
        equal=_find_equal(own, contents) if equal else None,
    )


def _directories(rows: Iterable[Row], index: CheckedIndex) -> list[Directory]:
    """Sum up what is below each directory."""
    kinds, sizes = index.members.kinds, index.members.sizes
    bytes_, files = defaultdict[bytes, int](int), defaultdict[bytes, int](int)
    for row in rows:
        parent = row.path.rpartition(b"/")[0]
        if row.path.endswith(b"/"):
            parent = row.path[:-1] if row.path != b"./" else b""
        bytes_[parent] += sizes[row.inode]
        files[parent] += kinds[row.inode] == FILE
    for path in sorted(bytes_, key=lambda path: -path.count(b"/")):  # the deepest first
        if path:
            parent = path.rpartition(b"/")[0]
            bytes_[parent] += bytes_[path]
            files[parent] += files[path]
    ordered = sorted(bytes_, key=lambda path: path.split(b"/"))
    return [Directory(path, bytes_[path], files[path]) for path in ordered]


def _find_equal(rows: Iterable[Row], contents: Contents) -> list[Equal]:
    """Find files of equal content: those of one size are hashed."""
    members = contents.members
    by_size = defaultdict[int, list[Row]](list)
    for row in rows:
        if members.sizes[row.inode]:
            by_size[members.sizes[row.inode]].append(row)
    suspects = [row for same in by_size.values() if len(same) > 1 for row in same]
    hashes = contents.hashes(row.inode for row in suspects)
    groups = defaultdict[tuple[int, str], list[bytes]](list)
    for row in suspects:
        groups[members.sizes[row.inode], hashes[row.inode]].append(row.path)
    found = [Equal(*key, paths) for key, paths in groups.items() if len(paths) > 1]
    return sorted(found, key=lambda equal: (-equal.spare, equal.paths))


def main_directories(report: Report) -> list[Directory]:
    """Return the directories that hold a fair share of the image."""
    least = max(report.size * DIRECTORY_SHARE, 1)
    return [item for item in report.directories if item.path and item.size >= least]


def document(report: Report, count: int) -> dict[str, Any]:
    """Return a report for JSON, with at most ``count`` items in its lists."""
    image, members = report.image, report.index.members
    platform = [image.config.get(key) for key in ("os", "architecture", "variant")]
    largest = sorted(report.directories, key=lambda item: (-item.size, item.path))
    return {
        "id": image.id,
        "names": list(image.names),
        "platform": "/".join(str(part) for part in platform if part) or None,
        "problem": report.problem or None,
        "verified": report.index.verified,
        "size": report.size,
        "files": report.files,
        "paths": len(report.rows),
        "steps": report.steps,
        "directories": [
            {"path": text(item.path), "size": item.size, "files": item.files}
            for item in largest[:count]
        ],
        "largest": [
            {"path": text(row.path), "size": members.sizes[row.inode],
             "layer": members.layers[row.inode] + 1}
            for row in report.largest(count)
        ],
        "efficiency": _efficiency_document(report.efficiency, count),
        "hidden": _hidden_document(report.hidden, count),
        "equal": None if report.equal is None else _equal_document(report.equal, count),
    }  # fmt: skip


def _efficiency_document(found: Efficiency, count: int) -> dict[str, Any]:
    return {
        "score": found.score,
        "size": found.size,
        "user_size": found.user_size,
        "wasted": found.wasted,
        "paths": [
            {"path": text(path), "count": noted.count, "size": noted.total}
            for path, noted in found.paths[:count]
        ],
    }


def _hidden_document(found: list[Hidden], count: int) -> dict[str, Any]:
    return {
        "size": sum(item.size for item in found),
        "files": len(found),
        "largest": [
            {"path": text(item.path), "size": item.size, "layer": item.layer + 1,
             "replaced": item.replaced}
            for item in found[:count]
        ],
    }  # fmt: skip


def _equal_document(found: list[Equal], count: int) -> dict[str, Any]:
    return {
        "spare": sum(equal.spare for equal in found),
        "groups": len(found),
        "largest": [
            {"size": equal.size, "xxh3": equal.xxh3, "count": len(equal.paths),
             "paths": [text(path) for path in equal.paths[:count]]}
            for equal in found[:count]
        ],
    }  # fmt: skip


def text(path: bytes) -> str:
    """Return a path for JSON, as lists have it."""
    return path.decode("utf-8", "surrogateescape")
