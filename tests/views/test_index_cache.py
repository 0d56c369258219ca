"""The index cache: correct, shared and bounded, and its failures are ignored."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings

import flatten
from builders import config, digest, docker_archive, layer, layers, member
from flatten.host.limits import Limits
from flatten.image.columns import Rows
from flatten.tar.layer import read_layer
from flatten.tar.members import Members
from flatten.views.index_cache import (
    BLOCK_SIZE,
    MAGIC,
    IndexCache,
    default_folder,
    pack,
)
from flatten.views.reading import read_index
from kinds import KINDS, docker, run
from random_images import images, repaired, tar_member

BASE = ["usr/", "usr/a", "s->a", "l=usr/a"]


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def files(cache):
    """List the indexes, and what is left of them."""
    return sorted(path.name for path in cache.glob("*.index*"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_run_prints_the_same(tmp_path, cache, kind):
    image = KINDS[kind](tmp_path, layers(BASE, ["-l", "b"]))

    runs = [run("ls", image, "--cache", cache).stdout for _ in range(3)]
    alone = run("ls", image, "--no-cache").stdout

    assert runs == [alone] * 3
    # To check a layer that is put together costs more than to read its headers again.
    assembled = kind in {"docker-root", "containers-storage"}
    assert len(files(cache)) == (0 if assembled else 2)


def test_an_unchanged_layer_is_not_read_again(tmp_path, cache):
    size = 30_000_000
    image = docker(tmp_path, layers([*BASE, member("big", bytes(size))]))
    time.sleep(2.1)  # times of files on FAT have steps of two seconds

    counts = []
    for _ in range(2):
        before = bytes_read()
        assert run("ls", image, "--cache", cache).returncode == 0
        counts.append(bytes_read() - before)

    assert counts[0] >= size
    assert counts[1] < size / 100
    assert run("cat", image, "usr/a", "--cache", cache).stdout == "0"


def bytes_read():
    """Return how many bytes this process has read from files so far."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("rchar"))


def test_the_index_of_a_base_is_used_for_a_second_image_on_it(tmp_path, cache):
    base, first, second = layers(BASE, ["b"], ["c"])
    (tmp_path / "a").mkdir()
    run("ls", docker(tmp_path / "a", [base, first]), "--cache", cache)
    (cache / f"{digest(base)}.index").rename(tmp_path / "kept")
    image = docker(tmp_path, [base, second])
    want = run("ls", image, "--no-cache").stdout
    with flatten.open_image(image) as opened:
        rows = Rows.of(read_layer(opened.layers[0].open(), "x", 0, m := Members()), m)
    rows.mtimes[0] = 0  # to tell the cached index from the layer
    IndexCache(cache).keep(
        f"sha256:{digest(base)}", pack(f"sha256:{digest(base)}", rows)
    )

    got = run("ls", image, "--cache", cache).stdout

    assert got != want
    assert got.replace("1970-01-01 00:00", "2023-11-14 22:13") == want


def test_the_index_of_a_layer_with_another_digest_is_not_kept(tmp_path, cache):
    promised = config(layers(["x"]))
    (tmp_path / "i.tar").write_bytes(
        docker_archive(layers(["a"]), config_document=promised)
    )

    got = run("ls", tmp_path / "i.tar", "--cache", cache)
    shown = run("ls", tmp_path / "i.tar", "--cache", cache, "--no-verify")

    assert got.returncode == 5
    assert shown.stdout.endswith(" a\n")
    assert files(cache) == []


def test_no_verify_keeps_nothing(tmp_path, cache):
    image = docker(tmp_path, layers(BASE, ["b"]))
    want = run("ls", image, "--at-layer", "1", "--cache", cache)

    got = run("ls", image, "--at-layer", "1", "--cache", cache, "--no-verify")

    assert (got.returncode, got.stdout) == (0, want.stdout)
    assert len(files(cache)) == 1


@pytest.mark.parametrize("where", ["start", "checksum", "middle", "end"])
@pytest.mark.parametrize("how", ["changed", "cut off"])
def test_a_damaged_file_is_made_again(tmp_path, cache, where, how):
    image = docker(tmp_path, layers(BASE))
    want = run("ls", image, "--cache", cache).stdout
    (path,) = cache.glob("*.index")
    data = path.read_bytes()
    at = {
        "start": 0,
        "checksum": len(MAGIC),
        "middle": len(data) // 2,
        "end": len(data) - 1,
    }[where]
    path.write_bytes(
        data[:at]
        + (bytes([data[at] ^ 1]) + data[at + 1 :] if how == "changed" else b"")
    )

    assert run("ls", image, "--cache", cache).stdout == want
    assert path.read_bytes() == data


def test_a_file_of_another_version_is_made_again(tmp_path, cache):
    image = docker(tmp_path, layers(BASE))
    want = run("ls", image, "--cache", cache).stdout
    (path,) = cache.glob("*.index")
    data = path.read_bytes()
    path.write_bytes(data.replace(MAGIC, b"flatten index 0\n"))

    assert run("ls", image, "--cache", cache).stdout == want
    assert path.read_bytes() == data


def test_many_runs_at_once(tmp_path, cache):
    image = docker(
        tmp_path, layers(*([f"{n}/{i}" for i in range(300)] for n in range(8)))
    )
    command = [sys.executable, "-m", "flatten", "ls", image, "--cache", cache]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(6)]

    outputs = {process.communicate()[0] for process in running}

    assert len(outputs) == 1
    assert len(outputs.pop().splitlines()) == 8 * 301
    assert len(files(cache)) == 8
    assert all(name.endswith(".index") for name in files(cache))


