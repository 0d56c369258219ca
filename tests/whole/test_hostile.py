"""Images made to cost too much: each is cheap, or refused, in little time and memory.

The command runs under a limit of address space, as ``ulimit -v`` sets it, so that what
would take gigabytes ends in "out of memory" here.
"""

import json
from contextlib import nullcontext

import pytest

import flatten
from bounded import run
from builders import (
    archive,
    config,
    digest,
    docker_archive,
    layer,
    layers,
    legacy_archive,
    member,
    oci_files,
    pax,
)
from flatten.host.inputs import open_file
from flatten.host.limits import Limits
from flatten.host.spools import Pool
from flatten.sources.archive import Archive
from flatten.sources.documents import read_json
from flatten.tar.members import Allowance, Members
from headers import index, sparse_gnu


def many_images(count, document):
    """Write an archive of images that share a config and a layer."""
    images = [
        {"Config": "c.json", "RepoTags": [f"app:{n}"], "Layers": ["l"]}
        for n in range(count)
    ]
    return archive(
        [
            ("l", layer("a")),
            ("c.json", document),
            ("manifest.json", json.dumps(images).encode()),
        ]
    )


def listed_again(tar, times):
    """Write an image that lists one layer again and again."""
    document = json.dumps(config([tar] * times)).encode()
    image = {"Config": "c.json", "RepoTags": None, "Layers": ["l"] * times}
    files = {
        "l": tar,
        "c.json": document,
        "manifest.json": json.dumps([image]).encode(),
    }
    return archive(files.items())


