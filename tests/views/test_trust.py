"""Views show what the layers' bytes say, whatever an image claims about them.

The images are called good and evil: both record the same diff_ids, which only the
layers of the good one have.
"""

import gzip
import json
import os
import shutil
import struct
import subprocess
import time
from pathlib import Path

import pytest
import xxhash
import zstandard

import flatten
from builders import (
    archive,
    config,
    digest,
    docker_archive,
    layers,
    member,
    oci_files,
    split,
)
from flatten.image.columns import Rows
from flatten.tar.layer import read_layer
from flatten.tar.members import Members
from flatten.views.identity import location
from flatten.views.index_cache import MAGIC, IndexCache, pack
from flatten.views.reading import LayerReader, Verify
from kinds import ROOTS, docker, oci, run

GOOD = layers(["etc/", member("etc/conf", b"good")], ["new"])
EVIL = layers(["etc/", member("etc/conf", b"evil")], ["new"])
"""The same names and sizes."""
OTHER = layers(["etc/", member("etc/door", b"open")], ["new"])
"""Other names."""

TREE = "etc/ etc/conf new"
OTHER_TREE = "etc/ etc/door new"


@pytest.fixture
def images(tmp_path):
    """Return archives of the good image, and of two that claim to be it."""
    found = {}
    for name, tars in (("good", GOOD), ("evil", EVIL), ("other", OTHER)):
        found[name] = tmp_path / f"{name}.tar"
        found[name].write_bytes(docker_archive(tars, config_document=config(GOOD)))
    return found


@pytest.fixture(params=["cold", "warm", "none"])
def cache(request, tmp_path, images):
    """Return the options for a cache: empty, with the good image's indexes, or none."""
    if request.param == "none":
        return ["--no-cache"]
    options = ["--cache", tmp_path / "cache"]
    if request.param == "warm":
        assert run("ls", images["good"], *options).returncode == 0
        assert len(list((tmp_path / "cache").glob("*.index"))) == 2
    return options


VIEWS = {
    "ls": ["ls"],
    "ls --json": ["ls", "--json"],
    "history": ["history"],
    "report": ["report"],
    "report --json": ["report", "--json"],
}


@pytest.mark.parametrize("name", ["evil", "other"])
@pytest.mark.parametrize("words", VIEWS.values(), ids=VIEWS)
def test_views_of_an_image_with_a_false_diff_id_fail(images, cache, words, name):
    command, *rest = words

    done = run(command, images[name], *rest, *cache)

    assert done.returncode == 5
    assert f"{images[name]}, layer 1 of 2" in done.stderr
    assert "digest mismatch" in done.stderr


def test_without_checks_views_show_the_image_that_was_given(images, cache):
    ls = run("ls", images["other"], "--no-verify", *cache)
    rows = run("ls", images["other"], "--no-verify", "--json", *cache).stdout
    report = run("report", images["other"], "--no-verify", "--json", *cache)
    text = run("report", images["other"], "--no-verify", *cache).stdout
    history = run("history", images["other"], "--no-verify", "--json", *cache)

    assert " ".join(line.split()[6] for line in ls.stdout.splitlines()) == OTHER_TREE
    assert ls.stderr == ""  # that was asked for
    assert {json.loads(line)["verified"] for line in rows.splitlines()} == {False}
    found = json.loads(report.stdout)
    assert found["verified"] is False
    assert [row["path"] for row in found["largest"]] == ["etc/door", "new"]
    assert "not verified" in text
    assert json.loads(history.stdout)["verified"] is False
    evil = run("cat", images["evil"], "etc/conf", "--no-verify", *cache)
    assert evil.stdout == "evil"


def test_views_of_a_verified_image(images, cache):
    rows = run("ls", images["good"], "--json", *cache).stdout.splitlines()
    report = run("report", images["good"], "--json", *cache)
    history = run("history", images["good"], "--json", *cache)

    assert all("verified" not in json.loads(row) for row in rows)
    assert json.loads(report.stdout)["verified"] is True
    assert json.loads(history.stdout)["verified"] is True
    assert run("ls", images["good"], *cache).stderr == ""


def test_cat_from_a_layer_that_has_another_digest_fails(images, cache):
    done = run("cat", images["evil"], "etc/conf", *cache)

    assert done.returncode == 5
    assert "digest mismatch" in done.stderr


