"""zstd:chunked and eStargz layers: what is fetched of them, and what is refused."""

import contextlib
import gzip
import hashlib
import json
import random
import shutil
import subprocess
from functools import cache, partial

import pytest
import zstandard

import flatten
from builders import MTIME, Bytes, archive, docker_archive, layer, member
from chunked import chunked_layout, estargz, zstd_chunked
from command import run
from flatten.host.files import LayerBytes
from flatten.host.limits import Limits
from flatten.host.spools import Pool
from flatten.image.chunked import read_table
from flatten.options import Access
from flatten.tar.layer import read_layer
from flatten.tar.members import Members
from flatten.tree.edit import Edits
from web import serving

NOISE = random.Random(1).randbytes(3 << 20)
TARS = [
    layer(
        "etc/",
        member("etc/small", b"1", mode=0o4755, uid=1000, gid=7),
        member("etc/big", NOISE[: 1 << 20]),
        member("etc/holes", NOISE[:140_000] + bytes(140_000) + NOISE[:9]),
        "etc/other=etc/small",
        "to->etc/small",
        member("etc/ls", b"x", records={b"SCHILY.xattr.user.a": b"b"}),
        member("dev/null", type=b"3", device=(1, 3)),
        member("pipe", type=b"6"),
        member("x" * 150, b"long"),
        member("empty"),
        member("gone", NOISE),
    ),
    layer("-gone", member("etc/small", b"2", mtime=MTIME + 1), "a/", "a/*", "a/b"),
]
CHUNKED = {
    "zstd:chunked": zstd_chunked,
    "zstd:chunked without a record": partial(zstd_chunked, record=False),
    "eStargz": estargz,
}


SMALL = layer("etc/", member("etc/small", b"1"), member("etc/ls", NOISE[:150_000]))


@cache
def image(make, tars=tuple(TARS)):
    """Return the archive of a layout of chunked layers."""
    packed = [make(tar) for tar in tars]
    return archive(chunked_layout(packed).items())


def view(server, *command):
    done = run(command[0], server.url, *command[1:], "--no-cache")
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(params=CHUNKED)
def server(request):
    with serving(image(CHUNKED[request.param])) as found:
        yield found


@pytest.mark.parametrize("command", [["ls"], ["ls", "--json"], ["ls", "--hash"]])
def test_the_tree_is_that_of_the_whole_layers(server, command):
    parts = view(server, *command)
    fetched = server.sent
    whole = view(server, *command, "--verify")

    assert parts.stdout.replace(', "verified": "toc"', "") == whole.stdout
    if "--hash" not in command:
        assert fetched < 0.1 * len(server.data)


def test_what_is_said(server):
    done = view(server, "ls")
    assert "2 layers were read in parts, by table of contents: fetched" in done.stderr

    entry = json.loads(view(server, "ls", "--json").stdout.splitlines()[0])
    assert entry["verified"] == "toc"
    steps = json.loads(view(server, "history", "--json").stdout)
    assert steps["verified"] == "toc"
    assert steps["transfer"]["fetched"] < 0.1 * steps["transfer"]["size"]
    assert (
        "verified only by table of contents:"
        in view(server, "report", "--no-equal").stdout
    )
    done = run("which", server.url, "etc/small", "--json")
    assert json.loads(done.stdout)["verified"] == "toc"


def test_cat_fetches_the_chunks_of_a_file(server):
    done = view(server, "cat", "etc/small", "etc/other", "empty")
    assert done.stdout == "21"
    assert server.sent < 0.1 * len(server.data)

    with flatten.open_image(server.url, access=Access(parts=True)) as opened:
        assert opened.root.joinpath("etc/big").read_bytes() == NOISE[: 1 << 20]
        holes = opened.root.joinpath("etc/holes").read_bytes()
    assert holes == NOISE[:140_000] + bytes(140_000) + NOISE[:9]
    assert server.sent < 0.6 * len(server.data), "not the file that is gone"


def test_the_same_table_is_the_same_bytes(server):
    done = run("diff", server.url, server.url, "--no-cache")

    assert (done.returncode, done.stdout) == (0, "")
    assert server.sent < 0.1 * len(server.data)


