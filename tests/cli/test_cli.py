"""The command as a process: its output, its messages and its exit codes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from builders import archive, docker_archive, layers, member
from command import FLATTEN, run
from listing import contents


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image.tar"
    path.write_bytes(docker_archive(layers(["a", "b"], ["-a"])))
    return path


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Return an image that takes a moment to write."""
    path = tmp_path_factory.mktemp("large") / "large.tar"
    words = [member(f"{n}", bytes(1_000_000)) for n in range(150)]
    path.write_bytes(docker_archive(layers(words)))
    return path


def test_a_run_to_a_file_prints_nothing(image, tmp_path):
    got = run(image, "-o", tmp_path / "out.tar")

    assert (got.returncode, got.stdout, got.stderr) == (0, "", "")
    assert contents(tmp_path / "out.tar") == {"b": "0"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["image.tar", "out.tar"]


def test_to_standard_output(image):
    for args in ([image], [image, "-o", "-"]):
        got = run(*args, text=False)

        assert (got.returncode, got.stderr) == (0, b"")
        assert contents(got.stdout) == {"b": "0"}


def test_options_may_come_first(image, tmp_path):
    assert run("-q", "--no-verify", "-o", tmp_path / "out.tar", image).returncode == 0


def test_verbose_prints_what_was_written(image, tmp_path, headers_by):
    slow = "there is no compiled kernel, so Python read all headers, more slowly"

    got = run(image, "-o", tmp_path / "out.tar", "-v")

    assert got.stderr.splitlines() == [
        "flatten: 2 layers (2 verified), 1 members, 10,240 bytes",
        *[f"flatten: {slow}"] * (headers_by == "pure"),
    ]


def test_the_console_script_runs_the_module(image, tmp_path):
    script = Path(sys.executable).with_name("flatten")

    done = subprocess.run([script, image, "-o", tmp_path / "out.tar"], check=False)

    assert done.returncode == 0


def test_a_new_file_has_the_mode_of_the_umask(image, tmp_path):
    out = tmp_path / "out.tar"
    run(image, "-o", out, umask=0o027)

    assert out.stat().st_mode & 0o777 == 0o640


def test_an_output_that_is_a_symlink_is_written_to_its_target(image, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link.tar").symlink_to("real/out.tar")

    assert run(image, "-o", tmp_path / "link.tar").returncode == 0
    assert (tmp_path / "link.tar").is_symlink()
    assert contents(tmp_path / "real" / "out.tar") == {"b": "0"}


def test_a_device_or_a_fifo_is_written_directly(image, tmp_path):
    assert run(image, "-o", "/dev/null").returncode == 0
    os.mkfifo(tmp_path / "fifo")
    with subprocess.Popen(["cat", tmp_path / "fifo"], stdout=subprocess.PIPE) as reader:
        assert run(image, "-o", tmp_path / "fifo").returncode == 0
        assert contents(reader.stdout.read()) == {"b": "0"}


def test_a_failed_run_leaves_what_was_there(image, tmp_path):
    out = tmp_path / "out.tar"
    out.write_text("precious")
    image.write_bytes(image.read_bytes().replace(b"ustar", b"USTAR", 9))

    assert run(image, "-o", out).returncode in (3, 4)
    assert out.read_text() == "precious"


FAILURES = {
    "no arguments": ([], 2, "arguments are required: IMAGE"),
    "an unknown option": (["IMAGE", "--frobnicate"], 2, "--frobnicate"),
    "an unknown format": (["IMAGE", "--format", "cpio"], 2, "invalid choice"),
    "no such file": (["nowhere.tar"], 3, "flatten: 'nowhere.tar': No such file"),
    "an image that the archive does not have": (
        ["IMAGE#x"],
        3,
        "no image 'x' in it; it has @0 app:1",
    ),
    "a directory as image": (["."], 3, "flatten: '.': not a container image"),
    "a directory as output": (["IMAGE", "-o", "."], 2, "is a directory"),
    "an output in a missing directory": (
        ["IMAGE", "-o", "no/out"],
        1,
        "cannot create: No",
    ),
    "the image as output": (
        ["IMAGE", "-o", "IMAGE"],
        2,
        "is the image; write elsewhere",
    ),
    "an mtime that is not a time": (
        ["IMAGE", "--mtime", "soon"],
        2,
        "--mtime: 'soon' is no",
    ),
    "a name that is too long": (
        ["IMAGE", "-o", "n" * 300],
        1,
        "cannot create: File name too long",
    ),
    "a full disk": (["IMAGE", "-o", "/dev/full"], 1, "cannot write: No space left"),
    "text": (["text"], 3, "flatten: 'text': not a container image, but text"),
    "a layer cut short": (["short.tar"], 4, "flatten: short.tar: truncated"),
}


@pytest.mark.parametrize(("args", "code", "why"), FAILURES.values(), ids=FAILURES)
def test_failures(image, tmp_path, args, code, why):
    (tmp_path / "text").write_text("hello\n" * 1000)
    (tmp_path / "short.tar").write_bytes(image.read_bytes()[:3000])
    before = sorted(tmp_path.iterdir())
    args = [arg.replace("IMAGE", "image.tar") for arg in args]

    got = run(*args, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
              capture_output=False)  # fmt: skip

    assert got.returncode == code
    assert why in got.stderr
    assert "Traceback" not in got.stderr
    assert got.stderr.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_messages_are_one_line_whatever_the_names(tmp_path):
    tars = layers(["../x"])
    names = {"Config": "c.json", "RepoTags": ["a\x1b[31m:1"], "Layers": ["l\n.tar"]}
    files = [
        ("l\n.tar", tars[0]),
        ("c.json", b"{}"),
        ("manifest.json", json.dumps([names]).encode()),
    ]
    path = tmp_path / "new\nline.tar"
    path.write_bytes(archive(files))

    for image in (path, f"{path}#other", tmp_path / "no\nthing"):
        got = run(image, "-o", "/dev/null")
        assert got.returncode in (3, 4)
        assert got.stderr.count("\n") == 1
        assert "\x1b" not in got.stderr


@pytest.mark.parametrize("image", ["good", "no/such"])
def test_no_message_gets_into_the_data_without_standard_error(tmp_path, image):
    (tmp_path / "good").write_bytes(docker_archive(layers(["a", "a"])))
    command = f"exec '{sys.executable}' -m flatten {image} -v 2>&-"
    got = subprocess.run(
        ["sh", "-c", command], cwd=tmp_path, stdout=subprocess.PIPE, check=False
    )

    assert got.returncode == (0 if image == "good" else 3)
    assert b"flatten:" not in got.stdout


def test_dev_stdout_is_written_directly(image):
    got = run(image, "-o", "/dev/stdout", text=False)

    assert contents(got.stdout) == {"b": "0"}


def test_the_mode_of_an_existing_output_is_kept(image, tmp_path):
    out = tmp_path / "out.tar"
    out.touch(mode=0o600)
    run(image, "-o", out)

    assert out.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "words",
    ["{}", "cat {} b", "report {} -o -", "ls {}", "layers {}", "{} -o o --json", "-V"],
)
def test_a_closed_standard_output_is_an_error(tmp_path, image, words):
    command = f"exec '{sys.executable}' -m flatten {words.format(image)} >&-"
    got = subprocess.run(
        ["sh", "-c", command], cwd=tmp_path, capture_output=True, check=False
    )

    assert got.returncode == 1
    want = b"flatten: standard output: cannot write: Bad file descriptor\n"
    assert got.stderr == want


@pytest.mark.parametrize("closed", ["<&-", "<&- >&-"])
def test_a_closed_standard_input_is_an_error(closed):
    command = f"exec '{sys.executable}' -m flatten - {closed}"
    got = subprocess.run(
        ["sh", "-c", command], capture_output=True, check=False, timeout=60
    )

    assert got.returncode == 3
    assert got.stderr.startswith(b"flatten: standard input: not a file")


def test_a_digest_mismatch_is_exit_code_5(image):
    image.write_bytes(image.read_bytes().replace(b"\x000\x00", b"\x00X\x00"))

    got = run(image, "-o", image.with_name("out.tar"))

    assert got.returncode == 5
    assert "layer 1 of 2" in got.stderr
    assert "--no-verify" in got.stderr
    assert run("--no-verify", image, "-o", image.with_name("out.tar")).returncode == 0


def test_a_tar_is_not_written_to_a_terminal(image):
    ours, theirs = os.openpty()
    got = run(image, stdout=theirs, stderr=subprocess.PIPE, capture_output=False)
    os.close(ours)
    os.close(theirs)

    assert got.returncode == 2
    assert "terminal" in got.stderr


def test_a_reader_that_closes_the_pipe_ends_the_run_silently(large):
    with subprocess.Popen(
        [*FLATTEN, large], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 141


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
)
def test_a_signal_leaves_nothing_behind(large, tmp_path, number, code):
    folder = tmp_path / "out"
    folder.mkdir()
    command = [*FLATTEN, large, "-o", folder / "out.tar.xz"]  # which takes a while

    def reset():  # the test runner may ignore it, as nohup does
        signal.signal(number, signal.SIG_DFL)

    with subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        preexec_fn=reset,  # noqa: PLW1509 - no threads here
    ) as process:
        while not list(folder.iterdir()):
            time.sleep(0.001)
        process.send_signal(number)
        assert process.stderr.read() == b""

    assert process.returncode == code
    assert list(folder.iterdir()) == []


