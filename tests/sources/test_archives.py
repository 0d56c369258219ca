"""Archives of every age, and the choice among several images."""

import gzip
import json
from pathlib import Path

import pytest

import flatten
from builders import (
    archive,
    block,
    config,
    digest,
    docker_archive,
    hybrid_archive,
    layer,
    layers,
    legacy_archive,
    member,
    oci_files,
    podman_archive,
)
from listing import contents

TARS = layers(["a", "b"], ["-a", "c"], ["d/", "d/x"])
WANT = {"b": "0", "c": "1", "d/": "", "d/x": "2"}


@pytest.fixture
def flat(tmp_path):
    def run(data, name=None, **options):
        image, out = tmp_path / "image.tar", tmp_path / "rootfs.tar"
        image.write_bytes(data)
        flatten.export(f"{image}#{name}" if name else image, out, **options)
        return contents(out.read_bytes())

    return run


ARCHIVES = {
    "docker 1.10 to 24": docker_archive(TARS),
    "docker 25 and later, its index.json being wrong": hybrid_archive(TARS),
    "podman, through symlinks, config with a colon": podman_archive(TARS),
    "docker before 1.10": legacy_archive(TARS, tags={"app": {"1": f"{3:064x}"}}),
    "docker before 1.10, saved by id": legacy_archive(TARS),
    "without end-of-archive blocks": docker_archive(TARS, end=b""),
    "of an id, without tags": docker_archive(TARS, tags=None),
}


@pytest.mark.parametrize("data", ARCHIVES.values(), ids=ARCHIVES)
def test_every_age_gives_the_same_tree(flat, data):
    assert flat(data) == WANT


def test_every_age_gives_the_same_bytes(tmp_path):
    outs = set()
    for data in ARCHIVES.values():
        (tmp_path / "image.tar").write_bytes(data)
        flatten.export(tmp_path / "image.tar", tmp_path / "out.tar")
        outs.add((tmp_path / "out.tar").read_bytes())

    assert len(outs) == 1


LINKS = {
    "a symlink next to it": member(
        "two/layer.tar", type=b"2", target="../one/layer.tar"
    ),
    "an absolute symlink": member("two/layer.tar", type=b"2", target="/one/layer.tar"),
    "a hard link": member("two/layer.tar", type=b"1", target="one/layer.tar"),
    "a symlink to a symlink": member("l", type=b"2", target="one/layer.tar")
    + member("two/layer.tar", type=b"2", target="../l"),
}


@pytest.mark.parametrize("link", LINKS.values(), ids=LINKS)
def test_a_layer_that_is_a_link_is_applied_in_its_place(flat, link):
    tars = layers(["a"], ["-a", "b"])
    document = json.dumps(config([tars[0], tars[1], tars[0]])).encode()
    manifest = [{"Config": "c.json", "RepoTags": None,
                 "Layers": ["one/layer.tar", "x/layer.tar", "two/layer.tar"]}]  # fmt: skip
    data = archive([
        link,
        ("one/layer.tar", tars[0]),
        ("x/layer.tar", tars[1]),
        ("c.json", document),
        ("manifest.json", json.dumps(manifest).encode()),
    ])  # fmt: skip

    assert flat(data) == {"a": "0", "b": "1"}


def several():
    """Return an archive of three images that share layers."""
    files, manifest = {}, []
    for number, tags in enumerate(
        [["app:1", "app:latest"], ["localhost/tool:2"], None]
    ):
        tars = layers(["base"], [f"only{number}"])
        document = json.dumps(config(tars, number=number)).encode()
        for tar in tars:
            files[f"{digest(tar)}/layer.tar"] = tar
        files[f"{digest(document)}.json"] = document
        manifest.append({
            "Config": f"{digest(document)}.json",
            "RepoTags": tags,
            "Layers": [f"{digest(tar)}/layer.tar" for tar in tars],
        })  # fmt: skip
    files["manifest.json"] = json.dumps(manifest).encode()
    return archive(files.items()), [item["Config"][:-5] for item in manifest]


SEVERAL, IDS = several()

CHOICES = {
    "name and tag": ("app:1", 0),
    "name alone, which means latest": ("app", 0),
    "with the registry that docker leaves out": ("docker.io/library/app:1", 0),
    "without podman's registry": ("tool:2", 1),
    "with podman's registry": ("localhost/tool:2", 1),
    "id": (IDS[2], 2),
    "id with its algorithm": (f"sha256:{IDS[2]}", 2),
    "the start of an id": (IDS[1][:12], 1),
    "position": ("@2", 2),
}


