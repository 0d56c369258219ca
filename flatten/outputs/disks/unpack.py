"""A program of our own, for ``stage``: unpack standard input, then become another."""

import os
import sys

from ...image.read import read_index
from ...image.rootfs import open_rootfs
from ...plan.make import make_plan
from ..write_dir import describe_root, write_directory


def main(tree: str, *argv: str) -> None:
    """Unpack the tar on standard input to a directory, and run a program."""
    with open_rootfs("-") as image:
        plan = make_plan(read_index(image).tree)
        root = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        missed = write_directory(plan, [layer.open() for layer in image.layers], root)
        describe_root(plan, root, missed)
    if missed:
        sys.exit(f"cannot set all below fakeroot: {dict(missed)}")
    os.execv(argv[0], argv)


if __name__ == "__main__":
    main(*sys.argv[1:])
