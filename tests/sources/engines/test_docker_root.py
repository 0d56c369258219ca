"""Docker's data roots, by driver: the same bytes as from docker save."""

import json
import lzma
import os
import re
import shutil
import stat
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

import flatten
from builders import (
    digest,
    docker_archive,
    docker_root,
    in_capitals,
    layers,
    member,
)
from fixtures import answer_rows, fixture, right
from flatten import FlattenError, FormatError, IntegrityError, SourceError, UsageError
from flatten.image.chain_ids import chain_ids
from kinds import run
from listing import contents, listing

REPOSITORY = Path(__file__).parents[3]
DRIVERS = {
    "overlay2": "tiny-docker20-overlay2",
    "vfs": "tiny-docker20-vfs",
    "btrfs": "tiny-docker20-btrfs",
    "aufs": "tiny-handmade-aufs-cas",
}
NO_ANSWER = ("aufs", "tiny-commit")
IMAGES = ("hand", "tiny-child", "tiny-commit", "tiny-sib")


@pytest.fixture
def flat(tmp_path):
    """Return a function that flattens an image and returns the output and warnings."""

    def run(source, **options):
        out = tmp_path / "rootfs.tar"
        done = flatten.export(source, out, **options)
        return out, list(done.warnings)

    return run


# --- with tar-split's record


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("driver", DRIVERS)
def test_every_driver_gives_the_tree_of_docker_save(flat, data_root, driver, image):
    root = data_root(DRIVERS[driver])
    built = {"vfs": "tvfs-", "btrfs": "tbtr-"}.get(driver, "tovl-")
    answer = "canon-hand" if image == "hand" else f"canon-{built}{image}"

    out, warnings = flat(f"docker-root:{root}#fx/{image}:1")

    assert warnings == []
    got = listing(out)
    assert got == right(answer, got)


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("driver", ["overlay2", "aufs"])
def test_a_root_and_its_save_give_the_same_bytes(
    flat, data_root, tmp_path, driver, image
):
    save = tmp_path / "save.tar"
    packed = fixture("saves", "tovl-multi.tar.xz").read_bytes()
    save.write_bytes(lzma.decompress(packed))
    want = flat(f"{save}#fx/{image}:1")[0].read_bytes()

    out, _ = flat(f"{data_root(DRIVERS[driver])}#fx/{image}:1")

    assert out.read_bytes() == want


def test_a_btrfs_file_system_of_docker(flat, data_root, tmp_path):
    image = tmp_path / "btrfs.img"
    data_root("tiny-docker20-btrfs")  # skips where the next cannot be done
    packed = fixture("roots", "tiny-docker20-btrfs.img.xz")
    with lzma.open(packed) as source, image.open("wb") as target:
        shutil.copyfileobj(source, target)
    point = tmp_path / "mounted"
    point.mkdir()
    mounted = subprocess.run(
        ["mount", "-o", "loop,ro", image, point], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"needs loop devices and btrfs: {mounted.stderr.decode()}")
    try:
        root = next(path.parents[2] for path in point.glob("**/image/btrfs/imagedb"))
        out, _ = flat(f"{root}#fx/tiny-child:1")
        got = listing(out)
        assert got == right("canon-tbtr-tiny-child", got)
    finally:
        subprocess.run(["umount", point], check=True)


# --- without it


@pytest.fixture(scope="session")
def unrecorded(data_root, tmp_path_factory):
    """Return a function that copies a data root without its tar-split records."""
    known = {}

    def copy(name):
        if name not in known:
            original = data_root(name)  # may skip the test
            root = tmp_path_factory.mktemp("unrecorded") / "root"
            subprocess.run(["cp", "-a", original, root], check=True)
            for path in root.rglob("tar-split.json.gz"):
                path.unlink()
            known[name] = root
        return known[name]

    return copy


@pytest.mark.parametrize(
    ("driver", "image"),
    [pair for pair in product(DRIVERS, IMAGES) if pair != NO_ANSWER],
)
def test_without_the_record_an_image_is_the_tree_that_the_kernel_shows(
    flat, unrecorded, driver, image
):
    names = {"vfs": "tvfs", "btrfs": "tbtr", "aufs": "tiny-aufs-cas"}
    answer = f"{names.get(driver, 'tovl')}-{image}"

    out, warnings = flat(f"{unrecorded(DRIVERS[driver])}#fx/{image}:1")

    got = listing(out)
    assert got == right(answer, got)
    assert len(warnings) == 1
    assert re.search(r"tar-split\.json\.gz' is missing .* nothing is ver", warnings[0])


