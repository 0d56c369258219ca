"""Completion scripts and the manual page, in the programs that read them."""

import json
import os
import pty
import re
import select
import shutil
import subprocess
import termios
from contextlib import contextmanager

import pytest

from flatten.cli import registry
from flatten.cli.described import describe
from kinds import run

BASH = """
source <(cat)
compopt() {{ :; }}  # needs readline
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
    return done.stdout.splitlines()


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
    (tmp_path / "place" / "my image.tar").write_text("")
    return tmp_path / "place"


def test_bash_completes(place):
    assert bash("flatten", "his", cwd=place) == ["history"]
    assert set(bash("flatten", "", cwd=place)) == {
        "app.tar",
        "my image.tar",
        *registry.COMMANDS,
    }
    assert bash("flatten", "app.tar", "--forma") == ["--format"]
    assert bash("flatten", "app.tar", "--format", "") == ["gnu", "pax"]
    assert bash("flatten", "app.tar", "--format", "=", "p") == ["pax"]
    assert bash("flatten", "app.tar", "--compress", "z") == ["zstd"]
    assert bash("flatten", "diff", "a", "b", "--only", "mt") == ["mtime"]
    assert bash("flatten", "diff", "a", "b", "--only", "mode,ui") == ["mode,uid"]
    assert bash("flatten", "help", "his") == ["history"]
    assert "--hash" in bash("flatten", "ls", "app.tar", "--")
    assert "--hash" not in bash("flatten", "cat", "app.tar", "--")


@pytest.mark.skipif(not shutil.which("fish"), reason="needs fish")
def test_fish_completes(place, tmp_path):
    assert fish("flatten his", tmp_path, place) == ["history"]
    assert fish("flatten app.tar --forma", tmp_path) == ["--format"]
    assert fish("flatten app.tar --format ", tmp_path, place) == ["gnu", "pax"]
    assert fish("flatten app.tar --compress z", tmp_path) == ["zstd"]
    assert fish("flatten diff a b --only mt", tmp_path) == ["mtime"]
    assert "mode,uid" in fish("flatten diff a b --only mode,ui", tmp_path)
    assert fish("flatten help his", tmp_path) == ["history"]
    assert fish("flatten ls my", tmp_path, place) == ["my image.tar"]
    assert fish("flatten ls docker-root:pl", tmp_path, tmp_path) == [
        "docker-root:place/"
    ]
    assert fish("flatten app.tar -o ap", tmp_path, place) == ["app.tar"]
    assert "--hash" in fish("flatten ls app.tar --", tmp_path)
    assert "--hash" not in fish("flatten cat app.tar --", tmp_path)
    assert fish("flatten ls ap", tmp_path, place) == ["app.tar"]


def talk(terminal, said, until):
    """Type into a terminal; return its output up to a text, or "" if that is missing."""
    os.write(terminal, said.encode())
    heard = ""
    while until not in heard and select.select([terminal], [], [], 10)[0]:
        heard += os.read(terminal, 1 << 16).decode(errors="replace")
    return heard if until in heard else ""


@contextmanager
def interactive(argv, cwd):
    """Start an interactive shell; yield the terminal that it is on."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (50, 200))
    environment = {"HOME": str(cwd), "PATH": "/usr/bin:/bin", "TERM": "dumb"}
    with subprocess.Popen(
        argv, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, cwd=cwd,
        start_new_session=True,
    ) as shell:  # fmt: skip
        try:
            yield ours
        finally:
            shell.kill()
            os.close(ours)
            os.close(theirs)


def completed(terminal, line):
    """Type a line, Tab and Enter; return the words that flatten is called with."""
    heard = talk(terminal, f"{line}\t\n", "]END")
    return re.findall(r"<(.*?)>", heard.rpartition("BEGIN[")[2])