def test_an_ignored_signal_stays_ignored_as_under_nohup():
    code = (
        "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN);"
        "from flatten.cli.main import main; main(['no/such/image']);"
        "print(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN)"
    )
    got = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)

    assert got.stdout == b"True\n"


def test_mtime_and_source_date_epoch_clamp(image):
    for args, environment in (
        (["--mtime", "1970-01-02"], {}),
        (["--mtime", "86400"], {"SOURCE_DATE_EPOCH": "5"}),
        ([], {"SOURCE_DATE_EPOCH": "86400"}),
    ):
        got = run(image, *args, env=os.environ | environment, text=False)
        assert b" 00000250600\x00".strip() in got.stdout  # 86400 in octal

    bad = run(image, env=os.environ | {"SOURCE_DATE_EPOCH": "yesterday"})
    assert (bad.returncode, "SOURCE_DATE_EPOCH: 'yesterday'" in bad.stderr) == (2, True)


def test_warnings_can_be_silenced(tmp_path):
    path = tmp_path / "image.tar"
    path.write_bytes(docker_archive(layers(["a", "a"])))

    loud = run(path, "-o", "/dev/null")
    quiet = run(path, "-o", "/dev/null", "-q")

    assert loud.stderr.startswith("flatten: warning: ")
    assert "1 paths are in the layer more than once" in loud.stderr
    assert (loud.returncode, quiet.returncode, quiet.stderr) == (0, 0, "")


def test_the_bar_is_shown_on_terminals_and_on_request(image):
    assert run(image, "-o", "/dev/null").stderr == ""
    shown = run(image, "-o", "/dev/null", "--progress", "always").stderr
    assert "/10.0k" in shown


def test_slow_imports_come_late(image):
    code = (
        "import sys; from flatten.cli.main import main; code = main(sys.argv[1:]);"
        "slow = {'tqdm', 'zstandard', 'xxhash', 'isal', 'lzma'};"
        "print(slow & set(sys.modules)); sys.exit(code)"
    )
    got = subprocess.run(
        [sys.executable, "-c", code, image, "-o", "/dev/null"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert got.stdout == "set()\n"
