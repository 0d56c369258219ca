"""Work in child processes: the same results and errors, and no child outlives it."""

import filecmp
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

import flatten
from builders import docker_archive, layer, layers, member
from command import FLATTEN
from flatten.errors import FlattenError, FormatError
from flatten.host.limits import Limits
from flatten.host.processes import each, together
from flatten.options import Options
from flatten.outputs.choose import choose
from flatten.outputs.job import Job
from flatten.pipeline import plan_image
from flatten.plan.pieces import pieces, sections
from flatten.sources.open import open_image

MANY = 21_000


def value(number):
    return number, os.getpid()


def test_results_come_in_order_and_the_first_runs_in_this_process():
    results = together([partial(value, number) for number in range(3)])
    assert [number for number, _ in results] == [0, 1, 2]
    assert results[0][1] == os.getpid()
    assert len({process for _, process in results}) == 3


def test_each_key_is_done_once():
    found = each([7, 65_535, 0], lambda key: key + 1, 2)
    assert found == {7: 8, 65_535: 65_536, 0: 1}


def fail(error):
    raise error


@pytest.mark.parametrize("at", [0, 1])
def test_an_error_is_raised_as_it_was(at):
    works = [partial(value, 0), partial(value, 1)]
    works[at] = partial(fail, FormatError("bad", where="layer 1", offset=512))
    with pytest.raises(FormatError) as caught:
        together(works)
    assert (str(caught.value), caught.value.offset) == ("layer 1: bad at byte 512", 512)


def test_a_child_that_ends_without_a_result_is_an_error():
    with pytest.raises(
        FlattenError,
        match="a worker process was killed, possibly by the out-of-memory killer",
    ):
        together([partial(value, 0), lambda: os.kill(os.getpid(), signal.SIGKILL)])


def test_no_child_outlives_an_error(tmp_path):
    note = tmp_path / "pid"

    def wait():
        note.write_text(str(os.getpid()))
        time.sleep(60)

    def fail_later():
        while not note.exists() or not note.read_text():
            time.sleep(0.01)
        raise FlattenError("here")

    with pytest.raises(FlattenError, match="here"):
        together([fail_later, wait])
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)


ORPHAN = """
import os, sys, time
from flatten.host.processes import together
def wait():
    print(os.getpid(), flush=True)
    while True: pass
together([lambda: time.sleep(60), wait])
"""


