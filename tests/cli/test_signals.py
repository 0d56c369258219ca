"""Signals at any moment: no incomplete output, no leftovers, no tool still running.

``FLATTEN_MOMENTS`` is the number of moments for each signal (``make fuzz``: 200).
"""

import fcntl
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import flatten
from command import FLATTEN, run
from flatten.outputs.atomic import MADE, SUFFIX
from listing import contents

PACKAGE = f"{Path(flatten.__file__).parent}/".encode()
MOMENTS = int(os.environ.get("FLATTEN_MOMENTS", "6"))
ENDING = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def default_signals():
    """Reset signals in a new process: the test runner may ignore some."""
    for number in (*ENDING, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)


def started(*args, **options):
    """Start the command, as from a shell."""
    return subprocess.Popen(
        [*FLATTEN, *map(str, args)], stderr=subprocess.PIPE,
        preexec_fn=default_signals, **options,  # noqa: PLW1509 - no threads here
    )  # fmt: skip


@pytest.mark.parametrize("number", [*ENDING, signal.SIGPIPE])
def test_a_signal_at_any_moment(image, folder, number):
    """Before flatten's code runs, Python prints a traceback of its own.

    SIGPIPE is ignored from the moment when Python ignores it.
    """
    chance = random.Random(int(number))
    took = timed(image, folder / "new.tar")
    for _ in range(MOMENTS):
        with started(image, "-o", folder / "new.tar") as process:
            time.sleep(chance.uniform(0, 1.1 * took))
            process.send_signal(number)
            said = process.stderr.read()

        names = sorted(path.name for path in folder.iterdir())
        if process.returncode == 0:
            assert names == ["new.tar", "old.tar"]
            assert len(contents(folder / "new.tar")) == 60
            (folder / "new.tar").unlink()
        else:
            assert names == ["old.tar"]
            assert PACKAGE not in said, said
            assert process.returncode in (128 + number, -number) or said


NAMING = """
import os, signal, sys
from flatten.cli import main as cli
class Slow:
    def __set_name__(self, *_):
        os.kill(os.getpid(), signal.SIGTERM)
def run(arguments):
    class Loads:
        here = Slow()
cli._run = run
sys.exit(cli.main([]))
"""


