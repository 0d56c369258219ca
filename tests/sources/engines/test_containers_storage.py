"""The store of podman, buildah and CRI-O: images, containers, owners, damage."""

import io
import json
import os
import pwd
import re
import shutil
import stat
import subprocess
import tarfile
from base64 import b64encode
from contextlib import suppress

import pytest

import flatten
from builders import config, digest, in_capitals, layer, layers, member
from fixtures import needs_fixtures, restored_root, right, unpacked_save
from flatten.sources.engines.user_namespace import granted
from listing import contents, listing
from stores import TREES, append, layer_ids, podman_image

TARS = layers(["a", member("b", b"b" * 700)], ["-a", "c"])
WANT = {"b": "b" * 700, "c": "1"}

needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can own and make it"
)


def change(path, edit):
    """Rewrite the records of a list."""
    records = json.loads(path.read_text())
    path.write_text(json.dumps([edit(record) for record in records]))


@pytest.fixture
def store(tmp_path):
    return tmp_path / "storage"


@pytest.fixture
def flat(tmp_path):
    def run(reference, **options):
        flatten.export(str(reference), tmp_path / "out.tar", **options)
        return contents(tmp_path / "out.tar")

    return run


@pytest.mark.parametrize("driver", TREES)
def test_an_image_by_its_name(flat, store, driver):
    image_id = podman_image(store, TARS, driver=driver)

    for name in ("", "#app:1", "#docker.io/library/app:1", f"#{image_id[:9]}"):
        assert flat(f"containers-storage:{store}{name}") == WANT
    assert flat(store) == flat(store.parent) == WANT
    assert flat(f"{store}#app@sha256:{digest(b'manifest')}") == WANT


def test_names_without_a_registry_are_of_localhost(flat, store):
    podman_image(store, TARS, ["localhost/fx/app:latest", "quay.io/x/app:2"])

    for name in ("fx/app", "fx/app:latest", "localhost/fx/app", "quay.io/x/app:2"):
        assert flat(f"{store}#{name}") == WANT


def test_two_drivers_in_one_root(flat, store):
    podman_image(store, TARS)
    podman_image(store, layers(["x"]), driver="vfs")

    assert flat(store, store="overlay") == WANT
    assert flat(store, store="vfs") == {"x": "0"}
    with pytest.raises(
        flatten.UsageError, match=r"(?s)--driver .* in overlay\n.* in vfs$"
    ):
        flat(store)


def test_layers_that_are_listed_as_volatile(flat, store):
    podman_image(store, TARS)
    lists = store / "overlay-layers"
    base, top = json.loads((lists / "layers.json").read_text())
    (lists / "layers.json").write_text(json.dumps([base]))
    (lists / "volatile-layers.json").write_text(json.dumps([top]))

    assert flat(store) == WANT


def test_an_image_without_layers(flat, store):
    podman_image(store, [])

    assert flat(store) == {}


def test_locations_of_layers(store):
    podman_image(store, TARS)
    ids = layer_ids(TARS)

    with flatten.open_image(str(store)) as image:
        got = [layer.place for layer in image.layers]

    assert [place.cache_id for place in got] == ids
    assert [place.directory for place in got] == [
        f"{store}/overlay/{i}/diff" for i in ids
    ]
    assert [place.size for place in got] == [len(tar) for tar in TARS]


def no_config(store, image_id):
    (config_,) = (store / "overlay-images" / image_id).glob("=*")
    config_.unlink()


def other_config(store, image_id):
    (config_,) = (store / "overlay-images" / image_id).glob("=*")
    config_.write_text("{}")


def no_layer(store, _id):
    lists = store / "overlay-layers" / "layers.json"
    change(lists, lambda r: r | {"parent": "0" * 64})


def circle(store, _id):
    change(store / "overlay-layers" / "layers.json", lambda r: r | {"parent": r["id"]})


def path_for_a_parent(store, _id):
    change(
        store / "overlay-layers" / "layers.json", lambda r: r | {"parent": "../../etc"}
    )


def path_for_a_layer(store, _id):
    change(store / "overlay-images" / "images.json", lambda r: r | {"layer": "../../x"})


def path_for_an_image(store, _id):
    change(store / "overlay-images" / "images.json", lambda r: r | {"id": "../../../x"})


