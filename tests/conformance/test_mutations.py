"""Faults put into a copy of flatten: the kit must find each of them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MUTATIONS = {
    "resolve: a directory over a directory is empty":
        ("tree/tree.py", "{} if kept is None else kept", "{}"),
    "resolve: an absolute symlink leads on from where it is":
        ("tree/tree.py", "if target.startswith(b\"/\"):", "if False:"),
    "plan: the root's own metadata is left out":
        ("tree/walk.py", "if tree.root_inode is not None:", "if False:"),
    "plan: each plain member has the mtime 0":
        ("plan/encode.py", "numbers[mtimes[inode]]", "numbers[0]"),
    "whiteouts: a layer's whiteouts hide its own files":
        ("tree/tree.py", "self._remove(index)\n            self._add(index)",
         "self._add(index)\n            self._remove(index)"),
    "whiteouts: an opaque whiteout hides nothing":
        ("tree/tree.py", "names.clear()  # one", "pass  # one"),
    "links: hard links are copies":
        ("tree/walk.py", "if not linked:", "if True:"),
    "links: the last name of an inode is its first":
        ("tree/walk.py", "in enumerate(inodes):", "in [*enumerate(inodes)][::-1]:"),
    "xattrs: a value ends at its first NUL":
        ("tar/wire.py", "body[found.end() : stop - 1]))",
         "body[found.end() : stop - 1].split(b\"\\0\")[0]))"),
    "xattrs: the capabilities of files are lost":
        ("tar/extended.py", "if key.startswith(_KEPT_PREFIXES) and not",
         "if key.startswith(_KEPT_PREFIXES) and b\"capab\" not in key and not"),
    "modes: set-user-ID, set-group-ID and sticky bits are lost":
        ("tar/read_header.py", "(fields[:8]) & 0o7777", "(fields[:8]) & 0o777"),
    "modes: a parent that no layer lists is for its owner alone":
        ("tar/members.py", "self.owner((0o755, 0, 0))", "self.owner((0o700, 0, 0))"),
}  # fmt: skip
FIRST_FAULT = """
import sys, tempfile
from pathlib import Path
import flatten
from tests.conformance.cases import CASES
from tests.conformance.images import as_layers
from tests.conformance.runner import Ended, Tool, judge, write_docker_archive

tool = Tool("")
for case in CASES:
    if tool.form not in case.forms:
        continue
    with tempfile.TemporaryDirectory() as folder:
        image, out = Path(folder, "image.tar"), Path(folder, "out.tar")
        write_docker_archive(image, as_layers(case.layers))
        try:
            flatten.export(image, out)
            ended = Ended(0, "", 0)
        except flatten.FlattenError as error:
            ended = Ended(error.exit_code, str(error), 0)
        status, detail = judge(tool, case, ended, out)
    if status not in {"right", "open"}:
        print(f"{status}: {case.id}: {detail}")
        sys.exit(1)
print("nothing found with", flatten.__file__)
"""


def first_fault(folder: Path) -> str:
    """Run the kit over the flatten in a folder until a case does not hold."""
    done = subprocess.run(
        [sys.executable, "-c", FIRST_FAULT], cwd=folder, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": f"{folder}:{ROOT}", "FLATTEN_PURE": "1"},
        check=False,
    )  # fmt: skip
    assert not done.stderr
    return done.stdout.strip()


@pytest.fixture
def copied(tmp_path):
    """Return a folder with a copy of flatten's Python code."""
    source = ROOT / "flatten"
    unwanted = shutil.ignore_patterns("__pycache__", "*.so")
    shutil.copytree(source, tmp_path / "flatten", ignore=unwanted)
    return tmp_path


def test_the_kit_finds_nothing_in_a_copy_without_a_fault(copied):
    assert first_fault(copied) == f"nothing found with {copied}/flatten/__init__.py"


@pytest.mark.parametrize(("module", "old", "new"), MUTATIONS.values(), ids=MUTATIONS)
def test_the_kit_finds_the_fault(copied, module, old, new):
    path = copied / "flatten" / module
    code = path.read_text()
    assert code.count(old) == 1
    path.write_text(code.replace(old, new))

    assert first_fault(copied).startswith(("wrong: ", "refused: "))
