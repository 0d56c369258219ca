"""``Image.root``: paths, symlinks, globs, file objects, errors, threads and closing."""

import errno
import gzip
import io
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import as_file
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath

import pytest

import flatten
from builders import config, docker_archive, docker_root, layers, member
from headers import sparse_gnu

WORDS = [
    [
        "usr/", "usr/bin/", member("usr/bin/tool", b"#!"), "bin->usr/bin",
        "etc/", member("etc/os-release", "NAME=Größe\r\n".encode()),
        "abs->/etc/os-release", "out->../../../etc/os-release", "up->usr/bin/..",
        "loop->loop", "broken->no/such", "through->etc/os-release/x",
        *[f"l{n}->l{n + 1}" for n in range(40)], "l40->etc",
        member("fifo", type=b"6"), member("null", type=b"3", device=(1, 3)),
    ],
    ["etc/", "etc/new", "etc/hard=etc/new", "implied/by/file"],
]  # fmt: skip


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp("image") / "image.tar"
    path.write_bytes(docker_archive(layers(*WORDS)))
    with flatten.open_image(path) as opened:
        yield opened


@pytest.fixture
def root(image):
    return image.root


# --- paths


def test_a_path_is_a_traversable(root):
    assert isinstance(root, Traversable)
    assert isinstance(root, flatten.ImagePath)
    assert (root / "etc" / "os-release").read_text() == "NAME=Größe\n"


def test_importlib_extracts_a_file(root):
    with as_file(root / "usr/bin/tool") as path:
        assert path.read_bytes() == b"#!"


def test_the_parts_of_a_path(root):
    path = root.joinpath("etc//./x/", PurePosixPath("y.tar"))

    assert path.parts == ("etc", "x", "y.tar")
    assert (path.name, str(path)) == ("y.tar", "etc/x/y.tar")
    assert repr(path) == "ImagePath('etc/x/y.tar')"
    assert path.path == PurePosixPath("etc/x/y.tar")
    assert path.path.suffix == ".tar"
    assert path.parent.parent == root / "etc"
    assert (root.name, root.parts, str(root)) == ("", (), ".")
    assert root.parent == root
    assert len({root / "a", root / "./a", root / "b"}) == 2
    assert sorted([root / "b", root / "a/c", root]) == [root, root / "a/c", root / "b"]
    assert root / "a" != "a"
    with pytest.raises(TypeError):
        os.fspath(path)


def test_an_absolute_path_starts_at_the_root_of_the_image(root):
    assert root / "usr" / "/etc" == root / "etc"
    assert (root / "usr" / ".." / ".." / "etc/new").read_text() == "1"


def test_names_that_are_not_utf8(tmp_path):
    entries = [member(b"caf\xe9", b"x"), member("s", type=b"2", target=b"caf\xe9")]
    (tmp_path / "i.tar").write_bytes(docker_archive(layers(entries)))

    with flatten.open_image(tmp_path / "i.tar") as opened:
        assert [path.name for path in opened.root.iterdir()] == ["caf\udce9", "s"]
        assert (opened.root / "s").readlink() == "caf\udce9"
        assert (opened.root / "caf\udce9").read_text() == "x"
        assert (opened.root / "s").read_text() == "x"


# --- symlinks


@pytest.mark.parametrize(
    "name", ["abs", "out", "up/../etc/os-release", "l1/os-release"]
)
def test_symlinks_are_resolved_inside_the_image(root, name):
    path = root / name

    assert path.exists()
    assert path.is_file()
    assert path.read_bytes() == b"NAME=Gr\xc3\xb6\xc3\x9fe\r\n"
    assert path.stat().st_ino == (root / "etc/os-release").stat().st_ino