@pytest.mark.parametrize("name", ["evil", "other"])
def test_diff_with_an_image_with_a_false_diff_id(images, cache, name):
    done = run("diff", images["good"], images[name], *cache)
    loose = run("diff", images["good"], images[name], "--no-verify", *cache)
    listed = run("diff", images["good"], images[name], "--no-verify", "--json", *cache)

    assert (done.returncode, done.stdout) == (5, "")
    assert loose.returncode == 1
    changes = json.loads(listed.stdout)
    assert {change["verified"] for change in changes} == {False}
    paths = {change["path"] for change in changes}
    assert paths == ({"etc/conf"} if name == "evil" else {"etc/conf", "etc/door"})
    if name == "evil":
        want = [xxhash.xxh3_128_hexdigest(data) for data in (b"good", b"evil")]
        assert changes[0]["fields"] == {"xxh3": want}


def test_diff_of_equal_images(images, cache, tmp_path):
    shutil.copy(images["good"], tmp_path / "copy.tar")

    done = run("diff", images["good"], tmp_path / "copy.tar", *cache)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_an_archive_that_is_exchanged_is_read_again(images, tmp_path):
    cache = ["--cache", tmp_path / "cache"]
    place = tmp_path / "image.tar"
    shutil.copy(images["good"], place)
    os.utime(place, (1, 1))
    assert run("ls", place, *cache).returncode == 0

    place.write_bytes(images["evil"].read_bytes())  # the same inode and size
    os.utime(place, (1, 1))

    assert run("ls", place, *cache).returncode == 5


def test_an_archive_that_changes_meanwhile_is_not_cached(images, tmp_path):
    cache = IndexCache(tmp_path / "cache")
    with flatten.open_image(str(images["good"])) as image:
        reading = LayerReader(cache, Verify.BLOBS).read(image, Members())
        next(reading)
        images["good"].write_bytes(images["good"].read_bytes())
        assert len(list(reading)) == 1

    assert list((tmp_path).glob("cache/*")) == []


def test_a_layer_that_is_stored_with_holes_is_not_cached(tmp_path):
    """Its bytes are in several parts of a file, which are not watched for changes."""
    tar = layers([member("big", bytes(1 << 20)), "end"])[0]
    document = json.dumps(config([tar])).encode()
    manifest = [{"Config": "c.json", "RepoTags": ["app:1"], "Layers": ["layer.tar"]}]
    (tmp_path / "c.json").write_bytes(document)
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with (tmp_path / "layer.tar").open("wb") as file:
        file.write(tar[:1024].rstrip(b"\0"))
        file.seek(1024 + (1 << 20) - 512)
        file.write(tar[file.tell() :])
    names = ["c.json", "manifest.json", "layer.tar"]
    subprocess.run(
        ["tar", "-C", tmp_path, "-S", "-cf", tmp_path / "i.tar", *names], check=True
    )
    assert (tmp_path / "i.tar").stat().st_size < 100_000

    runs = [run("ls", tmp_path / "i.tar", "--cache", tmp_path / "cache") for _ in "ab"]

    assert [done.returncode for done in runs] == [0, 0]
    assert runs[0].stdout == runs[1].stdout
    assert runs[0].stdout.count("\n") == 2
    assert list(tmp_path.glob("cache/*")) == []


def test_verify_hashes_again_what_was_hashed_before(images, tmp_path):
    cache = ["--cache", tmp_path / "cache"]
    time.sleep(2.1)  # a file that was written just now is hashed each time
    with flatten.open_image(str(images["evil"])) as image:
        for layer in image.layers:  # as if this had been done and found right
            where = location(layer)
            IndexCache(tmp_path / "cache").keep_hashed(where, layer.diff_id, None)

    assert run("ls", images["evil"], *cache).returncode == 0
    assert run("ls", images["evil"], "--verify", *cache).returncode == 5


def evil_root(kind, folder):
    """Return a root with the good image, but other bytes in its first layer."""
    tree, record = {
        "docker-root": (
            f"overlay2/{'00' * 32}/diff",
            f"image/overlay2/layerdb/sha256/{digest(GOOD[0])}/tar-split.json.gz",
        ),
        "containers-storage": (
            f"overlay/{digest(GOOD[0])}/diff",
            f"overlay-layers/{digest(GOOD[0])}.tar-split.gz",
        ),
    }[kind]
    root = Path(ROOTS[kind](folder, GOOD))
    (root / tree / "etc/conf").unlink()
    (root / tree / "etc/door").write_text("open")
    (root / record).write_bytes(split(OTHER[0]))
    return root


