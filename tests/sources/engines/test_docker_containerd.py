"""Docker with the containerd image store: containers, and where the images are."""

import json
import os
import random
import shutil
import stat
from pathlib import Path

import pytest

import flatten
from bolts import bolt
from builders import digest, docker_root, in_capitals, layers
from kinds import run
from listing import contents, listing
from stores import NAMES, chain_of, containerd_image, containerd_root, target, unpack

TARS = layers(["a", "b"], ["-a", "c"])
BLOBS, MANIFEST = containerd_image(TARS)
OTHERS, OTHER = containerd_image(
    TARS, documents={"config": {"config": {"Cmd": ["/other"]}}}
)
WEB, DB = digest(b"web"), digest(b"db")
OVERLAYFS = "io.containerd.snapshotter.v1.overlayfs"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make devices")


def record(name, **values):
    """Return docker's record of a container."""
    return {
        "Name": f"/{name}",
        "Driver": "overlayfs",
        "Image": f"sha256:{digest(MANIFEST)}",
        "ImageManifest": {"digest": f"sha256:{digest(MANIFEST)}", "size": 1},
        **values,
    }


def container(docker, id_, document):
    path = docker / "containers" / id_ / "config.v2.json"
    path.parent.mkdir(parents=True)
    path.write_text(document if isinstance(document, str) else json.dumps(document))


def daemon(docker, store, *, images=None, leases=None, containers=None, space="moby"):
    """Write docker's image, and the snapshots of a container of it."""
    named = {"docker.io/library/app:1": target(MANIFEST)} if images is None else images
    containerd_root(store, BLOBS | OTHERS)
    tree = {
        b"images": {name.encode(): image for name, image in named.items()},
        b"leases": leases or {},
        b"containers": containers or {},
    }
    (store / NAMES).parent.mkdir(parents=True, exist_ok=True)
    (store / NAMES).write_bytes(bolt({b"v1": {space.encode(): tree}}))
    trees = unpack(store, [*chain_of(TARS), f"{WEB}-init", WEB], space=space)
    for path, data in zip(trees, ("0", "1", "", "own"), strict=True):
        (path / {"0": "b", "1": "c", "": ".dockerenv"}.get(data, "new")).write_text(
            data
        )
    (docker / "buildkit" / "containerd-overlayfs").mkdir(parents=True)
    container(docker, WEB, record("web"))
    return trees


@pytest.fixture
def docker(tmp_path):
    """Return docker's data root, with a containerd of its own."""
    root = tmp_path / "docker"
    daemon(root, root / "containerd" / "daemon")
    return root


def flat(reference, out, **options):
    done = flatten.export(reference, out, **options)
    tree = contents(out)
    return {path: tree[path] for path in tree if path != "./"}, done.warnings


@needs_root
@pytest.mark.parametrize("name", ["web", WEB, WEB[:7]])
def test_a_container_that_only_docker_has_a_record_of(docker, tmp_path, name):
    tree = docker / "containerd" / "daemon" / OVERLAYFS / "snapshots" / "4" / "fs"
    os.mknod(tree / "c", 0o600 | stat.S_IFCHR, 0)
    reference = f"{docker}#container:{name}"

    got = flat(reference, tmp_path / "out.tar")
    assert got == ({"b": "0", "new": "own"}, ())
    got, _ = flat(reference, tmp_path / "init.tar", with_init=True)
    assert got == {"b": "0", "new": "own", ".dockerenv": ""}


def test_keys_of_a_record_match_in_any_case(docker, tmp_path):
    path = docker / "containers" / WEB / "config.v2.json"
    path.write_text(in_capitals(json.dumps(record("web"))))

    got, _ = flat(f"{docker}#container:web", tmp_path / "out.tar")
    assert got == {"b": "0", "c": "1", "new": "own"}
    path.write_text('{"driver": "native", ' + path.read_text()[1:])
    with pytest.raises(flatten.FormatError, match="it has 'Driver' twice"):
        flat(f"{docker}#container:{WEB}", tmp_path / "out.tar")


@needs_root
@pytest.mark.parametrize("key", [b"", WEB.encode()])
def test_a_running_container_is_in_both_records(tmp_path, key):
    root = tmp_path / "docker"
    values = {b"image": b"", b"snapshotter": b"", b"snapshotKey": key}
    daemon(root, root / "containerd" / "daemon", containers={WEB.encode(): values})

    with flatten.open_image(f"{root}#container:web", store="moby") as image:
        assert image.names == ("container:web",)
        assert len(image.layers) == 3
    store = root / "containerd" / "daemon"
    with flatten.open_image(f"{store}#container:{WEB}") as image:
        assert len(image.layers) == 3