@pytest.mark.parametrize("out", ["rootfs.tar", "delta", "statement", "layers"])
def test_an_export_that_needs_whole_layers(server, tmp_path, out):
    command = {
        "rootfs.tar": ["--verify"],
        "delta": ["--no-verify"],
        "statement": ["--statement", tmp_path / "statement"],
        "layers": ["--layers", tmp_path / "layers"],
    }
    start = ["delta"] if out == "delta" else []
    more = [] if out == "delta" else ["--include", "etc/small"]
    got = run(
        *start, server.url, "-o", tmp_path / "got.tar", *command[out], *more
    )  # fmt: skip
    assert (got.returncode, got.stderr) == (0, "")
    sent = server.sent
    (tmp_path / "image.tar").write_bytes(server.data)
    assert run(
        *start, tmp_path / "image.tar", "-o", tmp_path / "want.tar", *more
    ).returncode == 0  # fmt: skip

    assert (tmp_path / "got.tar").read_bytes() == (tmp_path / "want.tar").read_bytes()
    assert sent >= len(server.data)


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="needs skopeo")
@pytest.mark.engines
def test_layers_of_skopeo(tmp_path):
    (tmp_path / "image.tar").write_bytes(docker_archive(TARS))
    copy_chunked(tmp_path / "image.tar", tmp_path / "layout")
    files = list(on_disk(tmp_path / "layout"))
    if not any(b"io.github.containers.zstd-chunked" in data for _, data in files):
        pytest.skip("skopeo is older than the names of the annotations")
    with serving(archive(files)) as server:
        parts = view(server, "ls", "--hash", "--json")
        server.sent = 0
        view(server, "ls")
        assert server.sent < 0.1 * len(server.data)
        whole = view(server, "ls", "--hash", "--json", "--verify")
    assert parts.stdout.replace(', "verified": "toc"', "") == whole.stdout


def copy_chunked(image, layout):
    subprocess.run(
        ["skopeo", "--insecure-policy", "copy", "-q", "--dest-compress-format",
         "zstd:chunked", f"docker-archive:{image}", f"oci:{layout}:1"], check=True,
    )  # fmt: skip


