"""What is inflated once and kept: its digest, and the memory that is given back."""

import fcntl
import filecmp
import gzip
import hashlib
import json
import os
import subprocess
import sys
import termios
import threading
import time
from array import array
from functools import partial
from random import Random

import pytest
import xxhash

import flatten
from builders import Bytes, config, docker_archive, layer, layers, member, oci_files
from command import FLATTEN
from flatten.host.limits import Limits
from flatten.host.spools import SWITCH, Pool, short_turns
from flatten.sources.open import open_image

NOISE = os.urandom(1 << 22)
PAGE = os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def pool():
    pool = Pool(Limits())
    yield pool
    pool.close()


def in_memory(spool):
    """Return how many bytes the file that a spool is in takes."""
    return os.fstat(spool.extent(0)[0]).st_blocks * 512


def test_what_is_inflated_is_hashed_as_it_comes(pool):
    spool = pool.inflate(Bytes(gzip.compress(NOISE)), "gzip", "layer", hashed=True)

    assert spool.arrival_digest() is not None
    assert spool.digest() == hashlib.sha256(NOISE).hexdigest()


def test_a_pool_that_does_not_hash():
    pool = Pool(Limits(), hashing=False)
    try:
        spool = pool.inflate(Bytes(gzip.compress(NOISE)), "gzip", "layer", hashed=True)
        assert spool.arrival_digest() is None
        assert spool.read(0, len(NOISE)) == NOISE
    finally:
        pool.close()


@pytest.mark.parametrize("verify", [True, False])
def test_layers_are_hashed_if_they_are_verified(tmp_path, verify):
    tars = [layer(member("x", NOISE))]
    image = tmp_path / "image.tar"
    image.write_bytes(
        docker_archive([*map(gzip.compress, tars)], config_document=config(tars))
    )

    with open_image(str(image), verify=verify) as opened:
        digest = opened.layers[0].open().arrival_digest()
        assert (digest is not None) is verify


def test_whole_pages_are_given_back_and_nothing_around_them(pool):
    spool = pool.inflate(Bytes(gzip.compress(NOISE)), "gzip", "layer")
    size = spool.size()
    before = in_memory(spool)

    start, stop = PAGE + 1, size - PAGE - 1
    spool.release(start, stop - start)
    pool.scratch.freeing.finish()

    assert before >= size
    assert in_memory(spool) == before - size + 4 * PAGE
    assert spool.read(0, start) == NOISE[:start]
    assert spool.read(stop, size) == NOISE[stop:]


def test_less_than_a_page_is_kept(pool):
    spool = pool.inflate(Bytes(gzip.compress(NOISE)), "gzip", "layer")
    spool.size()

    for start, count in ((1, PAGE), (0, PAGE - 1), (PAGE - 1, PAGE + 1 - 1), (0, 0)):
        spool.release(start, count)
    pool.scratch.freeing.finish()

    assert spool.read(0, len(NOISE)) == NOISE