def test_a_symlink_itself(root):
    path = root / "bin"

    assert path.is_symlink()
    assert path.is_dir()
    assert path.readlink() == "usr/bin"
    assert path.parent / path.readlink() == root / "usr/bin"
    assert stat.S_ISLNK(path.lstat().st_mode)
    assert stat.S_ISDIR(path.stat().st_mode)
    assert [str(child) for child in path.iterdir()] == ["bin/tool"]
    assert (root / "abs").parent / (root / "abs").readlink() == root / "etc/os-release"
    assert not (root / "usr").is_symlink()


@pytest.mark.parametrize(
    "name", ["loop", "broken", "through", "no", "etc/new/x", "l0/x"]
)
def test_a_path_that_leads_nowhere(root, name):
    path = root / name

    assert not path.exists()
    assert not path.is_dir()
    assert not path.is_file()
    assert path.exists(follow_symlinks=False) == path.is_symlink()


NOWHERE = {
    "no": (FileNotFoundError, errno.ENOENT),
    "broken": (FileNotFoundError, errno.ENOENT),
    "etc/new/x": (NotADirectoryError, errno.ENOTDIR),
    "etc/new/..": (NotADirectoryError, errno.ENOTDIR),
    "through": (NotADirectoryError, errno.ENOTDIR),
    "loop": (OSError, errno.ELOOP),
    "l0": (OSError, errno.ELOOP),
}


@pytest.mark.parametrize(("name", "want"), NOWHERE.items(), ids=NOWHERE)
@pytest.mark.parametrize("action", ["stat", "open", "iterdir", "xattrs"])
def test_errors_are_those_of_linux_with_the_path_in_the_image(root, name, want, action):
    with pytest.raises(OSError, match=r".") as caught:
        getattr(root / name, action)()

    assert (type(caught.value), caught.value.errno) == want
    assert caught.value.filename == name


def test_forty_symlinks_are_followed_as_on_linux(root, tmp_path):
    for n in range(40):
        (tmp_path / f"l{n}").symlink_to(f"l{n + 1}")
    (tmp_path / "l40").symlink_to("etc")
    (tmp_path / "etc").mkdir()

    for top in (root, tmp_path):
        assert (top / "l1").stat()
        with pytest.raises(OSError, match=r".") as caught:
            (top / "l0").stat()
        assert caught.value.errno == errno.ELOOP


def test_errors_of_the_wrong_type(root):
    with pytest.raises(IsADirectoryError):
        (root / "etc").open()
    with pytest.raises(IsADirectoryError):
        root.read_bytes()
    with pytest.raises(NotADirectoryError):
        (root / "etc/new").iterdir()
    with pytest.raises(NotADirectoryError):
        next((root / "etc/new").walk())
    with pytest.raises(OSError, match=r"\[Errno 22\].*'etc/new'"):
        (root / "etc/new").readlink()
    for name in ("fifo", "null"):
        with pytest.raises(OSError, match="Not a regular file") as caught:
            (root / name).read_bytes()
        assert caught.value.errno == errno.ENXIO


# --- status


def test_the_status_of_files(root):
    new, hard = (root / "etc/new").stat(), (root / "etc/hard").stat()
    null = (root / "null").stat()

    assert new == hard
    assert (new.st_nlink, new.st_size, new.st_blocks) == (2, 1, 1)
    assert stat.filemode(new.st_mode) == "-rw-r--r--"
    assert (new.st_mtime, new.st_mtime_ns) == (1_700_000_000, 1_700_000_000 * 10**9)
    assert (stat.filemode(null.st_mode), null.st_rdev) == (
        "crw-r--r--",
        os.makedev(1, 3),
    )
    assert stat.S_ISFIFO((root / "fifo").stat().st_mode)


def test_the_layer_is_that_of_the_path_itself(root):
    names = {"usr": 1, "bin": 1, "etc": 2, "etc/os-release": 1, "etc/new": 2}

    assert {name: (root / name).layer for name in names} == names
    assert (root / "implied").layer == 2
    with pytest.raises(FileNotFoundError):
        (root / "no").layer  # noqa: B018 - the access is the test


