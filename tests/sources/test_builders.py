"""Archives as builders and engines write them, each beside a hostile twin."""

import io
import json
import shutil
import subprocess
import tarfile

import pytest

import flatten
from builders import (
    TRUSTED,
    archive,
    config,
    descriptor,
    digest,
    docker_archive,
    layer,
    layers,
    legacy_archive,
    member,
    oci_files,
)
from flatten.cli import main
from listing import contents

OCI = "application/vnd.oci.image."
A, B, C = layers(["a"], ["b"], ["c"])


@pytest.fixture
def image(tmp_path):
    """Return a function that writes an archive, or the files of a directory."""

    def write(data):
        path = tmp_path / "image"
        if isinstance(data, bytes):
            path.write_bytes(data)
            return path
        for name, content in data.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)
        return path

    return write


@pytest.fixture
def flat(tmp_path, image):
    def run(data, name=None, **options):
        path, out = image(data), tmp_path / "out.tar"
        flatten.export(f"{path}#{name}" if name else path, out, **options)
        return contents(out.read_bytes())

    return run


def docker_files(images, **more):
    """Return the files of ``docker save``: (tag, layers) of each image."""
    files, manifest = dict(more), []
    for tag, tars in images:
        document = json.dumps(config(tars)).encode()
        files[f"{digest(document)}.json"] = document
        files |= {f"{digest(tar)}/layer.tar": tar for tar in tars}
        manifest.append({
            "Config": f"{digest(document)}.json", "RepoTags": [tag],
            "Layers": [f"{digest(tar)}/layer.tar" for tar in tars],
        })  # fmt: skip
    return files | {"manifest.json": json.dumps(manifest).encode()}


# --- unpacked and packed again


def test_an_unpacked_docker_archive(flat):
    files = docker_files([("app:1", [A, B]), ("tool:2", [C])])

    assert flat(files, "app:1") == {"a": "0", "b": "1"}
    assert flat({}, "tool:2") == {"c": "2"}
    with pytest.raises(flatten.UsageError, match="holds several images"):
        flat({})


def test_the_kind_of_an_unpacked_docker_archive_can_be_given(image):
    path = image(docker_files([("app:1", [A])]))

    flatten.open_image(f"docker-archive:{path}").close()


def unpacked(path, data):
    """Unpack an archive into a directory, and return that."""
    with tarfile.open(fileobj=io.BytesIO(data)) as opened:
        opened.extractall(path, **TRUSTED)
    return path


@pytest.mark.parametrize("tags", [{"app": {"1": f"{2:064x}"}}, None])
def test_an_unpacked_docker_archive_of_before_1_10(tmp_path, tags):
    data = legacy_archive([A, B], tags=tags)
    folder = unpacked(tmp_path / "image", data)
    (tmp_path / "image.tar").write_bytes(data)
    name = "#app:1" if tags else ""
    flatten.export(f"{tmp_path}/image.tar{name}", tmp_path / "want.tar")

    flatten.export(f"{folder}{name}", tmp_path / "out.tar")

    assert (tmp_path / "out.tar").read_bytes() == (tmp_path / "want.tar").read_bytes()
    with flatten.open_image(f"docker-archive:{folder}") as opened:
        assert opened.names == (("app:1",) if tags else ())


def test_layers_of_before_1_10_that_are_not_there(tmp_path):
    folder = unpacked(tmp_path / "image", legacy_archive([A, B]))
    shutil.rmtree(folder / f"{1:064x}")

    with pytest.raises(flatten.FormatError, match=f"layer '{1:064x}' is not in the ar"):
        flatten.open_image(folder)


@pytest.mark.parametrize("name", ["json", "layer.tar"])
def test_a_link_out_of_a_layer_of_before_1_10_is_refused(tmp_path, name):
    folder = unpacked(tmp_path / "image", legacy_archive([A]))
    (folder / f"{1:064x}" / name).rename(tmp_path / "secret")
    (folder / f"{1:064x}" / name).symlink_to("../../secret")

    with pytest.raises(
        flatten.FormatError, match="a symlink that leaves the directory"
    ):
        flatten.export(folder, tmp_path / "out.tar")


