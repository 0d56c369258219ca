"""What an image contains by layer, directory and file, and what of it is wasted."""

from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from heapq import nsmallest
from typing import Any, Final

from ..image.image import Image
from ..tar.members import FILE
from .contents import Contents
from .listing import Listing, TreePath, list_rows
from .reading import CheckedIndex
from .steps import StepRow, list_steps
from .waste import Efficiency, Hidden, efficiency, find_hidden

DIRECTORY_SHARE: Final = 0.02  # of the image's size; smaller directories are left out


class ReportStep(StepRow):
    """A step; ``hidden`` is the bytes of its files that the image does not show."""

    hidden: int


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory: the bytes of all files below it, and the number of these files."""

    path: bytes
    size: int
    files: int


@dataclass(frozen=True, slots=True)
class Equal:
    """Files with the same content that are not hard links of each other.

    Attributes:
        size: Bytes of each file.
        xxh3: XXH3 (128 bits) of the content, in hex.
        paths: In walk order.
    """

    size: int
    xxh3: str
    paths: list[bytes]

    @property
    def spare(self) -> int:
        """Return the bytes that deduplicating them would save: all files but one."""
        return self.size * (len(self.paths) - 1)


@dataclass(frozen=True, slots=True)
class Report:
    """The data of a report.

    Attributes:
        image: The image.
        problem: Why steps and layers do not match, or "".
        steps: The steps, as in ``steps.list_steps``.
        listing: All paths of the tree.
        index: The image's members.
        size: Bytes of file content in the tree; hard links count once.
        files: The number of these files.
        directories: In walk order, from the root.
        efficiency: dive's figures.
        hidden: Files that a layer contains but the tree does not show, largest first.
        equal: Groups of files with the same content, those that waste most first; None
            if they were not searched for.
    """

    image: Image
    problem: str
    steps: list[ReportStep]
    listing: Listing
    index: CheckedIndex
    size: int
    files: int
    directories: list[Directory]
    efficiency: Efficiency
    hidden: list[Hidden]
    equal: list[Equal] | None

    def largest(self, count: int) -> list[TreePath]:
        """Return up to ``count`` of the largest files that are not empty."""
        sizes, listing = self.index.members.sizes, self.listing
        found = (
            (-sizes[inode], path, inode)
            for at, (path, inode) in enumerate(
                zip(listing.paths, listing.inodes, strict=True)
            )
            if sizes[inode] and at not in listing.links
        )
        return [
            TreePath(path, inode, None) for _, path, inode in nsmallest(count, found)
        ]


def make_report(index: CheckedIndex, contents: Contents, *, equal: bool) -> Report:
    """Make the report of an image.

    Args:
        index: The image's members.
        contents: The contents of its files.
        equal: Search for files with the same content, which reads them.
    """
    image = contents.image
    history, steps = list_steps(image, index.members, index.layers)
    listing = list_rows(index)
    kinds, sizes = index.members.kinds, index.members.sizes
    shown = set(listing.inodes)
    hidden = find_hidden(index, listing.paths, shown)
    by_layer = Counter[int]()
    for item in hidden:
        by_layer[item.layer] += item.size
    return Report(
        image=image,
        problem=history.problem,
        steps=[
            {**step, "hidden": by_layer[step["layer"] - 1] if step["layer"] else 0}
            for step in steps
        ],
        listing=listing,
        index=index,
        size=sum([sizes[inode] for inode in shown]),
        files=[kinds[inode] for inode in shown].count(FILE),
        directories=_directories(listing, index),
        efficiency=efficiency(index),
        hidden=hidden,
        equal=_find_equal(listing, contents) if equal else None,
    )


def _directories(listing: Listing, index: CheckedIndex) -> list[Directory]:
    """Sum up the files below each directory."""
    tree, kinds, sizes = index.tree, index.members.kinds, index.members.sizes
    listed = {
        path[:-1]: tree.children[inode]
        for path, inode in zip(listing.paths, listing.inodes, strict=True)
        if inode in tree.children
    }
    names = {b"": tree.root} | listed if listing.paths else {}
    bytes_, files = dict[bytes, int](), dict[bytes, int]()
    for path, inodes in names.items():
        bytes_[path] = sum([sizes[inode] for inode in inodes.values()])
        files[path] = [kinds[inode] for inode in inodes.values()].count(FILE)
    for position in listing.links:  # counted at their first names
        parent = listing.paths[position].rpartition(b"/")[0]
        inode = listing.inodes[position]
        bytes_[parent] -= sizes[inode]
        files[parent] -= kinds[inode] == FILE
    for path in reversed(names):  # those below a directory come after it
        if path:
            parent = path.rpartition(b"/")[0]
            bytes_[parent] += bytes_[path]
            files[parent] += files[path]
    return [Directory(path, bytes_[path], files[path]) for path in names]


def _find_equal(listing: Listing, contents: Contents) -> list[Equal]:
    """Find files with the same content; files of the same size are hashed."""
    sizes, inodes = contents.members.sizes, listing.inodes
    times = Counter([sizes[inode] for inode in set(inodes)])
    times[0] = 0  # empty files waste nothing
    suspects = [
        position
        for position, inode in enumerate(inodes)
        if times[sizes[inode]] > 1 and position not in listing.links
    ]
    hashes = contents.hashes(inodes[position] for position in suspects)
    files = Counter(hashes.values())
    groups = defaultdict[tuple[int, str], list[bytes]](list)
    for position in suspects:
        inode = inodes[position]
        if files[hashes[inode]] > 1:
            groups[sizes[inode], hashes[inode]].append(listing.paths[position])
    found = [Equal(*key, paths) for key, paths in groups.items() if len(paths) > 1]
    return sorted(found, key=lambda equal: (-equal.spare, equal.paths))


def main_directories(report: Report) -> list[Directory]:
    """Return the directories with at least ``DIRECTORY_SHARE`` of the image's size."""
    least = max(report.size * DIRECTORY_SHARE, 1)
    return [item for item in report.directories if item.path and item.size >= least]


