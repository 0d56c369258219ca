"""A root file system compared with its image, and with its list."""

import json
import os
import shutil
from collections import namedtuple

import pytest
import xxhash

import flatten
from builders import docker_archive, layers, member
from everything import EVERYTHING
from flatten.cli.main import main
from flatten.views.differences import differences, read_list
from needs import root_only

Done = namedtuple("Done", "returncode stdout stderr")


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Return a function that runs the command in a directory of its own."""
    monkeypatch.chdir(tmp_path)

    def run_command(*args):
        return Done(main(args), *capsys.readouterr())

    return run_command


@pytest.fixture
def made(tmp_path, run):
    """Return a directory with an image, its tar, its list, its config and its tree."""
    (tmp_path / "i.tar").write_bytes(docker_archive(EVERYTHING))
    args = ["--list-out", "list", "--config-out", "config", "-o"]
    assert run("i.tar", *args, "o.tar").returncode == 0
    assert run("i.tar", "-o", "o/").returncode == 0
    return tmp_path


def rows_of(path):
    rows = map(json.loads, path.read_text().splitlines())
    return {row["path"]: row for row in rows}


@root_only
@pytest.mark.parametrize("rootfs", ["o.tar", "o/", "o.tar.zst", "pax.tar"])
@pytest.mark.parametrize("expected", ["i.tar", "list"])
def test_no_difference(made, run, rootfs, expected):
    if not (made / rootfs).exists():
        run("i.tar", "-o", rootfs, "--format", "pax" if rootfs == "pax.tar" else "gnu")

    got = run("verify", rootfs, expected)

    assert (got.returncode, got.stdout, got.stderr) == (0, "", "")


@pytest.mark.parametrize("command", ["verify", "diff", "ls", "report"])
def test_an_empty_file_is_not_an_empty_tar(made, run, command):
    """A download that failed leaves one; a tar without members has an end mark."""
    (made / "empty.tar").write_bytes(b"")
    images = ["i.tar"] if command in {"verify", "diff"} else []

    got = run(command, "empty.tar", *images)

    assert (got.returncode, got.stdout) == (3, "")
    assert got.stderr.endswith(", but an empty file\n")


def test_the_config_file_equals_the_output_of_the_config_command(made, run):
    assert (made / "config").read_text() == run("config", "i.tar").stdout


def test_a_list_has_the_layer_and_the_content_of_each_entry(made):
    rows = rows_of(made / "list")

    assert rows["etc/conf"]["layer"] == 2
    assert rows["bin/su"] == {
        "path": "bin/su", "type": "file", "mode": "4755", "uid": 0, "gid": 7,
        "mtime": 1_700_000_000, "size": 6, "xxh3": xxhash.xxh3_128_hexdigest(b"setuid"),
        "layer": 1,
    }  # fmt: skip
    assert rows["caf\udce9"]["size"] == 5
    assert rows["dev/loop"]["rdev"] == "7:300"
    assert rows["xattr"]["xattrs"] == {"user.a": "AP8K", "user.b": ""}


def test_added_files_have_no_layer(made, run):
    run("i.tar", "-o", "o2.tar", "--list-out", "l", "--add", "config:x")

    rows = rows_of(made / "l")
    assert (rows["x"]["layer"], rows["run"]["layer"]) == (None, 1)
    assert run("verify", "o2.tar", "l").returncode == 0
    assert run("verify", "o2.tar", "i.tar").stdout == "extra: x\n"
    assert run("verify", "o2.tar", "i.tar", "--add", "config:x").returncode == 0
    again = run("verify", "o2.tar", "l", "--add", "config:x")
    assert (again.returncode, "no effect with a list" in again.stderr) == (2, True)


def touch(path):
    os.utime(path, (1, 1))


CHANGES = {
    "a content of the same length": (
        lambda top: (top / "bin/zz").write_text("LATE") and os.utime(top / "bin/zz", (1.7e9, 1.7e9)),
        "changed: bin/zz: xxh3 ",
    ),
    "a length": (lambda top: os.truncate(top / "large", 5), "changed: large: size 5, expected 700001"),
    "a mode": (lambda top: (top / "etc").chmod(0o755), "changed: etc: mode '0755', expected '0750'"),
    "an owner": (lambda top: os.chown(top / "link", 6, -1, follow_symlinks=False), "changed: link: uid 6, expected 5"),
    "an mtime": (lambda top: touch(top / "tmp"), "changed: tmp: mtime 1, expected 1700000000"),
    "a missing name": (lambda top: (top / "run/fifo").unlink(), "missing: run/fifo"),
    "an extra name": (lambda top: os.mkfifo(top / "run/a"), "extra: run/a"),
    "a missing directory": (lambda top: shutil.rmtree(top / "run"), "missing: run/fifo"),
    "an extra name after all others": (lambda top: (top / "zzz").touch(), "extra: zzz"),
    "an xattr": (lambda top: os.removexattr(top / "xattr", "user.a"), "changed: xattr: xattrs "),
    "a hard link that is a copy": (
        lambda top: (top / "etc/second").unlink() or shutil.copy2(top / "etc/copy", top / "etc/second"),
        "changed: etc/second: type 'file', expected 'hardlink'",
    ),
    "another device": (
        lambda top: (top / "dev/null").unlink() or os.mknod(top / "dev/null", 0o20666, os.makedev(1, 5)),
        "changed: dev/null: rdev '1:5', expected '1:3'",
    ),
}  # fmt: skip


@root_only
@pytest.mark.parametrize(("change", "want"), CHANGES.values(), ids=CHANGES)
def test_a_change_is_found(made, run, change, want):
    change(made / "o")

    for expected in ("i.tar", "list"):
        got = run("verify", "o/", expected)

        assert got.returncode == 5
        assert any(line.startswith(want) for line in got.stdout.splitlines()), (
            got.stdout
        )
        assert got.stderr.startswith("flatten: o/: ")


@root_only
def test_fields_can_be_ignored(made, run):
    (made / "o" / "etc").chmod(0o755)
    touch(made / "o" / "etc")

    assert run("verify", "o", "list", "--ignore", "mode,mtime").returncode == 0
    got = run("verify", "o", "list", "--ignore", "mtime", "--json")
    assert json.loads(got.stdout) == {
        "path": "etc", "field": "mode", "found": "0755", "expected": "0750",
    }  # fmt: skip
    assert run("verify", "o", "list", "--ignore", "colour").returncode == 2


def test_a_selection_is_verified_with_the_same_selection(tmp_path, run):
    (tmp_path / "i.tar").write_bytes(docker_archive(layers(["a/x", "b"])))
    how = ["--exclude", "b", "--prefix", "p", "--mtime", "5"]
    run("i.tar", "-o", "o.tar", *how)

    assert run("verify", "o.tar", "i.tar", *how).returncode == 0
    assert run("verify", "o.tar", "i.tar").returncode == 5


@pytest.mark.parametrize(
    "lines",
    ['{"path": 1', "{}", "[]", '{"path": "b"}\n{"path": "a"}', '{"path": "a"}\n' * 2],
)
def test_an_invalid_list_is_refused(lines):
    with pytest.raises(flatten.FormatError, match=r"list: line \d"):
        list(read_list(lines.splitlines(), "list"))


def test_the_root_is_compared_only_if_both_sides_list_it():
    root, row = {"path": "", "mode": "0755"}, {"path": "a"}

    assert list(differences([root, row], [row])) == []
    assert list(differences([row], [root, row])) == []
    assert len(list(differences([root | {"mode": "0700"}], [root]))) == 1


def test_a_hole_is_hashed_as_zeros(tmp_path, run):
    records = {b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0",
               b"GNU.sparse.name": b"f", b"GNU.sparse.realsize": b"3000000"}  # fmt: skip
    sparse = b"2\n2000000\n4\n3000000\n0\n".ljust(512, b"\0") + b"data"
    (tmp_path / "i.tar").write_bytes(
        docker_archive(layers([member("f", sparse, records=records)]))
    )
    run("i.tar", "-o", "o/", "--ownership", "current", "--list-out", "l")

    assert (tmp_path / "o/f").stat().st_size == 3_000_000
    assert run("verify", "o", "l", "--ignore", "uid,gid").returncode == 0


def test_a_disk_is_not_a_tar(run, tmp_path):
    (tmp_path / "disk").write_bytes(bytes(1080) + b"\x53\xef" + bytes(1000))
    (tmp_path / "i.tar").write_bytes(docker_archive(EVERYTHING))

    got = run("verify", "disk", "i.tar")

    assert got.returncode == 3
    assert "ext4 file system; mount it and name the directory" in got.stderr