def test_the_list_is_of_contents_that_were_written_before(tmp_path):
    tars = layers([member("small", NOISE[:9000]), member("large", NOISE)])
    packed = [gzip.compress(tar) for tar in tars]
    (tmp_path / "image.tar").write_bytes(
        docker_archive(packed, config_document=config(tars))
    )

    flatten.export(
        tmp_path / "image.tar", tmp_path / "o.tar", list_out=tmp_path / "list"
    )

    rows = map(json.loads, (tmp_path / "list").read_text().splitlines())
    assert {row["xxh3"] for row in rows if row["type"] == "file"} == {
        xxhash.xxh3_128_hexdigest(data) for data in (NOISE[:9000], NOISE)
    }


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Return the same image with plain and with compressed layers.

    Archive order is not the output's, names in prefixes take one block where ours take
    three, and contents are of all sizes: what lies between two contents of a stretch may
    be a third one.
    """
    folder = tmp_path_factory.mktemp("mixed")
    random = Random(5)
    tars = []
    for position in range(3):
        names = [f"{n:03}" + "x" * random.choice((0, 60)) for n in range(position, 90)]
        random.shuffle(names)
        tars.append(layer(*(
            member(name[:100], NOISE[: random.choice((0, 512, 9000, 20_000, 140_000))],
                   tail=b"p" * 110 if random.random() < 0.3 else b"")
            for name in names
        )))  # fmt: skip
    (folder / "plain.tar").write_bytes(docker_archive(tars))
    packed = docker_archive([*map(gzip.compress, tars)], config_document=config(tars))
    (folder / "gzip.tar").write_bytes(packed)
    return folder


@pytest.mark.parametrize("processes", [1, 4])
def test_what_is_given_back_is_of_no_other_member(mixed, monkeypatch, processes):
    flatten.export(mixed / "plain.tar", mixed / "plain.out")
    monkeypatch.setattr("flatten.outputs.tar.MANY", 0 if processes > 1 else 1000)
    monkeypatch.setattr("flatten.outputs.tar.SMALL", 1 << 40)
    monkeypatch.setattr("flatten.plan.make.CHECKPOINT", 1)
    monkeypatch.setattr("flatten.plan.pieces.CHECKPOINT", 1)
    monkeypatch.setattr("flatten.host.processes.processes", lambda: processes)

    flatten.export(mixed / "gzip.tar", mixed / "gzip.out")

    assert filecmp.cmp(mixed / "plain.out", mixed / "gzip.out", shallow=False)


def until_full(pipe):
    """Wait until a pipe has bytes and takes no more: 0.2 seconds without a change."""
    waiting, unchanged = array("i", [0]), 0
    while unchanged < 20:
        time.sleep(0.01)
        before = waiting[0]
        fcntl.ioctl(pipe, termios.FIONREAD, waiting)
        unchanged = unchanged + 1 if waiting[0] == before > 0 else 0


def test_a_pipe_keeps_what_it_was_given(mixed):
    flatten.export(mixed / "plain.tar", mixed / "plain.out")
    command = [*FLATTEN, str(mixed / "gzip.tar"), "-o", "-"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        until_full(process.stdout)  # the writer now waits in the middle of the tar
        got = process.stdout.read()

    assert got == (mixed / "plain.out").read_bytes()


def test_a_limit_that_is_passed_leaves_no_thread(tmp_path):
    tars = [layer(member("x", NOISE))]
    image = tmp_path / "image.tar"
    image.write_bytes(
        docker_archive([*map(gzip.compress, tars)], config_document=config(tars))
    )
    before = threading.active_count()

    with pytest.raises(flatten.FlattenError, match="--max-size"):
        flatten.export(image, tmp_path / "o.tar", limits=Limits(size=3 << 20))

    assert threading.active_count() == before


def test_a_long_layer_with_another_digest_is_refused(tmp_path):
    tars = [layer(member("x", NOISE))]
    other = config([layer(member("x", NOISE[:-1] + bytes([NOISE[-1] ^ 1])))])
    image = tmp_path / "image.tar"
    image.write_bytes(
        docker_archive([*map(gzip.compress, tars)], config_document=other)
    )

    with pytest.raises(
        flatten.IntegrityError,
        match=r"digest mismatch: expected sha256:.*, found sha256:",
    ):
        flatten.export(image, tmp_path / "o.tar")

    assert list(tmp_path.iterdir()) == [image]


@pytest.mark.parametrize("verify", [True, False])
def test_a_layer_that_is_listed_again_may_be_read_again(tmp_path, verify):
    """The link keeps the first one's content, the path has the second one's."""
    base, link = layers([member("x", NOISE)], ["y=x"])
    tars = [base, link, base]
    for name, data in oci_files(tars, pack=partial(gzip.compress, mtime=0)).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    flatten.export(f"oci:{tmp_path}", tmp_path.with_suffix(".tar"), verify=verify)
    plain = tmp_path / "plain.tar"
    plain.write_bytes(docker_archive(tars))
    flatten.export(plain, tmp_path.with_suffix(".plain"), verify=verify)

    got = tmp_path.with_suffix(".tar").read_bytes()
    assert got.count(NOISE) == 2
    assert got == tmp_path.with_suffix(".plain").read_bytes()


REFUSES_MEMFD = """
import ctypes, errno, os, struct, sys
NUMBER = {"x86_64": (319, 0xC000003E), "aarch64": (279, 0xC00000B7)}[os.uname().machine]
def step(code, jump_true, jump_false, value):
    return struct.pack("HBBI", code, jump_true, jump_false, value)
rules = b"".join((
    step(0x20, 0, 0, 4), step(0x15, 0, 3, NUMBER[1]),  # the architecture
    step(0x20, 0, 0, 0), step(0x15, 0, 1, NUMBER[0]),  # the system call
    step(0x06, 0, 0, 0x00050000 | errno.EPERM), step(0x06, 0, 0, 0x7FFF0000),
))
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("rules", ctypes.c_char_p)]
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0, "no_new_privs"
program = Program(len(rules) // 8, rules)
assert libc.prctl(22, 2, ctypes.byref(program), 0, 0) == 0, "a seccomp filter"
try:
    os.memfd_create("x")
except PermissionError:
    os.execv(sys.executable, [sys.executable, "-m", "flatten", *sys.argv[1:]])
sys.exit("memfd_create is not refused")
"""


@pytest.mark.skipif(
    os.uname().machine not in {"x86_64", "aarch64"}, reason="system call numbers"
)
@pytest.mark.parametrize("count", [1, 2, 5])
def test_where_memfd_is_forbidden_the_scratch_file_is_used(tmp_path, count):
    tars = layers(*([member(f"x{n}", NOISE)] for n in range(count)))
    image = tmp_path / "image.tar"
    image.write_bytes(
        docker_archive([*map(gzip.compress, tars)], config_document=config(tars))
    )
    flatten.export(image, tmp_path / "right.tar")

    command = [sys.executable, "-c", REFUSES_MEMFD, str(image), "-o", "out.tar"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)

    assert (done.returncode, done.stderr) == (0, b"")
    assert filecmp.cmp(tmp_path / "right.tar", tmp_path / "out.tar", shallow=False)


def test_the_switch_interval_is_restored_when_exports_overlap():
    before = sys.getswitchinterval()
    first, second = short_turns(), short_turns()
    first.__enter__()
    second.__enter__()
    assert sys.getswitchinterval() == pytest.approx(min(before, SWITCH))
    first.__exit__(None, None, None)
    assert sys.getswitchinterval() == pytest.approx(min(before, SWITCH))
    second.__exit__(None, None, None)
    assert sys.getswitchinterval() == pytest.approx(before)