@pytest.mark.parametrize("which", ["the layer", "the config", "manifest.json"])
def test_a_link_out_of_an_unpacked_archive_is_refused(image, tmp_path, which):
    document = json.dumps({"os": "linux"}).encode()
    manifest = json.dumps([{"Config": "c.json", "Layers": ["l.tar"]}]).encode()
    files = {"c.json": document, "l.tar": A, "manifest.json": manifest}
    path = image(files)
    name = {"the layer": "l.tar", "the config": "c.json"}.get(which, which)
    (path / name).rename(tmp_path / "secret")
    (path / name).symlink_to("../secret")

    with pytest.raises(
        flatten.FormatError, match="a symlink that leaves the directory"
    ):
        flatten.export(path, tmp_path / "out.tar")
    assert not (tmp_path / "out.tar").exists()


@pytest.mark.parametrize("name", ["../secret", "/../secret", "a/../../secret"])
def test_a_name_out_of_an_unpacked_archive_is_refused(image, tmp_path, name):
    (tmp_path / "secret").write_bytes(A)
    manifest = json.dumps([{"Config": "c.json", "Layers": [name]}]).encode()
    path = image({"c.json": b'{"os": "linux"}', "manifest.json": manifest})

    with pytest.raises(flatten.FormatError, match="a name that leaves the root"):
        flatten.export(path, tmp_path / "out.tar")


def test_a_link_inside_an_unpacked_archive_is_followed(flat, image):
    path = image(docker_files([("app:1", [A])]))
    real = path / f"{digest(A)}/layer.tar"
    real.rename(path / "moved.tar")
    real.symlink_to("../moved.tar")

    assert flat({}) == {"a": "0"}


SPARSE = layer(member("x", b"x" * 512), member("hole", bytes(4 << 20)), "z")


@pytest.mark.parametrize("how", ["gnu", "pax"])
def test_an_archive_packed_again_with_holes(tmp_path, how):
    folder = tmp_path / "files"
    for name, data in docker_files([("app:1", [SPARSE])]).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with (folder / name).open("wb") as file:
            for at in range(0, len(data), 4096):
                if data[at : at + 4096].strip(b"\0"):
                    file.seek(at)
                    file.write(data[at : at + 4096])
            file.truncate(len(data))
    packed = tmp_path / "image.tar"
    command = ["tar", f"--format={how}", "-S", "-cf", packed, "-C", folder, "."]
    subprocess.run(command, check=True)
    (tmp_path / "plain.tar").write_bytes(docker_archive([SPARSE]))

    flatten.export(packed, tmp_path / "out.tar")
    flatten.export(tmp_path / "plain.tar", tmp_path / "plain.out")

    assert packed.stat().st_size < 1 << 20
    assert (tmp_path / "out.tar").read_bytes() == (tmp_path / "plain.out").read_bytes()


def test_a_layer_that_is_nearly_all_hole_counts_as_inflated(flat):
    """It would have to be read as zeros, for days."""
    records = {
        b"GNU.sparse.major": b"0", b"GNU.sparse.minor": b"1",
        b"GNU.sparse.name": b"l.tar", b"GNU.sparse.size": b"%d" % (1 << 39),
        b"GNU.sparse.numblocks": b"1", b"GNU.sparse.map": b"0,512",
    }  # fmt: skip
    manifest = b'[{"Config": "c.json", "Layers": ["l.tar"]}]'
    data = archive([
        member("l.tar", A[:512], records=records), ("c.json", b'{"os": "linux"}'),
        ("manifest.json", manifest),
    ])  # fmt: skip

    with pytest.raises(flatten.FormatError, match="a sparse file of 549,755,813,888"):
        flat(data)


