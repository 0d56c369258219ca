"""containerd's roots: names and namespaces, missing blobs, snapshots, damage."""

import gzip
import json
import os
import shutil
import stat

import pytest

import flatten
from bolts import bolt
from builders import descriptor, digest, docker_root, in_capitals, layers
from fixtures import needs_fixtures, restored_root, right, unpacked_save
from flatten.cli.main import main
from listing import contents, listing
from stores import (
    CONTENT,
    NAMES,
    chain_of,
    containerd_image,
    containerd_root,
    target,
    unpack,
)

TARS = layers(["a", "b"], ["-a", "c"])
WANT = {"b": "0", "c": "1"}


@pytest.fixture
def flat(tmp_path):
    def run(reference, **options):
        flatten.export(str(reference), tmp_path / "out.tar", **options)
        return contents(tmp_path / "out.tar")

    return run


BLOBS, MANIFEST = containerd_image(TARS)
GZIPPED, PULLED = containerd_image(TARS, pack=gzip.compress)
OTHERS, OTHER = containerd_image(layers(["x"]))


@pytest.mark.parametrize("place", ["", "containerd/daemon"])
@pytest.mark.parametrize("kind", ["", "containerd:"])
def test_an_image_by_its_name(flat, tmp_path, place, kind):
    names = {"moby": {"docker.io/library/app:1": target(MANIFEST)}}
    containerd_root(tmp_path / "root" / place, BLOBS, names)

    for name in ("", "#app:1", "#docker.io/library/app:1", f"#{digest(MANIFEST)[:9]}"):
        assert flat(f"{kind}{tmp_path / 'root'}{name}") == WANT


MANY = {
    "default": {"docker.io/library/app:1": target(MANIFEST)},
    "k8s.io": {
        "docker.io/library/app:1": target(PULLED),
        f"docker.io/library/app@sha256:{digest(PULLED)}": target(PULLED),
        "quay.io/x/other:latest": target(OTHER),
        f"sha256:{json.loads(OTHER)['config']['digest'][7:]}": target(OTHER),
    },
}
CHOICES = {
    "the namespace that is asked for": ("app:1", "default", WANT),
    "the other one": ("app:1", "k8s.io", WANT),
    "a name of one namespace only": ("quay.io/x/other", None, {"x": "0"}),
    "a digest": (f"app@sha256:{digest(PULLED)}", None, WANT),
    "a digest that no name has": (f"app@sha256:{digest(MANIFEST)}", None, WANT),
    "a position": ("@2", None, {"x": "0"}),
    "the id of the config": (
        json.loads(OTHER)["config"]["digest"][7:19], None, {"x": "0"},
    ),
    "a name in two namespaces": ("app:1", None, flatten.UsageError),
    "an image of another namespace": ("other", "default", flatten.SourceError),
    "a digest of another name": (
        f"other@sha256:{digest(MANIFEST)}", None, flatten.SourceError,
    ),
    "no such namespace": (None, "moby", flatten.SourceError),
}  # fmt: skip


@pytest.mark.parametrize(("name", "space", "want"), CHOICES.values(), ids=CHOICES)
def test_choice(flat, tmp_path, name, space, want):
    root = containerd_root(tmp_path / "root", BLOBS | GZIPPED | OTHERS, MANY)
    reference = f"containerd:{root}#{name}" if name else root

    if isinstance(want, dict):
        assert flat(reference, store=space) == want
        return
    with pytest.raises(want) as caught:
        flat(reference, store=space)
    assert "k8s.io" in str(caught.value) or "app:1" in str(caught.value)


def test_the_command_takes_a_namespace(tmp_path):
    root = containerd_root(tmp_path / "root", BLOBS | GZIPPED | OTHERS, MANY)
    out = tmp_path / "out.tar"

    for arguments, code in (
        ([f"{root}#app:1", "--namespace", "k8s.io"], 0),
        ([f"{root}#app:1", "--driver", "default"], 0),  # one option, by two names
        ([f"{root}#app:1"], flatten.UsageError.exit_code),
    ):
        assert main([*arguments, "-o", str(out)]) == code