def on_disk(folder):
    """Yield the names and contents of the files below a folder."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield str(path.relative_to(folder)), path.read_bytes()


@pytest.mark.parametrize("verify", [None, False])
@pytest.mark.parametrize("include", [["etc/small", "dev"], ["etc/holes", "a"], []])
def test_an_export_of_little_fetches_little(tmp_path, include, verify):
    """Also if all is wanted, since the second layer removes most of the first."""
    edits = Edits(include=tuple(include))
    done = {}
    with serving(image(zstd_chunked)) as server:
        for name, how in (("want", True), ("got", verify)):
            server.sent = 0
            done[name] = flatten.export(
                server.url, tmp_path / name, sync=False, edits=edits, verify=how
            )
    assert (tmp_path / "got").read_bytes() == (tmp_path / "want").read_bytes()
    assert server.sent < (0.15 if include else 0.35) * len(server.data)
    assert (done["want"].verified, done["want"].verified_by_toc) == (2, 0)
    assert (done["got"].verified, done["got"].verified_by_toc) == (0, 2)


def test_an_export_of_parts_says_so(tmp_path):
    out = "-o", tmp_path / "out.tar", "--include", "etc/small"
    with serving(image(zstd_chunked)) as server:
        done = run(server.url, *out, "-v", "--json")
        quiet = run(server.url, *out, "-q")
        unchecked = run(server.url, *out, "--no-verify")
        whole = run(server.url, *out, "--verify", "-v", "--json")
    found = json.loads(done.stdout)
    fetched, size = found["transfer"]["fetched"], found["transfer"]["size"]
    assert (found["verified"], found["verified_by_toc"]) == (0, 2)
    assert fetched < 0.1 * size
    assert "2 layers (0 verified, 2 by table of contents), " in done.stderr
    assert (
        "note: 2 layers were read in parts, by table of contents: fetched "
        f"{fetched:,} of {size:,} bytes; --verify fetches all and checks the digests"
    ) in done.stderr
    assert (quiet.stderr, unchecked.stderr) == ("", "")
    found = json.loads(whole.stdout)
    assert (found["verified"], found["verified_by_toc"]) == (2, 0)
    assert "note:" not in whole.stderr


def test_a_chunk_that_is_wrong_ends_an_export(tmp_path):
    blob, annotations, tar = zstd_chunked(SMALL)
    pack = zstandard.ZstdCompressor().compress
    assert blob.count(pack(b"1")) == 1
    blob = blob.replace(pack(b"1"), pack(b"2"))
    packed = archive(chunked_layout([(blob, annotations, tar)]).items())
    with (
        serving(packed) as server,
        pytest.raises(flatten.IntegrityError, match="digest mismatch in 'etc/small'"),
    ):
        flatten.export(
            server.url, tmp_path / "out.tar", sync=False,
            edits=Edits(include=("etc/small",)),
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_layers_without_a_table_are_verified_whole(tmp_path):
    """A layer with one is on top of them."""
    plain = gzip.compress(TARS[0]), {}, TARS[0]
    chunked = zstd_chunked(layer(member("top/a", b"a"), member("top/b", NOISE)))
    edits = Edits(include=("top/a", "etc/small"))
    with serving(archive(chunked_layout([plain, chunked]).items())) as server:
        done = flatten.export(server.url, tmp_path / "got", sync=False, edits=edits)
        flatten.export(
            server.url, tmp_path / "want", sync=False, edits=edits, verify=True
        )
    assert (done.verified, done.verified_by_toc) == (1, 1)
    assert (tmp_path / "got").read_bytes() == (tmp_path / "want").read_bytes()

    spoilt = plain[0], {}, bytes(512) + TARS[0]  # the diff_id is of another tar
    with (
        serving(archive(chunked_layout([spoilt, chunked]).items())) as server,
        pytest.raises(flatten.IntegrityError, match=r"layer 1 of 2.*digest mismatch"),
    ):
        flatten.export(server.url, tmp_path / "out", sync=False, edits=edits)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("make", CHUNKED.values(), ids=CHUNKED)
def test_an_export_of_most_fetches_and_verifies_all(tmp_path, make):
    little = () if make is zstd_chunked else ("dev",)  # the table is not exact
    with serving(image(make, tuple(TARS[:1]))) as server:
        done = flatten.export(
            server.url, tmp_path / "got", sync=False, edits=Edits(include=little)
        )
    assert server.sent > len(server.data)
    assert (done.verified, done.verified_by_toc) == (1, 0)


def test_most_of_layers_that_are_not_their_diff_id(tmp_path):
    blob, annotations, tar = zstd_chunked(TARS[0])
    packed = archive(chunked_layout([(blob, annotations, bytes(512) + tar)]).items())
    with (
        serving(packed) as server,
        pytest.raises(flatten.IntegrityError, match="digest mismatch"),
    ):
        flatten.export(server.url, tmp_path / "out", sync=False)
    assert not (tmp_path / "out").exists()


# --- layers that are read whole


WHOLE = {
    "a name that is not UTF-8": lambda entries: entries[1].update(name="\ufffd"),
    "two members of one name": lambda entries: entries.append(dict(entries[0])),
    "a chunk too large to check": lambda entries: entries[1].update(
        size=1 << 30, chunkSize=0
    ),
}


@pytest.mark.parametrize("edit", WHOLE.values(), ids=WHOLE)
@pytest.mark.parametrize("make", [zstd_chunked, estargz])
def test_what_a_table_cannot_say_takes_the_whole_layer(make, edit):
    with serving(image(partial(make, edit=edit), (SMALL,))) as server:
        with flatten.open_image(server.url, access=Access(parts=True)) as opened:
            assert opened.root.joinpath("etc/small").read_bytes() == b"1"
        assert server.sent > 0.9 * len(server.data)


# --- tables that are wrong


def first(entries, **change):
    """Change the first file that is in one chunk."""
    found = next(e for e in entries if e.get("size") == 1)
    found |= change


SHA = "sha256:" + hashlib.sha256(b"other").hexdigest()
Z = "io.github.containers.zstd-chunked."
WRONG = {
    "digest of the table": ({"annotate": {f"{Z}manifest-checksum": SHA}}, 5),
    "place of the table": ({"annotate": {f"{Z}manifest-position": "9:9:9:1"}}, 5),
    "place outside of the layer": (
        {"annotate": {f"{Z}manifest-position": "99999999999:9:9:1"}}, 4,
    ),
    "no place": ({"annotate": {f"{Z}manifest-position": "here"}}, 4),
    "place of the record": ({"annotate": {f"{Z}tarsplit-position": "9:9:9"}}, 5),
    "digest of a chunk": (
        {"edit": lambda e: first(e, digest=SHA, chunkDigest=SHA)}, 5,
    ),
    "no digest of a chunk": (
        {"edit": lambda e: first(e, digest="", chunkDigest="")}, 4,
    ),
    "a chunk elsewhere": ({"edit": lambda e: first(e, offset=1)}, 4),
    "a chunk outside": ({"edit": lambda e: first(e, offset=1 << 40)}, 4),
    "another size": ({"edit": lambda e: first(e, size=2)}, 4),
    "a file more": ({"edit": lambda e: e.append(dict(e[1], name="more"))}, 4),
    "a file less": ({"edit": lambda e: e.pop(1)}, 4),
    "a name that leaves": ({"edit": lambda e: first(e, name="../x")}, 4),
    "a name that is a number": ({"edit": lambda e: first(e, name=1)}, 4),
    "an offset that is a text": ({"edit": lambda e: first(e, offset="1")}, 4),
    "an entry that is a list": ({"edit": lambda e: e.append([])}, 4),
    "an unknown type": (
        {"record": False, "edit": lambda e: first(e, type="door")}, 4,
    ),
    "a time that is none": (
        {"record": False, "edit": lambda e: first(e, modtime="noon")}, 4,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "code"), WRONG.values(), ids=WRONG)
def test_a_wrong_table_is_an_error(change, code):
    with (
        serving(image(partial(zstd_chunked, **change), (SMALL,))) as server,
        pytest.raises(flatten.FlattenError, match=r"layer 1 of 1") as caught,
        flatten.open_image(server.url, access=Access(parts=True)) as opened,
    ):
        opened.root.joinpath("etc/small").read_bytes()

    assert caught.value.exit_code == code
    assert "\n" not in str(caught.value)


# --- tables of anything


VALUES = [
    None, 0, -1, 1, 1 << 62, 1 << 70, "", "x", "../..", "a\0b", [], {}, 1.5, True,
    "2020-01-01T00:00:00Z", "9999-99-99T99:99:99Z", {"a": "b"}, {"a": 1}, SHA, "\ud800",
    "dir", "reg", "chunk", "hardlink", "a" * 70_000,
]  # fmt: skip
KEYS = [
    "type", "name", "linkName", "mode", "size", "uid", "modtime", "devMajor", "xattrs",
    "digest", "offset", "endOffset", "chunkSize", "chunkOffset", "chunkDigest",
    "chunkType", "innerOffset",
]  # fmt: skip


class Blob(Bytes, LayerBytes):
    """A layer in memory."""


def spoilt(dice, entries):
    for _ in range(dice.randrange(1, 4)):
        what = dice.randrange(10)
        if what == 0:
            entries.append(dice.choice(VALUES))
        elif what == 1:
            dice.shuffle(entries)
        elif isinstance(entry := dice.choice(entries), dict):
            entry[dice.choice(KEYS)] = dice.choice(VALUES)


@pytest.mark.parametrize("make", CHUNKED.values(), ids=CHUNKED)
def test_any_table_gives_a_tar_or_an_error(make):
    tars = 0
    for seed in range(60):
        dice = random.Random(seed)
        blob, annotations, _ = make(SMALL, edit=partial(spoilt, dice))
        pool = Pool(Limits())
        with contextlib.closing(pool), contextlib.suppress(flatten.FlattenError):
            tar = read_table(Blob(blob), annotations, pool, "layer")
            read_layer(tar.headers(), "layer", 0, Members())
            tar.read(0, tar.size())
            tars += 1
    assert 0 < tars < 60