# --- containers


def test_a_container_of_aufs_has_its_changes(flat, data_root):
    root = data_root("tiny-handmade-aufs-cas")
    out, _ = flat(f"{root}#container:c-rw", with_init=True)

    got = {row["path"]: row for row in listing(out)}
    want = answer_rows("tiny-aufs-cas-rw")
    canon = answer_rows("canon-hand")
    for path in ("opt/a", "opt/a/b", "var"):  # tar-split knows better than the disk
        want[path]["mtime"] = got[path]["mtime"] if path == "opt/a/b" else (
            canon[path]["mtime"]
        )  # fmt: skip
    assert got == want


def test_a_container_without_its_init_layer(flat, data_root):
    root = data_root("tiny-handmade-aufs-cas")
    out, _ = flat(f"{root}#container:c-rw")

    got = contents(out)
    assert ".dockerenv" not in got
    assert got["opt/rw"] == "rw\n"
    assert "opt/old" not in got


def test_a_container_of_the_first_overlay_driver(tmp_path, flat):
    """Image layers are full trees; a container's has marks and docker's init layer."""
    if os.geteuid() != 0:
        pytest.skip("needs root, for overlay's marks")
    root, place = tmp_path / "docker", "overlay/{}/root"
    docker_root(root, [BASE, APP], driver="overlay", place=place)
    top = root / place.format("01" * 32)
    (top / "d" / ".wh.a").unlink()
    mount = root / "overlay" / ("ee" * 32)
    (mount / "upper" / "d").mkdir(parents=True)
    (mount / "upper" / "d" / "new").write_text("new")
    (mount / "lower-id").write_text("01" * 32)
    os.mknod(mount / "upper" / "s", 0o600 | stat.S_IFCHR, os.makedev(0, 0))
    mounts = root / "image/overlay/layerdb/mounts" / ("cc" * 32)
    mounts.mkdir(parents=True)
    (mounts / "mount-id").write_text("ee" * 32)
    (mounts / "init-id").write_text("ee" * 32 + "-init")
    chain = [*chain_ids([f"sha256:{digest(tar)}" for tar in (BASE, APP)])]
    (mounts / "parent").write_text(f"sha256:{chain[1][0]}")

    out, _ = flat(f"{root}#container:cccc")

    assert contents(out) == {"./": "", "d/": "", "d/b": "data", "d/new": "new"}


EXPORTS = {
    "overlay2": ("tiny-docker20-overlay2", "c-tiny-child", "tovl-tinyrw"),
    "vfs": ("tiny-docker20-vfs", "c-tiny-child", "tovl-tinyrw"),
    "btrfs": ("tiny-docker20-btrfs", "c-tiny-child", "tovl-tinyrw"),
}


@pytest.mark.parametrize(("root", "name", "export"), EXPORTS.values(), ids=EXPORTS)
def test_a_container_is_what_docker_export_writes(flat, data_root, root, name, export):
    packed = fixture("saves", f"{export}.export.tar.xz").read_bytes()
    want = {row["path"]: row for row in listing(lzma.decompress(packed))}

    out, _ = flat(f"{data_root(root)}#container:{name}", with_init=True)

    got = {row["path"]: row for row in listing(out)}
    for rows in (got, want):
        for row in rows.values():
            # It keeps capabilities only, and an unlisted directory's time is the disk's.
            row.get("xattrs", {}).pop("user.fx", None)
            row.get("xattrs", {}).pop("user.fx2", None)
            if not row.get("xattrs", True):
                del row["xattrs"]
            row.pop("mtime")
            row["mode"] = row["mode"][-4:]  # docker's has the type in it
    del got[""]
    assert got == want


ODD_RECORDS = {
    "not JSON": ("{", "is not JSON"),
    "a list": ("[]", "not a JSON object"),
    "a name that is a list": ('{"Name": ["web"]}', "Name is not a string"),
    "an image that is a number": ('{"Image": 5}', "Image is not a string"),
}