def layer_of_another_kind(store, _id):
    change(store / "overlay-images" / "images.json", lambda r: r | {"layer": 5})


def names_of_another_kind(store, _id):
    change(store / "overlay-images" / "images.json", lambda r: r | {"names": "x"})


def one_layer_too_many(store, _id):
    change(
        store / "overlay-images" / "images.json",
        lambda r: r | {"layer": layer_ids(TARS)[0]},
    )


def list_of_platforms(store, image_id):
    manifest = store / "overlay-images" / image_id / "manifest"
    manifest.write_text('{"manifests": []}')
    change(
        store / "overlay-images" / "images.json",
        lambda r: r | {"layer": "", "big-data-names": ["manifest"]},
    )


def no_list(store, _id):
    (store / "overlay-layers" / "layers.json").write_text('{"a": 1}')


def no_json(store, _id):
    (store / "overlay-images" / "images.json").write_text("[")


def no_tree(store, _id):
    tree = store / "overlay" / layer_ids(TARS)[1] / "diff"
    (tree / "c").unlink()
    (tree / ".wh.a").unlink()
    tree.rmdir()


def no_content(store, _id):
    (store / "overlay" / layer_ids(TARS)[0] / "diff" / "b").unlink()


def tree_outside(store, _id):
    tree = store / "overlay" / layer_ids(TARS)[0] / "diff"
    tree.rename(store.parent / "outside")
    tree.symlink_to(store.parent / "outside")


def without_table(store, _id):
    tables(store)[0].unlink()


def without_record(store, _id):
    tables(store)
    (store / "overlay-layers" / f"{layer_ids(TARS)[0]}.tar-split.gz").unlink()


def table(entries):
    """Return a change that keeps a layer in composefs, with another table."""

    def change_(store, _id):
        tables(store)[0].write_text(json.dumps({"version": 1, "entries": entries}))

    return change_


def no_object(store, _id):
    tables(store)
    content = digest(b"b" * 700)
    (
        store / "overlay" / layer_ids(TARS)[0] / "diff" / f"{content[:2]}/{content[2:]}"
    ).unlink()


def other_object(store, _id):
    tables(store)
    content = digest(b"b" * 700)
    (
        store / "overlay" / layer_ids(TARS)[0] / "diff" / f"{content[:2]}/{content[2:]}"
    ).write_bytes(b"x" * 700)


TABLE = f"={b64encode(b'zstd-chunked-manifest').decode()}"


def tables(store):
    """Keep the layers in composefs; return their tables of contents."""
    written = []
    for layer_id, tar in zip(layer_ids(TARS), TARS, strict=True):
        tree = store / "overlay" / layer_id / "diff"
        (tree.parent / "composefs-data").mkdir()
        shutil.rmtree(tree)
        entries = []
        with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
            for info in opened:
                data = opened.extractfile(info).read()
                entries.append({"type": "reg", "name": f"./{info.name}"})
                if data:
                    content = digest(data)
                    entries[-1]["digest"] = f"sha256:{content}"
                    entries.append({"type": "chunk", "name": f"./{info.name}"})
                    place = tree / content[:2] / content[2:]
                    place.parent.mkdir(parents=True, exist_ok=True)
                    place.write_bytes(data)
        written.append(store / "overlay-layers" / layer_id / TABLE)
        written[-1].parent.mkdir()
        written[-1].write_text(json.dumps({"version": 1, "entries": entries}))
    return written


def test_layers_that_composefs_keeps(flat, store):
    podman_image(store, TARS)
    tables(store)

    assert flat(store) == WANT
    assert flat(store, verify=True) == WANT


@needs_root
@pytest.mark.parametrize("attribute", ["metacopy", "redirect"])
def test_a_container_whose_image_composefs_keeps(flat, store, attribute):
    podman_image(store, TARS)
    tree = run(store)
    tables(store)
    (tree / "new").write_text("own")
    os.mknod(tree / "c", 0o600 | stat.S_IFCHR, 0)
    os.chmod(tree, 0o755)
    want = {"./": "", "b": "b" * 700, "new": "own"}

    assert flat(f"{store}#container:box") == want
    (tree / "moved").write_bytes(bytes(700))
    os.setxattr(tree / "moved", f"trusted.overlay.{attribute}", b"/b")
    with pytest.raises(flatten.FormatError) as caught:
        flat(f"{store}#container:box", force=True)
    assert "'moved' was moved, or only its metadata was changed" in str(caught.value)
    assert "but composefs keeps that, with files named by digest" in str(caught.value)


