"""What is left out, moved, put in and owned otherwise; and that spans still merge."""

import os
import subprocess
import tarfile

import pytest

import flatten
from builders import docker_archive, layers, member
from command import FLATTEN
from flatten.image.added import parse_addition
from flatten.plan.pieces import pieces
from flatten.plan.plan import Span
from flatten.tree.edit import Edits
from flatten.tree.owners import parse_owner_map
from listing import contents, listing

WORDS = (
    ["bin->usr/bin", "etc/", "etc/conf", "etc/ssl/", "etc/ssl/key", "usr/", "usr/bin/",
     "usr/bin/a", "usr/bin/b=usr/bin/a", "usr/share/", "usr/share/doc/",
     "usr/share/doc/a", "var/cache/", "var/cache/x.pyc", "x.pyc"],
    ["etc/conf", "usr/share/doc/b"],
)  # fmt: skip
ALL = {
    "bin": "->usr/bin", "etc/": "", "etc/conf": "1", "etc/ssl/": "", "etc/ssl/key": "0",
    "usr/": "", "usr/bin/": "", "usr/bin/a": "0", "usr/bin/b": "0", "usr/share/": "",
    "usr/share/doc/": "", "usr/share/doc/a": "0", "usr/share/doc/b": "1", "var/": "",
    "var/cache/": "", "var/cache/x.pyc": "0", "x.pyc": "0",
}  # fmt: skip


def only(*paths):
    return {path: ALL[path] for path in paths}


def without(*starts):
    return {path: text for path, text in ALL.items() if not path.startswith(starts)}


def moved(prefix, *parents):
    return dict.fromkeys(parents, "") | {prefix + path: ALL[path] for path in ALL}


EDITS = {
    "nothing": ({}, ALL),
    "a directory left out": ({"exclude": ["/usr/share/doc"]}, without("usr/share/doc")),
    "a name left out anywhere": (
        {"exclude": ["*.pyc"]}, without("x.pyc", "var/cache/x.pyc")
    ),
    "a name taken back": (
        {"exclude": ["*.pyc", "!/x.pyc"]}, without("var/cache/x.pyc")
    ),
    "a hard link whose first name is left out keeps its content": (
        {"exclude": ["/usr/bin/a"]}, without("usr/bin/a")
    ),
    "one file kept, with its parents": (
        {"include": ["/etc/ssl/key"]}, only("etc/", "etc/ssl/", "etc/ssl/key")
    ),
    "a directory kept, with all in it": (
        {"include": ["/usr/bin/"]}, only("usr/", "usr/bin/", "usr/bin/a", "usr/bin/b")
    ),
    "a name kept anywhere": (
        {"include": ["*.pyc"]}, only("var/", "var/cache/", "var/cache/x.pyc", "x.pyc")
    ),
    "kept, but for something": (
        {"include": ["/etc"], "exclude": ["ssl"]}, only("etc/", "etc/conf")
    ),
    "an include pattern that only takes back": ({"include": ["!/no/such"]}, {}),
    "all kept by two stars": ({"include": ["**"]}, ALL),
    "one component stripped": (
        {"strip_components": 1, "include": ["/usr"]},
        {"bin/": "", "bin/a": "0", "bin/b": "0", "share/": "", "share/doc/": "",
         "share/doc/a": "0", "share/doc/b": "1"},
    ),
    "two components stripped, that meet": (
        {"strip_components": 2, "exclude": ["*.pyc", "bin"]},
        {"doc/": "", "doc/a": "0", "doc/b": "1", "key": "0"},
    ),
    "all components stripped": ({"strip_components": 9}, {}),
    "below a directory": ({"prefix": b"srv"}, moved("srv/", "srv/")),
    "below two": ({"prefix": b"srv/app"}, moved("srv/app/", "srv/", "srv/app/")),
    "stripped, then below": (
        {"include": ["/etc/ssl"], "strip_components": 2, "prefix": b"etc"},
        {"etc/": "", "etc/key": "0"},
    ),
}  # fmt: skip


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "i.tar"
    path.write_bytes(docker_archive(layers(*WORDS)))
    return path


@pytest.mark.parametrize(("edits", "want"), EDITS.values(), ids=EDITS)
def test_names(image, tmp_path, edits, want):
    edits = {key: tuple(v) if isinstance(v, list) else v for key, v in edits.items()}
    flatten.export(image, tmp_path / "o.tar", edits=Edits(**edits))

    assert contents(tmp_path / "o.tar") == want


UNMATCHED = {
    "a match": (["/etc/conf"], []),
    "a match of a directory only": (["/usr/bin/"], []),
    "a file where a directory is asked for": (["conf/"], ["conf/"]),
    "a path that is not there": (["/etc/no", "*.pyc"], ["/etc/no"]),
    "a match that a later pattern covers": (["x.pyc", "*.pyc"], []),
    "a match below another match": (["/usr", "/usr/share/doc"], []),
    "a pattern that takes back": (["*.pyc", "!no"], []),
}