@pytest.mark.parametrize(("text", "why"), ODD_RECORDS.values(), ids=ODD_RECORDS)
def test_an_invalid_record_of_a_container_does_not_affect_others(tmp_path, text, why):
    root = tmp_path / "docker"
    docker_root(root, [BASE])
    for id_, record in (("cc" * 32, text), ("dd" * 32, '{"Name": "/web"}')):
        mounts = root / "image/overlay2/layerdb/mounts" / id_
        mounts.mkdir(parents=True)
        (mounts / "mount-id").write_text("00" * 32)
        (mounts / "parent").write_text(f"sha256:{digest(BASE)}")
        (root / "containers" / id_).mkdir(parents=True)
        (root / "containers" / id_ / "config.v2.json").write_text(record)

    with pytest.raises(FormatError, match=why):
        flatten.open_image(f"{root}#container:cccc")
    with flatten.open_image(f"{root}#container:web") as image:
        assert len(image.layers) == 2
    done = run("orphans", root, "--json")
    (problem,) = json.loads(done.stdout)["problems"]
    assert why in problem


def test_an_archive_has_no_containers(tmp_path):
    image = tmp_path / "app.tar"
    image.write_bytes(docker_archive(layers(["a"])))

    with pytest.raises(SourceError, match="only engines' roots have containers"):
        flatten.open_image(f"{image}#container:web")


# --- names

BASE, APP = layers(
    ["d/", "d/a", "s->d/a"], ["-d/a", member("d/b", b"data", mode=0o640)]
)
DIGEST = "ab" * 32


@pytest.fixture
def root(tmp_path):
    """Return a small root of overlay2 with two images."""
    folder = tmp_path / "docker"
    docker_root(
        folder, [BASE], names=["host:5000/a/b:t", f"host:5000/a/b@sha256:{DIGEST}"]
    )
    before = json.loads((folder / "image/overlay2/repositories.json").read_text())
    docker_root(folder, [BASE, APP], names=["alpine:3.20", "alpine:latest"])
    path = folder / "image/overlay2/repositories.json"
    after = json.loads(path.read_text())
    after["Repositories"] |= before["Repositories"]
    path.write_text(json.dumps(after))
    return folder


NAMES = {
    "a name and a tag": ("alpine:3.20", 2),
    "a name alone is latest": ("alpine", 2),
    "docker's registry before it": ("docker.io/library/alpine:3.20", 2),
    "a registry with a port": ("host:5000/a/b:t", 1),
    "a digest": (f"host:5000/a/b@sha256:{DIGEST}", 1),
    "a tag and a digest": (f"host:5000/a/b:other@sha256:{DIGEST}", 1),
    "a position": ("@0", None),
}


@pytest.mark.parametrize(("name", "count"), NAMES.values(), ids=NAMES)
def test_names_are_resolved_as_docker_does(root, name, count):
    with flatten.open_image(f"docker-root:{root}#{name}") as image:
        assert len(image.layers) == count or count is None
        assert not any("@" in name for name in image.names)


def test_keys_of_documents_match_in_any_case(flat, tmp_path):
    root = tmp_path / "docker"
    image_id = docker_root(root, [BASE, APP], names=["fx/app:1"])
    content = root / "image/overlay2/imagedb/content/sha256"
    config = in_capitals((content / image_id).read_text())
    (content / image_id).rename(content / digest(config.encode()))
    (content / digest(config.encode())).write_text(config)
    names = root / "image/overlay2/repositories.json"
    text = names.read_text().replace(image_id, digest(config.encode()))
    names.write_text(in_capitals(text))

    out, _ = flat(f"{root}#fx/app:1")

    assert contents(out) == {"d/": "", "d/b": "data", "s": "->d/a"}
    names.write_text(in_capitals(text)[:-1] + "," + text[1:])
    with pytest.raises(FormatError, match="it has 'Repositories' twice"):
        flat(f"{root}#fx/app:1")


def test_ids_are_resolved_as_docker_does(root):
    with flatten.open_image(f"{root}#alpine") as image:
        wanted = image.id
    for name in (wanted, f"sha256:{wanted}", wanted[:12], wanted[:4]):
        with flatten.open_image(f"{root}#{name}") as image:
            assert image.id == wanted