BROKEN = {
    "a missing config": (no_config, flatten.FormatError, "is missing"),
    "another config": (other_config, flatten.IntegrityError, "its digest is"),
    "a layer that is in no list": (no_layer, flatten.FormatError, "additionalimagestores or imagestore"),
    "a circular chain of layers": (circle, flatten.FormatError, "chain of parents is circular"),
    "a parent that is a path": (path_for_a_parent, flatten.FormatError, "is not an id"),
    "a layer that is a path": (path_for_a_layer, flatten.FormatError, "is not an id"),
    "an image that is a path": (path_for_an_image, flatten.FormatError, "is not an id"),
    "a layer that is a number": (
        layer_of_another_kind, flatten.FormatError, "is not an id",
    ),
    "names that are a string": (names_of_another_kind, flatten.FormatError, "is not a list of names"),
    "a config with more layers": (
        one_layer_too_many, flatten.FormatError, "2 diff_ids, but",
    ),
    "a list of platforms without images": (list_of_platforms, flatten.FormatError, "none of which"),
    "a list of layers that is an object": (no_list, flatten.FormatError, "not a list of objects"),
    "a list of images that is not JSON": (no_json, flatten.FormatError, "is not JSON"),
    "a missing directory": (no_tree, flatten.FormatError, "/diff' is missing"),
    "a missing file": (no_content, flatten.FormatError, "/diff/b' is not there"),
    "a directory that is a symlink out of the root": (
        tree_outside, flatten.FormatError, "/diff' is missing",
    ),
    "composefs without a table of contents": (
        without_table, flatten.FormatError, f"{TABLE}', which has their names, is missing",
    ),
    "composefs without a record": (
        without_record, flatten.FormatError, "tar-split.gz', which has their names, is missing",
    ),
    "composefs without a content": (
        no_object, flatten.FormatError, f"diff/{digest(b'b' * 700)[:2]}/{digest(b'b' * 700)[2:]}' is not there",
    ),
    "composefs with another content": (
        other_object, flatten.IntegrityError, "digest mismatch",
    ),
    "a table of contents that is no list": (
        table({}), flatten.FormatError, '"entries" is not a list of objects',
    ),
    "a table of contents without a file": (
        table([]), flatten.FormatError, "no digest of the content of 'a' is kept",
    ),
    "a table of contents with a path for a digest": (
        table([{"name": "a", "digest": "sha256:../../../etc/passwd"}]),
        flatten.FormatError, "'sha256:../../../etc/passwd' is not a sha256 digest",
    ),
    "a table of contents whose names leave the layer": (
        table([{"name": "../a", "digest": f"sha256:{digest(b'0')}"}]),
        flatten.FormatError, "zstd-chunked-manifest: '../a' is",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change_", "error", "why"), BROKEN.values(), ids=BROKEN)
def test_broken(flat, store, change_, error, why):
    image_id = podman_image(store, TARS)
    change_(store, image_id)

    with pytest.raises(error) as caught:
        flat(store)

    assert why in str(caught.value)
    assert str(store) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_broken_image_does_not_affect_others(flat, store):
    no_config(store, podman_image(store, TARS, ["broken:1"]))
    podman_image(store, layers(["x"]), ["app:1"])

    assert flat(f"{store}#app:1") == {"x": "0"}
    with pytest.raises(flatten.FormatError):
        flat(f"{store}#broken:1")


def test_an_edited_file_is_named(flat, store):
    podman_image(store, TARS)
    (store / "overlay" / layer_ids(TARS)[0] / "diff" / "b").write_bytes(b"x" * 700)

    with pytest.raises(flatten.IntegrityError, match=r"layer 1 of 2 .*/diff/b"):
        flat(store)


# --- lists of images for several platforms


def list_image(store, listed, *, name="localhost/list:1", text=None, **record):
    """Add a list of images by manifest digest, and return its id."""
    manifests = [
        {"digest": f"sha256:{digest_}", "size": 1, "platform": platform}
        for digest_, platform in listed
    ]
    data = json.dumps({"manifests": manifests}) if text is None else text
    id_ = digest(data.encode())
    (store / "overlay-images" / id_).mkdir()
    (store / "overlay-images" / id_ / "manifest").write_text(data)
    append(
        store / "overlay-images" / "images.json",
        {"id": id_, "names": [name], "digest": f"sha256:{digest(b'list')}",
         "big-data-names": ["manifest", "instances.json"], **record},
    )  # fmt: skip
    return id_


AMD64 = {"os": "linux", "architecture": "amd64"}
ARM64 = {"os": "linux", "architecture": "arm64"}


@pytest.fixture
def platforms(store):
    """Return the id of a list of two images, one of which has a name of its own."""
    podman_image(
        store, layers(["amd"]), ["localhost/own:1"],
        digest=f"sha256:{digest(b'amd')}",
    )  # fmt: skip
    document = config(layers(["arm"])) | {"architecture": "arm64"}
    podman_image(
        store, layers(["arm"]), [], document=document, digest=f"sha256:{digest(b'arm')}"
    )
    return list_image(
        store,
        [(digest(b"amd"), AMD64), (digest(b"arm"), ARM64), (digest(b"pull"), None)],
    )


@pytest.mark.parametrize("by", ["list:1", "localhost/list:1", "its id", "its digest"])
@pytest.mark.parametrize("platform", ["linux/amd64", "linux/arm64"])
def test_a_list_chooses_by_platform(flat, store, platforms, by, platform):
    name = {"its id": platforms, "its digest": digest(b"list")}.get(by, by)

    assert flat(f"{store}#{name}", platform=platform) == {platform[6:9]: "0"}


@pytest.mark.usefixtures("platforms")
def test_names_of_a_list_are_those_of_its_images(store):
    with flatten.open_image(f"{store}#own:1") as image:
        assert image.names == ("localhost/own:1", "localhost/list:1")
    with pytest.raises(
        flatten.SourceError, match=r"no image for linux/s390x; it has\s+@0"
    ):
        flatten.open_image(f"{store}#list:1", platform="linux/s390x")


def test_keys_of_documents_match_in_any_case(flat, store):
    document = json.loads(in_capitals(json.dumps(config(TARS))))
    podman_image(store, TARS, document=document)
    (run(store) / "new").write_text("own")
    listed = list_image(store, [(digest(b"manifest"), AMD64), (digest(b"no"), ARM64)])
    manifest = store / "overlay-images" / listed / "manifest"
    for path in (manifest, *store.glob("overlay-*/*.json")):
        path.write_text(in_capitals(path.read_text()))

    assert flat(f"{store}#list:1", platform="linux/amd64") == WANT
    assert flat(f"{store}#container:box")["new"] == "own"


def test_keys_of_the_metadata_of_a_container_match_in_any_case(flat, store):
    podman_image(store, TARS)
    run(store)
    path = store / "overlay-containers" / "containers.json"
    change(path, lambda r: r | {"image": "", "metadata": '{"Image-Id": ""}'})

    with pytest.raises(flatten.FormatError, match="made with --rootfs"):
        flat(f"{store}#container:box")


def test_a_key_that_is_there_twice_is_refused(flat, store):
    podman_image(store, TARS)
    path = store / "overlay-layers" / "layers.json"
    path.write_text(path.read_text().replace('"parent"', '"Parent": "", "parent"'))

    with pytest.raises(flatten.FormatError, match="it has 'parent' twice"):
        flat(store)


ODD_LISTS = {
    "no list": ('{"manifests": 5}', "not a list of objects"),
    "a list of texts": ('{"manifests": ["x"]}', "not a list of objects"),
    "not an object": ("[]", "not an object"),
    "not JSON": ("{", "is not JSON"),
    "no digests": ('{"manifests": [{}, {"digest": 5}]}', "none of which is here"),
    "itself": (
        json.dumps({"manifests": [{"digest": f"sha256:{digest(b'list')}"}]}),
        "none of which is here",
    ),
    "a path": ('{"manifests": [{"digest": "../../x"}]}', "none of which is here"),
}


@pytest.mark.parametrize(("text", "why"), ODD_LISTS.values(), ids=ODD_LISTS)
def test_an_invalid_list_does_not_affect_images(flat, store, text, why):
    podman_image(store, TARS, ["app:1"])
    list_image(store, [], text=text)

    with pytest.raises(flatten.FormatError, match=re.escape(why)):
        flat(f"{store}#list:1")
    assert flat(f"{store}#app:1") == WANT


# --- containers


def run(store, name="box", *, driver="overlay", **record):
    """Add a container of the store's one image, and return its own tree."""
    (image,) = json.loads((store / f"{driver}-images" / "images.json").read_text())
    own = digest(name.encode())
    (store / f"{driver}-containers").mkdir(exist_ok=True)
    append(
        store / f"{driver}-containers" / "containers.json",
        {"id": digest(b"c" + name.encode()), "names": [name], "image": image["id"],
         "layer": own},
    )  # fmt: skip
    append(
        store / f"{driver}-layers" / "layers.json",
        {"id": own, "parent": image["layer"], **record},
    )
    tree = store / TREES[driver].format(own)
    tree.mkdir(parents=True)
    return tree


@needs_root
def test_a_container_is_its_image_and_its_changes(flat, store):
    podman_image(store, TARS)
    tree = run(store)
    (tree / "new").write_text("new")
    os.mknod(tree / "c", 0o600 | stat.S_IFCHR, 0)

    want = {"b": "b" * 700, "new": "new"}
    for name in ("box", digest(b"cbox"), digest(b"cbox")[:8]):
        got = flat(f"{store}#container:{name}")
        assert {path: got[path] for path in got if path != "./"} == want
    assert flat(store) == WANT
    with flatten.open_image(f"{store}#container:box") as image:
        assert image.config["os"] == "linux"


@needs_root
def test_a_container_of_a_full_tree(flat, store):
    podman_image(store, TARS, driver="vfs")
    tree = run(store, driver="vfs")
    (tree / "b").write_text("changed")

    got = flat(f"{store}#container:box")
    assert got["b"] == "changed"
    assert "c" not in got


LINKED = layer(member("m", b"same"), "n=m", member("o", b"same"))
LINKS = {
    "a third name": ("ln m c", {"c": "cmn", "m": "cmn", "n": "cmn", "o": "o"}),
    "a name of a file whose first name is gone": (
        "rm m; ln n c", {"c": "cn", "n": "cn", "o": "o"},
    ),
    "a name moved away": ("mv m z", {"n": "nz", "o": "o", "z": "nz"}),
    "a name that became a copy": (
        "cp -p n t; mv t n", {"m": "m", "n": "n", "o": "o"},
    ),
    "a copy that became a name": (
        "ln -f m o", {"m": "mno", "n": "mno", "o": "mno"},
    ),
    "a copy that became a new name": ("ln -f o n; ln m c", {
        "c": "cm", "m": "cm", "n": "no", "o": "no",
    }),
}  # fmt: skip


@needs_root
@pytest.mark.parametrize(("command", "want"), LINKS.values(), ids=LINKS)
def test_hard_links_of_a_container_of_a_full_tree(store, tmp_path, command, want):
    """Where attributes and contents are equal, too."""
    podman_image(store, [LINKED], driver="vfs")
    tree, base = run(store, driver="vfs"), store / "vfs/dir" / layer_ids([LINKED])[0]
    subprocess.run(["cp", "-a", f"{base}/.", tree], check=True)
    subprocess.run(command, shell=True, cwd=tree, check=True)

    flatten.export(f"{store}#container:box", tmp_path / "out.tar")

    with tarfile.open(tmp_path / "out.tar") as opened:
        files = {
            info.name: info.linkname or info.name for info in opened if info.name != "."
        }
    names = {
        first: "".join(sorted(name for name in files if files[name] == first))
        for first in files.values()
    }
    assert {name: names[first] for name, first in files.items()} == want


@needs_root
@pytest.mark.parametrize(
    "command",
    ["mv one two", "cp -p one two", "ln -f one two", "rm two; mv d/three two"],
)
def test_a_file_replaced_by_one_of_the_same_size_and_mtime(store, tmp_path, command):
    """As in a reproducible image, where all mtimes are equal."""
    words = [member(name, name[-3:].encode()) for name in ("one", "two", "d/three")]
    podman_image(store, [layer("d/", *words)], driver="vfs")
    tree, (base,) = run(store, driver="vfs"), (store / "vfs/dir").glob("*/one")
    subprocess.run(["cp", "-a", f"{base.parent}/.", tree], check=True)
    subprocess.run(command, shell=True, cwd=tree, check=True)
    want = {
        path.relative_to(tree).as_posix(): path.read_text()
        for path in tree.rglob("*") if path.is_file()
    }  # fmt: skip

    flatten.export(f"{store}#container:box", tmp_path / "out.tar")

    rows = contents(tmp_path / "out.tar")
    for row in listing(tmp_path / "out.tar"):
        if row["type"] == "hardlink":
            rows[row["path"]] = rows[row["linkname"]]
    assert {path: rows[path] for path in rows if not path.endswith("/")} == want


@needs_root
def test_hard_links_that_only_the_disk_has(store, tmp_path):
    """The tar of a naive diff has a new link to an unchanged file as a file."""
    tars = [LINKED, layer(member("p", b"same"))]
    podman_image(store, tars, driver="vfs")
    tree, base = run(store, driver="vfs"), store / "vfs/dir" / layer_ids(tars)[1]
    (base / "p").unlink()
    os.link(base / "m", base / "p")
    subprocess.run(["cp", "-a", f"{base}/.", tree], check=True)
    os.link(tree / "p", tree / "q")

    flatten.export(f"{store}#container:box", tmp_path / "out.tar")

    with tarfile.open(tmp_path / "out.tar") as opened:
        links = {info.name: info.linkname for info in opened if info.name != "."}
    assert links == {"m": "", "n": "m", "o": "", "p": "m", "q": "m"}


@needs_root
def test_a_container_on_a_copy_of_its_images_top_layer(flat, store):
    """Podman makes it for a user namespace; its directory may be empty."""
    podman_image(store, TARS)
    copy = "c" * 64
    lists = store / "overlay-layers"
    top = json.loads((lists / "layers.json").read_text())[1]
    append(lists / "layers.json", top | {"id": copy})
    (lists / f"{copy}.tar-split.gz").write_bytes(
        (lists / f"{top['id']}.tar-split.gz").read_bytes()
    )
    (store / "overlay" / copy / "diff").mkdir(parents=True)
    tree = run(store)
    change(
        lists / "layers.json",
        lambda r: r | ({"parent": copy} if r["id"] == digest(b"box") else {}),
    )
    (tree / "new").write_text("new")

    got = flat(f"{store}#container:box")
    assert {path: got[path] for path in got if path != "./"} == WANT | {"new": "new"}


def test_no_such_container(flat, store):
    podman_image(store, TARS)

    with pytest.raises(flatten.FormatError, match="holds no"):
        flat(f"{store}#container:box")
    run(store)
    with pytest.raises(flatten.SourceError, match="no image 'container:x' in it"):
        flat(f"{store}#container:x")


def test_containers_that_are_in_another_list(store):
    podman_image(store, TARS)

    with pytest.raises(flatten.FormatError, match=r"transient_store .* runroot"):
        flatten.open_image(f"{store}#container:box")


def metadata(**values):
    return json.dumps({"image-name": "", "name": "box", **values})


@needs_root
def test_a_container_made_with_rootfs_has_no_files_in_the_store(flat, store):
    podman_image(store, TARS)
    run(store)
    path = store / "overlay-containers" / "containers.json"
    change(path, lambda r: r | {"image": "", "metadata": metadata(**{"image-id": ""})})

    with pytest.raises(flatten.FormatError, match="container box: made with --rootfs"):
        flat(f"{store}#container:box")


@needs_root
@pytest.mark.parametrize(
    "data", ["", "{", "[]", "5", None, 7, metadata(), metadata(**{"image-id": None})]
)
def test_a_container_of_buildah_from_scratch_has_no_image(flat, store, data):
    podman_image(store, TARS)
    tree = run(store)
    (tree / "made").write_text("here")
    change(
        store / "overlay-containers" / "containers.json",
        lambda r: r | {"image": "", "metadata": data},
    )
    change(
        store / "overlay-layers" / "layers.json",
        lambda r: r | ({"parent": ""} if r["id"] == digest(b"box") else {}),
    )

    assert flat(f"{store}#container:box") == {"./": "", "made": "here"}


def test_a_root_that_has_only_the_layers_of_containers(flat, store):
    """With imagestore in storage.conf, the images are in another root."""
    podman_image(store, TARS)
    run(store)
    for path in (store / "overlay-images").glob("images.json"):
        path.unlink()
    _, top, own = json.loads((store / "overlay-layers/layers.json").read_text())
    (store / "overlay-layers/layers.json").write_text(json.dumps([own]))

    with pytest.raises(flatten.FormatError) as caught:
        flat(f"{store}#container:box")

    assert f"layer {top['id']} is in no list of overlay-layers" in str(caught.value)
    assert "imagestore in storage.conf" in str(caught.value)
    with pytest.raises(flatten.FormatError, match="holds no image"):
        flat(store)


USER = 61_001  # nobody on this machine, so that /etc/subuid grants nothing


def owners(path):
    with tarfile.open(path) as opened:
        return {info.name: (info.uid, info.gid) for info in opened if info.name != "."}


def give(store, start):
    """Give a store to a user, whose ids from 1 on begin at ``start``."""
    for path in [store, *store.rglob("*")]:
        status = path.lstat()
        os.chown(
            path,
            *(n - 1 + start if n else USER for n in (status.st_uid, status.st_gid)),
            follow_symlinks=False,
        )


NAMESPACES = {
    "ids that layers show": ([("f", 5, 6)], {}, [("new", 7, 8)], {"new": (7, 8)}),
    "ids of one kind each in two layers": (
        [("f", 5, 0), ("g", 0, 6)], {}, [("new", 7, 8)], {"new": (7, 8)},
    ),
    "the user's own are root's": ([("f", 5, 6)], {}, [("new", 0, 0)], {"new": (0, 0)}),
    "a namespace inside, as with keep-id": (
        [("f", 5, 6)],
        {key: [{"container_id": 0, "host_id": 1, "size": 1000},
               {"container_id": 1000, "host_id": 0, "size": 1}]
         for key in ("uidmap", "gidmap")},
        [("new", 0, 1), ("mine", 7, 8), ("out", 5000, 5000)],
        {"new": (1000, 0), "mine": (6, 7), "out": (65534, 65534)},
    ),
}  # fmt: skip


@needs_root
@pytest.mark.parametrize(
    ("shown", "maps", "files", "want"), NAMESPACES.values(), ids=NAMESPACES
)
def test_ids_of_a_user_namespace(flat, store, shown, maps, files, want):  # noqa: PLR0917
    podman_image(store, [layer(member(n, b"x", uid=u, gid=g)) for n, u, g in shown])
    tree = run(store, **maps)
    for name, uid, gid in files:
        (tree / name).write_text("")
        os.chown(tree / name, uid, gid)
    give(store, 100_000)

    flat(f"{store}#container:box")

    got = owners(store.parent / "out.tar")
    assert {name: got[name] for name, *_ in files} == want
    assert {name: got[name] for name, *_ in shown} == {n: (u, g) for n, u, g in shown}


KEEP_ID = [
    {"container_id": 0, "host_id": 1, "size": 1000},
    {"container_id": 1000, "host_id": 0, "size": 1},
    {"container_id": 1001, "host_id": 1001, "size": 64536},
]


@needs_root
@pytest.mark.parametrize("driver", ["overlay", "vfs"])
def test_ids_of_a_keep_id_container_whose_image_is_all_root(store, driver):
    """Podman makes a copy of the top layer; overlay's has an empty directory."""
    tars = layers(["a"], ["b"])
    podman_image(store, tars, driver=driver)
    lists, copy = store / f"{driver}-layers", "c" * 64
    top = json.loads((lists / "layers.json").read_text())[1]
    maps = {"uidmap": KEEP_ID, "gidmap": KEEP_ID}
    append(lists / "layers.json", top | {"id": copy} | maps)
    shutil.copy(lists / f"{top['id']}.tar-split.gz", lists / f"{copy}.tar-split.gz")
    tree = run(store, driver=driver, **maps)
    change(
        lists / "layers.json",
        lambda r: r | ({"parent": copy} if r["id"] == digest(b"box") else {}),
    )
    copied = store / TREES[driver].format(copy)
    if driver == "overlay":
        copied.mkdir(parents=True)
    else:
        shutil.copytree(store / TREES[driver].format(top["id"]), copied)
    for name, (uid, gid) in {"zero": (1, 1), "mine": (0, 0), "five": (6, 6)}.items():
        (tree / name).write_text("")
        os.chown(tree / name, uid, gid)
    for path in (copied, *copied.rglob("*"), tree):
        os.chown(path, 1, 1)
    give(store, 100_000)

    done = flatten.export(f"{store}#container:box", store.parent / "out.tar")

    got = owners(store.parent / "out.tar")
    assert done.warnings == ()
    assert {name: got[name] for name in ("zero", "mine", "five")} == {
        "zero": (0, 0), "mine": (1000, 1000), "five": (5, 5),
    }  # fmt: skip


@needs_root
def test_ids_in_the_namespace_of_a_rootful_container(flat, tmp_path, store):
    podman_image(store, TARS)
    ids = [{"container_id": 0, "host_id": 200_000, "size": 65536}]
    tree = run(store, uidmap=ids, gidmap=ids)
    (tree / "new").write_text("")
    os.chown(tree / "new", 200_003, 200_000)

    flat(f"{store}#container:box")

    assert owners(tmp_path / "out.tar")["new"] == (3, 0)


@needs_root
def test_ids_that_no_layer_and_no_file_shows_are_unchanged(tmp_path, store):
    podman_image(store, TARS)
    tree = run(store)
    (tree / "new").write_text("")
    os.chown(tree / "new", 7, 0)
    give(store, 100_000)

    done = flatten.export(f"{store}#container:box", tmp_path / "out.tar")

    assert owners(tmp_path / "out.tar")["new"] == (100_006, 0)
    assert "owners stay as they are on the disk" in done.warnings[0]
    assert len(done.warnings) == 1


def test_ids_granted_by_a_file(tmp_path):
    (tmp_path / "subuid").write_text("# comment\nroot:100000:65536\n4242:200000:9\n")

    assert granted(str(tmp_path / "subuid"), 4242) == 200_000
    assert granted(str(tmp_path / "subuid"), 4243) is None
    assert granted(str(tmp_path / "none"), 4242) is None
    with suppress(KeyError):
        root = pwd.getpwuid(0).pw_name
        (tmp_path / "subuid").write_text(f"{root}:7:1")
        assert granted(str(tmp_path / "subuid"), 0) == 7


def test_an_invalid_id_map(flat, store):
    podman_image(store, TARS)
    for maps in ([{"container_id": 0}], [5], [{"container_id": -1, "host_id": 0, "size": 1}],
                 [{"container_id": True, "host_id": 0, "size": 1}]):  # fmt: skip
        change(
            store / "overlay-layers" / "layers.json",
            lambda r, m=maps: r | {"uidmap": m},
        )
        with pytest.raises(flatten.FormatError, match="invalid id map"):
            flat(store)


def test_a_layer_without_its_record_is_read_from_its_directory(store, tmp_path):
    podman_image(store, [layer("a", "d/", "d/b")])
    (record,) = (store / "overlay-layers").glob("*.tar-split.gz")
    record.unlink()

    done = flatten.export(store, tmp_path / "out.tar")

    assert done.verified == 0
    assert "tar-split.gz' is missing (1 of 1 records are)" in done.warnings[0]
    assert {"a", "d/", "d/b"} <= contents(tmp_path / "out.tar").keys()


# --- real stores

REAL = {
    "fx/hand:1": ("hand", "pod-overlay-hand", None),
    "fx/tiny-child:1": ("tovl-tiny-child", "tovl-multi", "fx/tiny-child:1"),
    "fx/tiny-sib:1": ("tovl-tiny-sib", "tovl-multi", "fx/tiny-sib:1"),
    "localhost/fx/tiny-commit:1": (
        "tovl-tiny-commit", "tovl-multi", "fx/tiny-commit:1",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    return {
        driver: restored_root(f"tiny-podman-{driver}", tmp_path_factory.mktemp(driver))
        for driver in ("overlay", "vfs")
    }


@needs_fixtures
@needs_root
@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("driver", ["overlay", "vfs"])
def test_a_real_store(tmp_path, real, driver, name):
    answer, save, tag = REAL[name]
    archive = unpacked_save(save, tmp_path)
    out, other = tmp_path / "out.tar", tmp_path / "other.tar"
    flatten.export(f"{archive}#{tag}" if tag else archive, other)

    flatten.export(f"{real[driver]}#{name}", out)

    got = listing(out)
    assert got == right(f"canon-{answer}", got)
    assert out.read_bytes() == other.read_bytes()
