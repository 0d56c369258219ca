"""Messages: colours, the progress bar, the summary for programs."""

import hashlib
import json
import os
import pty
import subprocess
import termios

import pytest

from builders import docker_archive, layers, member
from command import FLATTEN


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "i.tar"
    path.write_bytes(
        docker_archive(layers(["a", "a", member("large", bytes(3 << 20))]))
    )
    return path


def on_terminal(*args, cwd, **env):
    """Run the command with a terminal as standard error; return what is on it."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    plain = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "TERM")}
    with subprocess.Popen([*FLATTEN, *args], cwd=cwd, stderr=theirs, stdout=subprocess.DEVNULL,
                          env=plain | {"TERM": "xterm"} | env):  # fmt: skip
        os.close(theirs)
        shown = b""
        try:
            while data := os.read(ours, 65536):
                shown += data
        except OSError:  # the other end is closed
            pass
    os.close(ours)
    return shown.decode()


COLOURS = {
    "an error": (["nowhere.tar"], {}, "\x1b[31mflatten:\x1b[0m 'nowhere.tar'"),
    "a warning": (["i.tar", "-o", "o.tar"], {}, "flatten: \x1b[33mwarning:\x1b[0m i.tar"),
    "an error, without colour": (["nowhere.tar"], {"NO_COLOR": "1"}, "flatten: 'nowhere"),
    "an error, on a dumb terminal": (["nowhere.tar"], {"TERM": "dumb"}, "flatten: 'nowhere"),
    "NO_COLOR that is empty": (["nowhere.tar"], {"NO_COLOR": ""}, "\x1b[31mflatten:"),
}  # fmt: skip


@pytest.mark.parametrize(("args", "env", "want"), COLOURS.values(), ids=COLOURS)
@pytest.mark.usefixtures("image")
def test_colours_on_a_terminal(tmp_path, args, env, want):
    shown = on_terminal(*args, "--progress", "never", cwd=tmp_path, **env)

    assert want in shown
    assert ("\x1b[" in shown) == ("\x1b[" in want)


def test_no_colours_elsewhere(tmp_path):
    got = subprocess.run(
        [*FLATTEN, "nowhere.tar"], cwd=tmp_path, capture_output=True, check=False
    )

    assert got.stderr.startswith(b"flatten: 'nowhere.tar'")


@pytest.mark.usefixtures("image")
def test_a_bar_has_a_rate_and_the_time_left(tmp_path):
    shown = on_terminal(
        "i.tar", "-o", "o.tar", "-q", "--progress", "always", cwd=tmp_path
    )
    assert shown == ""

    shown = on_terminal("i.tar", "-o", "o.tar", cwd=tmp_path)
    assert "flatten: " in shown
    assert "B/s]" in shown
    assert "<" in shown


def summary(*args, cwd, stream="stdout"):
    got = subprocess.run(
        [*FLATTEN, *args, "--json"], cwd=cwd, capture_output=True, check=True
    )
    return json.loads(getattr(got, stream).partition(b"flatten: warning")[0]), got


def test_a_summary_for_programs(image, tmp_path):
    document, _ = summary("i.tar", "-q", "-o", "o.tar", cwd=tmp_path)
    seconds = document.pop("seconds")
    made = (tmp_path / "o.tar").read_bytes()
    layer = image.read_bytes()  # whose first member is the layer
    (diff_id,) = document.pop("layers")

    assert 0 < seconds < 60
    assert diff_id["diff_id"].removeprefix("sha256:") in layer.decode("latin-1")
    assert document.pop("image")["names"] == ["app:1"]
    assert document.pop("warnings")[0].startswith("i.tar")
    assert document == {
        "verified": 1, "members": 2, "bytes": len(made), "transfer": None,
        "mount": None, "root_hash": None, "verified_by_toc": 0,
        "output": {
            "path": "o.tar", "bytes": len(made), "sha256": hashlib.sha256(made).hexdigest()
        },
    }  # fmt: skip


@pytest.mark.usefixtures("image")
def test_a_summary_of_an_output_that_is_not_a_file(tmp_path):
    document, _ = summary(
        "i.tar", "-q", "-o", "o/", "--ownership", "current", cwd=tmp_path
    )
    assert document["output"] == {"path": "o/"}

    document, got = summary("i.tar", "-q", cwd=tmp_path, stream="stderr")
    assert document["output"] is None
    assert len(got.stdout) == document["bytes"]