@pytest.mark.parametrize(
    ("manifest", "command"), [(MANIFEST, ["/bin/sh"]), (OTHER, ["/other"])]
)
def test_the_image_of_a_container_is_the_one_that_docker_recorded(
    tmp_path, manifest, command
):
    """Two images with the same layers differ in their configs."""
    root = tmp_path / "docker"
    images = {"app:1": target(MANIFEST), "other:1": target(OTHER)}
    daemon(root, root / "containerd" / "daemon", images=images)
    recorded = {"digest": f"sha256:{digest(manifest)}"}
    container(root, DB, record("db", ImageManifest=recorded))
    unpack_again(root, [*chain_of(TARS), DB])

    with flatten.open_image(f"{root}#container:db") as image:
        assert image.config["config"]["Cmd"] == command


def unpack_again(root, keys):
    shutil.rmtree(root / "containerd" / "daemon" / OVERLAYFS)
    return unpack(root / "containerd" / "daemon", keys)


@needs_root
def test_a_container_whose_image_was_removed(tmp_path):
    root = tmp_path / "docker"
    daemon(root, root / "containerd" / "daemon", images={})

    got, warnings = flat(f"{root}#container:web", tmp_path / "out.tar")

    assert got == {"b": "0", "c": "1", "new": "own"}
    assert len(warnings) == 1
    assert f"its image, 'sha256:{digest(MANIFEST)}', is missing" in warnings[0]


def test_a_damaged_image_affects_its_own_containers_only(tmp_path):
    root = tmp_path / "docker"
    store = root / "containerd" / "daemon"
    images = {"app:1": target(MANIFEST), "other:1": target(OTHER)}
    daemon(root, store, images=images)
    config = json.loads(OTHER)["config"]["digest"].replace(":", "/")
    (store / "io.containerd.content.v1.content" / "blobs" / config).write_text("{}")

    with flatten.open_image(f"{root}#container:web") as image:
        assert image.config["config"]["Cmd"] == ["/bin/sh"]
    recorded = {"digest": f"sha256:{digest(OTHER)}"}
    (root / "containers" / WEB / "config.v2.json").write_text(
        json.dumps(record("web", ImageManifest=recorded))
    )
    with pytest.raises(flatten.IntegrityError, match="its digest is"):
        flatten.open_image(f"{root}#container:web")
    assert run("orphans", root).returncode == 0


def test_a_container_of_a_storage_driver_is_not_in_containerd(docker):
    docker_root(docker, TARS)
    mounts = docker / "image/overlay2/layerdb/mounts"
    (mounts / DB).mkdir(parents=True)
    (mounts / DB / "mount-id").write_text("ab" * 32)
    container(docker, DB, record("db", Driver="overlay2"))

    for kind, name in (("docker-root", "db"), ("containerd", "web")):
        with flatten.open_image(f"{kind}:{docker}#container:{name}") as image:
            assert image.names == (f"container:{name}",)
        other = {"db": "web", "web": "db"}[name]
        with pytest.raises(flatten.SourceError, match=f"no image 'container:{other}'"):
            flatten.open_image(f"{kind}:{docker}#container:{other}")


def test_an_unknown_namespace_is_an_error_with_the_known_ones(docker):
    with pytest.raises(flatten.SourceError, match="namespace 'default'; there is 'mob"):
        flatten.open_image(f"{docker}#container:web", store="default")
    shutil.rmtree(docker / "containers")
    with pytest.raises(flatten.FormatError, match=r"holds no container$"):
        flatten.open_image(f"{docker}#container:web", store="default")


ODD_RECORDS = {
    "no JSON": ("{", "is not JSON"),
    "a list": ([], "not a JSON object"),
    "a name that is a list": (record("web") | {"Name": ["web"]}, "Name is not a string"),
    "a driver that is a number": (record("web", Driver=5), "Driver is not a string"),
    "an image that is an object": (record("web", Image={}), "Image is not a string"),
    "a manifest that is a text": (
        record("web", ImageManifest="x"), "ImageManifest is not an object",
    ),
    "a digest that is a list": (
        record("web", ImageManifest={"digest": [None]}), "digest is not a string",
    ),
    "a driver that is a path": (
        record("web", Driver="../../etc"), "snapshotter '../../etc' has no snapshot",
    ),
    "another snapshotter": (record("web", Driver="zfs"), "'zfs' has no snapshot"),
    "a storage driver": (record("web", Driver="overlay2"), "'overlay2' has no snapsh"),
}  # fmt: skip