@pytest.mark.parametrize(("name", "number"), CHOICES.values(), ids=CHOICES)
def test_choice(flat, name, number):
    assert flat(SEVERAL, name) == {"base": "0", f"only{number}": "1"}


NO_MATCH = {
    "no image of that name": (
        "other:1",
        flatten.SourceError,
        "no image 'other:1' in it",
    ),
    "a tag that no image has": ("app:2", flatten.SourceError, "no image 'app:2'"),
    "a position beyond the last image": (
        "@3",
        flatten.SourceError,
        "no image '@3' in it",
    ),
    "an id prefix that no image has": (
        "zzzz",
        flatten.SourceError,
        "no image 'zzzz' in it",
    ),
    "nothing selected": (
        None,
        flatten.UsageError,
        "holds several images, choose one with",
    ),
}


@pytest.mark.parametrize(
    ("name", "error", "why"), NO_MATCH.values(), ids=NO_MATCH
)  # fmt: skip
def test_an_error_lists_the_images_to_choose_from(flat, name, error, why):
    with pytest.raises(error) as caught:
        flat(SEVERAL, name)

    message = str(caught.value)
    assert why in message
    lines = [line.strip() for line in message.splitlines()[1:]]
    assert [line[: line.index(" ", 12)] for line in lines] == [
        "@0 app:1 app:latest",
        "@1 localhost/tool:2",
        "@2 (no name)",
    ]
    assert [IDS[at][:12] in line for at, line in enumerate(lines)] == [True] * 3


def test_images_without_a_name_are_listed_last_with_their_positions(flat):
    """``@N`` counts all images, also if only some of them are listed."""
    tars = layers(["a"])
    names = [None, "b:1", None, "c:1", "b:1"]
    files, manifest = {"layer.tar": tars[0]}, []
    for number, name in enumerate(names):
        document = json.dumps(config(tars, number=number)).encode()
        files[f"{digest(document)}.json"] = document
        manifest.append({
            "Config": f"{digest(document)}.json",
            "RepoTags": name and [name],
            "Layers": ["layer.tar"],
        })  # fmt: skip
    files["manifest.json"] = json.dumps(manifest).encode()
    data = archive(files.items())

    for name, positions in ((None, "13402"), ("b:1", "14")):
        with pytest.raises(flatten.UsageError) as caught:
            flat(data, name)
        lines = str(caught.value).splitlines()[1:]
        assert "".join(line.split()[0].strip("@") for line in lines) == positions


PINNED = "0123456789abcdef" * 4
PRETENDED = {
    "a tag's text": (f"app@sha256:{PINNED}", f"app:1@sha256:{PINNED}"),
    "a tag that is called so": (f"app:1@sha256:{PINNED}", f"app:1@sha256:{PINNED}"),
    "a repository that is called so": (PINNED, f"{PINNED}:latest"),
    "a repository that is called so, with its tag": (
        f"{PINNED}:latest",
        f"{PINNED}:latest",
    ),
    "a repository that is called as a sha512 digest": (
        PINNED * 2,
        f"{PINNED * 2}:latest",
    ),
    "a tag of the repository sha256": (f"sha256:{PINNED}", f"sha256:{PINNED}"),
    "a repository that is called as a short id": (PINNED[:12], f"{PINNED[:12]}:latest"),
    "a digest in capitals": (f"SHA256:{PINNED.upper()}", f"SHA256:{PINNED.upper()}"),
    "a repository in capitals": (PINNED.upper(), f"{PINNED.upper()}:latest"),
    "a digest of another algorithm": (f"sha384:{PINNED}", f"sha384:{PINNED}"),
    "a short id in capitals": (PINNED[:12].upper(), f"{PINNED[:12].upper()}:latest"),
    "no digest after the sign": ("app@", "app:1"),
}


@pytest.mark.parametrize(("asked", "tag"), PRETENDED.values(), ids=PRETENDED)
def test_a_name_never_counts_as_a_digest(flat, asked, tag):
    with pytest.raises(flatten.SourceError, match="no image"):
        flat(docker_archive(TARS, tags=[tag]), asked)


@pytest.mark.parametrize("asked", [f"{3:064x}", f"sha256:{3:064x}"])
def test_a_name_of_a_directory_never_counts_as_a_digest(flat, asked):
    with pytest.raises(flatten.SourceError, match="no image"):
        flat(legacy_archive(TARS), asked)


