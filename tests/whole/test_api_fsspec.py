"""Images through fsspec: flatten:// URLs, listings, reading, refused changes."""

import errno
import pickle
import subprocess
import sys
import tomllib
from datetime import UTC, datetime
from importlib.metadata import EntryPoint
from pathlib import Path

import fsspec
import pytest

import flatten
from builders import docker_archive, layers, member
from flatten.fsspec import FlattenFileSystem

ROOT = Path(__file__).parents[2]
GROUP = "fsspec.specs"

WORDS = [
    ["usr/bin/", member("usr/bin/tool", b"0123456789"), "bin->usr/bin", "loop->loop",
     "etc/", "etc/conf", "abs->/etc/conf", "broken->no", member("fifo", type=b"6"),
     "empty/"],
    ["etc/", "etc/conf", "etc/hard=etc/conf"],
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def registered():
    """Register the file system as its entry point does when flatten is installed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    ((name, value),) = project["entry-points"][GROUP].items()
    entry = EntryPoint(name, value, GROUP)
    assert entry.load() is FlattenFileSystem
    fsspec.register_implementation(name, entry.load(), clobber=True)


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image.tar"
    path.write_bytes(docker_archive(layers(*WORDS)))
    return path


@pytest.fixture
def files(image):
    return fsspec.filesystem("flatten", fo=image)


# --- opening


@pytest.mark.parametrize("url", ["flatten://etc/conf", "flatten:///etc/conf"])
def test_a_url_is_a_path_in_the_image(image, url):
    with fsspec.open(url, fo=str(image)) as file:
        assert file.read() == b"1"
    with fsspec.open(url, "r", fo=f"docker-archive:{image}#app:1") as file:
        assert file.read() == "1"


def test_a_chained_url_has_both_paths(image, monkeypatch):
    monkeypatch.chdir(image.parent)
    for last in ("image.tar", f"file://{image}", f"local://{image}#app:1"):
        with fsspec.open(f"flatten://etc/conf::{last}") as file:
            assert file.read() == b"1"
    files = fsspec.filesystem("flatten", fo=f"file://{image}")
    assert files.cat("etc/conf") == b"1"


def test_a_remote_image_is_read_through_a_local_cache(image):
    fsspec.filesystem("memory").pipe("/remote.tar", image.read_bytes())

    with fsspec.open("flatten://etc/conf::simplecache::memory://remote.tar") as file:
        assert file.read() == b"1"
    with pytest.raises(ValueError, match="prefix the URL with 'simplecache::'"):
        fsspec.open("flatten://etc/conf::memory://remote.tar")


def test_options_are_those_of_open_image(image):
    with pytest.raises(flatten.SourceError, match="windows"):
        fsspec.filesystem("flatten", fo=image, platform="windows/amd64")
    with pytest.raises(flatten.SourceError, match=r"no\.tar"):
        fsspec.filesystem("flatten", fo=image.with_name("no.tar"))
    broken = image.read_bytes().replace(b"0123456789", b"9876543210")
    image.write_bytes(broken)
    assert fsspec.filesystem("flatten", fo=image).cat("usr/bin/tool") == b"9876543210"
    with pytest.raises(flatten.IntegrityError):
        fsspec.filesystem("flatten", fo=image, verify=True)


def test_a_file_system_can_be_sent_to_another_process(files, image):
    again = pickle.loads(pickle.dumps(files))

    assert again == files
    assert again.cat("etc/conf") == b"1"
    assert again.image.path == str(image)


def test_an_image_that_cannot_be_read_is_closed(tmp_path):
    (tmp_path / "i.tar").write_bytes(docker_archive([b"junk" * 500]))
    before = open_descriptors()

    with pytest.raises(flatten.FormatError) as caught:
        FlattenFileSystem(tmp_path / "i.tar")
    assert caught.value.where.startswith(f"{tmp_path}/i.tar, layer 1 of 1")
    assert open_descriptors() == before


def open_descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_the_image_is_open_as_long_as_a_file_of_it(image):
    before = open_descriptors()
    file = fsspec.open("flatten://usr/bin/tool", fo=image).open()
    assert open_descriptors() > before
    assert file.read(3) == b"012"
    assert file.read() == b"3456789"
    del file

    assert open_descriptors() == before


# --- reading


def test_ls_and_info(files):
    assert files.ls("", detail=False) == [
        "abs", "bin", "broken", "empty", "etc", "fifo", "loop", "usr",
    ]  # fmt: skip
    kinds = {row["name"]: row["type"] for row in files.ls("/")}
    assert kinds == {
        "abs": "file", "bin": "link", "broken": "link", "empty": "directory",
        "etc": "directory", "fifo": "other", "loop": "link", "usr": "directory",
    }  # fmt: skip
    assert files.ls("etc/conf", detail=False) == ["etc/conf"]
    assert files.ls("etc/conf") == [files.info("etc/conf")]
    assert files.ls("empty") == []
    info = files.info("flatten://etc/hard")
    assert info == files.info("etc/conf") | {"name": "etc/hard"}
    assert (info["type"], info["size"], info["nlink"], info["layer"]) == (
        "file", 1, 2, 2,
    )  # fmt: skip
    assert (info["mode"], info["uid"], info["islink"]) == (0o100644, 0, False)
    assert files.info("")["type"] == "directory"
    assert files.info("")["name"] == ""
    with pytest.raises(FileNotFoundError):
        files.ls("no")
    with pytest.raises(FileNotFoundError):
        files.info("no")


def test_symlinks(files):
    link = files.info("bin")
    assert (link["type"], link["islink"]) == ("directory", True)
    assert link["destination"] == "usr/bin"
    assert files.ls("bin", detail=False) == ["bin/tool"]
    assert files.info("abs")["size"] == 1
    assert files.cat("bin/tool") == b"0123456789"
    assert files.info("broken")["type"] == "link"
    assert files.lexists("broken")
    assert not files.exists("broken")
    assert not files.exists("loop")
    assert not files.lexists("no")


def test_types(files):
    assert files.isdir("bin")
    assert files.isfile("abs")
    assert not files.isfile("fifo")
    assert not files.isdir("no")
    assert not files.isfile("no")
    assert files.modified("etc/conf") == datetime.fromtimestamp(1_700_000_000, UTC)


def test_recursive_operations_visit_each_directory_once(files):
    assert files.find("") == [
        "abs", "bin", "broken", "etc/conf", "etc/hard", "fifo", "loop", "usr/bin/tool",
    ]  # fmt: skip
    assert [path for path, _, _ in files.walk("")] == [
        "", "empty", "etc", "usr", "usr/bin",
    ]  # fmt: skip
    assert files.glob("**/tool") == ["usr/bin/tool"]
    assert files.glob("etc/*") == ["etc/conf", "etc/hard"]
    assert files.du("usr") == 10


def test_ranges(files):
    assert files.cat_file("usr/bin/tool", 2, 5) == b"234"
    assert files.cat_file("usr/bin/tool", -3) == b"789"
    assert files.cat_file("usr/bin/tool", 4, -4) == b"45"
    assert files.cat_file("usr/bin/tool", 8, 3) == b""
    assert files.cat_file("usr/bin/tool", 8, 300) == b"89"
    assert files.cat(["etc/conf", "abs"]) == {"etc/conf": b"1", "abs": b"1"}
    assert files.cat_ranges(["usr/bin/tool"] * 2, [0, 5], [1, 6]) == [b"0", b"5"]
    assert files.tail("usr/bin/tool", 2) == b"89"


def test_many_files_at_once(tmp_path):
    wanted = {f"{n}.txt": b"%d" % n for n in range(10)}
    entries = [member(name, data) for name, data in wanted.items()]
    (tmp_path / "i.tar").write_bytes(docker_archive(layers(entries)))

    assert fsspec.filesystem("flatten", fo=tmp_path / "i.tar").cat("*.txt") == wanted


READ_ONLY = {
    "open": lambda files: files.open("new", "wb"),
    "append": lambda files: files.open("etc/conf", "ab"),
    "write text": lambda files: files.write_text("new", "x"),
    "pipe": lambda files: files.pipe("new", b"x"),
    "touch": lambda files: files.touch("new"),
    "mkdir": lambda files: files.mkdir("new"),
    "makedirs": lambda files: files.makedirs("new", exist_ok=True),
    "rmdir": lambda files: files.rmdir("empty"),
    "rm": lambda files: files.rm("etc/conf"),
    "rm of a tree": lambda files: files.rm("etc", recursive=True),
    "mv": lambda files: files.mv("etc/conf", "new"),
    "cp": lambda files: files.cp("etc/conf", "new"),
    "put": lambda files: files.put(__file__, "new"),
}


@pytest.mark.parametrize("change", READ_ONLY.values(), ids=READ_ONLY)
def test_the_image_cannot_be_changed(files, change):
    with pytest.raises(OSError, match="Read-only file system") as caught:
        change(files)

    assert caught.value.errno == errno.EROFS
    assert files.find("etc") == ["etc/conf", "etc/hard"]


def test_only_fsspec_imports_fsspec():
    code = "import sys, flatten.api, flatten.cli.main; print('fsspec' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