@pytest.mark.parametrize(("document", "why"), ODD_RECORDS.values(), ids=ODD_RECORDS)
def test_an_invalid_record_affects_one_container_only(docker, document, why):
    container(docker, DB, record("db"))
    (docker / "containers" / WEB / "config.v2.json").write_text(
        document if isinstance(document, str) else json.dumps(document)
    )

    with pytest.raises(flatten.FormatError) as caught:
        flatten.open_image(f"{docker}#container:{WEB}")
    assert why in str(caught.value)
    assert str(docker) in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(flatten.FormatError, match=f"no snapshot '{DB}'"):
        flatten.open_image(f"{docker}#container:db")  # it is another's fault
    problems = json.loads(run("orphans", docker, "--json").stdout)["problems"]
    assert sum(why in problem for problem in problems) == 1


def test_a_record_may_have_null_values(docker):
    """Docker writes null for what it does not know."""
    document = record("web", ImageManifest=None, Image=None, Driver=None)
    (docker / "containers" / WEB / "config.v2.json").write_text(json.dumps(document))

    with flatten.open_image(f"{docker}#container:web") as image:
        assert len(image.layers) == 3


def test_a_record_that_is_a_symlink_out_of_the_root_is_refused(docker, tmp_path):
    (tmp_path / "outside").write_text(json.dumps(record("outside")))
    path = docker / "containers" / WEB / "config.v2.json"
    path.unlink()
    path.symlink_to(tmp_path / "outside")

    with pytest.raises(flatten.FlattenError) as caught:
        flatten.open_image(f"{docker}#container:{WEB}")
    assert "config.v2.json" in str(caught.value)


def test_a_container_of_the_snapshotter_erofs(docker, tmp_path):
    """Docker's init layer is complete, so it is a file system too."""
    store = docker / "containerd" / "daemon"
    (store / OVERLAYFS).rename(store / "io.containerd.snapshotter.v1.erofs")
    for layer in (store / "io.containerd.snapshotter.v1.erofs/snapshots").iterdir():
        if layer.name != "4":
            shutil.rmtree(layer / "fs")
            (layer / "fs").mkdir()
            (layer / "layer.erofs").write_bytes(bytes(4096))
    path = docker / "containers" / WEB / "config.v2.json"
    path.write_text(json.dumps(record("web", Driver="erofs")))

    got, _ = flat(f"{docker}#container:web", tmp_path / "out.tar")
    assert got == {"b": "0", "c": "1", "new": "own"}
    with pytest.raises(
        flatten.FormatError, match=r"init layer: its files are in .*/3/layer\.erofs'"
    ):
        flat(f"{docker}#container:web", tmp_path / "init.tar", with_init=True)
    assert not (tmp_path / "init.tar").exists()


def test_an_unsupported_snapshotter_is_named(docker):
    (docker / "containers" / WEB / "config.v2.json").write_text(
        json.dumps(record("web", Driver="blockfile"))
    )
    store = docker / "containerd" / "daemon"
    other = store / "io.containerd.snapshotter.v1.blockfile"
    other.mkdir()
    (other / "metadata.db").write_bytes(bolt({b"v1": {}}))

    with pytest.raises(
        flatten.FormatError, match="in snapshotter 'blockfile', which is n"
    ):
        flatten.open_image(f"{docker}#container:web")
    assert flatten.open_image(f"{docker}#app:1").id  # from its blobs
    shutil.rmtree(store / OVERLAYFS)
    layer = json.loads(MANIFEST)["layers"][0]["digest"]
    blobs = store / "io.containerd.content.v1.content" / "blobs"
    (blobs / layer.replace(":", "/")).unlink()
    with pytest.raises(flatten.FormatError, match="may be unpacked in snapshotter 'bl"):
        flatten.open_image(f"{docker}#app:1")


# --- docker's images in the system's containerd


