"""Unpack a tar under fakeroot, then execute a program (see ``stage``)."""

import os
import sys
from pathlib import Path

from ...image.read import read_index
from ...image.rootfs import open_rootfs
from ...plan.make import make_plan
from ..write_dir import describe_root, write_directory


def main(report: str, tree: str, *argv: str) -> None:
    """Unpack the tar on standard input to a directory, and execute a program.

    Args:
        report: A file to write: a line with a count and a noun, as ``3 xattrs``, for
            each kind of metadata that could not be set.
        tree: The directory.
        argv: The program and its arguments.
    """
    with open_rootfs("-") as image:
        plan = make_plan(read_index(image).tree)
        root = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        missed = write_directory(plan, [layer.open() for layer in image.layers], root)
        describe_root(plan, root, missed)
    lines = [f"{count} {what}\n" for what, count in missed.items()]
    Path(report).write_text("".join(lines))
    os.execv(argv[0], argv)


if __name__ == "__main__":
    main(*sys.argv[1:])
