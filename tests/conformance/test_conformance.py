"""flatten over all cases of the conformance kit, and the kit itself."""

import ast
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import flatten

from . import runner
from .cases import CASES
from .images import as_layers
from .runner import NAMES, WRITERS, Ended, Tool, judge

HERE = Path(__file__).parent
IMAGES = [
    pytest.param(case, form, id=f"{case.id} ({form})")
    for case in CASES
    for form in case.forms
]


def export(form: str, output: str, case, folder: Path) -> tuple[str, str]:
    """Run flatten in this process over a case and judge the output."""
    image, out = folder / NAMES[form], folder / NAMES[output]
    WRITERS[form](image, as_layers(case.layers))
    try:
        flatten.export(image, out)
        ended = Ended(0, "", 0)
    except flatten.FlattenError as error:
        ended = Ended(error.exit_code, str(error), 0)
    return judge(Tool("", form, output), case, ended, out)


@pytest.mark.parametrize(("case", "form"), IMAGES)
def test_flatten_holds_every_case(case, form, tmp_path):
    status, detail = export(form, "tar", case, tmp_path)

    assert status == ("right" if len(case.outcomes) == 1 else "open"), detail


def test_ids_are_unique():
    ids = [case.id for case in CASES]

    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("page", ["README.md", "docs/conformance.md"])
def test_the_page_has_the_number_of_cases(page):
    text = (HERE.parents[1] / page).read_text()

    assert f" {len(CASES)} small images" in text


def test_the_kit_needs_the_standard_library_only():
    allowed = sys.stdlib_module_names
    for path in HERE.rglob("*.py"):
        if path.name.startswith("test_"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert {a.name.split(".")[0] for a in node.names} <= allowed, path
            elif isinstance(node, ast.ImportFrom) and not node.level:
                assert node.module.split(".")[0] in allowed, path


@pytest.fixture
def kit(tmp_path):
    """Return what runs a copy of the kit on a tool written in Python."""
    shutil.copytree(HERE, tmp_path / "conformance")

    def run(tool, *arguments):
        command = shlex.join([sys.executable, *tool, "{in}", "{out}"])
        return subprocess.run(
            [sys.executable, "-m", "conformance", command, *arguments],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip

    return run


def test_a_copy_of_the_kit_runs_flatten(kit):
    code = "import sys, flatten; flatten.export(*sys.argv[1:])"
    done = kit(["-c", code], "--only", "^(5|26) ", "--json")

    found = json.loads(done.stdout)["counts"]
    assert done.returncode == 0, done.stderr
    assert (found["right"], found["open"]) == (7, 4)


WRONG_TOOLS = {
    "an empty tar": (
        "import sys, tarfile; tarfile.open(sys.argv[2], 'w').close()",
        "wrong: 1 a whiteout hides a file: 'b' is missing",
    ),
    "a tree for an invalid image": (
        "import sys, tarfile; tarfile.open(sys.argv[2], 'w').close()",
        "wrong: 5 a whiteout without a name is invalid: no error",
    ),
    "an error": (
        "raise SystemExit('cannot do that')",
        "refused: 1 a whiteout hides a file: cannot do that",
    ),
    "no output": ("", "wrong: 1 a whiteout hides a file: the output is not a readable"),
    "too much time": (
        "import time; time.sleep(99)",
        "stopped: 1 a whiteout hides a file: killed after 2 seconds",
    ),
    "too much space": (
        "import time; open('large', 'wb').write(bytes(2**24)); time.sleep(99)",
        "stopped: 1 a whiteout hides a file: killed at 0.01 GiB on the disk",
    ),
    "a file next to the output": (
        "import sys; open(sys.argv[2], 'w'); open(sys.argv[2] + '.more', 'w')",
        "wrong: 1 a whiteout hides a file: wrote outside of its output: out/out.tar.more",
    ),
}


@pytest.mark.parametrize(("code", "line"), WRONG_TOOLS.values(), ids=WRONG_TOOLS)
def test_a_tool_that_is_wrong_is_named(kit, code, line):
    name = line.split(": ")[1]
    limits = ("--timeout", "2", "--disk", "0.01")
    done = kit(["-c", code], "--only", f"^{name}$", *limits)

    assert done.returncode == 1
    assert done.stdout.startswith(line)
    assert done.stdout.splitlines()[-1].startswith("1 cases: 1 ")


def test_what_is_written_to_the_root_of_the_machine_is_named(monkeypatch, tmp_path):
    top = tmp_path / "top"
    top.mkdir()
    monkeypatch.setattr(runner, "TOP", top)
    tool = Tool(f"sh -c 'echo > {top}/x; exit 1' {{in}} {{out}}")
    result = runner.run_case(tool, CASES[0])

    assert result.status == "wrong"
    assert result.detail == f"wrote outside of its output: {top}/x"


def test_paths_that_the_tool_adds_are_not_compared(kit):
    code = (
        "import sys, tarfile\n"
        "tar = tarfile.open(sys.argv[2], 'w')\n"
        "for name in 'b', '.dockerenv':\n"
        "    info = tarfile.TarInfo(name)\n"
        "    info.size = int(name == 'b')\n"
        "    tar.addfile(info, __import__('io').BytesIO(b'1'))\n"
        "tar.close()\n"
    )
    only = ("--only", "^1 a whiteout hides a file$")

    assert kit(["-c", code], *only).returncode == 1
    assert kit(["-c", code], *only, "--adds", "dev,.dockerenv").returncode == 0


def test_images_are_saved_under_names_of_their_own(kit, tmp_path):
    done = kit(["-c", ""], "--save", tmp_path / "images", "--oci")

    assert done.returncode == 0, done.stderr
    saved = len(list((tmp_path / "images").iterdir()))
    assert saved == sum("oci" in case.forms for case in CASES)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--only", "("), "argument --only: '('"),
        (("--jobs", "0"), "argument --jobs: invalid int value: '0'"),
        (("--timeout", "-1"), "argument --timeout: invalid float value: '-1'"),
        (("--disk", "nan"), "argument --disk: invalid float value: 'nan'"),
        (("--save", "/dev/null"), "--save: /dev/null"),
    ],
    ids=str,
)
def test_arguments_that_are_not_valid_are_named(kit, arguments, said):
    done = kit(["-c", ""], *arguments)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert f"error: {said}" in done.stderr


def test_a_pattern_that_matches_no_case_is_an_error(kit):
    done = kit(["-c", ""], "--only", "no such case")

    assert done.returncode == 2
    assert "no case matches 'no such case'" in done.stderr
