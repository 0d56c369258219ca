"""Views of the tree: ls, cat and diff, equal for every kind of source."""

import json
import os
import subprocess
import sys

import pytest
import xxhash

import flatten
from builders import MTIME, archive, config, docker_archive, layer, layers, member
from flatten.cli.commands.ls import _permissions
from flatten.views.describe import describe
from flatten.views.listing import list_rows
from flatten.views.reading import read_index
from kinds import KINDS, docker, history, run

WORDS = (
    ["bin->usr/bin", "etc/", "etc/conf", "usr/", "usr/bin/", "usr/bin/a", "usr/bin/b=usr/bin/a"],
    ["-etc/conf", "etc/new", "usr/bin/c"],
)  # fmt: skip
STEPS = {"history": history("one", "-ENV A=1", "two")}


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def image(request, tmp_path):
    return request.param(tmp_path, layers(*WORDS), **STEPS)


ODD = [
    member("d", type=b"5", mode=0o1777, uid=1000, gid=100),
    member("setuid", b"x", mode=0o6755),
    member("sticky", b"x", mode=0o1644),
    member("null", type=b"3", device=(1, 3)),
    member("loop", type=b"4", device=(7, 0)),
    member("fifo", type=b"6"),
    member(b"caf\xc3\xa9", b"x"),
    member(b"odd \xff\n\\\x7f", b"x"),
    member("l", type=b"2", target=b"to\t\xff"),
    member("big", b"", uid=2**31, gid=2**31, size=0),
    member("old", b"x", mtime=-1),
    member("n" * 120, b"x" * 3000),
    member("hard", type=b"1", target="setuid"),
    member("mtime", b"", mtime=MTIME, records={b"mtime": b"1700000000.5"}),
    member("xattr", b"", records={b"SCHILY.xattr.user.a": b"\0\xff"}),
]


@pytest.mark.parametrize("prefix", ["", "rootfs:"])
def test_a_tar_of_a_tree_is_read_as_its_tree(image, tmp_path, prefix):
    flatten.export(image, tmp_path / "tree.tar")
    tree = f"{prefix}{tmp_path / 'tree.tar'}"

    paths = [
        json.loads(line)["path"]
        for line in run("ls", tree, "--json").stdout.splitlines()
    ]

    assert paths == [json.loads(line)["path"]
                     for line in run("ls", image, "--json").stdout.splitlines()]  # fmt: skip
    assert run("cat", tree, "etc/new").stdout == run("cat", image, "etc/new").stdout
    assert run("report", tree).returncode == 0


def test_what_is_neither_an_image_nor_a_tar(tmp_path):
    (tmp_path / "page.tar").write_bytes(b"<!DOCTYPE html><html>")

    done = run("ls", tmp_path / "page.tar")

    assert done.returncode == 3
    assert "HTML" in done.stderr