def test_an_unknown_name_lists_the_candidates(root):
    with pytest.raises(
        SourceError, match=r"(?s)no image 'nope' in it; it has.*alpine:3.20"
    ):
        flatten.open_image(f"{root}#nope")
    with pytest.raises(UsageError, match=r"(?s)several images.*host:5000/a/b:t"):
        flatten.open_image(str(root))


def test_a_file_system_of_several_drivers(root):
    names = ["alpine:3.20", "app:1"]
    docker_root(root, [BASE], driver="vfs", place="vfs/dir/{}", names=names)
    docker_root(root, [APP], driver="btrfs", place="btrfs/subvolumes/{}")

    with flatten.open_image(f"{root}#alpine:3.20") as image:
        assert len(image.layers) == 2  # overlay2's is meant
    with flatten.open_image(f"{root}#alpine:3.20", store="vfs") as image:
        assert len(image.layers) == 1
    with pytest.raises(UsageError, match=r"(?s)--driver .*in btrfs\n.*in vfs"):
        flatten.open_image(f"{root}#app:1")
    with pytest.raises(SourceError, match="no driver or namespace 'zfs'; there is 'ov"):
        flatten.open_image(f"{root}#alpine:3.20", store="zfs")


# --- roots on other disks, broken roots, hostile roots


def test_a_root_and_an_archive_of_the_same_layers_give_the_same_bytes(
    root, flat, tmp_path
):
    image = tmp_path / "app.tar"
    image.write_bytes(docker_archive([BASE, APP]))
    want = flat(image)[0].read_bytes()

    for memory in (None, 0):
        limits = flatten.Limits(memory=memory)
        out, _ = flat(f"{root}#alpine", limits=limits, format="gnu")
        assert out.read_bytes() == want


def test_a_remapped_root_is_found_in_the_usual_one(root, flat):
    want = flat(f"{root}#alpine")[0].read_bytes()
    above = root.parent / "above"
    above.mkdir()
    root.rename(above / "100000.100000")

    assert flat(f"{above}#alpine")[0].read_bytes() == want
    assert flat(f"{above}/100000.100000#alpine")[0].read_bytes() == want


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give files away")
def test_owners_of_a_remapped_root_are_those_in_the_image(root, flat):
    for path in root.rglob("tar-split.json.gz"):
        path.unlink()
    for path in (root / "overlay2").rglob("*"):
        os.chown(path, 100_000 + path.is_symlink(), 200_000, follow_symlinks=False)
    root = root.rename(root.with_name("100000.200000"))

    out, _ = flat(f"{root}#alpine")

    rows = {row["path"]: (row["uid"], row["gid"]) for row in listing(out)}
    assert rows["d/b"] == (0, 0)
    assert rows["s"] == (1, 0)


ROOTLESS_USER = 61_002  # nobody on this machine, so that /etc/subuid grants nothing
SHOWN = layers([member("f", b"x", uid=5, gid=6)], ["g"])


def rootless(folder, tars):
    """Write the data root of a rootless docker, with a container that changed files."""
    docker_root(folder, tars)
    tree = folder / "overlay2" / ("ee" * 32) / "diff"
    tree.mkdir(parents=True)
    mounts = folder / "image/overlay2/layerdb/mounts" / ("cc" * 32)
    mounts.mkdir(parents=True)
    (mounts / "mount-id").write_text("ee" * 32)
    chain = [*chain_ids([f"sha256:{digest(tar)}" for tar in tars])]
    (mounts / "parent").write_text(f"sha256:{chain[-1][0]}")
    for name, (uid, gid) in {"own": (0, 0), "new": (7, 8)}.items():
        (tree / name).write_text("")
        os.chown(tree / name, uid, gid)
    os.mknod(tree / "g", 0o600 | stat.S_IFCHR, 0)
    (tree / "f").mkdir()
    os.setxattr(tree / "f", "user.overlay.opaque", b"y")
    for path in [folder, *folder.rglob("*")]:
        ids = (path.lstat().st_uid, path.lstat().st_gid)
        disk = [99_999 + id_ if id_ else ROOTLESS_USER for id_ in ids]
        os.chown(path, *disk, follow_symlinks=False)
    return folder


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give files away")
@pytest.mark.parametrize(
    "record", [True, False], ids=["with all records", "without one record"]
)
def test_owners_of_a_rootless_container_are_those_in_it(tmp_path, record, flat):
    root = rootless(tmp_path / "docker", SHOWN)
    (path,) = (chain_of(root, 1) / "tar-split.json.gz",)
    if not record:  # of the layer that does not show them
        path.unlink()

    out, warnings = flat(f"{root}#container:cccc")

    rows = {
        row["path"]: (row["uid"], row["gid"]) for row in listing(out) if row["path"]
    }
    assert rows == {"f": (0, 0), "new": (7, 8), "own": (0, 0)}
    assert len(warnings) == (not record)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give files away")