def test_a_digest_is_that_of_the_config(flat, tmp_path):
    data = docker_archive(TARS, tags=["app:1"])
    (tmp_path / "i.tar").write_bytes(data)
    with flatten.open_image(str(tmp_path / "i.tar")) as image:
        id_ = image.id

    for asked in (id_, f"sha256:{id_}", f"app@sha256:{id_}", id_[:12]):
        assert flat(data, asked) == WANT


def test_an_image_listed_twice_counts_once(flat):
    tars = layers(["a"])
    document = json.dumps(config(tars)).encode()
    manifest = [
        {"Config": "c.json", "RepoTags": [tag], "Layers": ["l.tar"]} for tag in "ab"
    ]
    data = archive([
        ("l.tar", tars[0]), ("c.json", document),
        ("manifest.json", json.dumps(manifest).encode()),
    ])  # fmt: skip

    assert flat(data) == {"a": "0"}


def test_an_archive_with_a_hash_sign_or_colon_in_its_name(tmp_path):
    for name in ("a#b.tar", "docker-archive:x.tar", "a:b#c:d.tar"):
        (tmp_path / name).write_bytes(SEVERAL)
        with flatten.open_image(f"{tmp_path / name}#app:1") as image:
            assert image.names == ("app:1", "app:latest")


def test_the_kind_can_be_given(tmp_path):
    (tmp_path / "x").write_bytes(docker_archive(TARS))

    with flatten.open_image(f"docker-archive:{tmp_path / 'x'}#app:1") as image:
        assert len(image.layers) == 3
        assert image.config["os"] == "linux"


# --- malformed archives


def with_manifest(manifest, *files):
    data = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
    return archive([*files, ("manifest.json", data)])


LAYER = ("l.tar", layer("a"))
CONFIG = ("c.json", json.dumps(config([layer("a")])).encode())
ONE = {"Config": "c.json", "RepoTags": ["a:1"], "Layers": ["l.tar"]}


def with_config(document):
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    return with_manifest([ONE], LAYER, ("c.json", data))