def test_ls_prints_what_tar_tv_prints(tmp_path):
    image = tmp_path / "image.tar"
    image.write_bytes(docker_archive([layer(*ODD), *layers(*WORDS)]))
    flatten.export(image, tmp_path / "out.tar")

    got = run("ls", image).stdout.splitlines()

    shown = subprocess.run(
        ["tar", "--numeric-owner", "-tvf", tmp_path / "out.tar"],
        env={**os.environ, "TZ": "UTC", "LC_ALL": "C.UTF-8"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert [line[2:] for line in got] == shown.stdout.splitlines()
    assert {line[:2] for line in got} == {"1 ", "2 ", "3 "}


def test_ls_prints_the_layer(image):
    got = run("ls", image).stdout.splitlines()

    layers_ = {line.split()[6]: line.split()[0] for line in got}
    assert layers_["etc/"] == layers_["usr/bin/a"] == "1"
    assert layers_["etc/new"] == layers_["usr/bin/c"] == "2"


LISTED = {
    "a directory and all below": (["usr"], ["usr", "usr/bin", "usr/bin/a", "usr/bin/b", "usr/bin/c"]),
    "a file": (["etc/new"], ["etc/new"]),
    "slashes around it": (["/etc/"], ["etc", "etc/new"]),
    "a glob of one name": (["usr/*/[ab]"], ["usr/bin/a", "usr/bin/b"]),
    "a negated class": (["usr/bin/[!ab]"], ["usr/bin/c"]),
    "a star stops at a slash": (["usr/*a"], None),
    "two stars do not": (["usr/**/a"], ["usr/bin/a"]),
    "a name with a star, at any depth": (["n?w"], ["etc/new"]),
    "a dot is a dot": (["etc/n.w"], None),
    "several": (["bin", "etc/new"], ["bin", "etc/new"]),
    "the root": (["/"], ["bin", "etc", "etc/new", "usr", "usr/bin", "usr/bin/a", "usr/bin/b", "usr/bin/c"]),
    "one of two does not match": (["bin", "no"], None),
    "at an earlier step": (["etc", "--at", "2"], ["etc", "etc/conf"]),
}  # fmt: skip


@pytest.mark.parametrize(("args", "want"), LISTED.values(), ids=LISTED)
def test_ls_of_paths(tmp_path, args, want):
    got = run("ls", docker(tmp_path, layers(*WORDS), **STEPS), "--json", *args)

    if want is None:
        assert (got.returncode, got.stdout) == (1, "")
        assert "no such path or pattern in the tree" in got.stderr
    else:
        assert [json.loads(line)["path"] for line in got.stdout.splitlines()] == want


def test_a_reversed_range_in_a_pattern(tmp_path):
    got = run("ls", docker(tmp_path, layers(["a"])), "[z-a]")

    assert (got.returncode, got.stdout) == (2, "")
    assert "'[z-a]' is not a valid pattern: " in got.stderr


def test_ls_json_has_all_fields(tmp_path):
    image = tmp_path / "image.tar"
    image.write_bytes(docker_archive([layer(*ODD)]))

    rows = {
        row["path"]: row
        for row in map(json.loads, run("ls", image, "--json", "--hash").stdout.splitlines())
    }  # fmt: skip

    assert rows["setuid"]["linkname"] == "hard"
    assert rows["hard"] == {
        "path": "hard", "type": "file", "mode": "6755", "uid": 0, "gid": 0, "size": 1,
        "mtime": MTIME, "layer": 1, "xxh3": xxhash.xxh3_128_hexdigest(b"x"),
    }  # fmt: skip
    assert rows["null"]["rdev"] == "1:3"
    assert rows["xattr"]["xattrs"] == {"user.a": "AP8="}
    assert os.fsdecode(b"odd \xff\n\\\x7f") in rows
    assert rows["d"]["type"] == "dir"
    assert "xxh3" not in rows["d"]


@pytest.mark.parametrize("verify", ["--verify", "--no-verify"])
def test_ls_json_is_one_row_a_line(tmp_path, verify):
    alike = [
        member(name, b"x" * at) for at, name in enumerate(("%s", '"', "\\n", "d/%"))
    ]
    image = tmp_path / "image.tar"
    image.write_bytes(docker_archive([layer(*ODD), layer(*alike, *ODD[:2])]))
    verified = {} if verify == "--verify" else {"verified": False}
    with flatten.open_image(image) as opened:
        index = read_index(opened)
        rows = [describe(index.members, *row) for row in list_rows(index)]

    got = run("ls", image, "--json", verify).stdout

    assert got == "".join(f"{json.dumps({**row, **verified})}\n" for row in rows)


def test_ls_hashes_sparse_files_with_their_holes(tmp_path):
    regions = b"".join(b"%011o\0" % n for n in (4096, 3, 9000, 0)).ljust(96, b"\0")
    sparse = member("s", b"abc", type=b"S", magic=b"ustar  \0",
                    tail=bytes(41) + regions + b"\0" + b"%011o\0" % 9000)  # fmt: skip
    image = tmp_path / "image.tar"
    image.write_bytes(docker_archive([layer(sparse)]))

    got = run("ls", image, "--hash").stdout.split()

    whole = bytes(4096) + b"abc" + bytes(9000 - 4099)
    assert got[1] == xxhash.xxh3_128_hexdigest(whole)
    assert run("cat", image, "s").stdout.encode() == whole


def test_ls_draws_a_tree(image):
    lines = run("ls", image, "--tree").stdout.splitlines()

    assert [line[15:] for line in lines] == [
        "├── bin -> usr/bin",
        "├── etc/",
        "│   └── new",
        "└── usr/",
        "    └── bin/",
        "        ├── a",
        "        ├── b link to usr/bin/a",
        "        └── c",
    ]


def test_ls_tree_of_some_paths_shows_their_parents(image):
    lines = run("ls", image, "usr/bin/c", "--tree").stdout.splitlines()

    assert [line[15:] for line in lines] == [
        "└── usr/",
        "    └── bin/",
        "        └── c",
    ]


@pytest.mark.parametrize(
    ("mode", "want"), [(0o4644, "rwSr--r--"), (0o1776, "rwxrwxrwT")]
)
def test_permissions(mode, want):
    assert _permissions(mode) == want


def test_cat_follows_symlinks_inside_the_root(image):
    assert run("cat", image, "etc/new", "/bin/a", "bin/../bin/./c").stdout == "101"
    assert run("cat", image, "etc/conf", "--at", "1").stdout == "0"


CAT_FAILS = {
    "nothing": (["etc/conf"], "'etc/conf' is not in the tree"),
    "a directory": (["bin"], "'bin' is a directory"),
    "the root": (["/"], "'/' is a directory"),
    "what is below a file": (["etc/new/x"], "'etc/new/x': a parent is not a directory"),
}


@pytest.mark.parametrize(("args", "text"), CAT_FAILS.values(), ids=CAT_FAILS)
def test_cat_of_a_path_that_is_not_a_file(image, args, text):
    got = run("cat", image, *args)

    assert (got.returncode, got.stdout) == (1, "")
    assert text in got.stderr


def test_cat_of_a_circle_and_of_a_fifo(tmp_path):
    image = docker(tmp_path, layers(["a->b", "b->a", member("f", type=b"6")]))

    assert "'a' leads through more than 40 symlinks" in run("cat", image, "a").stderr
    assert "'f' is not a regular file" in run("cat", image, "f").stderr


def test_cat_checks_the_layers_it_reads(tmp_path):
    wrong = config(layers(["x"], ["c"]))
    wrong["rootfs"]["diff_ids"][1] = config(layers([], ["c"]))["rootfs"]["diff_ids"][1]
    (tmp_path / "image.tar").write_bytes(
        docker_archive(layers(["a"], ["c"]), config_document=wrong)
    )

    assert run("cat", tmp_path / "image.tar", "c", "--no-cache").stdout == "1"
    assert run("cat", tmp_path / "image.tar", "a", "--no-cache").returncode == 5
    assert run("cat", tmp_path / "image.tar", "a", "--no-verify").stdout == "0"


def test_cat_of_large_files(tmp_path):
    data = bytes(range(256)) * 20_000
    path = docker(
        tmp_path, layers([member("big", data), "a", member("b", data[:70_000])])
    )

    done = subprocess.run(
        [sys.executable, "-m", "flatten", "cat", path, "big", "a", "b"],
        capture_output=True, check=True,
    )  # fmt: skip
    assert done.stdout == data + b"0" + data[:70_000]


# --- diff

BASE = ["d/", "d/a", "d/b=d/a", "s->x", "f"]
DIFFS = {
    "nothing": (BASE, BASE, []),
    "added and removed": (["a"], ["b"], ["- a", "+ b"]),
    "a directory with its contents": (["a"], ["a", "d/", "d/x"], ["+ d/", "+ d/x"]),
    "a mode": (["a"], [member("a", b"0", mode=0o755)], ["~ a: mode 0644 -> 0755"]),
    "an owner": (["a"], [member("a", b"0", uid=7, gid=8)], ["~ a: uid 0 -> 7, gid 0 -> 8"]),
    "a time": (
        ["a"], [member("a", b"0", mtime=0)],
        ["~ a: mtime 2023-11-14T22:13:20Z -> 1970-01-01T00:00:00Z"],
    ),
    "a fraction of a second is not a change": (
        ["a"], [member("a", b"0", records={b"mtime": b"1700000000.5"})], [],
    ),
    "an xattr": (
        ["a"], [member("a", b"0", records={b"SCHILY.xattr.user.k": b"v"})],
        ["~ a: xattrs none -> user.k=dg=="],
    ),
    "a size": (["a"], [member("a", b"00")], ["~ a: size 1 -> 2"]),
    "a content of the same size": (
        ["a"], [member("a", b"1")],
        ["~ a: xxh3 {} -> {}".format(
            *map(xxhash.xxh3_128_hexdigest, (b"0", b"1"))
        )],
    ),
    "a link's text": (["s->x"], ["s->y"], ["~ s: linkname x -> y"]),
    "a device": (
        [member("n", type=b"3", device=(1, 3))], [member("n", type=b"3", device=(1, 5))],
        ["~ n: rdev 1:3 -> 1:5"],
    ),
    "a type": (
        ["a"], [member("a", type=b"6")], ["~ a: type file -> fifo, size 1 -> none"],
    ),
    "a file in a directory's place": (
        ["a/", "a/x"], [member("a", b"", mode=0o755)], ["~ a: type dir -> file, size none -> 0", "- a/x"],
    ),
    "one file and two": (BASE, ["d/", "d/a", "d/b", "s->x", "f"], ["~ d/b: type hardlink -> file, size none -> 1, linkname d/a -> none"]),
}  # fmt: skip


@pytest.mark.parametrize(("before", "after", "want"), DIFFS.values(), ids=DIFFS)
def test_diff(tmp_path, before, after, want):
    for name, words in (("a.tar", before), ("b.tar", after)):
        (tmp_path / name).write_bytes(docker_archive(layers(words)))

    got = run("diff", tmp_path / "a.tar", tmp_path / "b.tar")

    assert got.stdout.splitlines() == want
    assert got.returncode == bool(want)


def test_diff_of_an_image_and_its_tar(image, tmp_path):
    flatten.export(image, tmp_path / "rootfs.tar.gz")

    assert run("diff", image, tmp_path / "rootfs.tar.gz").returncode == 0
    assert run("diff", f"rootfs:{tmp_path / 'rootfs.tar.gz'}", image).returncode == 0


def test_diff_of_two_steps(image):
    got = run("diff", image, "--from", "1")

    assert got.stdout.splitlines() == ["- etc/conf", "+ etc/new", "+ usr/bin/c"]
    assert run("diff", image, "--from", "1", "--at", "2").returncode == 0


def test_diff_of_every_kind_with_another(tmp_path):
    paths = [kind(tmp_path, layers(*WORDS)) for kind in KINDS.values()]

    assert [run("diff", paths[0], path).returncode for path in paths] == [0] * len(
        paths
    )


CHOSEN = {
    "only some fields": (["--only", "mode,uid"], ["~ a: mode 0644 -> 0755"]),
    "not some fields": (["--ignore", "mode,mtime"], ["~ a: size 1 -> 2"]),
    "the content only": (["--only-content"], ["~ a: size 1 -> 2"]),
    "some paths": (["--path", "b*"], []),
}  # fmt: skip


@pytest.mark.parametrize(("options", "want"), CHOSEN.values(), ids=CHOSEN)
def test_diff_of_some_fields_and_paths(tmp_path, options, want):
    changed = member("a", b"01", mode=0o755, mtime=1)
    for name, words in (("a.tar", ["a", "b"]), ("b.tar", [changed, "b"])):
        (tmp_path / name).write_bytes(docker_archive(layers(words)))

    got = run("diff", tmp_path / "a.tar", tmp_path / "b.tar", *options)

    assert got.stdout.splitlines() == want


def test_diff_quiet_and_json(tmp_path):
    for name, words in (("a.tar", ["a"]), ("b.tar", [member("a", b"01")])):
        (tmp_path / name).write_bytes(docker_archive(layers(words)))
    paths = tmp_path / "a.tar", tmp_path / "b.tar"

    quiet = run("diff", *paths, "-q")
    (change,) = json.loads(run("diff", *paths, "--json").stdout)

    assert (quiet.returncode, quiet.stdout) == (1, "")
    assert (change["path"], change["fields"]["size"]) == ("a", [1, 2])
    assert (change["before"]["layer"], change["after"]["size"]) == (1, 2)


DIFF_FAILS = {
    "one image alone": (["IMAGE"], 2, "give a second image, or --from STEP"),
    "no image and no tar": (["IMAGE", "text"], 3, "not a container image, but text"),
    "nothing there": (["IMAGE", "nowhere"], 3, "No such file"),
    "no such field": (["IMAGE", "IMAGE", "--only", "owner"], 2, "unknown field 'owner'; choose from type, mode"),
    "a path that fits nothing": (["IMAGE", "IMAGE", "--path", "no"], 1, "'no': no such path or pattern"),
}  # fmt: skip


@pytest.mark.parametrize(("args", "code", "text"), DIFF_FAILS.values(), ids=DIFF_FAILS)
def test_diff_with_invalid_arguments(tmp_path, args, code, text):
    path = docker(tmp_path, layers(["a"]))
    (tmp_path / "text").write_text("text")
    args = [
        {"IMAGE": path}.get(a, tmp_path / a if a in ("text", "nowhere") else a)
        for a in args
    ]

    got = run("diff", *args)

    assert got.returncode == code
    assert text in got.stderr


def test_rootfs_selects_a_tar_of_a_tree_with_a_manifest(tmp_path):
    tree = archive([("manifest.json", b"{}")])
    (tmp_path / "tree.tar").write_bytes(tree)
    (tmp_path / "i.tar").write_bytes(docker_archive([tree]))

    assert run("diff", tmp_path / "i.tar", tmp_path / "tree.tar").returncode == 4
    assert (
        run("diff", tmp_path / "i.tar", f"rootfs:{tmp_path}/tree.tar").returncode == 0
    )


# --- standard output


def shell(command, **env):
    return subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=False,
        env={**os.environ, "FLATTEN": f"{sys.executable} -m flatten", **env},
    )  # fmt: skip


def test_a_closed_pipe_prints_no_error(tmp_path):
    image = docker(tmp_path, layers([f"{n:05}" for n in range(20_000)]))

    got = shell(f"$FLATTEN ls {image} | head -1; echo ${{PIPESTATUS[0]}}")

    assert got.stderr == ""
    assert got.stdout.splitlines()[1] == "141"


@pytest.mark.parametrize(
    "words",
    ["ls {}", "config {}", "layers {}", "report {} -o -", "--help", "--version"],
)
def test_a_full_disk_is_reported(tmp_path, monkeypatch, words):
    image = docker(tmp_path, layers(["a"]))

    for buffered in ("", "1"):
        monkeypatch.setenv("PYTHONUNBUFFERED", buffered)
        got = shell(f"$FLATTEN {words.format(image)} > /dev/full")
        assert (got.returncode, got.stderr) == (
            1, "flatten: standard output: cannot write: No space left on device\n"
        )  # fmt: skip


def test_a_page_that_cannot_be_written_is_named(tmp_path):
    got = shell(f"$FLATTEN report {docker(tmp_path, layers(['a']))} -o /dev/full")

    want = "flatten: '/dev/full': cannot write: No space left on device\n"
    assert (got.returncode, got.stderr) == (1, want)


def test_names_are_escaped_for_a_narrow_encoding(tmp_path):
    image = docker(tmp_path, layers(["\u6f22"]))

    got = shell(f"$FLATTEN ls {image}", PYTHONIOENCODING="latin-1")

    assert (got.returncode, got.stderr) == (0, "")
    assert got.stdout.endswith(" \\u6f22\n")
