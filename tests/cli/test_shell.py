"""Completion and the manual page: made from the parsers, read by the real programs."""

import json
import os
import pty
import select
import shutil
import subprocess

import pytest

from flatten.cli import registry
from flatten.cli.described import describe
from kinds import run

BASH = """
source <(cat)
COMP_WORDS=({words}); COMP_CWORD={at}
_flatten
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def bash(*words, cwd=None):
    """Complete the last of some words in bash."""
    line = BASH.format(words=" ".join(f"'{word}'" for word in words), at=len(words) - 1)
    done = subprocess.run(
        ["bash", "-c", line], input=run("--print-completion", "bash").stdout,
        capture_output=True, text=True, check=True, cwd=cwd,
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout.split()


def fish(line, tmp_path, cwd=None):
    """Complete a line in fish."""
    script = tmp_path / "flatten.fish"
    script.write_text(run("--print-completion", "fish").stdout)
    done = subprocess.run(
        ["fish", "--no-config", "-c", f"source {script}; complete -C {json.dumps(line)}"],
        capture_output=True, text=True, check=True, cwd=cwd,
    )  # fmt: skip
    return [row.split("\t")[0] for row in done.stdout.splitlines()]


@pytest.fixture
def place(tmp_path):
    (tmp_path / "place").mkdir()
    (tmp_path / "place" / "app.tar").write_text("")
    return tmp_path / "place"


def test_bash_completes(place):
    assert bash("flatten", "his", cwd=place) == ["history"]
    assert set(bash("flatten", "", cwd=place)) == {"app.tar", *registry.COMMANDS}
    assert bash("flatten", "history", "ap", cwd=place) == ["app.tar"]
    assert bash("flatten", "app.tar", "--forma") == ["--format"]
    assert bash("flatten", "app.tar", "--format", "") == ["gnu", "pax"]
    assert bash("flatten", "app.tar", "-o", "ap", cwd=place) == ["app.tar"]
    assert bash("flatten", "app.tar", "--mtime", "", cwd=place) == []
    assert "--hash" in bash("flatten", "ls", "app.tar", "--")
    assert "--hash" not in bash("flatten", "cat", "app.tar", "--")


@pytest.mark.skipif(not shutil.which("fish"), reason="needs fish")
def test_fish_completes(place, tmp_path):
    assert fish("flatten his", tmp_path, place) == ["history"]
    assert fish("flatten app.tar --forma", tmp_path) == ["--format"]
    assert fish("flatten app.tar --format ", tmp_path, place) == ["gnu", "pax"]
    assert "--hash" in fish("flatten ls app.tar --", tmp_path)
    assert "--hash" not in fish("flatten cat app.tar --", tmp_path)
    assert fish("flatten ls ap", tmp_path, place) == ["app.tar"]


def talk(terminal, said, until):
    """Type into a terminal and return what it says until some text; "" if it does not."""
    os.write(terminal, said.encode())
    heard = ""
    while until not in heard and select.select([terminal], [], [], 10)[0]:
        heard += os.read(terminal, 1 << 16).decode(errors="replace")
    return heard if until in heard else ""


@pytest.mark.skipif(not shutil.which("zsh"), reason="needs zsh")
def test_zsh_completes(tmp_path):
    (tmp_path / "_flatten").write_text(run("--print-completion", "zsh").stdout)
    subprocess.run(["zsh", "-n", tmp_path / "_flatten"], check=True)
    ours, theirs = pty.openpty()
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "TERM": "dumb"}
    with subprocess.Popen(
        ["zsh", "-f", "-i"], stdin=theirs, stdout=theirs, stderr=theirs,
        env=environment, cwd=tmp_path, start_new_session=True,
    ) as shell:  # fmt: skip
        try:
            setup = f"fpath=({tmp_path} $fpath); autoload -Uz compinit; compinit -u -D"
            assert talk(ours, f"stty cols 200; {setup}; echo READ''Y\n", "READY")
            assert "--hash" in talk(ours, "flatten ls --\t\t", "XXH3")
            assert talk(ours, "\x15flatten his\t", "tory")
            assert talk(ours, "\x15flatten x --format \t\t", "pax")
        finally:
            shell.kill()
    os.close(ours)
    os.close(theirs)


def test_an_unknown_shell_is_refused():
    assert "invalid choice: 'tcsh'" in run("--print-completion", "tcsh").stderr


def test_the_manual_has_every_command_and_option():
    text = run("--print-man").stdout.replace("\\-", "-")

    for command in describe():
        assert not command.name or f".SS flatten {command.name}\n" in text
        for option in command.options():
            assert all(f"\\fB{name}\\fR" in text for name in option.names), option
    assert text.count("\n.SS ") == len(registry.COMMANDS)


@pytest.mark.skipif(not shutil.which("groff"), reason="needs groff")
def test_groff_has_nothing_to_say_about_the_manual():
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-z"], input=run("--print-man").stdout,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == ""


def test_what_is_a_file_is_known():
    taken = {option.metavar for command in describe() for option in command.options()}

    assert {"IMAGE", "A", "B", "SOURCE", "OUT", "DIR"} <= taken
