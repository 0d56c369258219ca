"""Python's tarfile as a reader of what flatten writes, and how readers are judged."""

import os
import shlex
import sys
from pathlib import Path

import pytest

from tests.conformance.trees import Inode

from .features import FEATURES, tree_of
from .run import judge, run_reader, write_tars

TOOLS = Path(__file__).parent / "tools"
NO_XATTRS = {"xattr", "capability"}  # tarfile does not restore them


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make owners and devices")
@pytest.mark.parametrize("form", ["gnu", "pax"])
def test_python_extracts_what_flatten_writes(tmp_path, form):
    write_tars(tmp_path / form, shlex.join([sys.executable, "-m", "flatten"]), form)
    command = shlex.join([sys.executable, str(TOOLS / "python")])
    found = {
        each["feature"]: each["status"]
        for each in run_reader(f"{command} {{in}} {{out}}", "dir", tmp_path)
    }

    expected = {name: "lost" if name in NO_XATTRS else "yes" for name in FEATURES}
    assert found == expected


def tree(**changes):
    """Return the tree of a file with a large owner, with other fields in the file."""
    fields = {"uid": 2**21 + 5, "gid": 2**31} | changes
    return {
        b"0-before": Inode("file", b"0-before"), b"~behind": Inode("file", b"~behind"),
        b"f": Inode("file", **fields),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("found", "status", "detail"),
    [
        (tree(), "yes", ""),
        (tree(uid=0), "lost", "'f': the uid is 0, not 2097157"),
        (tree(uid=5), "wrong", "'f': the uid is 5, not 2097157"),
        (tree() | {b"g": Inode("file")}, "wrong", "'g' should not be there"),
        ({}, "wrong", "'0-before' is missing; 'f' is missing"),
    ],
)
def test_judge(found, status, detail):
    assert judge(found, tree_of(FEATURES["owner"])) == (status, detail)