def test_the_status_of_the_root(root, tmp_path):
    assert root.layer is None
    assert stat.filemode(root.stat().st_mode) == "drwxr-xr-x"
    assert root.xattrs() == {}
    assert root.stat().st_ino not in {path.lstat().st_ino for path in root.rglob("*")
                                      if path != root}  # fmt: skip

    (tmp_path / "i.tar").write_bytes(
        docker_archive(layers([member("./", type=b"5", mode=0o700, uid=3)]))
    )
    with flatten.open_image(tmp_path / "i.tar") as opened:
        status = opened.root.stat()
        assert (opened.root.layer, stat.S_IMODE(status.st_mode), status.st_uid) == (
            1, 0o700, 3,
        )  # fmt: skip


def test_times_with_a_fraction_and_before_1970(tmp_path):
    entry = member("f", records={b"mtime": b"-1.25"})
    (tmp_path / "i.tar").write_bytes(docker_archive(layers([entry])))
    with flatten.open_image(tmp_path / "i.tar") as opened:
        status = (opened.root / "f").stat()

    assert (status.st_mtime, status.st_mtime_ns) == (-1.25, -1_250_000_000)


# --- directories


def test_iterdir_is_sorted_and_walk_follows_no_symlinks(root):
    assert [path.name for path in (root / "etc").iterdir()] == [
        "hard", "new", "os-release",
    ]  # fmt: skip
    walked = {str(path): (dirs, others) for path, dirs, others in root.walk()}
    assert list(walked) == [
        ".", "etc", "implied", "implied/by", "usr", "usr/bin",
    ]  # fmt: skip
    assert walked["."][0] == ["etc", "implied", "usr"]
    assert {"bin", "abs", "fifo"} <= {*walked["."][1]}


def test_walk_can_be_pruned(root):
    walked = []
    for path, names, _ in root.walk():
        walked.append(str(path))
        names[:] = [name for name in names if name != "implied"]

    assert walked == [".", "etc", "usr", "usr/bin"]


GLOBS = [
    "*", "etc/*", "*/new", "**/new", "**", "**/*", "usr/**", "usr/**/tool", "e?c/[no]*",
    "etc/[!n]*", "bin/*", "bin/**", "**/bin/*", "no/*", "etc/new/*", "*/*/*", "abs",
    "**/usr/**/t*", "./etc/./n*", "usr/../etc/new", "loop/*",
]  # fmt: skip


@pytest.fixture(scope="module")
def on_disk(image, tmp_path_factory):
    """Return the tree as a directory of the host."""
    top = tmp_path_factory.mktemp("tree") / "root"
    flatten.export(image.path, f"{top}/", ownership="current")
    return top


@pytest.mark.parametrize("pattern", GLOBS)
def test_globs_are_those_of_pathlib(root, on_disk, pattern):
    if pattern.endswith("**"):  # before Python 3.13 it matched directories only
        want = {*on_disk.glob(pattern), *on_disk.glob(pattern + "/*")}
    else:
        want = {*on_disk.glob(pattern)}
    got = [str(path) for path in root.glob(pattern)]
    if os.geteuid() != 0 and "null" in got:
        got.remove("null")  # a device, which only root can make

    assert sorted(got) == sorted(str(path.relative_to(on_disk)) for path in want)


def test_a_glob_matches_a_broken_symlink(root):
    """As from Python 3.13 on; before, pathlib did not match it without a wildcard."""
    assert list(root.glob("brok*")) == list(root.glob("broken")) == [root / "broken"]


def test_rglob(root):
    assert [str(path) for path in root.rglob("t*")] == ["through", "usr/bin/tool"]


@pytest.mark.parametrize("pattern", ["", ".", "/etc/*"])
def test_a_pattern_must_be_relative(root, pattern):
    with pytest.raises(ValueError, match="is not a relative pattern"):
        list(root.glob(pattern))


# --- file objects