def test_owners_of_a_rootless_container_that_nothing_shows_are_a_warning(
    tmp_path, flat
):
    root = rootless(tmp_path / "docker", layers(["f"], ["g"]))

    out, warnings = flat(f"{root}#container:cccc")

    rows = {row["path"]: (row["uid"], row["gid"]) for row in listing(out)}
    assert (rows["own"], rows["new"]) == ((0, 0), (100_006, 100_007))
    assert [warning.partition(";")[0] for warning in warnings] == [
        f"no layer shows which ids user {ROOTLESS_USER} was granted"
    ]


def tree_of(root, position):
    return root / "overlay2" / (f"{position:02x}" * 32) / "diff"


def chain_of(root, position):
    found = [
        path.parent
        for path in root.glob("image/overlay2/layerdb/sha256/*/cache-id")
        if path.read_text() == f"{position:02x}" * 32
    ]
    return found[0]


def no_tree(root):
    shutil.rmtree(tree_of(root, 1))


def no_layerdb(root):
    shutil.rmtree(chain_of(root, 1))


def no_cache_id(root):
    (chain_of(root, 1) / "cache-id").unlink()


def cache_id_that_leaves(root):
    (chain_of(root, 1) / "cache-id").write_text("../../../../etc")


def diff_of_another(root):
    (chain_of(root, 1) / "diff").write_text(f"sha256:{DIGEST}")


def tree_behind_a_link_out(root):
    shutil.move(tree_of(root, 1), root.parent / "stolen")
    tree_of(root, 1).symlink_to("../../../stolen")


def tree_behind_an_absolute_link_out(root):
    shutil.move(tree_of(root, 1), root.parent / "stolen")
    tree_of(root, 1).symlink_to(root.parent / "stolen")


def file_behind_a_link_out(root):
    (root.parent / "stolen").write_bytes(b"data")
    (tree_of(root, 1) / "d" / "b").unlink()
    (tree_of(root, 1) / "d" / "b").symlink_to(root.parent / "stolen")


def no_file(root):
    (tree_of(root, 1) / "d" / "b").unlink()


def names_are_no_json(root):
    (root / "image/overlay2/repositories.json").write_text("{")


def names_without_an_id(root):
    text = json.dumps({"Repositories": {"a": {"a:1": "../../etc"}}})
    (root / "image/overlay2/repositories.json").write_text(text)


BROKEN = {
    "a missing directory": (no_tree, FormatError, r"/overlay2/0101.*/diff' is missing"),
    "a missing layer": (no_layerdb, FormatError, r"layerdb/sha256/\w{64}: missing"),
    "a missing cache-id": (no_cache_id, FormatError, r"/cache-id: expected an id, but the file is missing"),
    "a cache-id that leaves the root": (
        cache_id_that_leaves, FormatError, r"/cache-id: expected an id, found '../../../../etc'",
    ),
    "a layer with another diff_id": (
        diff_of_another, FormatError, "diff: sha256:abab.*, but the image has",
    ),
    "a directory that is a relative symlink out of the root": (
        tree_behind_a_link_out, FormatError, "/diff' is missing",
    ),
    "a directory that is an absolute symlink": (
        tree_behind_an_absolute_link_out, FormatError, "/diff' is missing",
    ),
    "a file that is a symlink": (
        file_behind_a_link_out, FormatError, "d/b' was changed on disk: it is a symlink",
    ),
    "a missing file": (no_file, FormatError, "/diff/d/b' is not there"),
    "names that are not JSON": (names_are_no_json, FormatError, "is not JSON"),
    "a name without an image id": (names_without_an_id, FormatError, "'a:1': the image id is not a sha256"),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "error", "why"), BROKEN.values(), ids=BROKEN)
