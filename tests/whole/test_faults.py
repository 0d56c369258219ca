"""What fails while it runs: disks, files, memory, descriptors.

Each ends in the exit code that is documented, one line that says what it was, nothing
under the output's name but what was there before, and no temporary file.
"""

import gzip
import os
import re
import resource
import shutil
import subprocess
import threading
from contextlib import contextmanager

import pytest
import zstandard

import flatten
from builders import docker_archive, layers, member, oci_files
from command import FLATTEN, run
from flatten import pipeline

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount")
needs_gcc = pytest.mark.skipif(
    shutil.which("gcc") is None, reason="needs gcc, for a library whose calls fail"
)


def assert_failed(got, code, said, folder):
    """Check how it ended, and that the directory is as it was."""
    assert (got.returncode, got.stderr.count("\n")) == (code, 1), got.stderr
    assert re.search(said, got.stderr), got.stderr
    assert [path.name for path in folder.iterdir()] == ["old.tar"]
    assert (folder / "old.tar").read_text() == "precious"


@contextmanager
def mounted(folder, *args):
    """Mount something on a directory."""
    subprocess.run(["mount", *args, folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


# --- disks


@root_only
@pytest.mark.parametrize("how", ["none", "zstd:1", "gzip:1"])
@pytest.mark.parametrize("name", ["new.tar", "old.tar"])
def test_a_full_disk(image, tmp_path, how, name):
    small = tmp_path / "small"
    small.mkdir()
    with mounted(small, "-t", "tmpfs", "-o", "size=3m", "tmpfs"):
        (small / "old.tar").write_text("precious")
        got = run(image, "-o", small / name, "--compress", how)

        assert_failed(got, 1, f"{name}': cannot write: No space left on device$", small)


@root_only
def test_a_full_disk_of_scratch_space(tmp_path, folder):
    tars = layers([member("a", os.urandom(9_000_000))])
    (tmp_path / "i.tar").write_bytes(
        docker_archive([gzip.compress(tars[0], 1)], config_document={})
    )
    small = tmp_path / "small"
    small.mkdir()
    with mounted(small, "-t", "tmpfs", "-o", "size=3m", "tmpfs"):
        got = run(tmp_path / "i.tar", "-o", folder / "old.tar", "--memory", "0",
                  env=os.environ | {"TMPDIR": str(small)})  # fmt: skip

    said = "cannot write scratch space in .*small: No space left on device; set TMPDIR to another directory, or keep more in memory with --memory"
    assert_failed(got, 1, said, folder)


@root_only
def test_a_directory_that_is_read_only(image, folder):
    with mounted(folder, "--bind", folder):
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
        got = run(image, "-o", folder / "new.tar")

        assert_failed(got, 1, "new.tar': cannot create: Read-only file system$", folder)


SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <stdio.h>
#include <sys/sendfile.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

/* The call that FAIL_CALL names fails with FAIL_ERRNO, from FAIL_AFTER bytes on: on
   descriptors other than standard error, and for reads past what Python itself reads. */
static long done;

static int fails(const char *call, int fd, size_t count) {
    const char *name = getenv("FAIL_CALL");
    if (!name || !strstr(name, call) || fd == 2) return 0;
    done += count;
    if (done <= atol(getenv("FAIL_AFTER"))) return 0;
    errno = atoi(getenv("FAIL_ERRNO"));
    return 1;
}

#define REAL(call) \
    static __typeof__(&call) real; \
    if (!real) real = (__typeof__(&call))dlsym(RTLD_NEXT, #call)

ssize_t write(int fd, const void *data, size_t count) {
    REAL(write);
    return fails("write", fd, count) ? -1 : real(fd, data, count);
}
ssize_t pread64(int fd, void *data, size_t count, off_t at) {
    REAL(pread64);
    return fails("pread", fd, count) ? -1 : real(fd, data, count, at);
}
ssize_t preadv64v2(int fd, const struct iovec *data, int n, off64_t at, int flags) {
    REAL(preadv64v2);
    return fails("pread", fd, data->iov_len) ? -1 : real(fd, data, n, at, flags);
}
ssize_t copy_file_range(int in, off64_t *from, int fd, off64_t *to, size_t count,
                        unsigned int flags) {
    REAL(copy_file_range);
    return fails("copy", fd, count) ? -1 : real(in, from, fd, to, count, flags);
}
ssize_t sendfile64(int fd, int in, off64_t *from, size_t count) {
    REAL(sendfile64);
    return fails("copy", fd, count) ? -1 : real(fd, in, from, count);
}
int fsync(int fd) {
    REAL(fsync);
    return fails("fsync", fd, 1) ? -1 : real(fd);
}
int rename(const char *from, const char *to) {
    REAL(rename);
    return fails("rename", -1, 1) ? -1 : real(from, to);
}
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shim")
    (folder / "shim.c").write_text(SHIM)
    subprocess.run(
        ["gcc", "-w", "-shared", "-fPIC", "-O1", "-o", "shim.so", "shim.c", "-ldl"],
        cwd=folder, check=True,
    )  # fmt: skip
    return folder / "shim.so"


CALLS = {
    "writing, at once": ("write copy", 5, 0, "cannot write: Input/output error"),
    "writing, in the middle": (
        "write copy", 5, 5_000_000, "cannot write: Input/output error",
    ),
    "a quota": ("write copy", 122, 1_000_000, "cannot write: Disk quota exceeded"),
    "a file too large": ("write copy", 27, 1_000_000, "cannot write: File too large"),
    "waiting for the disk": ("fsync", 5, 0, "old.tar': cannot write: Input/output error"),
    "the rename": ("rename", 5, 0, "old.tar': cannot create: Input/output error"),
    "reading, at once": ("pread", 5, 0, "image.tar: cannot read: Input/output error"),
    "reading, in the middle": (
        "pread copy", 5, 9_000_000, "image.tar.*: cannot read: Input/output error",
    ),
}  # fmt: skip


@needs_gcc
@pytest.mark.parametrize(("calls", "errno", "after", "said"), CALLS.values(), ids=CALLS)
def test_calls_that_fail(  # noqa: PLR0917 - the columns of the table
    image, folder, shim, calls, errno, after, said
):
    environment = {
        "LD_PRELOAD": str(shim), "FAIL_CALL": calls, "FAIL_ERRNO": str(errno),
        "FAIL_AFTER": str(after),
    }  # fmt: skip
    got = run(image, "-o", folder / "old.tar", env=os.environ | environment)

    assert_failed(got, 1, said + "$", folder)


@needs_gcc
def test_what_the_kernel_does_not_copy_is_read_and_written(image, tmp_path, shim):
    environment = {"LD_PRELOAD": str(shim), "FAIL_CALL": "copy", "FAIL_AFTER": "0"}
    flatten.export(image, tmp_path / "want.tar")
    for errno in (5, 22, 38):
        got = run(image, "-o", tmp_path / "got.tar",
                  env=os.environ | environment | {"FAIL_ERRNO": str(errno)})  # fmt: skip

        assert (got.returncode, got.stderr) == (0, "")
        assert (tmp_path / "got.tar").read_bytes() == (
            tmp_path / "want.tar"
        ).read_bytes()


@needs_gcc
def test_no_fsync_does_not_wait(image, tmp_path, shim):
    environment = {
        "LD_PRELOAD": str(shim), "FAIL_CALL": "fsync", "FAIL_ERRNO": "5",
        "FAIL_AFTER": "0",
    }  # fmt: skip
    got = run(image, "-o", tmp_path / "out.tar", "--no-fsync",
              env=os.environ | environment)  # fmt: skip

    assert (got.returncode, got.stderr) == (0, "")


# --- files


CHANGES = {
    "cut short": lambda path: os.truncate(path, 1_000_000),
    "longer": lambda path: os.truncate(path, 50_000_000),
    "written to": lambda path: os.utime(path, ns=(1, 1)),
}


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_an_image_that_changes_while_it_is_read(image, tmp_path, change, verify):
    source = shutil.copy(image, tmp_path)
    os.mkfifo(tmp_path / "fifo")
    with subprocess.Popen(
        [*FLATTEN, source, "-o", tmp_path / "fifo", *[["--no-verify"], []][verify]],
        stderr=subprocess.PIPE, text=True,
    ) as process, (tmp_path / "fifo").open("rb") as reader:  # fmt: skip
        reader.read(100_000)  # it has begun to write, and waits
        change(source)
        reader.read()
        said = process.stderr.read()

    assert process.returncode in (1, 4, 5)
    assert re.search(
        r"changed while being read|ends too soon|digest mismatch: expected", said
    )
    assert said.count("\n") == 1


def test_a_layer_in_a_directory_that_changes_while_it_is_read(tmp_path):
    files = oci_files(layers(["a", "b"]))
    for name, data in files.items():
        path = tmp_path / "layout" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (largest,) = [
        tmp_path / "layout" / name for name, data in files.items() if b"ustar" in data
    ]
    with flatten.open_image(str(tmp_path / "layout")) as image:
        flatten.plan_image(image)
        image.check_unchanged()
        os.utime(largest, ns=(1, 1))

        with pytest.raises(flatten.FlattenError, match="changed while being read"):
            image.check_unchanged()


def test_an_output_directory_that_is_removed(image, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()

    with pytest.raises(flatten.FlattenError, match=r"cannot create: No such file"):
        pipeline.run(
            image,
            folder / "a.tar",
            flatten.Options(),
            before_commit=lambda: shutil.rmtree(folder),
        )

    assert not folder.exists()


SELVES = {
    "the image": ["image.tar", "-o", "image.tar"],
    "the image under another name": ["image.tar", "-o", "link.tar"],
    "standard output that is the image": ["image.tar"],
    "standard output and input that are the image": ["-"],
    "a file in the image's directory": ["layout", "-o", "layout/new.tar"],
    "a blob of the image": ["layout", "-o", "layout/blobs/sha256/new"],
    "standard output in the image's directory": ["layout"],
}


@pytest.mark.parametrize("args", SELVES.values(), ids=SELVES)
def test_an_output_that_is_the_image_or_in_it(tmp_path, args):
    tars = layers(["a"])
    (tmp_path / "image.tar").write_bytes(docker_archive(tars))
    (tmp_path / "link.tar").hardlink_to(tmp_path / "image.tar")
    for name, data in oci_files(tars).items():
        path = tmp_path / "layout" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (tmp_path / "layout" / "out.tar").touch()
    itself = "layout/out.tar" if args[0] == "layout" else "image.tar"
    before = sorted((p, p.is_file() and p.read_bytes()) for p in tmp_path.rglob("*"))

    with (tmp_path / itself).open("r+b") as out, (tmp_path / "image.tar").open() as in_:
        got = run(*args, cwd=tmp_path, stdin=in_, stdout=out, stderr=subprocess.PIPE,
                  capture_output=False)  # fmt: skip

    assert got.returncode == 2
    assert re.search(r"is (in )?the image('s directory)?; write elsewhere", got.stderr)
    assert before == sorted(
        (p, p.is_file() and p.read_bytes()) for p in tmp_path.rglob("*")
    )


# --- memory and descriptors


def limited(kind, most):
    def limit():
        resource.setrlimit(kind, (most, most))

    return limit


@pytest.mark.parametrize("form", ["docker", "oci zstd"])
def test_little_memory(tmp_path, folder, form):
    """From what Python itself needs on, it works, or says that there is too little."""
    tars = layers([member(f"{n}", os.urandom(1000)) for n in range(3000)])
    files = oci_files(tars, pack=zstandard.compress)
    for name, data in files.items():
        (tmp_path / "layout" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "layout" / name).write_bytes(data)
    (tmp_path / "image.tar").write_bytes(docker_archive(tars))
    source = "layout" if form == "oci zstd" else "image.tar"
    codes = set()
    for most in (*range(24, 48, 4), *range(48, 400, 24)):
        got = run(
            tmp_path / source, "-o", folder / "old.tar", "--progress", "never",
            preexec_fn=limited(resource.RLIMIT_AS, most << 20),
        )  # fmt: skip
        codes.add(got.returncode)
        if got.returncode == 0:
            (folder / "old.tar").write_text("precious")
        elif got.stderr.startswith("flatten: "):
            said = "out of memory|cannot (inflate|check digests|read)|Cannot allocate"
            assert_failed(got, 1, said, folder)
        assert [path.name for path in folder.iterdir()] == ["old.tar"]
    assert 0 in codes


def test_few_descriptors(image, tmp_path, folder):
    for name, data in oci_files(layers(*[[f"{n}"] for n in range(40)])).items():
        (tmp_path / "layout" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "layout" / name).write_bytes(data)
    for source in (image, tmp_path / "layout"):
        codes = set()
        for most in (5, 6, 7, 8, 10, 20, 64):
            got = run(source, "-o", folder / "old.tar",
                      preexec_fn=limited(resource.RLIMIT_NOFILE, most))  # fmt: skip
            codes.add(got.returncode)
            if got.returncode == 0:
                (folder / "old.tar").write_text("precious")
            elif got.stderr.startswith("flatten: "):
                assert_failed(got, got.returncode, "Too many open files", folder)
        assert 0 in codes


# --- many at once


def test_sixteen_runs_at_once_to_one_directory(image, tmp_path):
    outs = [tmp_path / f"{n}.tar" for n in range(16)]
    processes = [subprocess.Popen([*FLATTEN, image, "-o", out]) for out in outs]

    assert [process.wait(120) for process in processes] == [0] * 16
    assert len({out.read_bytes() for out in outs}) == 1
    assert sorted(tmp_path.iterdir()) == sorted(outs)


def test_many_runs_at_once_to_one_output(image, tmp_path):
    """Whole files replace each other; no reader ever sees anything else."""
    sources = [image, image.with_name("other.tar")]
    sources[1].write_bytes(docker_archive(layers(["a", "b", "c"])))
    whole, out, seen = set(), tmp_path / "out.tar", set()
    for source in sources:
        flatten.export(source, tmp_path / "want.tar")
        whole.add((tmp_path / "want.tar").read_bytes())
    (tmp_path / "want.tar").unlink()
    done = threading.Event()

    def watch():
        while not done.is_set():
            if out.exists():
                seen.add(out.read_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    processes = [
        subprocess.Popen([*FLATTEN, sources[n % 2], "-o", out, "--no-fsync"])
        for n in range(12)
    ]
    codes = [process.wait(120) for process in processes]
    done.set()
    watcher.join()

    assert codes == [0] * 12
    assert seen <= whole
    assert out.read_bytes() in whole
    assert [path.name for path in tmp_path.iterdir()] == ["out.tar"]


def test_standard_output_that_fails_is_named(image):
    with open("/dev/full", "wb") as full:
        got = run(image, stdout=full, stderr=subprocess.PIPE, capture_output=False)
        shown = run("config", image, stdout=full, stderr=subprocess.PIPE,
                    capture_output=False)  # fmt: skip

    want = "flatten: standard output: cannot write: No space left on device\n"
    assert (got.returncode, got.stderr) == (1, want)
    assert (shown.returncode, shown.stderr) == (1, want)