@pytest.mark.parametrize("kind", ["docker-root", "containers-storage"])
def test_a_root_does_not_get_the_index_of_an_archive(images, tmp_path, kind):
    cache = ["--cache", tmp_path / "cache"]
    run("ls", images["good"], *cache)
    root = evil_root(kind, tmp_path)

    done = run("ls", root, *cache)
    found = json.loads(run("report", root, "--json", *cache).stdout)

    paths = " ".join(line.split()[6] for line in done.stdout.splitlines())
    assert (done.returncode, paths) == (0, OTHER_TREE)
    assert done.stderr == (
        f"flatten: note: {root}: 2 layers were not verified; --verify checks the "
        "digests\n"
    )
    assert found["verified"] is False
    assert run("ls", root, "--verify", *cache).returncode == 5
    changes = json.loads(run("diff", images["good"], root, "--json", *cache).stdout)
    assert [change["path"] for change in changes] == ["etc/conf", "etc/door"]


@pytest.mark.parametrize("kind", ROOTS)
def test_a_root_whose_layers_were_checked_says_so(tmp_path, kind):
    root = ROOTS[kind](tmp_path, GOOD)

    done = run("ls", root, "--verify", "--no-cache")
    found = json.loads(run("report", root, "--json", "--verify").stdout)

    assert (done.returncode, done.stderr) == (0, "")
    assert found["verified"] is True


def test_images_of_one_diff_id_in_one_archive(tmp_path):
    document = json.dumps(config(GOOD)).encode()
    files, manifest = [(f"{digest(document)}.json", document)], []
    for name, tars in (("good", GOOD), ("other", OTHER)):
        paths = [f"{name}{at}/layer.tar" for at, _ in enumerate(tars)]
        files += zip(paths, tars, strict=True)
        manifest.append({
            "Config": f"{digest(document)}.json", "RepoTags": [f"{name}:1"],
            "Layers": paths,
        })  # fmt: skip
    path = tmp_path / "two.tar"
    path.write_bytes(
        archive([*files, ("manifest.json", json.dumps(manifest).encode())])
    )

    rows = json.loads(run("which", path, "etc/door", "--json").stdout)
    new = json.loads(run("which", path, "new", "--json").stdout)
    checked = run("which", path, "new", "--verify")

    ((row,), (image,)) = rows["layers"], rows["layers"][0]["images"]
    assert (row["event"], image["names"]) == ("adds", ["other:1"])
    assert rows["verified"] is False
    assert len(new["layers"]) == 2  # equal bytes, at two places
    assert checked.returncode == 5
    assert "digest mismatch" in checked.stderr


def test_which_of_checked_layers(images):
    found = json.loads(run("which", images["good"], "new", "--verify", "--json").stdout)

    assert found["verified"] is True
    assert [row["event"] for row in found["layers"]] == ["adds"]


# --- flatten verify


@pytest.mark.parametrize("kind", ["docker-archive", "oci", "compressed"])
def test_verify_checks_the_digests_of_the_image(tmp_path, kind):
    if kind == "docker-archive":
        image = tmp_path / "i.tar"
        image.write_bytes(docker_archive(EVIL, config_document=config(GOOD)))
    else:
        pack_ = gzip.compress if kind == "compressed" else None
        files = oci_files(
            EVIL, pack=pack_, documents={"config": {"rootfs": config(GOOD)["rootfs"]}}
        )
        image = tmp_path / "layout"
        for name, data in files.items():
            (image / name).parent.mkdir(parents=True, exist_ok=True)
            (image / name).write_bytes(data)
    flatten.export(image, tmp_path / "out.tar", verify=False)

    done = run("verify", tmp_path / "out.tar", image)
    loose = run("verify", tmp_path / "out.tar", image, "--no-verify")

    assert (done.returncode, done.stdout) == (5, "")
    assert "layer 1 of 2" in done.stderr
    assert "digest mismatch" in done.stderr
    assert (loose.returncode, loose.stdout, loose.stderr) == (0, "", "")