def test_damage_is_reported_with_its_path(root, flat, damage, error, why):
    damage(root)

    with pytest.raises(error, match=why):
        flat(f"{root}#alpine")
    assert not (root.parent / "rootfs.tar").exists()


def test_an_edited_config_is_refused(root, flat):
    with flatten.open_image(f"{root}#alpine") as image:
        path = root / "image/overlay2/imagedb/content/sha256" / image.id
    path.write_text(path.read_text() + " ")

    with pytest.raises(IntegrityError, match=f"{path}: its digest is sha256:"):
        flat(f"{root}#alpine")


def test_an_edited_file_is_named(root, flat):
    (tree_of(root, 1) / "d" / "b").write_bytes(b"evil")

    with pytest.raises(
        IntegrityError, match=r"/d/b' was changed on disk \(--no-verify"
    ):
        flat(f"{root}#alpine")
    out, _ = flat(f"{root}#alpine", verify=False)
    assert contents(out)["d/b"] == "evil"


def test_names_that_are_not_ids_are_ignored(root):
    layerdb = root / "image/overlay2/layerdb/sha256"
    (layerdb / f"{'cd' * 32}-0123-removing").mkdir()
    (root / "image/overlay2/imagedb/content/sha256/tmp").write_text("{}")
    (root / "image/overlay2/repositories.json").unlink()

    with pytest.raises(UsageError, match=r"@1 \(no name\)"):
        flatten.open_image(str(root))


AT_REST = {
    "zfs": ("zfs/graph/{}", "is empty; mount the layer's dataset there: mount -t zfs"),
    "devicemapper": ("devicemapper/mnt/{}/rootfs", "is missing; activate the thin"),
}


@pytest.mark.parametrize(("driver", "told"), AT_REST.items(), ids=AT_REST)
def test_a_driver_whose_layers_are_not_mounted(tmp_path, flat, driver, told):
    place, why = told
    docker_root(tmp_path / "docker", [BASE, APP], driver=driver, place=place)
    want = flat(tmp_path / "docker")[0].read_bytes()  # as it is while it is mounted
    for number in range(2):
        tree = tmp_path / "docker" / place.format(f"{number:02x}" * 32)
        shutil.rmtree(tree)
        if driver == "zfs":
            tree.mkdir()

    with pytest.raises(FormatError, match=why):
        flat(tmp_path / "docker")
    with flatten.open_image(str(tmp_path / "docker")) as image:
        plan = flatten.plan_image(image)
        assert [path for path, _ in plan] == [b"d/", b"d/b", b"s"]
    for path in (tmp_path / "docker").rglob("tar-split.json.gz"):
        path.unlink()
    with pytest.raises(FormatError, match=why):
        flat(tmp_path / "docker")
    assert want


def test_an_image_without_layers(tmp_path, flat):
    docker_root(tmp_path / "docker", [])

    out, _ = flat(tmp_path / "docker")

    assert contents(out) == {}


AS_NOBODY = """
import os, sys
from flatten.cli.main import main
main([sys.argv[1], "-q", "-o", "/dev/null"])  # imports what nobody may not read
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
print("now as nobody", file=sys.stderr)
sys.exit(main([sys.argv[2] or sys.argv[1]]))
"""