def test_children_end_with_a_parent_that_is_killed():
    with subprocess.Popen(
        [sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE, text=True
    ) as parent:
        child = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + 20
    while Path(f"/proc/{child}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


ALONE = """
import os, resource
from flatten.host.processes import together
if os.geteuid() == 0:
    os.setgroups([]), os.setgid(65533), os.setuid(65533)
resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
print(together([os.getpid, os.getpid]) == 2 * [os.getpid()])
"""


FEW = """
import os, resource
from flatten.host.processes import each
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
print(each([4, 2], lambda key: os.getpid(), 2) == {4: os.getpid(), 2: os.getpid()})
"""


@pytest.mark.parametrize("program", [ALONE, FEW], ids=["processes", "descriptors"])
def test_without_children_everything_runs_in_this_process(program):
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "True\n"


# --- images that are read and written in several processes


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """Return an image of so many members that it pays, of every kind of piece."""
    path = tmp_path_factory.mktemp("many") / "image.tar"
    path.write_bytes(docker_archive(layers(*many())))
    return path


def many():
    """Yield three layers: short and long names, large contents, links, removals."""
    yield [member(name_of(n), b"%d" % n * (n % 50)) for n in range(MANY)]
    yield [
        *(member(f"{n}/big", os.urandom(150_000 + n)) for n in range(0, 100, 20)),
        *(name_of(n) for n in range(0, MANY, 50)),
        *("-" + name_of(n) for n in range(7, MANY, 70)),
    ]
    yield [f"{n}/link=0/big" for n in range(1, 100)]


def name_of(n):
    return f"{n % 100}/{'long' * (n % 37)}{n}"


@pytest.fixture
def split(monkeypatch):
    """Read layers of any size in three processes, and write in as many."""
    monkeypatch.setattr("flatten.image.read.PARALLEL_FROM", 0)
    monkeypatch.setattr("flatten.host.processes.processes", lambda: 3)


@pytest.mark.usefixtures("split")
@pytest.mark.parametrize("options", [{}, {"format": "pax"}, {"verify": False}])
def test_the_tar_does_not_depend_on_the_processes(image, tmp_path, options):
    out, alone = tmp_path / "out.tar", tmp_path / "alone.tar"
    flatten.export(image, out, **options)
    with pytest.MonkeyPatch.context() as patch, alone.open("wb") as file:
        patch.setattr("flatten.image.read.PARALLEL_FROM", 1 << 62)
        flatten.export(image, file.fileno(), **options)
    assert out.stat().st_size > 10_000_000
    assert filecmp.cmp(out, alone, shallow=False)


@pytest.mark.usefixtures("split")
def test_one_process_never_forks(image, tmp_path):
    out, alone = tmp_path / "out.tar", tmp_path / "alone.tar"
    flatten.export(image, out)
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr("os.fork")
        with pytest.raises(AttributeError):  # both steps fork here
            flatten.export(image, alone)
        flatten.export(image, alone, limits=Limits(processes=1))
    assert filecmp.cmp(out, alone, shallow=False)


@pytest.mark.parametrize("most", [1, 2, 3, 4, 30, 1000])
def test_sections_make_up_the_plan(image, most):
    with open_image(str(image)) as opened:
        plan = plan_image(opened)
    parts = sections(plan, most)
    assert 1 <= len(parts) <= most
    assert [part.start for part in parts] == [0, *(p.stop for p in parts[:-1])]
    assert parts[-1].stop == len(plan)
    ends = [*(part.offset for part in parts[1:]), plan.size]
    for part, end in zip(parts, ends, strict=True):
        assert end - part.offset == sum(map(length, pieces(plan, part)))


def length(piece):
    return len(piece) if isinstance(piece, bytes) else piece.length


TARS = layers(["a", "b"], ["-a", "c"])
BROKEN = layer("a", end=b"x" * 1024)


@pytest.mark.usefixtures("split")
@pytest.mark.parametrize(
    "tars", [[BROKEN, *TARS], [*TARS, BROKEN], [*TARS, BROKEN, TARS[0], BROKEN[:-512]]]
)
def test_the_first_broken_layer_is_named(tars, tmp_path):
    image = tmp_path / "image.tar"
    image.write_bytes(docker_archive(tars))
    messages = []
    for least in (0, 1 << 62):
        with pytest.MonkeyPatch.context() as patch, open_image(str(image)) as opened:
            patch.setattr("flatten.image.read.PARALLEL_FROM", least)
            with pytest.raises(FormatError) as caught:
                plan_image(opened)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert f"layer {tars.index(BROKEN) + 1}" in messages[0]


@pytest.mark.usefixtures("split")
def test_limits_hold_for_all_layers_together(image, tmp_path):
    limits = Limits(members=MANY + 5)
    with pytest.raises(FormatError, match="--max-members"):
        flatten.export(image, tmp_path / "out.tar", limits=limits)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("split")
def test_a_content_that_is_gone_is_an_error(image, tmp_path):
    copy = tmp_path / "image.tar"
    copy.write_bytes(image.read_bytes())
    with open_image(str(copy)) as opened:
        plan = plan_image(opened)
        output = choose(tmp_path / "out.tar", Options())
        os.truncate(copy, 1 << 20)
        job = Job(opened, plan, output.shape(opened))
        with pytest.raises(FormatError, match="ends too soon"), output.writing(job):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["image.tar"]


def group_ends(group):
    """Say whether all processes of a group are gone within ten seconds."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.01)
    return False


def test_signals_end_all_processes(image, tmp_path):
    env = dict(os.environ, PYTHONWARNINGS="error")
    whole, folder = tmp_path / "whole.tar", tmp_path / "folder"
    flatten.export(image, whole)
    folder.mkdir()
    out = folder / "out.tar"
    for moment in range(12):
        with subprocess.Popen(
            [*FLATTEN, image, "-o", out], env=env,
            stderr=subprocess.PIPE, start_new_session=True, text=True,
        ) as process:  # fmt: skip
            time.sleep(0.1 + moment / 20)
            process.send_signal(signal.SIGTERM)
            assert "Traceback" not in process.stderr.read()
        assert process.returncode in (0, 128 + signal.SIGTERM, -signal.SIGTERM)
        assert group_ends(process.pid)
        # A signal may come after the rename, so a whole output may be there.
        assert process.returncode or out.exists()
        for left in folder.iterdir():
            assert left == out
            assert filecmp.cmp(left, whole, shallow=False)
            left.unlink()