@pytest.mark.parametrize(("patterns", "unmatched"), UNMATCHED.values(), ids=UNMATCHED)
def test_an_exclude_pattern_that_matches_nothing_is_a_warning(
    image, tmp_path, patterns, unmatched
):
    done = flatten.export(
        image, tmp_path / "o.tar", edits=Edits(exclude=tuple(patterns))
    )

    assert done.warnings == tuple(
        f"--exclude: {pattern!r} matches nothing in the image" for pattern in unmatched
    )


def test_directories_that_meet_are_one_with_the_later_metadata(tmp_path):
    words = [
        member("a/d/", type=b"5", mode=0o700), "a/d/x", "a/f", "a/g/", "a/g/in",
        member("b/d/", type=b"5", mode=0o750), "b/d/y", member("b/f", b"b"), "b/g",
    ]  # fmt: skip
    (tmp_path / "i.tar").write_bytes(docker_archive(layers(words)))

    done = flatten.export(
        tmp_path / "i.tar", tmp_path / "o.tar", edits=Edits(strip_components=1)
    )

    assert contents(tmp_path / "o.tar") == {
        "d/": "", "d/x": "0", "d/y": "0", "f": "b", "g": "0",
    }  # fmt: skip
    assert listing(tmp_path / "o.tar")[0]["mode"] == "0750"
    assert done.warnings == (
        "--strip-components: 2 name collisions; the later names were kept",
    )


def test_the_directory_in_front_has_the_metadata_of_the_root(tmp_path):
    words = [member("./", type=b"5", mode=0o711, uid=3, mtime=4), "a"]
    (tmp_path / "i.tar").write_bytes(docker_archive(layers(words)))

    flatten.export(tmp_path / "i.tar", tmp_path / "o.tar", edits=Edits(prefix=b"p/q"))

    got = {
        row["path"]: (row["mode"], row["uid"]) for row in listing(tmp_path / "o.tar")
    }
    assert got == {"p": ("0755", 0), "p/q": ("0711", 3), "p/q/a": ("0644", 0)}


def test_what_is_left_still_merges_into_spans(tmp_path):
    words = [f"{n:04}" for n in range(2000)]
    (tmp_path / "i.tar").write_bytes(docker_archive(layers(words)))
    with flatten.open_image(str(tmp_path / "i.tar")) as opened:
        options = flatten.Options(
            edits=Edits(
                exclude=("0999",), prefix=b"p", owner_map=parse_owner_map("0 7")
            )
        )
        spans = [
            p
            for p in pieces(flatten.plan_image(opened, options))
            if isinstance(p, Span)
        ]

    assert len(spans) < 20


# --- files of the host


@pytest.fixture
def host(tmp_path):
    """Return a directory with a file, a symlink, a directory and a script."""
    top = tmp_path / "host"
    (top / "d" / "e").mkdir(parents=True)
    (top / "d" / "file").write_text("mine")
    (top / "d" / "e" / "deep").write_text("deep")
    (top / "d" / "link").symlink_to("file")
    (top / "init").write_text("#!/bin/sh\n")
    (top / "init").chmod(0o755)
    os.utime(top / "init", (5, 5))
    return top


ADDITIONS = {
    "a file": (["HOST/init:/init"], {"init": "#!/bin/sh\n"}),
    "a file into a directory": (["HOST/init:sbin/"], {"sbin/": "", "sbin/init": "#!/bin/sh\n"}),
    "a file through a symlink of the image": (["HOST/init:/bin/"], {"usr/bin/init": "#!/bin/sh\n"}),
    "a file over one of the image": (["HOST/d/file:etc/conf"], {"etc/conf": "mine"}),
    "a directory over one": (
        ["HOST/d:etc"],
        {"etc/file": "mine", "etc/link": "->file", "etc/e/": "", "etc/e/deep": "deep"},
    ),
    "the top of a directory, which is a symlink": (["HOST/d/link:l"], {"l": "mine"}),
    "a directory over the root": (
        ["HOST/d:."], {"file": "mine", "link": "->file", "e/": "", "e/deep": "deep"},
    ),
    "two, the later over the earlier": (
        ["HOST/init:x", "HOST/d/file:x"], {"x": "mine"}
    ),
}  # fmt: skip


@pytest.mark.parametrize(("args", "more"), ADDITIONS.values(), ids=ADDITIONS)
def test_added(image, host, tmp_path, args, more):
    args = [arg.replace("HOST", str(host)) for arg in args]
    edits = Edits(add=tuple(map(parse_addition, args)))

    flatten.export(image, tmp_path / "o.tar", edits=edits)

    assert contents(tmp_path / "o.tar") == ALL | more


def test_an_init_is_executable_and_replaces_what_is_there(image, host, tmp_path):
    (host / "init").chmod(0o600)

    args = [image, "-o", "o.tar", "--add", f"{host}/d:sbin", "--init", host / "init"]
    subprocess.run([*FLATTEN, *args], cwd=tmp_path, check=True)

    with tarfile.open(tmp_path / "o.tar") as tar:
        found = tar.getmember("sbin/init")
        assert (found.mode, found.uid) == (0o755, 0)
        assert tar.extractfile(found).read() == b"#!/bin/sh\n"


