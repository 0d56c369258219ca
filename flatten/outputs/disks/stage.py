"""The tree as a temporary directory, for programs that read no tar.

As root it is written as ``-o DIR/`` is. For other users fakeroot remembers the owners,
devices and xattrs that they cannot set: a tar is written first, and our module
``unpack``, run under fakeroot, unpacks it and then executes the program. GNU tar cannot
replace that module: fakeroot forgets a file's type if xattrs are set before the owner.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from mmap import mmap
from pathlib import Path

from ...errors import quoted
from ...host.compress import PlainSink
from .. import atomic
from ..check import LABELS, RESULTS, check
from ..inode import FileSystem
from ..job import Job
from ..write_dir import describe_root, write_directory
from . import tools

Command = Sequence[str | os.PathLike[str]]


def as_root() -> bool:
    """Return True if the tree is written as root, False if fakeroot unpacks a tar."""
    return os.geteuid() == 0


def require_fakeroot() -> None:
    """Check, before an image is read, that the tree can be written.

    Raises:
        FlattenError: fakeroot is needed and missing.
    """
    if not as_root():
        tools.find("fakeroot")


def run_on_tree(
    job: Job, path: Path, command: Callable[[Path], Command], env: Mapping[str, str]
) -> dict[str, int]:
    """Write the tree to a private directory beside ``path``, and run a program on it.

    Args:
        job: The job.
        path: The output. The directory is made beside it, and removed at the end.
        command: Given the directory, returns the program and its arguments.
        env: Variables to add to the program's environment.

    Returns:
        How many owners and so on could not be set, as of ``write_directory``.

    Raises:
        FlattenError: The tree cannot be written; the program failed; fakeroot is
            needed and missing.
    """
    with atomic.scratch_directory(path) as folder:
        tree = folder / "tree"
        tree.mkdir(mode=0o700)
        if as_root():
            missed = _write(job, tree)
            tools.run(command(tree), env, folder=folder)
            return missed
        _, fakeroot = tools.find("fakeroot")
        report = folder / "missed"
        unpack = (fakeroot, "--", sys.executable, "-m", f"{__package__}.unpack")
        _feed(job, folder / "tar", [*unpack, report, tree, *command(tree)], env)
        rows = [line.split(maxsplit=1) for line in report.read_text().splitlines()]
        return {what: int(count) for count, what in rows}


def warn_of_missed(job: Job, path: Path, missed: Mapping[str, int]) -> None:
    """Add the warning that something could not be set, if there is anything."""
    if missed:
        counts = ", ".join(f"{n:,} {what}" for what, n in sorted(missed.items()))
        job.notes.append(
            f"{path}: could not set {counts} in the directory that it was made from"
        )


def check_staged(
    job: Job,
    name: Path,
    path: Path,
    read: Callable[[mmap], FileSystem],
    missed: Mapping[str, int],
) -> None:
    """Check a file system that was made from a directory.

    What could not be set in the directory is no error, and neither are the labels that
    SELinux on this machine gives to all files.

    Args:
        job: The job; the warning about labels is added to it.
        name: The file that has the file system.
        path: The output, for messages.
        read: Opens the file system.
        missed: What ``run_on_tree`` returned.

    Raises:
        FlattenError: The file system differs otherwise.
    """
    excused = {LABELS, *missed, *(RESULTS[what] for what in missed.keys() & RESULTS)}
    known = check(job.plan, name, path, read, lambda kind, _: kind in excused)
    if known[LABELS]:
        job.notes.append(
            f"{path}: {known[LABELS]:,} files have an SELinux label of this machine"
        )


def _write(job: Job, tree: Path) -> dict[str, int]:
    root = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        missed = write_directory(job.plan, job.layers(), root, advance=job.advance)
        describe_root(job.plan, root, missed)
    finally:
        os.close(root)
    return missed


def _feed(job: Job, name: Path, argv: Command, env: Mapping[str, str]) -> None:
    """Run a program with the tar, as a seekable file, as its standard input."""
    with open(name, "xb") as tar:
        job.write_tar(PlainSink(tar.fileno(), quoted(str(name))))
    with open(name, "rb") as tar:
        os.unlink(name)
        tools.run(argv, env, stdin=tar, folder=name.parent)
