"""The tree as a directory of its own, for programs that read no tar.

As root it is written as ``-o DIR/`` is. For anybody else fakeroot remembers owners,
devices and xattrs that they cannot set: a tar is written first, for a second run of
ourselves below fakeroot (``unpack``), which unpacks it and becomes the program. GNU tar
would not do: fakeroot forgets the kind of a file whose xattrs are set before its owner.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ...errors import quoted
from ...host.compress import PlainSink
from ...plan.pieces import pieces
from .. import atomic
from ..job import Job
from ..write_dir import describe_root, write_directory
from ..write_tar import write_tar
from . import tools

Command = Sequence[str | os.PathLike[str]]


def run_on_tree(
    job: Job, path: Path, command: Callable[[Path], Command], env: Mapping[str, str]
) -> None:
    """Write the tree to a private directory beside ``path``, and run a program on it.

    Args:
        job: What is in the tree.
        path: The output, which the directory will be beside, and is removed from.
        command: Given the directory, returns the program and its arguments.
        env: What is added to the program's environment.

    Raises:
        FlattenError: The tree cannot be written; the program failed; fakeroot is
            needed and not there.
    """
    as_root = os.geteuid() == 0
    fakeroot = "" if as_root else tools.find("fakeroot")[1]
    with atomic.scratch_directory(path) as folder:
        tree = folder / "tree"
        tree.mkdir(mode=0o700)
        if as_root:
            _write(job, tree, path)
            tools.run(command(tree), env)
        else:
            unpack = (fakeroot, "--", sys.executable, "-m", f"{__package__}.unpack")
            _feed(job, folder / "tar", [*unpack, tree, *command(tree)], env)


def _write(job: Job, tree: Path, path: Path) -> None:
    root = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        missed = write_directory(job.plan, job.layers(), root, advance=job.advance)
        describe_root(job.plan, root, missed)
    finally:
        os.close(root)
    if missed:
        counts = ", ".join(f"{n:,} {what}" for what, n in sorted(missed.items()))
        job.notes.append(f"{path}: could not set {counts}")


def _feed(job: Job, name: Path, argv: Command, env: Mapping[str, str]) -> None:
    """Run a program whose standard input is the tar: a file, to be read at offsets."""
    with open(name, "xb") as tar:
        sink = PlainSink(tar.fileno(), quoted(str(name)))
        write_tar(pieces(job.plan), job.layers(), sink, job.advance)
    with open(name, "rb") as tar:
        os.unlink(name)
        tools.run(argv, env, stdin=tar)