def test_a_signal_while_a_class_is_created():
    """Python before 3.12 raises RuntimeError then, also while it loads modules."""
    done = subprocess.run(
        [sys.executable, "-c", NAMING], capture_output=True, check=False,
        preexec_fn=default_signals,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (128 + signal.SIGTERM, b"")


PRESERVED = """
import json, os, signal, sys, threading, time
from flatten.cli import main as cli

def state():
    return [
        sorted(os.listdir("/proc/self/fd")),
        len(os.listdir("/proc/self/task")),
        [str(signal.getsignal(n)) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)],
        sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        signal.set_wakeup_fd(-1),
        sys.unraisablehook is sys.__unraisablehook__,
    ]

def stopped(arguments):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(30)

signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
signal.signal(signal.SIGTERM, lambda *_: None)
before, codes = state(), []
for _ in range(3):
    for arguments in (["{image}", "-o", "/dev/null"], ["no/such"], ["--unknown"]):
        codes.append(cli.main(arguments))
run, cli._run = cli._run, stopped
codes += [cli.main([]), cli.main([])]
until = time.monotonic() + 10  # a thread's entry disappears a moment after its end
while state() != before and time.monotonic() < until:
    time.sleep(0.01)
print(json.dumps([codes, before, state()]))
"""


def test_main_leaves_the_process_as_it_was(image):
    done = subprocess.run(
        [sys.executable, "-c", PRESERVED.replace("{image}", str(image))],
        capture_output=True, text=True, check=True, preexec_fn=default_signals,
    )  # fmt: skip
    codes, before, after = json.loads(done.stdout)

    assert codes == [0, 3, 2] * 3 + [143, 143]
    assert after == before


ZERO = """
import os, signal, sys, time
from flatten.cli import main as cli, signals

class Dropped:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)  # Python drops the exception here, so it must be repeated

def run(arguments):
    wakeup = signal.set_wakeup_fd(-1)
    os.write(wakeup, b"\\0")
    signal.set_wakeup_fd(wakeup)
    held = Dropped()
    del held
    time.sleep(30)

cli._run = run
sys.exit(cli.main([]))
"""


def test_a_zero_byte_does_not_end_the_thread_that_repeats_signals():
    done = subprocess.run(
        [sys.executable, "-c", ZERO], capture_output=True, text=True, check=False,
        preexec_fn=default_signals, timeout=25,
    )  # fmt: skip

    assert (done.returncode, done.stderr) == (143, "")


DELIVERED = """
import os, signal, time
from flatten.cli import main as cli, signals

def run(arguments):
    signals.ignore()
    os.kill(os.getpid(), signal.SIGTERM)
    return 0

received = []
signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
cli._run = run
print(cli.main([]), received)
"""


def test_a_signal_that_was_too_late_reaches_the_callers_handler():
    done = subprocess.run(
        [sys.executable, "-c", DELIVERED], capture_output=True, text=True, check=True,
        preexec_fn=default_signals, timeout=25,
    )  # fmt: skip

    assert done.stdout == "0 [15]\n"


def timed(image, out, slash=""):
    """Return how many seconds a run takes."""
    start = time.monotonic()
    assert run(image, "-o", f"{out}{slash}").returncode == 0
    remove(out)
    return time.monotonic() - start


def remove(path):
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


OUTPUTS = {
    "new.tar.zst": [],
    "new/": [],
    "new.squashfs": ["tar2sqfs", "sqfstar"],
    "new.ext4": ["mke2fs"],
    "new.qcow2": ["qemu-img"],
}
"""Outputs, and the tools of which each needs one."""


DROPPED = """
import os, signal, sys, time
from flatten.cli import main as cli, registry

class Dropped:
    def __del__(self):
        os.kill(os.getpid(), {number})
        time.sleep(0.01)  # here the handler runs, and Python drops what it raises

def run(arguments):
    held = Dropped()
    del held
    time.sleep(30)

cli._run = run
sys.exit(cli.main([]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_not_lost_in_a_destructor(number):
    got = subprocess.run(
        [sys.executable, "-c", DROPPED.format(number=int(number))],
        capture_output=True, text=True, check=False, timeout=25,
    )  # fmt: skip

    assert (got.returncode, got.stderr) == (128 + number, "")


def need(programs):
    if programs and not any(map(shutil.which, programs)):
        pytest.skip(f"needs {' or '.join(programs)}")


@pytest.mark.parametrize(("name", "programs"), OUTPUTS.items(), ids=OUTPUTS)
def test_a_signal_at_any_moment_whatever_the_output(image, folder, name, programs):
    need(programs)
    chance = random.Random(name)
    out = folder / name
    took = timed(image, out, "/" if name.endswith("/") else "")
    for _ in range(max(MOMENTS // 4, 2)):
        with started(image, "-o", f"{folder}/{name}") as process:
            time.sleep(chance.uniform(0, 1.1 * took))
            process.send_signal(signal.SIGTERM)
            process.stderr.read()

        assert running(folder) == []
        if process.returncode == 0:
            remove(out)
        assert [path.name for path in folder.iterdir()] == ["old.tar"]


def running(folder):
    """Return the command lines of running processes that name a directory."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if os.fsencode(folder) in line:
            found.append(line)
    return found


@pytest.mark.parametrize(
    ("args", "programs"),
    [
        (["new.squashfs"], ["tar2sqfs", "sqfstar"]),
        (["new.erofs", "--compress", "lz4"], ["mkfs.erofs"]),
    ],
)
def test_a_signal_while_a_tool_starts_ends_the_tool_too(image, folder, args, programs):
    need(programs)
    name, *options = args
    for _ in range(max(MOMENTS // 4, 2)):
        with started(image, "-o", folder / name, *options) as process:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            while not children.read_text().strip() and process.poll() is None:
                pass
            process.send_signal(signal.SIGTERM)
            assert process.stderr.read() == b""

        assert process.returncode == 143
        assert running(folder) == []
        assert [path.name for path in folder.iterdir()] == ["old.tar"]


def test_a_second_signal_does_not_interrupt_the_cleanup(image, folder):
    for _ in range(MOMENTS):
        with started(image, "-o", folder / "new.tar.xz") as process:
            while len(list(folder.iterdir())) < 2:
                time.sleep(0.001)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
                process.send_signal(number)
                time.sleep(0.001)
            assert process.stderr.read() == b""

        if process.returncode == 0:  # it was done before, on a busy machine
            (folder / "new.tar.xz").unlink()
        else:
            assert process.returncode in (130, 143)
        assert [path.name for path in folder.iterdir()] == ["old.tar"]


INSTALLED = """
import os, signal, subprocess, threading, time
from flatten.cli import signals

signal.pthread_sigmask(signal.SIG_BLOCK, signals.STOPPING)  # as a parent may
signals.Handlers().install()
program = subprocess.Popen(["sleep", "60"])
threading.Timer(0.2, lambda: signal.pthread_kill(threading.get_ident(), 15)).start()
try:
    program.wait()
except signals.Stopped:
    program.kill()
    print("stopped")
"""


def test_a_signal_just_before_a_long_wait_ends_the_wait():
    """As if another thread received it: Python has noted it, but the wait continues."""
    got = subprocess.run(
        [sys.executable, "-c", INSTALLED], capture_output=True, text=True, timeout=30,
        check=False,
    )  # fmt: skip

    assert (got.stdout, got.stderr) == ("stopped\n", "")


def test_a_reader_that_closes_the_pipe_at_any_moment(image):
    chance = random.Random(13)
    for _ in range(MOMENTS):
        with subprocess.Popen(
            [*FLATTEN, image], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            process.stdout.read(chance.randrange(12_000_000))
            process.stdout.close()
            assert process.stderr.read() == b""
            assert process.wait(60) in (0, 141)


def killed(image, out):
    """Run until the temporary file exists, then kill the process."""
    with subprocess.Popen([*FLATTEN, image, "-o", out]) as process:
        while not leftovers(out.parent):
            time.sleep(0.001)
        process.kill()


def leftovers(folder):
    return [path for path in folder.iterdir() if path.name.endswith(SUFFIX)]


@pytest.mark.parametrize("name", ["new.tar", "new.tar.zst"])
def test_killed_at_any_moment(image, folder, name):
    """Only a complete file has the output's name; the next run cleans up."""
    chance = random.Random(name)
    out = folder / name
    run(image, "-o", out)
    want = out.read_bytes()
    took = timed(image, out)
    for _ in range(MOMENTS):
        with started(image, "-o", out) as process:
            time.sleep(chance.uniform(0, 1.1 * took))
            process.kill()
            process.stderr.read()

        others = {path.name for path in folder.iterdir()} - {name, "old.tar"}
        assert all(other.endswith(SUFFIX) for other in others)
        assert not out.exists() or out.read_bytes() == want
        out.unlink(missing_ok=True)
    assert run(image, "-o", out).returncode == 0
    assert sorted(path.name for path in folder.iterdir()) == [name, "old.tar"]


def test_leftovers_of_a_killed_run_are_removed_by_the_next_run(image, tmp_path):
    (tmp_path / "slow").mkdir()
    out = tmp_path / "slow" / "out.tar.xz"
    for _ in range(3):
        killed(image, out)
    (left,) = leftovers(out.parent)
    assert re.fullmatch(r"\.out\.tar\.xz\.[0-9a-f]{12}\.flatten-part", left.name)
    assert not out.exists()

    other, link = out.with_name("other.tar"), out.with_name("link")
    assert run(image, "-o", other).returncode == 0
    assert leftovers(out.parent) == [left]
    link.symlink_to("out.tar.xz")
    assert run(image, "-o", link, "--compress", "none").returncode == 0

    assert leftovers(out.parent) == []


def test_files_of_a_running_process_are_not_removed(image, tmp_path):
    out = tmp_path / "out.tar"
    name = out.with_name(f".out.tar.{'0' * 12}{SUFFIX}")
    made = name.with_suffix(MADE)
    made.touch()
    with name.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert run(image, "-o", out).returncode == 0

        assert (leftovers(tmp_path), made.exists()) == ([name], True)
    assert run(image, "-o", out).returncode == 0
    assert sorted(tmp_path.iterdir()) == [out]


def test_files_that_tools_made_for_a_killed_run_are_removed(image, tmp_path):
    out = tmp_path / "out.tar"
    for digit in "01":
        out.with_name(f".out.tar.{digit * 12}{MADE}").mkdir()
    (out.with_name(f".out.tar.{'0' * 12}{MADE}") / "file").touch()
    out.with_name(f".out.tar.{'0' * 12}{SUFFIX}").touch()

    assert run(image, "-o", out).returncode == 0

    assert sorted(tmp_path.iterdir()) == [out]


def test_files_that_only_look_like_leftovers_stay(image, tmp_path):
    out = tmp_path / "out.tar"
    for name in (
        f".out.tar.{SUFFIX}",
        f".out.tar.{'g' * 12}{SUFFIX}",
        "out.tar.000000000000",
    ):
        (tmp_path / name).touch()
    (tmp_path / f".out.tar.{'0' * 12}{SUFFIX}").symlink_to(tmp_path / "precious")
    (tmp_path / f".out.tar.{'1' * 12}{SUFFIX}").mkdir()
    os.mkfifo(tmp_path / f".out.tar.{'2' * 12}{SUFFIX}")
    before = {path.name for path in tmp_path.iterdir()}

    assert run(image, "-o", out).returncode == 0

    assert {path.name for path in tmp_path.iterdir()} == before | {"out.tar"}
