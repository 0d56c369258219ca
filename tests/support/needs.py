"""Conditions that a test needs, and the reasons for which it is skipped otherwise."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import flatten
from flatten.outputs.disks.tools import PACKAGES

NOBODY = 65_534
PLACES = f"{os.environ['PATH']}:/usr/sbin:/sbin"
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to own files")
needs_bsdtar = pytest.mark.skipif(
    shutil.which("bsdtar") is None, reason="needs bsdtar (libarchive-tools)"
)


def need(*tools):
    """Skip the test if a program is missing; the reason names it."""
    for tool in tools:
        if shutil.which(tool, path=PLACES) is None:
            pytest.skip(f"needs {tool} ({PACKAGES.get(tool, tool)})")


def others_may_enter(path):
    """Return True if any user can reach a directory."""
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in (path, *path.parents))


needs_user = pytest.mark.skipif(
    os.geteuid() != 0
    or not Path("/usr/bin/python3").exists()
    or not others_may_enter(Path(flatten.__file__).parent),
    reason="needs root, to become another user, Debian's python3, and a checkout that "
    "other users can read",
)


def run_as_user(*args, **options):
    """Run the command as nobody, by Debian's Python: ours may be root's alone."""
    paths = [str(Path(flatten.__file__).parents[1]), *filter(None, sys.path)]
    return subprocess.run(
        ["/usr/bin/python3", "-m", "flatten", *map(str, args)],
        user=NOBODY, group=NOBODY, extra_groups=[], check=False, capture_output=True,
        text=True, env={"PYTHONPATH": ":".join(paths)}, **options,
    )  # fmt: skip