def kept(tar):
    """Return the file of a layer, and the diff_id it is kept under."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(docker_archive([tar]))
        file.flush()
        with flatten.open_image(file.name) as image:
            members = Members()
            index = read_layer(image.layers[0].headers(), "x", 0, members)
            diff_id = image.layers[0].diff_id
            return diff_id, pack(diff_id, Rows.of(index, members))


def test_the_least_recently_used_index_is_removed_first(cache):
    some = [kept(layer(f"{n}")) for n in range(4)]
    assert max(len(data) for _, data in some) < BLOCK_SIZE
    store = IndexCache(cache, bound=3 * BLOCK_SIZE)
    for age, (diff_id, data) in enumerate(some[:3]):
        store.keep(diff_id, data)
        os.utime(cache / f"{diff_id[7:]}.index", (age, age))
    store.find(some[0][0])

    store.keep(*some[3])
    store.trim()

    assert [store.find(diff_id) is not None for diff_id, _ in some] == [
        True,
        False,
        True,
        True,
    ]


def test_files_of_a_killed_run_are_removed_too(cache):
    cache.mkdir()
    left = cache / ("0" * 64 + ".index.0123456789ab")
    left.write_bytes(bytes(1000))
    os.utime(left, (1, 1))
    diff_id, data = kept(layer("a"))

    store = IndexCache(cache, bound=BLOCK_SIZE)
    store.keep(diff_id, data)
    store.trim()

    assert files(cache) == [f"{diff_id[7:]}.index"]


def owners(members):
    return [members.owner_table[owner] for owner in members.owners]


@settings(max_examples=settings.default.max_examples // 3)
@given(images().map(repaired))
def test_a_cached_index_equals_the_original(image):
    tars = [layer(*map(tar_member, each)) for each in image]
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "image.tar")
        path.write_bytes(docker_archive(tars))
        store = IndexCache(Path(scratch, "cache"))
        with flatten.open_image(str(path)) as opened:
            plain = read_index(opened)
            read_index(opened, None, store)
            assert all(store.find(item.diff_id) for item in opened.layers)
            again = read_index(opened, None, store)

    for column in ("kinds", "layers", "sizes", "data", "mtimes", "targets", "extras"):
        assert getattr(again.members, column) == getattr(plain.members, column), column
    assert owners(again.members) == owners(plain.members)
    assert again.layers == plain.layers
    assert again.tree.root == plain.tree.root
    assert again.tree.children == plain.tree.children


def test_a_cache_that_cannot_be_written_is_ignored(tmp_path):
    image = docker(tmp_path, layers(BASE))
    (tmp_path / "file").write_text("")

    for folder in (tmp_path / "file", tmp_path / "file" / "below", "/proc/nowhere"):
        assert run("ls", image, "--cache", folder).returncode == 0


def test_limits_apply_to_cached_indexes(tmp_path, cache):
    image = docker(tmp_path, layers(BASE))
    run("ls", image, "--cache", cache)

    got = run("ls", image, "--cache", cache, "--max-members", "2")

    assert got.returncode == 4
    assert "more than 2 members" in got.stderr
    with flatten.open_image(image) as opened, pytest.raises(flatten.FormatError):
        read_index(opened, Limits(members=3), IndexCache(cache))


def test_cached_sparse_files_devices_and_records(tmp_path, cache):
    regions = b"".join(b"%011o\0" % n for n in (4096, 3, 9000, 0)).ljust(96, b"\0")
    odd = [
        member("s", b"abc", type=b"S", magic=b"ustar  \0",
               tail=bytes(41) + regions + b"\0" + b"%011o\0" % 9000),
        member("n", type=b"3", device=(1, 3)),
        member("x", records={b"SCHILY.xattr.user.a": b"\0\xff\n", b"mtime": b"1.25"}),
        member(b"\xff", type=b"2", target=b"\xfe"),
        member(".wh..wh.plnk/1.2", b"p"), member("h", type=b"1", target=".wh..wh.plnk/1.2"),
    ]  # fmt: skip
    image = docker(tmp_path, [layer(*odd), *layers(["d/", "d/*", "-n"])])

    runs = [
        run("ls", image, "--json", "--hash", "--cache", cache).stdout for _ in range(2)
    ]

    assert (
        runs[0] == runs[1] == run("ls", image, "--json", "--hash", "--no-cache").stdout
    )
    assert len(runs[0].splitlines()) == 5


def test_the_default_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "flatten"
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert default_folder() == Path("/home/somebody/.cache/flatten")


def test_history_cat_and_diff_with_a_cache(tmp_path, cache):
    image = docker(tmp_path, layers(BASE, ["b"]))
    for command in (
        ["history", image, "--json"],
        ["cat", image, "b"],
        ["diff", image, "--from-layer", "1"],
    ):
        runs = [run(*command, "--cache", cache).stdout for _ in range(2)]
        assert runs[0] == runs[1] == run(*command, "--no-cache").stdout
        assert runs[0]
    assert (
        len(
            json.loads(run("history", image, "--json", "--cache", cache).stdout)[
                "steps"
            ]
        )
        == 2
    )