def test_sparse_maps_that_overlap_are_refused(flat):
    records = {
        b"GNU.sparse.major": b"0", b"GNU.sparse.minor": b"1",
        b"GNU.sparse.name": b"manifest.json", b"GNU.sparse.size": b"1024",
        b"GNU.sparse.numblocks": b"2", b"GNU.sparse.map": b"0,512,256,512",
    }  # fmt: skip
    with pytest.raises(flatten.FlattenError):
        flat(archive([member("manifest.json", bytes(1024), records=records)]))


# --- names


def test_names_with_backslashes_as_docker_for_windows_wrote_them(flat):
    manifest = [{"Config": "c.json", "RepoTags": ["app:1"], "Layers": ["1\\layer.tar"]}]
    files = {
        "c.json": json.dumps(config([A])).encode(), "1/layer.tar": A,
        "manifest.json": json.dumps(manifest).encode(),
    }  # fmt: skip

    assert flat(archive(files.items())) == {"a": "0"}
    with pytest.raises(flatten.FormatError, match=r"both .* are in it"):
        flat(archive([*files.items(), ("1\\layer.tar", B)]))


def test_a_name_with_a_backslash_that_is_there_is_taken_as_it_is(flat):
    manifest = [{"Config": "c.json", "Layers": ["1\\layer.tar"]}]

    assert flat(archive([
        ("c.json", json.dumps(config([A])).encode()), ("1\\layer.tar", A),
        ("manifest.json", json.dumps(manifest).encode()),
    ])) == {"a": "0"}  # fmt: skip


def test_a_link_with_backslashes_as_docker_for_windows_wrote_it(flat):
    manifest = [{"Config": "c.json", "Layers": ["1\\layer.tar", "2\\layer.tar"]}]
    files = [
        ("c.json", json.dumps(config([A, A])).encode()), ("1/layer.tar", A),
        member("2/layer.tar", type=b"2", target="..\\1\\layer.tar"),
        ("manifest.json", json.dumps(manifest).encode()),
    ]  # fmt: skip

    assert flat(archive(files)) == {"a": "0"}
    with pytest.raises(flatten.FormatError, match="may be to either of"):
        flat(archive([*files, ("2/..\\1\\layer.tar", B)]))


def test_a_manifest_that_is_null(flat):
    with pytest.raises(flatten.FormatError, match=r"holds no image: .* is null"):
        flat(archive([("manifest.json", b"null\n")]))


# --- kaniko's links of the root

ROOT_LINKS = {
    "a hard link / to .": member("/", type=b"1", target="."),
    "a hard link . to /": member(".", type=b"1", target="/"),
    "a hard link ./ to itself": member("./", type=b"1", target="./"),
}


@pytest.mark.parametrize("link", ROOT_LINKS.values(), ids=ROOT_LINKS)
def test_a_link_of_the_root_to_itself_changes_nothing(flat, link):
    tars = layers([member(".", type=b"5", mode=0o755), "a"], [link, "b"])
    plain = layers([member(".", type=b"5", mode=0o755), "a"], ["b"])

    assert flat(docker_archive(tars)) == flat(docker_archive(plain))


@pytest.mark.parametrize(
    "root",
    [
        member("/", type=b"1", target="a"),
        member("/", type=b"2", target="."),
        member("./", type=b"1", target="a/.."),
        member(".", b"", type=b"6"),
    ],
    ids=["a hard link to a file", "a symlink", "a hard link by way of a file", "FIFO"],
)
def test_a_root_of_another_kind_is_refused(flat, root):
    data = docker_archive(layers(["a"], [root]))
    if root[157:161] == b"a/..":  # it is the root, spelled otherwise
        assert flat(data) == {"a": "0"}
        return
    with pytest.raises(flatten.FormatError, match="the root is not a directory"):
        flat(data)


# --- a broken image beside a good one


def two(edit, **more):
    files = docker_files([("x:good", [A]), ("x:bad", [B])], **more)
    edit(files, next(n for n in files if n.endswith(f"{config_name(B)}.json")))
    return archive(files.items())


def config_name(tar):
    return digest(json.dumps(config([tar])).encode())


