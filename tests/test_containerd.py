"""containerd's roots: names and namespaces, blobs that are not there, what is refused."""

import gzip
import json
import shutil

import pytest

import flatten
from bolts import bolt
from builders import descriptor, digest, layers, oci_files
from fixtures import needs_fixtures, restored_root, right, unpacked_save
from flatten.cli import main
from listing import contents, listing

TARS = layers(["a", "b"], ["-a", "c"])
WANT = {"b": "0", "c": "1"}
CONTENT = "io.containerd.content.v1.content"
NAMES = "io.containerd.metadata.v1.bolt/meta.db"


def zigzag(number):
    number, out = number << 1, bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def target(data):
    """Return what meta.db says of a name that leads to a blob."""
    described = {
        b"digest": b"sha256:" + digest(data).encode(),
        b"size": zigzag(len(data)),
        b"mediatype": b"application/vnd.oci.image.manifest.v1+json",
    }
    return {b"createdat": b"", b"target": described}


def image(tars, **options):
    """Return the blobs of an image, and the one of them that is its manifest."""
    files = oci_files(tars, **options)
    index = json.loads(files["index.json"])
    name = index["manifests"][0]["digest"].replace("sha256:", "blobs/sha256/")
    blobs = {path: data for path, data in files.items() if path.startswith("blobs/")}
    return blobs, files[name]


def write(root, blobs, names=None):
    """Write a root: blobs, and {namespace: {name: image bucket}}."""
    for name, data in blobs.items():
        path = root / CONTENT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    if names is not None:
        tree = {
            space.encode(): {b"images": {n.encode(): i for n, i in images.items()}}
            for space, images in names.items()
        }
        (root / NAMES).parent.mkdir(parents=True, exist_ok=True)
        (root / NAMES).write_bytes(bolt({b"v1": {b"version": b"\6"} | tree}))
    return root


@pytest.fixture
def flat(tmp_path):
    def run(reference, **options):
        flatten.export(str(reference), tmp_path / "out.tar", **options)
        return contents(tmp_path / "out.tar")

    return run


BLOBS, MANIFEST = image(TARS)
GZIPPED, PULLED = image(TARS, pack=gzip.compress)
OTHERS, OTHER = image(layers(["x"]))


@pytest.mark.parametrize("place", ["", "containerd/daemon"])
@pytest.mark.parametrize("kind", ["", "containerd:"])
def test_an_image_by_its_name(flat, tmp_path, place, kind):
    names = {"moby": {"docker.io/library/app:1": target(MANIFEST)}}
    write(tmp_path / "root" / place, BLOBS, names)

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
    root = write(tmp_path / "root", BLOBS | GZIPPED | OTHERS, MANY)
    reference = f"containerd:{root}#{name}" if name else root

    if isinstance(want, dict):
        assert flat(reference, store=space) == want
        return
    with pytest.raises(want) as caught:
        flat(reference, store=space)
    assert "k8s.io" in str(caught.value) or "app:1" in str(caught.value)


def test_the_command_takes_a_namespace(tmp_path):
    root = write(tmp_path / "root", BLOBS | GZIPPED | OTHERS, MANY)
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
    root = write(tmp_path / "root", BLOBS | GZIPPED, names)

    with flatten.open_image(str(root)) as opened:
        assert opened.names == ("docker.io/x/app:1", "h:5/app:1")


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
    root = write(tmp_path / "root", blobs, {"default": {"app:1": target(listing_)}})

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
    root = write(tmp_path / "root", blobs, {"default": {"app:1": target(both)}})

    assert flat(root) == WANT


def test_without_names(flat, tmp_path):
    root = write(tmp_path / "root", BLOBS | {"blobs/sha256/" + "0" * 64: b"{} no JSON"})

    assert flat(f"{root}#{digest(MANIFEST)[:12]}") == WANT
    with flatten.open_image(str(root)) as opened:
        assert opened.names == ()


MISSING = {
    "a layer": (json.loads(MANIFEST)["layers"][1]["digest"], "layer 2 of 2"),
    "the config": (json.loads(MANIFEST)["config"]["digest"], "nothing of sha256:"),
    "the manifest": (f"sha256:{digest(MANIFEST)}", "nothing of sha256:"),
}


@pytest.mark.parametrize(("blob", "why"), MISSING.values(), ids=MISSING)
def test_a_missing_blob_is_named_and_spoils_one_image_only(flat, tmp_path, blob, why):
    names = {"moby": {"app:1": target(MANIFEST), "other:1": target(OTHER)}}
    root = write(tmp_path / "root", BLOBS | OTHERS, names)
    (root / CONTENT / blob.replace("sha256:", "blobs/sha256/")).unlink()

    with pytest.raises(flatten.FormatError) as caught:
        flat(f"{root}#app:1")

    assert why in str(caught.value)
    assert str(root / CONTENT) in str(caught.value)
    assert flat(f"{root}#other:1") == {"x": "0"}
    with pytest.raises(flatten.UsageError, match=r"@0 other:1 .*; @1 app:1"):
        flat(root)


BROKEN = {
    "a digest that is a path": (
        target(MANIFEST) | {b"target": {b"digest": b"../../x", b"size": b"\2"}},
        "no sha256 digest",
    ),
    "no digest": ({b"target": {b"size": b"\2"}}, "no sha256 digest"),
    "no target": ({}, "is no number"),
    "a size without an end": (
        {b"target": {b"digest": b"", b"size": b"\xff"}}, "is no number",
    ),
    "another size": (
        {b"target": target(MANIFEST)[b"target"] | {b"size": b"\2"}}, "the index says 1",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("bucket", "why"), BROKEN.values(), ids=BROKEN)
def test_broken_names(flat, tmp_path, bucket, why):
    root = write(tmp_path / "root", BLOBS, {"moby": {"app:1": bucket}})

    with pytest.raises(flatten.FormatError) as caught:
        flat(f"{root}#app:1")

    assert why in str(caught.value)


def test_names_that_are_no_bolt_file(flat, tmp_path):
    root = write(tmp_path / "root", BLOBS, {})
    (root / NAMES).write_bytes(b"hello")

    with pytest.raises(flatten.FormatError, match=r"meta\.db: no bbolt file"):
        flat(root)


def test_an_empty_store_is_none(tmp_path):
    """As docker 20.10 keeps one in its data-root."""
    (tmp_path / "containerd" / "daemon" / CONTENT / "blobs" / "sha256").mkdir(
        parents=True
    )

    with pytest.raises(flatten.SourceError, match="no kind of image that is known"):
        flatten.open_image(str(tmp_path))


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
