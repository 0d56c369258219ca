"""``flatten.export``: its keyword arguments, and progress as a callable."""

import gzip
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import get_type_hints

import pytest

import flatten
from builders import archive, docker_archive, layers, member, oci_files
from flatten.options import OptionFields
from flatten.outputs import progress as progress_module

ROOT = Path(__file__).parents[2]

OUTPUTS = {
    "out.tar": {},
    "pax.tar": {"format": "pax"},
    "out.tar.gz": {},
    "out.tar.zst": {},
    "out/": {},
    "out.cpio": {},
    "oci.tar": {"image_kind": "oci"},
    "docker.tar": {"image_kind": "docker"},
}


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp("image") / "image.tar"
    files = [member(f"d/{n}", bytes([n]) * 1_000_000) for n in range(40)]
    path.write_bytes(docker_archive(layers(["d/", *files], ["e"])))
    return path


@pytest.mark.parametrize(("name", "options"), OUTPUTS.items())
def test_progress_is_reported_from_zero_to_the_total(image, tmp_path, name, options):
    calls, threads = [], set()

    def progress(done, total):
        calls.append((done, total))
        threads.add(threading.current_thread())

    done = flatten.export(image, f"{tmp_path}/{name}", progress=progress, **options)

    assert [total for _, total in calls] == [done.size] * len(calls)
    assert calls[0][0] == 0
    assert calls[-1][0] == done.size
    assert len(calls) > 3
    assert sorted(set(calls)) == calls
    assert threads == {threading.current_thread()}


def test_progress_of_an_empty_image(tmp_path):
    (tmp_path / "i.tar").write_bytes(docker_archive(layers([])))
    calls = []
    done = flatten.export(
        tmp_path / "i.tar",
        tmp_path / "o.tar",
        progress=lambda *call: calls.append(call),
    )

    assert (calls[0], calls[-1]) == ((0, done.size), (done.size, done.size))


def test_progress_where_several_processes_write(tmp_path):
    files = [member(f"{n:05}", b"x") for n in range(25_000)]
    (tmp_path / "i.tar").write_bytes(docker_archive(layers(files)))
    calls = []
    done = flatten.export(
        tmp_path / "i.tar",
        tmp_path / "o.tar",
        progress=lambda *call: calls.append(call),
    )

    assert sorted(set(calls)) == calls
    assert (calls[0], calls[-1]) == ((0, done.size), (done.size, done.size))


@pytest.mark.parametrize(("name", "options"), OUTPUTS.items())
def test_an_exception_in_progress_cancels_the_export(image, tmp_path, name, options):
    def progress(done, _total):
        if done:
            raise KeyError(done)

    with pytest.raises(KeyError):
        flatten.export(image, f"{tmp_path}/{name}", progress=progress, **options)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("progress", ["sometimes", None, True])
def test_progress_must_be_a_word_or_a_callable(image, tmp_path, progress):
    with pytest.raises(flatten.UsageError, match="is not a valid progress"):
        flatten.export(image, tmp_path / "o.tar", progress=progress)


@pytest.mark.parametrize("whole", [False, True], ids=["layers", "an archive"])
def test_a_bar_shows_what_is_inflated(tmp_path, monkeypatch, capfd, whole):
    monkeypatch.setattr(progress_module, "DELAY", 0)
    tars = layers([member("x", os.urandom(1 << 20))])
    if whole:
        data = gzip.compress(docker_archive(tars))
    else:
        data = archive(oci_files(tars, pack=gzip.compress).items())
    (tmp_path / "i").write_bytes(data)

    flatten.export(tmp_path / "i", tmp_path / "o.tar", progress="always")

    shown = capfd.readouterr().err
    assert "flatten: reading: " in shown
    assert shown.index("reading") < shown.index("flatten:   0%")


def test_a_bar_for_reading_counts_the_bytes_of_all_threads(capfd, monkeypatch):
    monkeypatch.setattr(progress_module, "DELAY", 0)
    with progress_module.Reporter("always") as reporter:
        threads = [
            threading.Thread(target=reporter.read, args=(1 << 20,)) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        time.sleep(0.2)  # two of tqdm's shortest intervals
        reporter.read(1 << 20)

    assert "flatten: reading: 9.00MB" in capfd.readouterr().err


def test_the_keyword_arguments_are_the_fields_of_the_options():
    assert get_type_hints(OptionFields) == get_type_hints(flatten.Options)


TYPED = """
import flatten
flatten.export("a", "b", mtime=0, format="pax", progress=lambda done, total: None)
flatten.Options(reflink="auto", platform="linux/amd64")
def read(image: flatten.Image) -> str:
    text: str = (image.root / "etc" / "os-release").open(encoding="utf-8").read()
    data: bytes = image.root.joinpath("a", "b").open("rb").read()
    return text + data.decode() + image.root.stat().__class__.__name__
with flatten.open_image("a", verify=True) as image:
    read(image)
"""
UNTYPED = {
    'flatten.export("a", "b", mtimee=0)': "call-arg",
    'flatten.export("a", "b", verify="no")': "arg-type",
    'flatten.export("a", "b", format="zip")': "arg-type",
    'flatten.export("a", "b", progress="sometimes")': "arg-type",
    'flatten.export("a", "b", progress=lambda done: None)': "arg-type",
    'flatten.Options(ownership="mine")': "arg-type",
    'flatten.open_image("a").root / 1': "operator",
    "flatten.exprot": "attr-defined",
}


def test_type_checkers_know_the_arguments(tmp_path):
    pytest.importorskip("mypy")
    lines = TYPED.strip().splitlines()
    (tmp_path / "use.py").write_text("\n".join([*lines, *UNTYPED]))
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary",
         "--hide-error-context", "--config-file", "", tmp_path / "use.py"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip

    found = {
        int(line.split(":")[1]): line.rpartition("[")[2].rstrip("]")
        for line in done.stdout.splitlines()
        if "/use.py:" in line and ": error: " in line  # its folder may be a cached one
    }
    assert found == dict(enumerate(UNTYPED.values(), len(lines) + 1)), done.stdout
