"""Importing the package, and interrupting that."""

import os
import signal
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import flatten

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

INTERRUPT = """
import os, signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["INTERRUPT_AT"]:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
"""
"""Sends this process SIGINT, once, when it imports the module INTERRUPT_AT."""


def default_interrupt():
    """Undo in a child process that SIGINT is ignored, as it is in a background job."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def run_python(folder, *arguments, interrupt_at):
    (folder / "sitecustomize.py").write_text(INTERRUPT)
    path = os.pathsep.join([str(folder), str(ROOT)])
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": path, "INTERRUPT_AT": interrupt_at},
        preexec_fn=default_interrupt, timeout=60,
    )  # fmt: skip


CONSOLE_SCRIPT = """
import sys
from flatten.__main__ import script
sys.argv[0] = "flatten"
sys.exit(script())
"""

COMMAND_MODULES = [
    "flatten.cli",
    "flatten.cli.main",
    "flatten.errors",
    "flatten.cli.signals",
    "flatten.cli.registry",
    "flatten.pipeline",
    "flatten.tar.reader",
]


@pytest.mark.parametrize("module", COMMAND_MODULES)
@pytest.mark.parametrize("start", [["-m", "flatten"], ["-c", CONSOLE_SCRIPT]])
def test_an_interrupt_while_the_command_is_imported_exits_130(tmp_path, start, module):
    done = run_python(tmp_path, *start, "no-image.tar", interrupt_at=module)

    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


CAUGHT = """
import flatten
try:
    flatten.export
except KeyboardInterrupt:
    print("interrupted")
    flatten.export  # it can still be imported
    print("imported")
"""


def test_an_interrupt_of_a_program_that_imports_flatten_is_a_keyboard_interrupt(
    tmp_path,
):
    done = run_python(tmp_path, "-c", CAUGHT, interrupt_at="flatten.tar.reader")

    assert (done.returncode, done.stdout, done.stderr) == (
        0, "interrupted\nimported\n", "",
    )  # fmt: skip


def test_the_command_is_the_function_that_handles_interrupts():
    entry = EntryPoint("flatten", PROJECT["scripts"]["flatten"], "console_scripts")

    assert entry.value == "flatten.__main__:script"
    assert callable(entry.load())


def test_importing_flatten_imports_no_other_module_of_it():
    code = "import sys, flatten; print(*[m for m in sys.modules if 'flatten.' in m])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip

    assert done.stdout == "\n"


def test_every_public_name_can_be_imported():
    assert sorted(flatten.__all__) == sorted(flatten._MODULES)
    for name in flatten.__all__:
        assert getattr(flatten, name).__name__ == name
        assert name in dir(flatten)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'flatten' has no attribute 'exprot'"):
        flatten.exprot  # noqa: B018 - the access is the test