def test_verify_checks_a_blob_digest_that_does_not_match(tmp_path):
    image = Path(oci(tmp_path, GOOD))
    flatten.export(image, tmp_path / "out.tar")
    (image / "blobs/sha256" / digest(GOOD[0])).write_bytes(EVIL[0])

    done = run("verify", tmp_path / "out.tar", image, "--ignore", "xxh3")

    assert (done.returncode, done.stdout) == (5, "")
    assert "digest mismatch" in done.stderr


# --- which without any image


def test_which_that_can_read_no_image_fails(tmp_path, images):
    damaged = bytearray(images["good"].read_bytes())
    with flatten.open_image(str(images["good"])) as image:
        for layer in image.layers:
            at = location(layer).offset
            damaged[at : at + 512] = b"x" * 512
    (tmp_path / "damaged.tar").write_bytes(damaged)

    for options in ([], ["--json"]):
        done = run("which", tmp_path / "damaged.tar", "etc/conf", *options)

        assert (done.returncode, done.stdout) == (4, "")
        assert "no image could be read: " in done.stderr
        assert "layer 1 of 2" in done.stderr


# --- files in the cache that are not believed


def forged(folder):
    """Cache the index of other bytes as that of the good image's first layer."""
    members = Members()
    with flatten.open_image(docker(folder, OTHER)) as image:
        rows = Rows.of(read_layer(image.layers[0].open(), "x", 0, members), members)
    diff_id = f"sha256:{digest(GOOD[0])}"
    IndexCache(folder / "cache").keep(diff_id, pack(diff_id, rows))
    (path,) = (folder / "cache").iterdir()
    return path


def shown(images, folder):
    done = run("ls", images["good"], "--cache", folder / "cache")
    assert (done.returncode, done.stderr) == (0, "")
    return " ".join(line.split()[6] for line in done.stdout.splitlines())


def test_a_forged_index_of_this_user_is_shown(images, tmp_path):
    """So the tests below can fail."""
    forged(tmp_path)

    assert shown(images, tmp_path) == OTHER_TREE


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_of_another_user_is_not_believed(images, tmp_path):
    os.chown(forged(tmp_path), 12345, 0)

    assert shown(images, tmp_path) == TREE


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_is_not_believed(images, tmp_path, mode):
    forged(tmp_path).chmod(mode)

    assert shown(images, tmp_path) == TREE


def test_a_file_under_another_layers_name_is_not_believed(images, tmp_path):
    run("ls", docker(tmp_path, OTHER), "--cache", tmp_path / "cache")
    own = tmp_path / "cache" / f"{digest(OTHER[0])}.index"
    own.rename(own.with_name(f"{digest(GOOD[0])}.index"))

    assert shown(images, tmp_path) == TREE


@pytest.mark.parametrize("how", ["symlink", "fifo", "directory"])
def test_what_is_not_a_file_is_not_believed(images, tmp_path, how):
    path = forged(tmp_path)
    if how == "symlink":
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
    else:
        path.unlink()
        os.mkfifo(path) if how == "fifo" else path.mkdir()

    assert shown(images, tmp_path) == TREE


def change(key, value):
    """Return an edit that sets a key of the description."""

    def edit(parts):
        head = json.loads(parts[0])
        head[key] = value(head[key]) if callable(value) else value
        parts[0] = json.dumps(head).encode()

    return edit


def replace(at, old, new):
    """Return an edit of one of the parts."""

    def edit(parts):
        assert old in parts[at]
        parts[at] = parts[at].replace(old, new)

    return edit


def numbers(at, code, place, value):
    """Return an edit of one number of a column."""

    def edit(parts):
        size = struct.calcsize(code)
        parts[at] = (
            parts[at][: place * size]
            + struct.pack(code, value)
            + parts[at][(place + 1) * size :]
        )

    return edit