def test_text_is_utf8_whatever_the_locale(root, monkeypatch):
    monkeypatch.setenv("LC_ALL", "C")
    path = root / "etc/os-release"

    assert path.open().read() == "NAME=Größe\n"
    assert path.read_text(newline="") == "NAME=Größe\r\n"
    assert path.read_text("ascii", "replace") == "NAME=Gr\ufffd\ufffd\ufffd\ufffde\n"
    with path.open("rt", encoding="latin-1") as file:
        assert file.read() == "NAME=GrÃ¶Ã\x9fe\n"


@pytest.mark.parametrize("mode", ["w", "wb", "a", "x", "r+", "rb+"])
def test_the_image_cannot_be_written(root, mode):
    with pytest.raises(OSError, match="Read-only file system") as caught:
        (root / "etc/new").open(mode)
    assert caught.value.errno == errno.EROFS


def test_an_unknown_mode(root):
    with pytest.raises(ValueError, match="'q' is not a valid mode"):
        (root / "etc/new").open("q")


def test_a_file_object_seeks_like_one_of_the_host(root, on_disk):
    with (root / "etc/os-release").open("rb") as here, \
            (on_disk / "etc/os-release").open("rb") as there:  # fmt: skip
        for offset, whence in [(3, 0), (2, 1), (-4, 2), (100, 0), (0, 2), (0, 0)]:
            assert here.seek(offset, whence) == there.seek(offset, whence)
            assert here.read(4) == there.read(4)
            assert here.tell() == there.tell()
        for file in (here, there):
            with pytest.raises(OSError, match="Invalid argument"):
                file.seek(-1)
        assert here.readable()
        assert here.seekable()
        assert not here.writable()
    with pytest.raises(ValueError, match="closed file"):
        here.read()


SPARSE = {
    "all hole": ([], 3_000_000, b""),
    "holes at both ends": ([(512, 1024), (9000, 0)], 9000, b"d" * 1024),
    "several holes": (
        [(n * 2048, 512) for n in range(6)],
        12_000,
        bytes(range(256)) * 12,
    ),
    "regions without a hole between them": ([(0, 512), (512, 512)], 1024, b"a" * 1024),
}


@pytest.mark.parametrize(("regions", "size", "data"), SPARSE.values(), ids=SPARSE)
def test_sparse_files_at_every_offset(tmp_path, regions, size, data):
    want, taken = bytearray(size), 0
    for offset, length in regions:
        want[offset : offset + length] = data[taken : taken + length]
        taken += length
    tar = layers([sparse_gnu(b"sparse", regions, size, data)])
    (tmp_path / "i.tar").write_bytes(docker_archive(tar))

    with flatten.open_image(tmp_path / "i.tar") as opened:
        path = opened.root / "sparse"
        assert path.read_bytes() == want
        assert path.stat().st_blocks == len(data) // 512
        with path.open("rb") as file:
            for offset in range(0, size, 509 if size < 20_000 else 300_007):
                file.seek(offset)
                assert file.read(700) == want[offset : offset + 700]


def test_a_file_over_the_limit_is_refused(tmp_path):
    tar = layers([sparse_gnu(b"huge", [], 1 << 50, b"")])
    (tmp_path / "i.tar").write_bytes(docker_archive(tar))

    with flatten.open_image(tmp_path / "i.tar") as opened:
        assert (opened.root / "huge").stat().st_size == 1 << 50
        with pytest.raises(flatten.FormatError, match=r"Limits\.size"):
            (opened.root / "huge").open("rb")
    limits = flatten.Limits(size=1 << 51)
    with flatten.open_image(tmp_path / "i.tar", limits=limits) as opened, \
            (opened.root / "huge").open("rb") as file:  # fmt: skip
        assert file.seek(1 << 49) == 1 << 49
        assert file.read(10) == bytes(10)


# --- what is read