def two_in_oci(edit):
    good, bad = oci_files([A], names=("good",)), oci_files([B], names=("bad",))
    lists = [json.loads(f.pop("index.json"))["manifests"][0] for f in (good, bad)]
    blob = f"blobs/sha256/{lists[1]['digest'][7:]}"
    edit(bad, blob, lists[1])
    index = json.dumps({"schemaVersion": 2, "manifests": lists}).encode()
    return archive((good | bad | {"index.json": index}).items())


def retyped(bad, blob, listed):
    text = bad.pop(blob)[:-1] + b', "mediaType": "application/x"}'
    bad[f"blobs/sha256/{digest(text)}"] = text
    listed |= {"digest": f"sha256:{digest(text)}", "size": len(text)}


BROKEN = {
    "docker, no config": (
        two(lambda files, bad: files.pop(bad)), "x:", "is not in the archive",
    ),
    "docker, a config that is not JSON": (
        two(lambda files, bad: files.update({bad: b"{"})), "x:", "is not JSON",
    ),
    "docker, no layer": (
        two(lambda files, _: files.pop(f"{digest(B)}/layer.tar")),
        "x:", "layer 1 of 1, ",
    ),
    "docker, two configs that differ": (
        two(lambda files, bad: files.update({f"./{bad}": b"{}"})), "x:", "the two differ",
    ),
    "OCI, no manifest": (
        two_in_oci(lambda bad, blob, _: bad.pop(blob)), "", "is not there",
    ),
    "OCI, no config": (
        two_in_oci(lambda bad, *_: bad.pop(f"blobs/sha256/{config_name(B)}")),
        "", "is not in the archive",
    ),
    "OCI, no layer": (
        two_in_oci(lambda bad, *_: bad.pop(f"blobs/sha256/{digest(B)}")),
        "", "is not there",
    ),
    "OCI, two media types": (two_in_oci(retyped), "", "two media types"),
    "OCI, a manifest that is not its digest": (
        two_in_oci(lambda bad, blob, _: bad.update({blob: b"{}"})),
        "", "its digest is",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("data", "prefix", "why"), BROKEN.values(), ids=BROKEN)
def test_a_good_image_next_to_a_broken_one_can_be_chosen(flat, data, prefix, why):
    assert flat(data, f"{prefix}good") == {"a": "0"}
    with pytest.raises(flatten.FlattenError, match=why):
        flat(data, f"{prefix}bad")


@pytest.mark.parametrize(("data", "prefix", "why"), BROKEN.values(), ids=BROKEN)
def test_a_broken_image_is_listed_with_its_reason(image, capsys, data, prefix, why):
    assert main.main(["images", str(image(data))]) == 0

    listed = capsys.readouterr()
    assert f"{prefix}good" in listed.out
    assert f"{prefix}bad" in listed.out
    assert why in listed.err


def test_a_broken_image_is_a_choice_all_the_same(flat):
    with pytest.raises(
        flatten.UsageError, match=r"(?s)several images.*@1 x:bad \(cannot be opened\)"
    ):
        flat(BROKEN["docker, no config"][0])


def test_a_manifest_that_was_not_fetched_cannot_be_chosen(flat):
    assert flat(BROKEN["OCI, no manifest"][0]) == {"a": "0"}


# --- manifest.json and index.json


def hybrid(both, only=(), *, index_names=None, os_="linux"):
    """Return docker's save of an image for two platforms, from its containerd store.

    ``both`` and ``only`` are (name, tar, architecture); the latter is in index.json only.
    """
    files, manifest, listed = {"oci-layout": b"{}"}, [], {}
    for name, tar, architecture in (*both, *only):
        document = config([tar], architecture=architecture, os=os_)
        made = oci_files([tar], documents={"config": document})
        (item,) = json.loads(made.pop("index.json"))["manifests"]
        del item["annotations"]
        files |= made
        item["platform"] = {"os": os_, "architecture": architecture}
        listed.setdefault(name, []).append(item)
        if (name, tar, architecture) in both:
            manifest.append({
                "Config": f"blobs/sha256/{digest(json.dumps(document).encode())}",
                "RepoTags": [name], "Layers": [f"blobs/sha256/{digest(tar)}"],
            })  # fmt: skip
    top = []
    for name, items in listed.items():
        data = json.dumps({"schemaVersion": 2, "manifests": items}).encode()
        files[f"blobs/sha256/{digest(data)}"] = data
        called = (index_names or {}).get(name, f"docker.io/library/{name}")
        annotations = {
            "io.containerd.image.name": called,
            "org.opencontainers.image.ref.name": name.partition(":")[2],
        }
        media_type = f"{OCI}index.v1+json"
        top.append(descriptor(data, media_type, annotations=annotations))
    files["index.json"] = json.dumps({"manifests": top}).encode()
    files["manifest.json"] = json.dumps(manifest).encode()
    return files


AMD, ARM = ("app:1", A, "amd64"), ("app:1", B, "arm64")


@pytest.mark.parametrize("kind", ["archive", "directory"])
@pytest.mark.parametrize("name", [None, "app:1", "docker.io/library/app:1"])
def test_platforms_that_only_index_json_has(flat, kind, name):
    files = hybrid([AMD], [ARM])
    data = files if kind == "directory" else archive(files.items())

    assert flat(data, name, platform="linux/arm64") == {"b": "1"}
    assert flat(data, name, platform="linux/amd64") == {"a": "0"}


def test_names_that_only_index_json_has(flat):
    data = archive(hybrid([AMD], [("tool:2", B, "amd64")]).items())

    assert flat(data, "tool:2") == {"b": "1"}
    assert flat(data, "docker.io/library/tool:2") == {"b": "1"}
    assert flat(data, "app:1") == {"a": "0"}


def test_an_image_in_both_documents_is_one(image):
    path = image(archive(hybrid([AMD]).items()))

    with flatten.open_image(str(path)) as opened:
        assert opened.names == ("app:1",)


LOCAL = ("localhost/app:1", B, "amd64")
LOCAL_NAME = {"localhost/app:1": "localhost/app:1"}


def test_a_name_on_this_machine_is_not_the_same_name_on_docker_hub(flat):
    data = archive(hybrid([AMD, LOCAL], index_names=LOCAL_NAME).items())

    assert flat(data, "app:1") == flat(data, "docker.io/library/app:1") == {"a": "0"}
    assert flat(data, "localhost/app:1") == {"b": "1"}


def test_a_short_name_that_may_be_on_this_machine_or_on_docker_hub(flat):
    """Podman takes the first, which manifest.json has, docker the second."""
    data = archive(hybrid([LOCAL], [AMD], index_names=LOCAL_NAME).items())

    with pytest.raises(flatten.UsageError, match="'app:1' fits several"):
        flat(data, "app:1")
    assert flat(data, "docker.io/library/app:1") == {"a": "0"}
    assert flat(data, "localhost/app:1") == {"b": "1"}


def test_manifest_json_and_index_json_differ(flat):
    """Docker's overlay2 store takes A, its containerd store and OCI tools take B."""
    data = hybrid([AMD]) | {"index.json": hybrid([("app:1", B, "amd64")])["index.json"]}
    data |= {n: d for n, d in hybrid([("app:1", B, "amd64")]).items() if "blobs" in n}

    with pytest.raises(
        flatten.FormatError, match="different images of the name 'app:1'"
    ):
        flat(archive(data.items()), "app:1")


def test_index_json_has_two_images_of_one_platform(flat):
    data = archive(hybrid([AMD], [("app:1", B, "amd64")]).items())

    with pytest.raises(
        flatten.FormatError, match="different images of the name 'app:1'"
    ):
        flat(data)


@pytest.mark.parametrize("broken", [[], None], ids=["no layers", "layers: null"])
@pytest.mark.parametrize("kind", ["archive", "directory"])
def test_docker_25_0_0_whose_oci_manifest_has_no_layers(flat, kind, broken):
    files = oci_files([A], documents={"manifest": {"layers": broken}})
    manifest = [{
        "Config": f"blobs/sha256/{config_name(A)}", "RepoTags": ["app:1"],
        "Layers": [f"blobs/sha256/{digest(A)}"],
    }]  # fmt: skip
    files["manifest.json"] = json.dumps(manifest).encode()

    assert flat(files if kind == "directory" else archive(files.items())) == {"a": "0"}


@pytest.mark.parametrize("index", [b"[]", b"{}", b'{"manifests": {}}', b"{"])
def test_an_invalid_index_json_is_refused(flat, index):
    """OCI tools fail on it, or find what flatten does not."""
    data = archive([*docker_files([("app:1", [A])]).items(), ("index.json", index)])

    with pytest.raises(flatten.FormatError, match=r"index\.json|index, "):
        flat(data)


@pytest.mark.parametrize("index", [b'{"manifests": []}', b'{"manifests": null}'])
def test_an_index_json_without_images_adds_none(flat, index):
    data = archive([*docker_files([("app:1", [A])]).items(), ("index.json", index)])

    assert flat(data) == {"a": "0"}


def test_an_image_of_index_json_that_tools_read_otherwise_is_refused(flat):
    """Go takes the second config, docker's overlay2 store takes that of manifest.json."""
    files = hybrid([AMD]) | oci_files([B])
    index = json.loads(hybrid([AMD])["index.json"])
    other = oci_files([B])
    (listed,) = json.loads(other["index.json"])["manifests"]
    text = other[f"blobs/sha256/{listed['digest'][7:]}"].decode()
    text = (text[:-1] + ', "Config": {}}').encode()
    files[f"blobs/sha256/{digest(text)}"] = text
    index["manifests"] = [
        index["manifests"][0] | {"digest": f"sha256:{digest(text)}", "size": len(text)}
    ]
    del index["manifests"][0]["mediaType"]
    files["index.json"] = json.dumps(index).encode()

    with pytest.raises(flatten.FormatError, match="it has 'config' twice"):
        flat(archive(files.items()), "app:1")


def test_artifacts_next_to_the_images_of_manifest_json(flat):
    kind = "application/spdx+json"
    body = {"artifactType": kind, "config": descriptor(b"{}", kind), "layers": []}
    data = json.dumps(body).encode()
    index = {"manifests": [descriptor(data, f"{OCI}manifest.v1+json")]}
    files = docker_files([("app:1", [A])]) | {f"blobs/sha256/{digest(data)}": data}

    index_json = ("index.json", json.dumps(index).encode())
    assert flat(archive([*files.items(), index_json])) == {"a": "0"}


# --- external layers


def test_an_external_layer_of_docker_for_windows(flat):
    tars = [A, B]
    files = docker_files([("app:1", tars)])
    manifest = json.loads(files["manifest.json"])
    del files[manifest[0]["Layers"][0]]
    url = "https://mcr.microsoft.com/v2/windows/blobs/x"
    manifest[0]["LayerSources"] = {f"sha256:{digest(A)}": {"size": 9, "urls": [url]}}
    files["manifest.json"] = json.dumps(manifest).encode()

    with pytest.raises(
        flatten.FormatError,
        match=rf"layer 1 of 2: .* is not part of the image, .* from '{url}'",
    ):
        flat(archive(files.items()))


# --- an image without layers


def test_the_list_of_an_image_without_layers_verifies(image, tmp_path, capsys):
    path, out, listed = image(docker_archive([])), tmp_path / "out.tar", tmp_path / "l"
    flatten.export(path, out, list_out=listed)

    assert listed.read_bytes() == b""
    assert main.main(["verify", str(out), str(listed)]) == 0
    (tmp_path / "full.tar").write_bytes(A)
    assert main.main(["verify", str(tmp_path / "full.tar"), str(listed)]) == 5
    assert "extra: a" in capsys.readouterr().out