MALFORMED = {
    "manifest is not JSON": (with_manifest(b"["), "is not JSON"),
    "manifest is nested too deep": (with_manifest(b"[" * 99999), "nested too deep"),
    "manifest is an object": (with_manifest({}), "manifest: a descriptor that is not"),
    "manifest is empty": (with_manifest([]), "holds no image"),
    "manifest is too large": (with_manifest(b" " * (2**23 + 1)), "over 8,388,608"),
    "image is not an object": (with_manifest(["x"]), "image 0: not an object"),
    "Config is missing": (with_manifest([{"Layers": []}]), "Config is not a name"),
    "Config is not text": (with_manifest([{"Config": 1}]), "Config is not a name"),
    "Layers is not a list": (with_manifest([ONE | {"Layers": "l.tar"}]), "Layers is not a"),
    "Layers has a number": (with_manifest([ONE | {"Layers": [1]}]), "Layers is not a list"),
    "RepoTags is not a list": (with_manifest([ONE | {"RepoTags": "a"}]), "RepoTags is not"),
    "config is missing": (with_manifest([ONE], LAYER), "'c.json', is not in the archive"),
    "layer is missing": (with_manifest([ONE], CONFIG), "layer 1 of 1, 'l.tar', is not in"),
    "layer leaves the archive": (
        with_manifest([ONE | {"Layers": ["../../etc/passwd"]}], CONFIG),
        "leaves the root",
    ),
    "layer has a NUL in its name": (
        with_manifest([ONE | {"Layers": ["l\0.tar"]}], CONFIG), "a NUL in it",
    ),
    "layer is a circle of links": (
        with_manifest([ONE], CONFIG, member("l.tar", type=b"2", target="m"),
                      member("m", type=b"2", target="l.tar")), "a circle of links",
    ),
    "layer is a link to nothing": (
        with_manifest([ONE], CONFIG, member("l.tar", type=b"2", target="m")),
        "is not in the archive",
    ),
    "layer is a link that leaves the archive": (
        with_manifest([ONE], CONFIG, member("l.tar", type=b"2", target="../../l")),
        "leaves the root",
    ),
    "layer is a directory": (
        with_manifest([ONE], CONFIG, member("l.tar", type=b"5")), "is not in the archive",
    ),
    "config is a list": (with_config([]), "is not an object"),
    "config is not JSON": (with_config(b"\x00"), "is not JSON"),
    "rootfs is a list": (with_config({"rootfs": []}), "not a list of digests"),
    "diff_ids are numbers": (
        with_config({"rootfs": {"diff_ids": [1]}}), "not a list of digests",
    ),
    "diff_ids are no digests": (
        with_config({"rootfs": {"diff_ids": ["sha256:../../x"]}}), "not a list of digests",
    ),
    "diff_ids for another number of layers": (
        with_config(config([b"", b""])), "2 diff_ids, but the manifest lists 1",
    ),
    "no manifest, and truncated": (legacy_archive(TARS, end=b""), "truncated: no"),
    "no manifest, and a tag of an unknown layer": (
        legacy_archive(TARS, tags={"a": {"1": "5" * 64}}), "is not in the archive",
    ),
    "repositories is a list": (
        archive([("repositories", b"[]")]), "repositories: not an object",
    ),
    "repositories has a name without tags": (
        archive([("repositories", b'{"a": "1"}')]), "the tags of 'a' are not an object",
    ),
    "repositories has a tag without an id": (
        archive([("repositories", b'{"a": {"1": null}}')]), "'a' has a tag without an id",
    ),
    "repositories is empty": (archive([("repositories", b"{}")]), "holds no image"),
    "repositories has an empty id": (
        archive([("repositories", b'{"a": {"1": ""}}')]), "'' is not in the archive",
    ),
    "Config is half a character": (
        with_manifest([ONE | {"Config": "\ud800"}]), "config, ",
    ),
    "too many layers": (
        with_manifest([ONE | {"Layers": ["l.tar"] * 5000}], LAYER, CONFIG),
        "5,000 layers, over 4,096",
    ),
    "parents in a circle": (
        archive([("a/json", b'{"parent": "b"}'), ("a/layer.tar", b""),
                 ("b/json", b'{"parent": "a"}'), ("b/layer.tar", b""),
                 ("repositories", b'{"x": {"1": "a"}}')]), "go in a circle",
    ),
    "a parent that is a number": (
        archive([("a/json", b'{"parent": 1}'), ("a/layer.tar", b"")]), "that is not an id",
    ),
    "a json that is a list": (
        archive([("a/json", b"[]"), ("a/layer.tar", b"")]), "is not an object",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("data", "why"), MALFORMED.values(), ids=MALFORMED)
def test_malformed(flat, tmp_path, data, why):
    with pytest.raises(flatten.FormatError) as caught:
        flat(data)

    assert why in str(caught.value)
    assert str(tmp_path / "image.tar") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image.tar"]


FOLDER = [
    ("app/manifest.json", b"[]"),
    ("app/1/layer.tar", layer("a")),
]
UNKNOWN = {
    "an empty file": (b"", "not a container image, but an empty file"),
    "text": (b"hello\n" * 500, "not a container image, but text"),
    "a gzip file": (
        gzip.compress(b"hello\n" * 500), "not a container image, but text",
    ),
    "zeros": (bytes(10240), "not a container image, but a tar without files"),
    "zeros, then something": (
        bytes(10240) + b"x", "not a container image of a known kind",
    ),
    "EROFS": (
        bytes(1024) + b"\xe2\xe1\xf5\xe0" + bytes(3068),
        "not a container image, but an EROFS file system",
    ),
    "a tar of something else": (
        archive([("hello", b"world")]), "not a container image of a known kind",
    ),
    "one letter": (b"x", "not a container image, but text"),
    "spoilt by PowerShell's >": (
        b"\xff\xfe" + docker_archive(TARS).decode("latin-1").encode("utf-16-le"),
        "but text in UTF-16, as PowerShell's > writes it; write it with docker save -o",
    ),
    "a Git LFS pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "but a Git LFS pointer; fetch the file with git lfs pull",
    ),
    "HTML": (b"<!DOCTYPE html>\n<html>\n", "but an HTML page; the download got a page"),
    "an image in a directory of the tar": (
        archive(FOLDER),
        "but a tar whose manifest.json is in its directory 'app'; pack what is in that",
    ),
    "an OCI layout in a directory of the tar": (
        archive([(f"a/b/{name}", data) for name, data in oci_files(TARS).items()]),
        "but a tar whose oci-layout is in its directory 'a/b'",
    ),
    "a root file system": (
        archive([("./etc/os-release", b""), ("usr/bin/sh", b"")]),
        "but a root file system already",
    ),
    "an archive in a tar": (
        archive([("out/app.tar.gz", gzip.compress(docker_archive(TARS))), ("a", b"")]),
        "but a tar that contains 'out/app.tar.gz'; unpack it first",
    ),
    "a ZIP archive": (b"PK\3\4" + bytes(99), "but a ZIP archive; unpack it first"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "why"), UNKNOWN.values(), ids=UNKNOWN)