def bytes_read():
    """Return how many bytes this process has asked the kernel to read so far."""
    status = Path("/proc/self/io").read_text()
    return int(dict(line.split(": ") for line in status.splitlines())["rchar"])


def test_one_file_is_read_without_the_others(tmp_path):
    files = [member(f"f{n}", os.urandom(2_000_000)) for n in range(8)]
    (tmp_path / "i.tar").write_bytes(docker_archive(layers(files)))

    before = bytes_read()
    with flatten.open_image(tmp_path / "i.tar") as opened:
        assert bytes_read() - before < 1_000_000
        content = (opened.root / "f3").read_bytes()
        assert bytes_read() - before < 3_500_000
        with (opened.root / "f5").open("rb") as file:
            file.seek(1_000_000)
            file.read(10)
        assert bytes_read() - before < 3_600_000

    assert content == files[3][512 : 512 + 2_000_000]


def test_a_compressed_layer_is_inflated_once(tmp_path):
    tars = layers([member(f"f{n}", os.urandom(2_000_000)) for n in range(8)])
    packed = [gzip.compress(tar, 1) for tar in tars]
    (tmp_path / "i.tar").write_bytes(
        docker_archive(packed, config_document=config(tars))
    )

    before = bytes_read()
    with flatten.open_image(tmp_path / "i.tar") as opened:
        contents = [path.read_bytes() for path in opened.root.iterdir()]
        contents += [path.read_bytes() for path in opened.root.iterdir()]

    assert len(contents) == 16
    inflated, headers = len(packed[0]), 2_000_000
    assert bytes_read() - before < inflated + sum(map(len, contents)) + headers


# --- threads


def test_threads_read_at_the_same_time(tmp_path):
    wanted = {f"f{n}": os.urandom(300_000 + n) for n in range(12)}
    tars = layers([member(name, data) for name, data in wanted.items()])
    packed = [gzip.compress(tar, 1) for tar in tars]
    (tmp_path / "i.tar").write_bytes(
        docker_archive(packed, config_document=config(tars))
    )

    with flatten.open_image(tmp_path / "i.tar") as opened:

        def read(name):
            with (opened.root / name).open("rb") as file:
                return b"".join(iter(lambda: file.read(7001), b""))

        with ThreadPoolExecutor(8) as threads:
            got = dict(
                zip([*wanted] * 4, threads.map(read, [*wanted] * 4), strict=False)
            )

    assert got == wanted


def test_closing_waits_for_reads_and_ends_the_next(tmp_path):
    data = os.urandom(1 << 20)
    (tmp_path / "i.tar").write_bytes(docker_archive(layers([member("f", data)])))
    for _ in range(20):
        opened = flatten.open_image(tmp_path / "i.tar")
        path = opened.root / "f"
        found, begun = [], threading.Event()

        def read(path=path, found=found, begun=begun):
            try:
                while True:
                    found.append(path.read_bytes() == data)
                    begun.set()
            except ValueError as error:
                found.append(str(error))

        threads = [threading.Thread(target=read) for _ in range(3)]
        for thread in threads:
            thread.start()
        begun.wait()
        opened.close()
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive()

        messages = [each for each in found if each is not True]
        assert messages == [f"{tmp_path}/i.tar: the image is closed"] * 3


# --- closing, verifying, damage


def test_nothing_can_be_read_from_a_closed_image(tmp_path):
    (tmp_path / "i.tar").write_bytes(docker_archive(layers(["d/", "d/f"])))
    with flatten.open_image(tmp_path / "i.tar") as opened:
        root, file = opened.root, (opened.root / "d/f").open("rb")
    opened.close()

    for use in (
        lambda: opened.root, root.iterdir, root.stat, (root / "d/f").read_bytes,
        (root / "d").exists, (root / "d").is_dir, lambda: list(root.rglob("*")),
        file.read,
    ):  # fmt: skip
        with pytest.raises(ValueError, match="the image is closed"):
            use()
    unread = flatten.open_image(tmp_path / "i.tar")
    unread.close()
    with pytest.raises(ValueError, match="the image is closed"):
        unread.root  # noqa: B018 - the access is the test