def test_added_files_are_roots_and_have_their_modes_and_mtimes(image, host, tmp_path):
    edits = Edits(add=(parse_addition(f"{host}/init:p/init"),), prefix=b"ignored")
    flatten.export(image, f"{tmp_path}/o/", edits=edits, ownership="current")

    status = (tmp_path / "o/p/init").stat()
    assert (status.st_mode & 0o7777, status.st_mtime) == (0o755, 5)
    with flatten.open_image(str(image)) as opened:
        plan = flatten.plan_image(opened, flatten.Options(edits=edits))
        owners = {
            path: plan.members.owner_table[plan.members.owners[i]] for path, i in plan
        }
    assert owners[b"p/init"] == (0o755, 0, 0)


REFUSED = {
    "no colon": (["--add", "init"], "is not HOSTPATH:PATH"),
    "a way out": (["--add", "init:../x"], ": not a valid path in a tree"),
    "a whiteout": (["--add", "init:a/.wh.b"], ": not a valid path in a tree"),
    "a whiteout in a directory": (["--add", "marked:d"], "the name is a whiteout"),
    "a file as the root": (["--add", "init:"], "a file needs a path in the image"),
    "a FIFO": (["--add", "fifo:f"], "not a file, directory or symlink"),
    "what is not there": (["--add", "nothing:f"], "No such file"),
    "a directory as the init": (
        ["--init", "marked"],
        "--init 'marked': a directory, not a program",
    ),
    "an init that is not there": (["--init", "nothing"], "No such file"),
    "an entry below a file": (["--add", "init:etc/conf/x"], "is not a directory"),
    "a pattern that is not valid": (
        ["--exclude", "[z-a]"],
        "'[z-a]' is not a valid pattern: ",
    ),
    "an include pattern that matches nothing": (
        ["--include", "a", "--include", "/no/such"],
        "--include: '/no/such' matches nothing in the image",
    ),
    "a prefix that leaves the root": (
        ["--prefix", "../x"],
        ": not a valid path in a tree",
    ),
    "a map that is not there": (["--owner-map", "nothing"], "No such file"),
    "a map that is not valid": (["--owner-map", "init"], "line 1: '/bin/sh' is not"),
    "an id that is not valid": (
        ["--owner-map", "large"],
        "an id is over 4,294,967,294",
    ),
    "an ownership that is not valid": (
        ["--ownership", "mine"],
        "'mine' is not a valid ownership; choose from keep, current",
    ),
    "an mtime that is not valid": (["--mtime", "soon"], "is not a valid time"),
    "a list in no directory": (["--list-out", "no/such"], "cannot create"),
    "a config in no directory": (["--config-out", "no/such"], "cannot create"),
}


@pytest.mark.parametrize(("args", "why"), REFUSED.values(), ids=REFUSED)
@pytest.mark.usefixtures("image")
def test_refused(tmp_path, args, why):
    (tmp_path / "init").write_text("/bin/sh")
    (tmp_path / "large").write_text("# all\n\nuid 0 4294967294 2\n")
    (tmp_path / "marked").mkdir()
    (tmp_path / "marked" / ".wh.x").touch()
    os.mkfifo(tmp_path / "fifo")
    before = sorted(tmp_path.iterdir())

    got = subprocess.run(
        [*FLATTEN, "i.tar", "-o", "o.tar", *args],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert (got.returncode in (1, 2, 4), got.stderr.count("\n")) == (True, 1), (
        got.stderr
    )
    assert why in got.stderr
    assert sorted(tmp_path.iterdir()) == before


MAPS = {
    "all moved": ("0 100000 65536", (5, 6), (100_005, 100_006)),
    "users only": ("uid 0 1000", (0, 0), (1000, 0)),
    "groups only": ("gid 0 1000 1", (0, 0), (0, 1000)),
    "the first line decides": ("0 7\n0 8", (0, 0), (7, 7)),
    "outside of all ranges": ("0 100 10", (10, 9), (10, 109)),
    "a comment": ("0 7 # root\n", (0, 1), (7, 1)),
    "nothing": ("", (0, 1), (0, 1)),
}


@pytest.mark.parametrize(("text", "owner", "want"), MAPS.values(), ids=MAPS)
def test_owners(text, owner, want):
    assert parse_owner_map(text).apply((0o755, *owner)) == (0o755, *want)


@pytest.mark.parametrize("how", [["--owner-map", "map"], ["--ownership", "map:map"]])
def test_a_map_of_owners_is_applied_to_what_is_added_too(tmp_path, how):
    (tmp_path / "map").write_text("0 1000 10")
    (tmp_path / "i.tar").write_bytes(
        docker_archive(layers([member("a", uid=1, gid=2), member("b", uid=20, gid=0)]))
    )
    subprocess.run(
        [*FLATTEN, "i.tar", "-o", "o.tar", "--add", "map:/c/", *how],
        cwd=tmp_path, check=True,
    )  # fmt: skip

    got = {row["path"]: (row["uid"], row["gid"]) for row in listing(tmp_path / "o.tar")}
    assert got == {
        "a": (1001, 1002), "b": (20, 1000), "c": (1000, 1000), "c/map": (1000, 1000),
    }  # fmt: skip
