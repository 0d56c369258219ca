"""What a batch prints on a terminal, and elsewhere."""

import os
import pty
import subprocess
import termios

from command import FLATTEN, run
from fleets import fleet


def on_a_terminal(*arguments):
    """Run a batch with standard error on a terminal; return what it shows there."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    with subprocess.Popen([*FLATTEN, "batch", *arguments], stderr=theirs) as batch:
        os.close(theirs)
        shown = b""
        while True:
            try:
                data = os.read(ours, 4096)
            except OSError:  # the other end was closed
                break
            if not data:
                break
            shown += data
    os.close(ours)
    assert batch.returncode == 0, shown
    return shown.decode()


def test_a_terminal_gets_a_bar_of_jobs_and_bytes(tmp_path):
    fleet(tmp_path / "in", 3)
    shown = on_a_terminal(tmp_path / "in", "-o", f"{tmp_path}/{{name}}.tar")

    assert "0/3" in shown
    assert "image" in shown
    assert "MiB" in shown
    assert "3 done, 0 unchanged, 0 failed" in shown


def test_a_quiet_batch_prints_nothing(tmp_path):
    fleet(tmp_path / "in", 2)
    how = (tmp_path / "in", "-o", f"{tmp_path}/{{name}}.tar", "--quiet")

    assert on_a_terminal(*how) == ""


def test_a_batch_ends_when_its_results_are_no_longer_read(tmp_path):
    fleet(tmp_path / "in", 6)
    with subprocess.Popen(
        [*FLATTEN, "batch", "in", "-o", "out/{name}.tar", "--results", "-"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as batch:  # fmt: skip
        batch.stdout.readline()
        batch.stdout.close()
        said = batch.stderr.read()

    assert batch.returncode == 141
    assert said == ""
    assert not list((tmp_path / "out").glob(".*"))


def test_elsewhere_there_is_one_line_at_the_end(tmp_path):
    fleet(tmp_path / "in", 2)
    done = run("batch", tmp_path / "in", "-o", f"{tmp_path}/{{name}}.tar")

    assert done.stderr.count("\n") == 1