@needs_root
@pytest.mark.parametrize("kind", ["", "containerd:"])
def test_the_systems_containerd_is_found_next_to_dockers_root(tmp_path, kind):
    root = tmp_path / "lib" / "docker"
    daemon(root, tmp_path / "lib" / "containerd")

    got, _ = flat(f"{kind}{root}#app:1", tmp_path / "out.tar")
    assert got == {"b": "0", "c": "1"}
    got, _ = flat(f"{root}#container:web", tmp_path / "out.tar", force=True)
    assert got == {"b": "0", "c": "1", "new": "own"}
    (tmp_path / "link").symlink_to(root)
    got, _ = flat(f"{tmp_path / 'link'}#app:1", tmp_path / "out.tar", force=True)
    assert got == {"b": "0", "c": "1"}


@needs_root
@pytest.mark.parametrize(
    "place", ["docker/100000.200000/containerd/daemon", "containerd"]
)
def test_a_daemon_in_a_user_namespace_has_its_own_namespace(tmp_path, place):
    """Its init layers and containers have the owners of the user namespace."""
    above, space = tmp_path / "docker", "moby-100000.200000"
    daemon(above / "100000.200000", tmp_path / place, space=space)
    tree = tmp_path / place / OVERLAYFS / "snapshots" / "4" / "fs"
    for name, (uid, gid) in {"new": (100_007, 200_000), "host": (5, 6)}.items():
        (tree / name).touch()
        os.chown(tree / name, uid, gid)

    for root in (above, above / "100000.200000"):
        flatten.export(
            f"{root}#container:web", tmp_path / "out.tar", force=True, store=space
        )
        rows = {row["path"]: row for row in listing(tmp_path / "out.tar")}
        owners = {path: (row["uid"], row["gid"]) for path, row in rows.items()}
        assert (owners["new"], owners["host"]) == ((7, 0), (5, 6))


def test_several_user_namespaces_are_ambiguous(tmp_path):
    for name in ("100000.100000", "200000.200000"):
        root = tmp_path / "docker" / name
        daemon(root, root / "containerd" / "daemon")

    with pytest.raises(
        flatten.SourceError, match="not a container image of a known kind"
    ):
        flatten.open_image(f"{tmp_path / 'docker'}#app:1")
    assert flatten.open_image(f"{tmp_path / 'docker' / '200000.200000'}#app:1").id


MARKS = {
    "BuildKit's directory": "buildkit/containerd-overlayfs",
    "the mounts of containers": "rootfs/overlayfs",
}


@pytest.mark.parametrize("command", ["images", "orphans"])
@pytest.mark.parametrize("mark", MARKS.values(), ids=MARKS)
def test_a_containerd_that_is_not_next_to_dockers_root(tmp_path, command, mark):
    (tmp_path / "docker" / mark).mkdir(parents=True)
    (tmp_path / "docker" / "containers").mkdir()

    done = run(command, tmp_path / "docker")

    assert done.returncode == flatten.SourceError.exit_code
    assert (
        f"which is not at '{tmp_path}/containerd'; use containerd:ROOT" in done.stderr
    )
    assert len(done.stderr.splitlines()) == 1


def test_a_symlink_next_to_dockers_root_is_not_followed(tmp_path):
    """On another disk it could lead to this machine's containerd."""
    daemon(tmp_path / "disk" / "docker", tmp_path / "host" / "containerd")
    (tmp_path / "disk" / "containerd").symlink_to(tmp_path / "host" / "containerd")

    with pytest.raises(flatten.SourceError, match="use containerd:ROOT"):
        flatten.open_image(f"{tmp_path / 'disk' / 'docker'}#app:1")


def test_a_containerd_next_to_another_directory_is_not_used(tmp_path):
    daemon(tmp_path / "docker", tmp_path / "containerd")
    for name in ("containers", "rootfs"):
        (tmp_path / "other" / name).mkdir(parents=True)

    with pytest.raises(
        flatten.SourceError, match="not a container image of a known kind"
    ):
        flatten.open_image(str(tmp_path / "other"))


# --- orphans


def held(*keys):
    return {b"snapshots": {b"overlayfs": dict.fromkeys(keys, b"")}}


def orphans(root):
    return {
        str(Path(row["path"]).relative_to(root)).removeprefix("containerd/daemon/")
        for row in json.loads(run("orphans", root, "--json").stdout)["orphans"]
    }