def test_a_file_that_is_not_an_image_is_described(flat, data, why):
    with pytest.raises(flatten.SourceError) as caught:
        flat(data)

    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


DIRECTORIES = {
    "an empty one": ([], "but an empty directory"),
    "one of other files": (["x", "y"], "not a container image of a known kind"),
    "one with an image in it": (
        ["b/index.json", "a/x"],
        "but a directory with an image",
    ),
    "a root file system": (["etc/passwd", "usr/bin/sh"], "but a root file system"),
}


@pytest.mark.parametrize(("names", "why"), DIRECTORIES.values(), ids=DIRECTORIES)
def test_a_directory_that_is_not_an_image_is_described(tmp_path, names, why):
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")

    with pytest.raises(flatten.SourceError, match=why):
        flatten.open_image(str(tmp_path))


def test_a_path_that_cannot_be_opened(tmp_path):
    for path in (tmp_path / "none", tmp_path, "/dev/null", "/dev/zero", "a\0b"):
        with pytest.raises(flatten.SourceError):
            flatten.open_image(str(path))


@pytest.mark.parametrize("data", ARCHIVES.values(), ids=ARCHIVES)
def test_a_truncated_archive_is_an_error_or_complete(flat, data):
    for cut in sorted({*range(0, len(data), 512), *range(100, len(data), 512)}):
        try:
            got = flat(data[:cut])
        except flatten.FlattenError:
            continue
        assert got == WANT, cut


# --- digests


def flipped(data, at):
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def test_a_layer_that_is_not_its_diff_id(flat, tmp_path):
    data = docker_archive(layers(["a"], [member("b", b"content")]))
    broken = flipped(data, data.index(b"content"))

    with pytest.raises(flatten.IntegrityError) as caught:
        flat(broken)

    assert "layer 2 of 2" in str(caught.value)
    assert str(caught.value).count("sha256:") == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image.tar"]


def test_verification_can_be_turned_off(flat):
    data = docker_archive(layers(["a"]), config_document=config([b"other"]))

    with pytest.raises(flatten.IntegrityError):
        flat(data)
    assert flat(data, verify=False) == {"a": "0"}


def test_junk_after_a_layers_end_is_part_of_its_digest(flat):
    data = docker_archive([layer("a") + b"junk" * 128])

    with pytest.raises(flatten.IntegrityError):
        flat(flipped(data, data.index(b"junk")))


def test_a_config_blob_that_is_not_its_name(flat):
    data = hybrid_archive(TARS)
    at = data.index(b'"/bin/sh"')

    with pytest.raises(flatten.IntegrityError, match=r"config: its digest is sha256:"):
        flat(flipped(data, at + 2))


def test_a_config_without_diff_ids_promises_nothing(tmp_path):
    (tmp_path / "i.tar").write_bytes(
        docker_archive(TARS, config_document={"os": "linux"})
    )

    done = flatten.export(tmp_path / "i.tar", tmp_path / "o.tar")

    assert (done.layers, done.verified) == (3, 0)


def test_indexing_skips_the_data_of_the_outer_archive(tmp_path):
    """What is read to open an image does not depend on the size of its layers."""
    counts = []
    for size in (1_000_000, 30_000_000):
        path = tmp_path / f"{size}.tar"
        path.write_bytes(docker_archive([layer(member("big", bytes(size)))] * 3))
        before = bytes_read()
        flatten.open_image(str(path)).close()
        counts.append(bytes_read() - before)

    assert 0 < counts[1] <= counts[0] + 1_000


def bytes_read():
    """Return how many bytes this process has read, as the kernel counts."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(lines[0].removeprefix("rchar: "))


def test_the_header_of_a_layer_names_file_layer_and_offset(flat, tmp_path):
    tars = [layer("a"), member("ok") + block(b"x", checksum=b"000001\0 ") + bytes(1024)]

    with pytest.raises(flatten.FormatError) as caught:
        flat(docker_archive(tars))

    assert str(caught.value).startswith(f"{tmp_path / 'image.tar'}, layer 2 of 2 (")
    assert str(caught.value).endswith(" at byte 512")