@pytest.fixture
def as_nobody():
    """Return a function that flattens as an unprivileged user and returns the output."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to give it up")

    def run(root, reference, other=""):
        for path in (root, *root.parents):
            if path.stat().st_mode & 0o777 == 0o700:
                path.chmod(0o711)  # pytest's own
        for path in (root, *root.rglob("*")):
            if path.is_dir():
                path.chmod(0o755)
        done = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, f"{root}{reference}", other],
            capture_output=True, check=False, env={"PYTHONPATH": str(REPOSITORY)},
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr.decode().split("nobody\n")[1]

    return run


def test_an_unprivileged_user_can_read_a_root_with_records(root, flat, as_nobody):
    want = flat(f"{root}#alpine")[0].read_bytes()
    (tree_of(root, 1) / "d" / "b").chmod(0o644)

    assert as_nobody(root, "#alpine") == (0, want, "")


def test_an_unprivileged_user_gets_an_error_for_an_unreadable_file(root, as_nobody):
    code, _, said = as_nobody(root, "#alpine")

    assert code == 1
    assert "/d/b': Permission denied; read it as root" in said


def test_an_unprivileged_user_gets_an_error_for_an_unreadable_root(
    root, tmp_path, as_nobody
):
    closed = tmp_path / "closed"
    shutil.copytree(root, closed / "docker", symlinks=True)
    (closed / "docker" / "image").chmod(0o700)
    for kind in ("", "docker-root:"):
        code, _, said = as_nobody(root, "#alpine", f"{kind}{closed}/docker#alpine")

        assert code == 1
        assert f"cannot read '{closed}/docker/image': Permission denied; read" in said


def test_an_unprivileged_user_cannot_walk_overlay_directories(root, as_nobody):
    for path in root.rglob("tar-split.json.gz"):
        path.unlink()

    code, out, said = as_nobody(root, "#alpine")

    assert (code, out) == (1, b"")
    assert "trusted xattrs, which only root can see (CAP_SYS_ADMIN)" in said
    assert "without them deleted files would reappear; read it as root" in said


def test_a_directory_without_any_driver_is_not_a_root(tmp_path):
    (tmp_path / "image").mkdir()

    with pytest.raises(SourceError, match="not a"):
        flatten.open_image(str(tmp_path))


def test_every_truncated_file_is_a_documented_error(root, flat):
    """Truncating or emptying any file gives a documented error or an output."""
    files = [
        path for path in root.rglob("*")
        if path.is_file() and os.access(path, os.R_OK | os.W_OK)
    ]  # fmt: skip
    messages = []
    for path in files:
        data = path.read_bytes()
        for broken in (b"", data[: len(data) // 2], b"\xff" * len(data)):
            path.write_bytes(broken)
            try:
                flat(f"{root}#alpine")
            except FlattenError as error:
                messages.append(str(error))
        path.write_bytes(data)
    assert len(messages) > len(files)
    assert "\n" not in "".join(messages)


# --- from a name to directories, step by step


def test_the_cache_id_of_the_top_layer_on_btrfs(data_root):
    """Tag, image id, diff_ids, layerdb, cache-id: the directory is the whole tree."""
    root = data_root("tiny-docker20-btrfs")
    with flatten.open_image(f"{root}#fx/tiny-child:1") as image:
        place = image.layers[-1].place

    names = json.loads((root / "image/btrfs/repositories.json").read_text())
    image_id = names["Repositories"]["fx/tiny-child"]["fx/tiny-child:1"]
    path = root / "image/btrfs/imagedb/content" / image_id.replace(":", "/")
    diff_ids = json.loads(path.read_text())["rootfs"]["diff_ids"]
    chain = [*chain_ids(diff_ids)][-1][0]
    cache_id = (root / "image/btrfs/layerdb/sha256" / chain / "cache-id").read_text()
    assert place.cache_id == cache_id
    assert place.directory == str(root / "btrfs/subvolumes" / cache_id)
    assert (Path(place.directory) / "etc").is_dir()


def test_every_layer_has_its_directory(data_root):
    """An image's diff_ids to the directories of aufs, as they were looked for by hand."""
    root = data_root("tiny-handmade-aufs-cas")
    with flatten.open_image(f"{root}#fx/tiny-sib:1") as image:
        places = [layer.place for layer in image.layers]
        diff_ids = image.config["rootfs"]["diff_ids"]

    chains = chain_ids(diff_ids)
    assert len(places) == len(diff_ids)
    for place, (chain, diff_id) in zip(places, chains, strict=True):
        layer_dir = root / "image/aufs/layerdb/sha256" / chain
        assert (layer_dir / "diff").read_text() == diff_id
        assert (layer_dir / "cache-id").read_text() == place.cache_id
        assert place.directory == str(root / "aufs/diff" / place.cache_id)
        assert Path(place.directory).is_dir()