def test_names_of_one_image_are_one_image(tmp_path):
    names = {
        "moby": {"h:5/app:1": target(PULLED), "docker.io/x/app:1": target(MANIFEST)}
    }
    root = containerd_root(tmp_path / "root", BLOBS | GZIPPED, names)

    with flatten.open_image(str(root)) as opened:
        assert opened.names == ("docker.io/x/app:1", "h:5/app:1")


def test_keys_of_a_manifest_without_a_name_match_in_any_case(flat, tmp_path):
    manifest = in_capitals(MANIFEST.decode()).encode()
    blobs = {name: data for name, data in BLOBS.items() if data != MANIFEST}
    blobs[f"blobs/sha256/{digest(manifest)}"] = manifest

    assert flat(containerd_root(tmp_path / "root", blobs)) == WANT


def index(*blobs):
    """Return an index of manifests for amd64, arm64, ..."""
    platforms = ("amd64", "arm64", "s390x")
    listed = [
        descriptor(blob, "application/vnd.oci.image.manifest.v1+json",
                   platform={"os": "linux", "architecture": platforms[position]})
        for position, blob in enumerate(blobs)
    ]  # fmt: skip
    return json.dumps({"schemaVersion": 2, "manifests": listed}).encode()


def test_platforms_that_were_not_pulled(flat, tmp_path):
    listing_ = index(b"amd64, not here", MANIFEST)
    blobs = BLOBS | {f"blobs/sha256/{digest(listing_)}": listing_}
    root = containerd_root(
        tmp_path / "root", blobs, {"default": {"app:1": target(listing_)}}
    )

    assert flat(root) == WANT
    assert flat(f"{root}#{digest(listing_)[:12]}") == WANT
    with pytest.raises(
        flatten.SourceError, match="no image for linux/amd64; it has @0"
    ):
        flat(root, platform="linux/amd64")


def test_a_platform_of_which_only_the_manifest_was_pulled(flat, tmp_path):
    both = index(OTHER, MANIFEST)
    config = json.loads(OTHER)["config"]["digest"].replace("sha256:", "blobs/sha256/")
    blobs = BLOBS | {
        f"blobs/sha256/{digest(both)}": both,
        f"blobs/sha256/{digest(OTHER)}": OTHER,
        config: OTHERS[config],
    }
    root = containerd_root(
        tmp_path / "root", blobs, {"default": {"app:1": target(both)}}
    )

    assert flat(root) == WANT


def test_without_names(flat, tmp_path):
    root = containerd_root(
        tmp_path / "root", BLOBS | {"blobs/sha256/" + "0" * 64: b"{} no JSON"}
    )

    assert flat(f"{root}#{digest(MANIFEST)[:12]}") == WANT
    with flatten.open_image(str(root)) as opened:
        assert opened.names == ()


MISSING = {
    "a layer": (json.loads(MANIFEST)["layers"][1]["digest"], "layer 2 of 2"),
    "the config": (json.loads(MANIFEST)["config"]["digest"], "no blob of sha256:"),
    "the manifest": (f"sha256:{digest(MANIFEST)}", "no blob of sha256:"),
}


@pytest.mark.parametrize(("blob", "why"), MISSING.values(), ids=MISSING)
def test_a_missing_blob_is_named_and_affects_one_image_only(flat, tmp_path, blob, why):
    names = {"moby": {"app:1": target(MANIFEST), "other:1": target(OTHER)}}
    root = containerd_root(tmp_path / "root", BLOBS | OTHERS, names)
    (root / CONTENT / blob.replace("sha256:", "blobs/sha256/")).unlink()

    with pytest.raises(flatten.FormatError) as caught:
        flat(f"{root}#app:1")

    assert why in str(caught.value)
    assert str(root / CONTENT) in str(caught.value)
    assert flat(f"{root}#other:1") == {"x": "0"}
    with pytest.raises(flatten.UsageError, match=r"\n  @0 other:1 .*\n  @1 app:1"):
        flat(root)