def test_what_a_lease_holds_is_not_an_orphan(tmp_path):
    blob, lost = b"provenance", b"lost"
    leases = {
        b"build": held(b"sha256:" + b"9" * 64)
        | {b"content": {f"sha256:{digest(blob)}".encode(): b""}}
    }
    root = tmp_path / "docker"
    store = root / "containerd" / "daemon"
    daemon(root, store, leases=leases)
    for data in (blob, lost):
        path = store / "io.containerd.content.v1.content/blobs/sha256" / digest(data)
        path.write_bytes(data)
    unpack(store, ["base", "sha256:" + "9" * 64, "stray"], "native")
    (store / NAMES).write_bytes(bolt_with_parents(leases))

    native = "io.containerd.snapshotter.v1.native/snapshots"
    assert orphans(root) == {
        f"io.containerd.content.v1.content/blobs/sha256/{digest(lost)}",
        *(f"io.containerd.content.v1.content/{name}" for name in OTHERS.keys() - BLOBS),
        f"{native}/1", f"{native}/2", f"{native}/3",  # the lease is for overlayfs
    }  # fmt: skip
    leases[b"build"][b"snapshots"] = {b"native": {b"sha256:" + b"9" * 64: b""}}
    (store / NAMES).write_bytes(bolt_with_parents(leases))
    assert {path for path in orphans(root) if native in path} == {f"{native}/3"}
    (row,) = json.loads(run("users", root, f"{store}/{native}/1", "--json").stdout)
    assert row["held_by"] == "lease build"


def bolt_with_parents(leases):
    """Write meta.db with records of the native snapshotter's snapshots."""
    snapshots = {
        b"sha256:" + b"9" * 64: {b"parent": b"base"},
        b"base": {},
        b"stray": {},
    }
    space = {
        b"images": {b"docker.io/library/app:1": target(MANIFEST)},
        b"leases": leases,
        b"snapshots": {b"native": snapshots},
    }
    return bolt({b"v1": {b"moby": space}})


LABELS = {
    "a root of the collector": {b"containerd.io/gc.root": b"now"},
    "none": {},
}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_references_in_labels_are_followed(tmp_path, labels):
    """As the garbage collector does it, in a circle too."""
    store = containerd_root(tmp_path / "containerd", BLOBS)
    extra = [b"first", b"second"]
    ids = [f"sha256:{digest(data)}".encode() for data in extra]
    for data in extra:
        path = store / "io.containerd.content.v1.content/blobs/sha256" / digest(data)
        path.write_bytes(data)
    (tree,) = unpack(store, ["unpacked"], space="default")
    space = {
        b"images": {b"app:1": target(MANIFEST)},
        b"content": {
            b"blob": {
                ids[0]: {
                    b"labels": {b"containerd.io/gc.ref.content.0": ids[1]} | labels
                },
                ids[1]: {
                    b"labels": {
                        b"containerd.io/gc.ref.content.0": ids[0],
                        b"containerd.io/gc.ref.snapshot.overlayfs": b"unpacked",
                    }
                },
            }
        },
    }
    (store / NAMES).parent.mkdir()
    (store / NAMES).write_bytes(bolt({b"v1": {b"default": space}}))

    lost = {str(tree.relative_to(store))} | {
        f"io.containerd.content.v1.content/blobs/sha256/{digest(data)}"
        for data in extra
    }
    assert orphans(store) == (set() if labels else lost)


DATABASES = {
    "the metadata": f"containerd/daemon/{NAMES}",
    "the snapshots": f"containerd/daemon/{OVERLAYFS}/metadata.db",
    "a container's record": f"containers/{WEB}/config.v2.json",
}


@pytest.mark.parametrize("name", DATABASES.values(), ids=DATABASES)
def test_any_changed_byte_is_read_or_a_documented_error(tmp_path, name):
    root = tmp_path / "docker"
    leases = {b"build": held(WEB.encode()) | {b"content": {b"sha256:0": b""}}}
    daemon(root, root / "containerd" / "daemon", leases=leases)
    path = root / name
    data = path.read_bytes()
    used = [at for at, byte in enumerate(data) if byte] or [0]
    rng = random.Random(name)
    for _ in range(40):
        changed = bytearray(data)
        changed[rng.choice(used)] = rng.randrange(256)
        path.write_bytes(changed[: rng.choice([len(data), rng.randrange(len(data))])])
        for command in (["orphans", root], ["layers", f"{root}#container:{WEB}"]):
            done = run(*command, "--json")
            assert done.returncode in (0, 3, 4, 5), done.stderr
            assert done.stderr.count("\n") == (done.returncode != 0)