def xattrs(size):
    """Return records of xattrs, of so many bytes together."""
    return {b"SCHILY.xattr.user.%d" % n: b"v" * 1000 for n in range(size // 1024)}


def regions(count):
    """Write a sparse file of so many regions, each a byte."""
    lines = b"".join(b"%d\n%d\n" % (n * 2, n + 1 == count) for n in range(count))
    data = b"%d\n" % count + lines
    data += bytes(-len(data) % 512) + b"!"
    return member("sparse", data, records={
        b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0",
        b"GNU.sparse.name": b"sparse", b"GNU.sparse.realsize": b"%d" % (2 * count),
    })  # fmt: skip


BIG_CONFIG = json.dumps(config([layer("a")], history=["x" * 8_000_000])).encode()
SMALL = {b"SCHILY.xattr.user.%d" % n: b"v" for n in range(12_000)}
GLOBALS = pax({b"comment": b"c" * 1_000_000}, b"g")
WAYS = "./" * 32_000 + "d"


CHEAP = {
    "a global comment of 1 MiB before thousands of members": lambda: docker_archive(
        [layer(GLOBALS, *(f"{n}" for n in range(5000)))]
    ),
    "many global headers": lambda: docker_archive(
        [layer(*[pax({b"comment": b"c" * 9000, b"mtime": b"%d" % n}, b"g") for n in range(5000)])]
    ),
    "records of 1 MiB that are not kept": lambda: docker_archive(
        [layer(*[member(f"{n}", records={b"comment": b"c" * 1_000_000}) for n in range(60)])]
    ),
    "xattrs of 1 MiB": lambda: docker_archive(
        [layer(*[member(f"{n}", b"x", records=xattrs(900_000)) for n in range(20)])]
    ),
    "a name of 64 KiB": lambda: docker_archive([layer(member("n" * 65_536))]),
    "a directory of 64 KiB": lambda: docker_archive(
        [layer(member("n" * 65_536 + "/", type=b"5"))]
    ),
    "ten thousand directories in each other": lambda: docker_archive(
        [layer("d/" * 10_000 + "x")]
    ),
    "symlinks of 64 KiB that nothing goes through": lambda: docker_archive(
        [layer(*[member(f"{n}", type=b"2", target="t" * 65_536) for n in range(500)])]
    ),
    "a layer that is listed thousands of times": lambda: listed_again(
        layer(*(f"{n}" for n in range(500))), 2000
    ),
    "a sparse file of 200,000 regions": lambda: docker_archive([layer(regions(200_000))]),
    "thousands of images that share a config of 8 MB": lambda: many_images(3000, BIG_CONFIG),
}  # fmt: skip

REFUSED = {
    "global xattrs of 1 MiB": (
        lambda: docker_archive([layer(pax(xattrs(1_000_000), b"g"), "a")]),
        "global records of 996,386 bytes, over 65,536",
    ),
    "global xattrs of 60 KiB for thousands of members": (
        lambda: docker_archive(
            [layer(pax(xattrs(60_000), b"g"), *(f"{n}" for n in range(5000)))]
        ),
        "names, link targets and records too large in total",
    ),
    "xattrs of 1 MiB for each of many members": (
        lambda: docker_archive(
            [layer(*[member("x", records=xattrs(1_000_000))] * 140)]
        ),
        "names, link targets and records too large in total",
    ),
    "thousands of xattrs for each of many members": (
        lambda: docker_archive([layer(*[member("x", records=SMALL)] * 90)]),
        "names, link targets and records too large in total",
    ),
    "thousands of names of 64 KiB": (
        lambda: docker_archive([layer(*[member("n" * 65_000)] * 2200)]),
        "names, link targets and records too large in total",
    ),
    "a path of 32,000 components": (
        lambda: docker_archive([layer("d/" * 32_000 + "x")]),
        "names, link targets and records too large in total",
    ),
    "a path of 128 KiB through a symlink": (
        lambda: docker_archive(
            [layer(f"s->{'d' * 65_000}", "s/" + "e" * 65_000)]
        ),
        "a path of 130,001 bytes, over 65,536",
    ),
    "symlinks of 64 KiB walked for each entry": (
        lambda: docker_archive(
            [layer("d/", member("s", type=b"2", target=WAYS), *(f"s/{n}/x" for n in range(3000)))]
        ),
        "symlinks too long to follow for each entry below them",
    ),
    "symlinks of 64 KiB walked for each whiteout": (
        lambda: docker_archive(
            layers(
                ["d/", member("s", type=b"2", target=WAYS)],
                [f"-s/{n}/x" for n in range(3000)],
            )
        ),
        "symlinks too long to follow for each entry below them",
    ),
    "a config of a million lists": (
        lambda: many_images(1, b"[" + b"[]," * 2_000_000 + b"[]]"),
        "more than 262,144 lists and objects",
    ),
    "parents without end": (
        lambda: legacy_archive([layer()] * 4200),
        "has more than 4,096 layers",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "why"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(make, why, tmp_path):
    code, said = run(make(), tmp_path)

    assert code == 4
    assert why in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("limit", "what"),
    [(2, "at byte 0"), (5, "at byte 0"), (6, "at byte 1,024")],
    ids=["after implied directories", "first member", "second member"],
)
def test_the_limit_of_members_names_the_first_one_over_it(tmp_path, limit, what):
    """The first layer has one member, and implies four directories."""
    image = docker_archive(layers(["a/b/c/d/e"], ["f", "g"]))

    code, said = run(image, tmp_path, "--max-members", str(limit))

    assert code == 4
    assert said.endswith(
        f"): more than {limit} members {what}; "
        "if that is right, allow more with --max-members\n"
    )


def test_members_of_a_layer_that_is_listed_again_are_counted(tmp_path):
    image = listed_again(layer(*(f"{n}" for n in range(1000))), 11)

    code, said = run(image, tmp_path, "--max-members", "10999")

    assert (code, said.count("layer 11 of 11 (l): more than 10,999 members;")) == (4, 1)
    assert run(image, tmp_path, "--max-members", "11000") == (0, "")


def test_the_memory_of_sparse_maps_is_counted():
    pieces = [(n * 1024, 512) for n in range(40)]
    tar = layer(sparse_gnu(b"x", pieces, 1 << 20, bytes(512 * 40)))

    for left, enough in ((40 * 128 - 512 + 10, True), (40 * 128 - 512, False)):
        with nullcontext() if enough else pytest.raises(flatten.FormatError):
            index(tar, Members(allowance=Allowance(left)))


def test_records_that_are_not_kept_are_counted():
    tar = layer(*[pax(b"5 a=\n" * 100) + member("x")] * 40)

    for left, enough in (
        (40 * (100 * 32 - 512), True),
        (40 * (100 * 32 - 512) - 1, False),
    ):
        with nullcontext() if enough else pytest.raises(flatten.FormatError):
            index(tar, Members(allowance=Allowance(left)))


def test_the_names_in_an_archive_are_counted(tmp_path, monkeypatch):
    (tmp_path / "image.tar").write_bytes(docker_archive([layer("a")] * 7))

    flatten.export(tmp_path / "image.tar", tmp_path / "out.tar")
    monkeypatch.setattr("flatten.sources.archive.MAX_FILES", 8)
    with pytest.raises(flatten.FormatError, match="more than 8 files around an image"):
        flatten.export(tmp_path / "image.tar", tmp_path / "out.tar")


def test_documents_are_parsed_once_and_within_a_budget(tmp_path):
    path = tmp_path / "image.tar"
    path.write_bytes(archive([("a.json", b"[1]"), ("b.json", b"[2]")]))
    pool = Pool(Limits())
    files = Archive(open_file(str(path), pool), "image.tar", pool)
    files.documents.left = 3

    assert read_json(files, "a.json", "a") == ([1], b"[1]")
    assert read_json(files, "a.json", "a") == ([1], b"[1]")
    with pytest.raises(flatten.FormatError, match="bytes of documents in total"):
        read_json(files, "b.json", "b")


def test_layouts_of_thousands_of_manifests_that_share_a_config(tmp_path):
    files = oci_files(
        [layer("a")], documents={"config": {"history": ["x" * 8_000_000]}}
    )
    index = json.loads(files["index.json"])
    (first,) = index["manifests"]
    manifest = files[f"blobs/{first['digest'].replace(':', '/')}"]
    index["manifests"] = []
    for n in range(2000):
        data = manifest.replace(
            b'"schemaVersion": 2', b'"schemaVersion": 2, "n": %d' % n
        )
        files[f"blobs/sha256/{digest(data)}"] = data
        index["manifests"].append({
            "digest": f"sha256:{digest(data)}", "size": len(data),
            "annotations": {"org.opencontainers.image.ref.name": f"app:{n}"},
        })  # fmt: skip
    files["index.json"] = json.dumps(index).encode()

    code, said = run(archive(files.items()), tmp_path)

    assert code == 2, said
    assert "holds several images" in said
    assert len(said) < 3000


@pytest.mark.parametrize("make", CHEAP.values(), ids=CHEAP)
def test_what_is_cheap(make, tmp_path):
    assert run(make(), tmp_path) == (0, "")