BROKEN = {
    "a digest that is a path": (
        target(MANIFEST) | {b"target": {b"digest": b"../../x", b"size": b"\2"}},
        "sha256 or sha512 digest",
    ),
    "no digest": ({b"target": {b"size": b"\2"}}, "sha256 or sha512 digest"),
    "no target": ({}, "sha256 or sha512 digest"),
    "a size that does not end": (
        {b"target": target(MANIFEST)[b"target"] | {b"size": b"\xff"}}, "'-1' is not a size",
    ),
    "another size": (
        {b"target": target(MANIFEST)[b"target"] | {b"size": b"\2"}}, "the index says 1",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("bucket", "why"), BROKEN.values(), ids=BROKEN)
def test_broken_names(flat, tmp_path, bucket, why):
    root = containerd_root(tmp_path / "root", BLOBS, {"moby": {"app:1": bucket}})

    with pytest.raises(flatten.FormatError) as caught:
        flat(f"{root}#app:1")

    assert why in str(caught.value)


def test_docker_that_was_switched_to_containerd(flat, tmp_path):
    """The images of the storage driver are still there, even if there are none."""
    root = tmp_path / "docker"
    names = {"moby": {"app:1": target(MANIFEST)}}
    containerd_root(root / "containerd" / "daemon", BLOBS, names)
    (root / "image" / "overlay2" / "imagedb" / "content" / "sha256").mkdir(parents=True)

    assert flat(f"{root}#app:1") == WANT
    with pytest.raises(flatten.FormatError, match="holds no image"):
        flat(f"docker-root:{root}")
    docker_root(root, layers(["old"]))
    assert flat(root) == {"old": "0"}
    assert flat(f"containerd:{root}") == WANT


def test_metadata_that_is_not_a_bbolt_file(flat, tmp_path):
    root = containerd_root(tmp_path / "root", BLOBS, {})
    (root / NAMES).write_bytes(b"hello")

    with pytest.raises(flatten.FormatError, match=r"meta\.db: not a bbolt file"):
        flat(root)


def test_a_directory_without_blobs_is_not_a_root(tmp_path):
    """As docker 20.10 keeps one in its data-root."""
    (tmp_path / "containerd" / "daemon" / CONTENT / "blobs" / "sha256").mkdir(
        parents=True
    )

    with pytest.raises(flatten.SourceError, match="not a container image"):
        flatten.open_image(str(tmp_path))


# --- snapshots

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make devices")


def discard(root, *positions):
    for position in positions:
        blob = json.loads(MANIFEST)["layers"][position]["digest"]
        (root / CONTENT / blob.replace("sha256:", "blobs/sha256/")).unlink()


def box(key="box", driver="overlayfs", **values):
    """Return the record of a container in meta.db."""
    said = {b"image": b"docker.io/library/app:1", b"snapshotter": driver.encode(),
            b"snapshotKey": key.encode()}  # fmt: skip
    return said | {b"labels": {b"nerdctl/name": b"boxy"}} | values


def without_root(tree):
    return {path: data for path, data in tree.items() if path != "./"}


@needs_root
def test_layers_without_blobs_are_read_from_their_snapshots(tmp_path, flat):
    root = containerd_root(
        tmp_path / "root", BLOBS, {"moby": {"app:1": target(MANIFEST)}}
    )
    base, top = unpack(root, chain_of(TARS))
    (base / "a").write_text("0")
    (base / "b").write_text("0")
    os.mknod(top / "a", 0o600 | stat.S_IFCHR, 0)
    (top / "c").write_text("1")
    discard(root, 1)

    done = flatten.export(root, tmp_path / "out.tar")

    assert without_root(contents(tmp_path / "out.tar")) == WANT
    assert done.verified == 1
    assert "its blob is missing" in done.warnings[0]
    assert str(top) in done.warnings[0]
    discard(root, 0)
    assert without_root(flat(root)) == WANT


@needs_root
def test_layers_that_are_unpacked_to_full_trees(tmp_path, flat):
    root = containerd_root(
        tmp_path / "root", BLOBS, {"moby": {"app:1": target(MANIFEST)}}
    )
    base, top = unpack(root, chain_of(TARS), "native")
    for path, data in (
        (base / "a", "0"),
        (base / "b", "0"),
        (top / "b", "0"),
        (top / "c", "1"),
    ):
        path.write_text(data)
        os.utime(path, (1, 1))
    discard(root, 0, 1)

    assert without_root(flat(root)) == WANT


def test_a_container_of_the_snapshotter_erofs(tmp_path, flat):
    """Layers are file systems, which are mounted on their directories when needed."""
    root = containerd_root(tmp_path / "root", BLOBS)
    unpack(root, [*chain_of(TARS), "box"], "erofs")
    names = {"docker.io/library/app:1": target(MANIFEST)}
    contain(root, names, {"boxy": box(driver="erofs")})
    snapshots = root / "io.containerd.snapshotter.v1.erofs" / "snapshots"
    for name in ("1", "2"):
        (snapshots / name / "layer.erofs").write_bytes(bytes(4096))
    own = snapshots / "3" / "fs"
    (own / "new").write_text("own")

    assert flat(root) == WANT
    assert without_root(flat(f"{root}#container:boxy")) == WANT | {"new": "own"}
    (own / "moved").mkdir()
    os.setxattr(own / "moved", "user.overlay.redirect", b"d")
    with pytest.raises(
        flatten.FormatError, match=r"below, but that is .*/2/layer.erofs"
    ):
        flat(f"{root}#container:boxy")
    (own / "moved").rmdir()
    discard(root, 1)
    with pytest.raises(
        flatten.FormatError,
        match=r"/2/layer\.erofs', an EROFS file system, which is not read",
    ):
        flat(root)


def test_locations_of_unpacked_layers(tmp_path):
    root = containerd_root(
        tmp_path / "root", BLOBS, {"moby": {"app:1": target(MANIFEST)}}
    )
    trees = unpack(root, chain_of(TARS))

    with flatten.open_image(str(root)) as opened:
        places = [layer.place for layer in opened.layers]
    assert [place.directory for place in places] == [str(tree) for tree in trees]
    assert [place.size for place in places] == [4096, 4096]
    (root / "io.containerd.snapshotter.v1.overlayfs" / "metadata.db").write_text("x")
    with flatten.open_image(str(root)) as opened:
        assert [layer.place for layer in opened.layers] == [None, None]


def contain(root, names, containers):
    """Write meta.db with images and containers."""
    images = {name.encode(): bucket for name, bucket in names.items()}
    found = {name.encode(): bucket for name, bucket in containers.items()}
    space = {b"images": images, b"containers": found}
    (root / NAMES).parent.mkdir(parents=True, exist_ok=True)
    (root / NAMES).write_bytes(bolt({b"v1": {b"moby": space}}))


@needs_root
@pytest.mark.parametrize("whole", [True, False])
def test_a_container_is_its_image_and_its_changes(tmp_path, flat, whole):
    root = containerd_root(tmp_path / "root", BLOBS)
    names = {"docker.io/library/app:1": target(MANIFEST)} if whole else {}
    contain(root, names, {"c0ffee": box()})
    base, top, init, own = unpack(root, [*chain_of(TARS), "box-init", "box"])
    (base / "b").write_text("0")
    (top / "c").write_text("1")
    (init / "mtab").write_text("")
    (own / "new").write_text("new")
    os.mknod(own / "c", 0o600 | stat.S_IFCHR, 0)

    for name in ("boxy", "c0ffee", "c0"):
        got = without_root(flat(f"{root}#container:{name}"))
        assert got == {"b": "0", "new": "new"}
    flatten.export(f"{root}#container:boxy", tmp_path / "init.tar", with_init=True)
    assert "mtab" in contents(tmp_path / "init.tar")


def test_a_container_has_the_name_that_docker_gave_it(tmp_path):
    store = containerd_root(tmp_path / "containerd" / "daemon", BLOBS)
    contain(store, {"docker.io/library/app:1": target(MANIFEST)}, {"ab" * 32: box()})
    unpack(store, [*chain_of(TARS), "box"])
    config = tmp_path / "containers" / ("ab" * 32) / "config.v2.json"
    config.parent.mkdir(parents=True)
    config.write_text('{"Name": "/web"}')

    with flatten.open_image(f"{tmp_path}#container:web") as image:
        assert image.names == ("container:boxy", "container:web")
        assert len(image.layers) == 3


BROKEN_SNAPSHOTS = {
    "a container without a snapshot": (["x"], box(), "no snapshot 'box'"),
    "of a snapshotter that is not read": (
        ["box"], box(driver="zfs"), "snapshotter 'zfs' has no snapshot 'box'",
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("keys", "container", "why"), BROKEN_SNAPSHOTS.values(), ids=BROKEN_SNAPSHOTS
)
def test_broken_snapshots(tmp_path, flat, keys, container, why):
    root = containerd_root(tmp_path / "root", BLOBS)
    contain(root, {}, {"c0ffee": container})
    unpack(root, keys)

    with pytest.raises(flatten.FormatError) as caught:
        flat(f"{root}#container:c0ffee")
    assert why in str(caught.value)


def test_snapshots_in_a_circle_or_without_a_parent(tmp_path, flat):
    root = containerd_root(tmp_path / "root", BLOBS)
    contain(root, {}, {"c0ffee": box()})
    database = root / "io.containerd.snapshotter.v1.overlayfs" / "metadata.db"
    database.parent.mkdir()
    for parent, why in (
        (b"moby/1/box", "the chain of parents is circular"),
        (b"moby/9/x", "is missing"),
    ):
        snapshots = {b"moby/1/box": {b"id": b"\1", b"parent": parent}}
        database.write_bytes(bolt({b"v1": {b"snapshots": snapshots}}))
        with pytest.raises(flatten.FormatError, match=why):
            flat(f"{root}#container:c0ffee")


# --- a real root

REAL = {
    "fx/hand:1": ("hand", "ovl-hand", None),
    "127.0.0.1:5947/fx/hand:1": ("hand", "ovl-hand", None),
    "fx/tiny-child:1": ("tovl-tiny-child", "tovl-multi", "fx/tiny-child:1"),
    "fx/tiny-sib:1": ("tovl-tiny-sib", "tovl-multi", "fx/tiny-sib:1"),
    "docker.io/fx/tiny-commit:1": (
        "tovl-tiny-commit",
        "tovl-multi",
        "fx/tiny-commit:1",
    ),
}


@needs_fixtures
@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("nameless", [False, True])
def test_a_real_root(tmp_path, name, nameless):
    answer, save, tag = REAL[name]
    (tmp_path / "root").mkdir()
    root = restored_root("tiny-containerd", tmp_path / "root")
    archive = unpacked_save(save, tmp_path)
    out, other = tmp_path / "out.tar", tmp_path / "other.tar"
    flatten.export(f"{archive}#{tag}" if tag else archive, other)
    if nameless:
        with flatten.open_image(f"{root}#{name}") as opened:
            name = opened.id
        shutil.rmtree((root / NAMES).parent)

    flatten.export(f"containerd:{root}#{name}", out)

    got = listing(out)
    assert got == right(f"canon-{answer}", got)
    assert out.read_bytes() == other.read_bytes()