REMOVAL = ["etc/conf", False, 0]
EXTRA = [[], None, [0, 0], 0]
ODD = {
    "no parts": lambda parts: parts.clear(),
    "a part is missing": lambda parts: parts.pop(),
    "a part too many": lambda parts: parts.append(b""),
    "the description is not JSON": lambda parts: parts.__setitem__(0, b"{"),
    "the description is a list": lambda parts: parts.__setitem__(0, b"[]"),
    "the description is nested deeply": lambda parts: parts.__setitem__(
        0, b"[" * 100_000
    ),
    "a key is missing": lambda parts: parts.__setitem__(0, b'{"order": "little"}'),
    "owners are a number": change("owners", 7),
    "an owner of two numbers": change("owners", [[0, 0]]),
    "an owner of texts": change("owners", [["a", "b", "c"]]),
    "a mode too large": change("owners", lambda owners: [[1 << 20, 0, 0]] * len(owners)),
    "no owners": change("owners", []),
    "removals are a text": change("removals", "abc"),
    "a removal of a number": change("removals", [[5, False, 0]]),
    "a removal beyond Latin-1": change("removals", [["\u6f22", False, 0]]),
    "a removal outside the root": change("removals", [["../x", False, 0]]),
    "a removal whose kind is a text": change("removals", [["x", "no", 0]]),
    "a removal at a text": change("removals", [["x", False, "0"]]),
    "bookkeeping of texts": change("bookkeeping", ["a"]),
    "bookkeeping of lists": change("bookkeeping", [[]]),
    "bookkeeping beyond the rows": change("bookkeeping", [99]),
    "extras are null": change("extras", None),
    "an extra beyond the rows": change("extras", [[99, EXTRA]]),
    "an extra at a text": change("extras", [["0", EXTRA]]),
    "an extra that is short": change("extras", [[0, EXTRA[:2]]]),
    "records of numbers": change("extras", [[0, [[[1, 2]], None, [0, 0], 0]]]),
    "regions of texts": change("extras", [[0, [[], [["a", "b"]], [0, 0], 0]]]),
    "regions beyond the file": change("extras", [[0, [[], [[0, 999]], [0, 0], 0]]]),
    "a device of one number": change("extras", [[0, [[], None, [0], 0]]]),
    "a device of texts": change("extras", [[0, [[], None, ["a", "b"], 0]]]),
    "nanoseconds of a text": change("extras", [[0, [[], None, [0, 0], "x"]]]),
    "a second of nanoseconds": change("extras", [[0, [[], None, [0, 0], 10**9]]]),
    "another byte order": change("order", "middle"),
    "an unknown typeflag": numbers(1, "<B", 0, 0x7A),
    "a symlink without a target": numbers(1, "<B", 0, 0x32),
    "an owner beyond the table": numbers(2, "<I", 1, 99),
    "a negative size": numbers(3, "<q", 1, -5),
    "a negative offset": numbers(4, "<q", 1, -5),
    "a column that is cut": lambda parts: parts.__setitem__(3, parts[3][:-3]),
    "a path too few": replace(7, b"etc\0", b""),
    "a path outside the root": replace(7, b"etc/door", b"../etc"),
    "a path with a slash in front": replace(7, b"etc/door", b"/etc"),
    "a path with a slash at its end": replace(7, b"etc/door", b"door/"),
    "a path with two slashes": replace(7, b"etc/door", b"etc//door"),
    "a path with a dot": replace(7, b"etc/door", b"etc/./door"),
    "a path that is a dot": replace(7, b"etc/door", b"."),
}  # fmt: skip


@pytest.mark.parametrize("edit", ODD.values(), ids=ODD)
def test_an_odd_file_with_the_right_checksum_is_made_again(images, tmp_path, edit):
    path = forged(tmp_path)
    diff_id = f"sha256:{digest(GOOD[0])}"
    plain = zstandard.decompress(path.read_bytes()[len(MAGIC) + 16 :])
    count = plain[0]
    at, parts = 1 + 8 * count, []
    for size in struct.unpack_from(f"={count}Q", plain, 1):
        parts.append(plain[at : at + size])
        at += size
    edit(parts)
    sizes = struct.pack(f"={len(parts)}Q", *map(len, parts))
    body = zstandard.compress(bytes([len(parts)]) + sizes + b"".join(parts))
    checksum = xxhash.xxh3_128_digest(diff_id.encode() + body)
    path.write_bytes(MAGIC + checksum + body)

    assert shown(images, tmp_path) == TREE


@pytest.mark.parametrize("body", [b"", b"text", zstandard.compress(b"")])
def test_a_file_of_something_else_with_the_right_checksum(images, tmp_path, body):
    path = forged(tmp_path)
    diff_id = f"sha256:{digest(GOOD[0])}"
    path.write_bytes(MAGIC + xxhash.xxh3_128_digest(diff_id.encode() + body) + body)

    assert shown(images, tmp_path) == TREE