def document(report: Report, count: int) -> dict[str, Any]:
    """Return a report for JSON, with at most ``count`` items in each list."""
    image, members = report.image, report.index.members
    platform = [image.config.get(key) for key in ("os", "architecture", "variant")]
    largest = sorted(report.directories, key=lambda item: (-item.size, item.path))
    return {
        "id": image.id,
        "names": list(image.names),
        "platform": "/".join(str(part) for part in platform if part) or None,
        "problem": report.problem or None,
        "verified": report.index.verified,
        "transfer": image.transfer and asdict(image.transfer()),
        "size": report.size,
        "files": report.files,
        "paths": len(report.listing),
        "steps": report.steps,
        "directories": [
            {"path": text(item.path), "size": item.size, "files": item.files}
            for item in largest[:count]
        ],
        "largest": [
            {
                "path": text(row.path),
                "size": members.sizes[row.inode],
                "layer": members.layers[row.inode] + 1,
            }
            for row in report.largest(count)
        ],
        "efficiency": _efficiency_document(report.efficiency, count),
        "hidden": _hidden_document(report.hidden, count),
        "equal": None if report.equal is None else _equal_document(report.equal, count),
    }


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
            {
                "path": text(item.path),
                "size": item.size,
                "layer": item.layer + 1,
                "replaced": item.replaced,
            }
            for item in found[:count]
        ],
    }


def _equal_document(found: list[Equal], count: int) -> dict[str, Any]:
    return {
        "spare": sum(equal.spare for equal in found),
        "groups": len(found),
        "largest": [
            {
                "size": equal.size,
                "xxh3": equal.xxh3,
                "count": len(equal.paths),
                "paths": [text(path) for path in equal.paths[:count]],
            }
            for equal in found[:count]
        ],
    }


def text(path: bytes) -> str:
    """Return a path as text, as in ``describe``."""
    return path.decode("utf-8", "surrogateescape")