def broken_promise(folder):
    """Write an image whose second layer is not what its config promises."""
    tars = layers(["a"], ["b"])
    document = config([tars[0], tars[0]])
    (folder / "i.tar").write_bytes(docker_archive(tars, config_document=document))
    return folder / "i.tar"


def open_descriptors():
    return len(os.listdir("/proc/self/fd"))


def test_digests_are_checked_only_if_asked(tmp_path):
    path = broken_promise(tmp_path)
    with flatten.open_image(path) as opened:
        assert (opened.root / "b").read_bytes() == b"1"
    before = open_descriptors()

    with pytest.raises(flatten.IntegrityError, match="digest mismatch"):
        flatten.open_image(path, verify=True)
    assert open_descriptors() == before


@pytest.mark.parametrize("pack", [bytes, lambda tar: gzip.compress(tar, 1)])
def test_a_verified_image_can_be_read(tmp_path, pack):
    tars = layers(["a"], ["b"])
    data = docker_archive([*map(pack, tars)], config_document=config(tars))
    (tmp_path / "i.tar").write_bytes(data)

    with flatten.open_image(tmp_path / "i.tar", verify=True) as opened:
        assert [path.read_text() for path in opened.root.iterdir()] == ["0", "1"]


def test_a_damaged_layer_is_an_error_of_flatten(tmp_path):
    tar = layers([member("f", b"x" * 5000)])[0]
    (tmp_path / "i.tar").write_bytes(docker_archive([b"junk" * 500]))
    with flatten.open_image(tmp_path / "i.tar") as opened, \
            pytest.raises(flatten.FormatError):  # fmt: skip
        opened.root  # noqa: B018 - the access is the test

    packed = bytearray(gzip.compress(tar + os.urandom(600_000), 1))
    packed[-100_000:] = bytes(100_000)
    document = config([tar])
    (tmp_path / "z.tar").write_bytes(
        docker_archive([bytes(packed)], config_document=document)
    )
    with flatten.open_image(tmp_path / "z.tar") as opened, \
            pytest.raises(flatten.FlattenError):  # fmt: skip
        opened.root  # noqa: B018 - the access is the test


def test_a_file_that_was_modified_since_is_noticed(tmp_path):
    path = tmp_path / "i.tar"
    path.write_bytes(docker_archive(layers(["f"])))
    with flatten.open_image(path) as opened:
        file = opened.root / "f"
        with path.open("ab") as other:
            other.write(bytes(512))
        with pytest.raises(flatten.FlattenError, match="changed while being read"):
            file.read_bytes()


def test_a_layer_directory_that_was_modified_since_is_noticed(tmp_path):
    docker_root(tmp_path / "docker", layers(["d/", "d/f"]))
    with flatten.open_image(tmp_path / "docker") as opened:
        assert (opened.root / "d/f").read_text() == "0"
        (stored,) = (tmp_path / "docker").rglob("diff/d/f")
        stored.write_text("longer")
        with pytest.raises(flatten.FormatError, match=r"'.*d/f' was changed on disk"):
            (opened.root / "d/f").read_text()


def test_an_open_image_is_still_one_to_plan(image):
    assert image.names == ("app:1",)
    assert len(image.layers) == 2
    assert isinstance(image, flatten.Image)
    assert len(flatten.plan_image(image)) == len(list(image.root.rglob("*")))


def test_a_reader_is_a_raw_file_object(root):
    file = (root / "etc/new").open("rb")

    assert isinstance(file, io.BufferedReader)
    assert file.raw.readall() == b"1"
    assert file.raw.readinto(bytearray(1)) == 0
    with pytest.raises(ValueError, match="9 is not a valid whence"):
        file.raw.seek(0, 9)