CALLED = "flatten() { printf 'BEGIN'; printf '['; printf '<%s>' \"$@\"; echo ']END'; }"
FILES = {
    "a file": ("flatten ls ap", ["ls", "app.tar"]),
    "a file with a space in its name": ("flatten ls my", ["ls", "my image.tar"]),
    "such a file, half quoted": ("flatten ls 'my im", ["ls", "my image.tar"]),
    "such a file, as the first word": ("flatten my", ["my image.tar"]),
    "the path after a kind": ("flatten docker-root:pl", ["docker-root:place/"]),
    "the path after a kind, of a command": ("flatten ls oci:pl", ["ls", "oci:place/"]),
    "an output": ("flatten app.tar -o ap", ["app.tar", "-o", "app.tar"]),
    "a value": ("flatten app.tar --compress zs", ["app.tar", "--compress", "zstd"]),
    "a value after an equals sign": ("flatten x --format=p", ["x", "--format=pax"]),
    "a field of a list": ("flatten diff a --only mode,ui", ["diff", "a", "--only", "mode,uid"]),
    "no file where none can be": ("flatten x --mtime ap", ["x", "--mtime", "ap"]),
    "the name of a command": ("flatten help his", ["help", "history"]),
}  # fmt: skip


@pytest.fixture
def files(tmp_path):
    for name in ("app.tar", "my image.tar"):
        (tmp_path / name).touch()
    (tmp_path / "place").mkdir()
    return tmp_path


def test_bash_completes_files_and_values(files):
    (files / "script").write_text(run("--print-completion", "bash").stdout)
    with interactive(["bash", "--norc", "--noprofile", "-i"], files) as terminal:
        assert talk(terminal, f"source ./script; {CALLED}; echo READ''Y\n", "READY")
        got = {what: completed(terminal, line) for what, (line, _) in FILES.items()}

    assert got == {what: want for what, (_, want) in FILES.items()}


@pytest.mark.skipif(not shutil.which("zsh"), reason="needs zsh")
def test_zsh_completes(files):
    (files / "fpath").mkdir()
    (files / "fpath" / "_flatten").write_text(run("--print-completion", "zsh").stdout)
    subprocess.run(["zsh", "-n", files / "fpath" / "_flatten"], check=True)
    with interactive(["zsh", "-f", "-i"], files) as terminal:
        setup = f"fpath=({files}/fpath $fpath); autoload -Uz compinit; compinit -u -D; unsetopt auto_remove_slash"
        assert talk(terminal, f"{setup}; {CALLED}; echo READ''Y\n", "READY")
        assert "--hash" in talk(terminal, "flatten ls --\t\t", "XXH3")
        assert talk(terminal, "\x15flatten x --format \t\t", "pax")
        assert talk(terminal, "\x15\n", "\n")
        got = {what: completed(terminal, line) for what, (line, _) in FILES.items()}

    assert got == {what: want for what, (_, want) in FILES.items()}


def test_an_unknown_shell_is_refused():
    assert "invalid choice: 'tcsh'" in run("--print-completion", "tcsh").stderr


def test_the_manual_has_every_command_and_option():
    text = run("--print-man").stdout.replace("\\-", "-")

    for command in describe():
        assert not command.name or f".SS flatten {command.name}\n" in text
        for option in command.options():
            assert all(f"\\fB{name}\\fR" in text for name in option.names), option
    assert text.count("\n.SS ") == len(registry.COMMANDS)


def test_the_manual_keeps_the_case_of_words():
    text = run("--print-man").stdout.replace("\\-", "-")

    for said in ("-o DIR/", "$NO_COLOR", ".B NO_COLOR", "129, 130,\n143", "SIGHUP"):
        assert " ".join(said.split()) in " ".join(text.split())


@pytest.mark.skipif(not shutil.which("groff"), reason="needs groff")
def test_groff_reads_the_manual_without_warnings():
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-z"], input=run("--print-man").stdout,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == ""


def test_the_metavars_of_files_are_in_use():
    taken = {option.metavar for command in describe() for option in command.options()}

    assert {"IMAGE", "A", "B", "SOURCE", "OUT", "DIR"} <= taken
