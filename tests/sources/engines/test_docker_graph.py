"""Docker's data roots before 1.10: the graph."""

import gzip
import json
import shutil
import subprocess
import tarfile
from io import BytesIO

import pytest

import flatten
from builders import TRUSTED, digest, in_capitals, layer, layers, split
from fixtures import right
from flatten import FormatError, IntegrityError
from listing import contents, listing


@pytest.fixture
def flat(tmp_path):
    """Return a function that flattens an image and returns the output and warnings."""

    def run(source, **options):
        out = tmp_path / "rootfs.tar"
        done = flatten.export(str(source), out, **options)
        return out, list(done.warnings)

    return run


@pytest.mark.parametrize("image", ["hand", "tiny-child", "tiny-sib"])
def test_a_graph_of_docker_1_9_with_records_is_the_same_as_its_save(
    flat, data_root, image
):
    root = data_root("tiny-handmade-aufs-v1.9")
    out, warnings = flat(f"graph:{root}#fx/{image}:1")

    assert warnings == []
    answer = "canon-hand" if image == "hand" else f"canon-tovl-{image}"
    got = listing(out)
    assert got == right(answer, got)


@pytest.mark.parametrize("image", ["hand", "tiny-child", "tiny-sib"])
def test_without_records_a_graph_is_the_tree_that_aufs_showed(
    flat, data_root, tmp_path, image
):
    root = tmp_path / "docker"
    subprocess.run(["cp", "-a", data_root("tiny-handmade-aufs-v1.9"), root], check=True)
    for path in root.rglob("tar-data.json.gz"):
        path.unlink()

    out, warnings = flat(f"{root}#fx/{image}:1")

    got = listing(out)
    assert got == right(f"tiny-aufs-v1.9-{image}", got)
    assert len(warnings) == 1


@pytest.mark.parametrize("image", ["hand", "tiny-child", "tiny-sib"])
def test_a_graph_of_docker_0_6_is_the_tree_that_aufs_showed(flat, data_root, image):
    root = data_root("tiny-handmade-graph-v0.6")
    out, warnings = flat(f"graph:{root}#fx/{image}:1")

    got = listing(out)
    assert got == right(f"tiny-graph-v0.6-{image}", got)
    assert "tar-data.json.gz' is missing" in warnings[0]


def test_an_image_pulled_by_1_8_3_has_its_parents(data_root):
    root = data_root("tiny-handmade-aufs-v1.9")
    with flatten.open_image(f"{root}#fx/pulled:1") as image:
        assert len(image.layers) == 5
        by_digest = json.loads((root / "repositories-aufs").read_text())
        (name,) = [n for n in by_digest["Repositories"]["fx/pulled"] if "sha256" in n]
    with flatten.open_image(f"{root}#fx/pulled@{name}") as again:
        assert again.id == image.id


def test_every_step_has_an_entry_in_the_history(data_root):
    root = data_root("tiny-handmade-graph-v0.6")
    with flatten.open_image(f"{root}#fx/tiny-child:1") as image:
        steps = [step["created_by"] for step in image.config["history"]]
        assert len(steps) == len(image.layers)
        assert steps[0] == "/bin/sh -c hand layer 1"
        assert any("COPY --chown=7:8" in step for step in steps)


# --- small graphs

TARS = layers(["d/", "d/a", "b"], ["-d/a", "d/c"])


def graph(folder, tars=TARS, *, driver="aufs", place="aufs/diff/{}"):
    """Write a graph of a chain of images, the last of which is ``app:1``."""
    ids = [f"{position:02x}" * 32 for position in range(len(tars))]
    for position, (id_, tar) in enumerate(zip(ids, tars, strict=True)):
        step = folder / "graph" / id_
        step.mkdir(parents=True)
        document = {"id": id_, "os": "linux", "architecture": "amd64"}
        if position:
            document["parent"] = ids[position - 1]
        (step / "json").write_text(json.dumps(document))
        with tarfile.open(fileobj=BytesIO(tar)) as opened:
            opened.extractall(folder / place.format(id_), **TRUSTED)
    suffix = f"-{driver}" if driver else ""
    text = json.dumps({"Repositories": {"app": {"1": ids[-1]}}})
    (folder / f"repositories{suffix}").write_text(text)
    return folder


@pytest.fixture
def root(tmp_path):
    return graph(tmp_path / "docker")


def old(folder):
    """Write a graph of docker before storage drivers."""
    return graph(folder, driver="", place="graph/{}/layer")


def test_a_tar_split_record_is_used_if_present(root, flat):
    for position, tar in enumerate(TARS):
        record = root / "graph" / (f"{position:02x}" * 32) / "tar-data.json.gz"
        record.write_bytes(split(tar))

    out, warnings = flat(f"{root}#app:1")

    assert warnings == []
    assert contents(out) == {"b": "0", "d/": "", "d/c": "1"}


@pytest.mark.parametrize(
    ("driver", "place"),
    [
        ("vfs", "vfs/dir/{}"),
        ("btrfs", "btrfs/subvolumes/{}"),
        ("overlay", "overlay/{}/root"),
    ],
)
def test_a_full_tree_is_the_whole_image(tmp_path, flat, driver, place):
    tars = [layer("a"), layer("b", "d/")]
    root = graph(tmp_path / "docker", tars, driver=driver, place=place)

    out, _ = flat(f"{root}#app:1")

    assert contents(out) == {"./": "", "b": "0", "d/": ""}


def by_file(root):
    path = root / "graph" / ("01" * 32)
    (path / "json").write_text(json.dumps({"os": "linux"}))
    (path / "parent").write_text("00" * 32 + "\n")


def by_parent_id(root):
    path = root / "graph" / ("01" * 32)
    (path / "json").write_text(json.dumps({"parent_id": "sha256:" + "00" * 32}))


@pytest.mark.parametrize("change", [by_file, by_parent_id])
def test_a_parent_is_recorded_in_one_of_three_ways(root, flat, change):
    change(root)

    assert "b" in contents(flat(f"{root}#app:1")[0])


def test_a_directory_that_the_migration_left_in_the_graph(root, flat):
    """A symlink with docker's usual path, on a disk that is mounted elsewhere."""
    name = "00" * 32
    moved = root / "graph" / name / "layer"
    (root / "aufs" / "diff" / name).rename(moved)
    (root / "aufs" / "diff" / name).symlink_to(f"/var/lib/docker/graph/{name}/layer")

    assert "b" in contents(flat(f"{root}#app:1")[0])


def test_aufs_lists_of_ancestors_are_compared(root, flat):
    (root / "aufs" / "layers").mkdir()
    path = root / "aufs" / "layers" / ("01" * 32)
    path.write_text("00" * 32 + "\n")
    assert len(flat(f"{root}#app:1")[1]) == 1

    path.write_text("")
    assert any("has other ancestors" in text for text in flat(f"{root}#app:1")[1])


def checked(folder, archive, checksum=None):
    """Write a graph of docker 0.5, whose base came as an archive."""
    root = old(folder)
    base = root / "graph" / ("00" * 32)
    (base / "layer.tar.xz").write_bytes(archive)
    data = (base / "json").read_bytes() + b"\n" + archive
    sums = {base.name: checksum or f"sha256:{digest(data)}"}
    (root / "graph" / "checksums").write_text(json.dumps(sums))
    return root


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_the_old_checksum_is_verified(tmp_path, flat, pack):
    out, _ = flat(f"{checked(tmp_path / 'docker', pack(TARS[0]))}#app:1")

    assert contents(out) == {"./": "", "b": "0", "d/": "", "d/c": "1"}


def test_a_wrong_checksum_is_an_error(tmp_path, flat):
    root = checked(tmp_path / "docker", TARS[0], "sha256:" + "0" * 64)

    with pytest.raises(
        IntegrityError,
        match=r"layer 1 of 2 \(000000000000\): digest mismatch: expected sha256:",
    ):
        flat(f"{root}#app:1")
    assert "b" in contents(flat(f"{root}#app:1", verify=False)[0])


def test_an_archive_is_read_instead_of_a_missing_directory(tmp_path, flat):
    root = checked(tmp_path / "docker", gzip.compress(TARS[0]))
    shutil.rmtree(root / "graph" / ("00" * 32) / "layer")

    out, _ = flat(f"{root}#app:1")

    assert contents(out) == {"./": "", "b": "0", "d/": "", "d/c": "1"}


def in_a_circle(root):
    path = root / "graph" / ("00" * 32) / "json"
    path.write_text(json.dumps({"parent": "01" * 32}))


def no_parent(root):
    shutil.rmtree(root / "graph" / ("00" * 32))


def parent_that_leaves(root):
    (root / "graph" / ("01" * 32) / "json").write_text('{"parent": "../../etc"}')


def json_of_another(root):
    (root / "graph" / ("01" * 32) / "json").write_text('{"id": "other"}')


def no_tree(root):
    shutil.rmtree(root / "aufs" / "diff" / ("01" * 32))


def tag_of_no_id(root):
    text = json.dumps({"Repositories": {"app": {"1": "../../etc"}}})
    (root / "repositories-aufs").write_text(text)


BROKEN = {
    "a circular chain of parents": (in_a_circle, "/graph/01.*the chain of parents is circular"),
    "a missing parent": (no_parent, "/graph/0000.*: missing: an ancestor of 0101"),
    "a parent that is a path": (parent_that_leaves, r"parent: '\.\./\.\./etc' is not an id"),
    "the json of another image": (json_of_another, "this is the json of image 'other'"),
    "a missing directory": (no_tree, "/aufs/diff/0101.* is missing"),
    "a tag without an id": (tag_of_no_id, "'app': the image id of a tag is not an id"),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "why"), BROKEN.values(), ids=BROKEN)
def test_damage_is_reported_with_its_path(root, flat, damage, why):
    damage(root)

    with pytest.raises(FormatError, match=why):
        flat(f"{root}#app:1")


def test_other_names_in_the_graph_are_not_images(root):
    (root / "graph" / "_tmp").mkdir()
    (root / "graph" / ":tmp:").mkdir()

    with flatten.open_image(f"{root}#@0") as image:
        assert image.names == ("app:1",)
    with flatten.open_image(f"{root}#0101") as image:
        assert image.names == ("app:1",)


def container(root, place, **more):
    """Write a container of ``app:1`` that has removed one file and made another."""
    id_ = "cc" * 32
    folder = root / "containers" / id_
    folder.mkdir(parents=True)
    document = {"ID": id_, "Image": "01" * 32, **more}
    (folder / "config.json").write_text(json.dumps(document))
    own = root / place.format(id_)
    own.mkdir(parents=True)
    (own / ".wh.b").touch()
    (own / "new").write_text("new")


def test_a_container_of_aufs(root, flat):
    container(root, "aufs/diff/{}", Name="/web", Driver="aufs")
    init = root / "aufs" / "diff" / ("cc" * 32 + "-init")
    init.mkdir()
    (init / ".dockerinit").touch()
    want = {"./": "", "d/": "", "d/c": "1", "new": "new"}

    assert contents(flat(f"{root}#container:web")[0]) == want
    got = contents(flat(f"{root}#container:web", with_init=True)[0])
    assert got == want | {".dockerinit": ""}


def test_keys_of_documents_match_in_any_case(root, flat):
    container(root, "aufs/diff/{}", Name="/web", Driver="aufs")
    names = root / "repositories-aufs"
    names.write_text(names.read_text().replace('"app"', '"fx/app"'))
    for path in [names, *root.glob("*/*/*json")]:
        path.write_text(in_capitals(path.read_text()))

    assert contents(flat(f"{root}#fx/app:1")[0])["d/c"] == "1"
    assert contents(flat(f"{root}#container:web")[0])["new"] == "new"
    text = names.read_text()
    names.write_text(text[:-1] + "," + text[1:].lower())
    with pytest.raises(FormatError, match="it has 'Repositories' twice"):
        flat(f"{root}#fx/app:1")


def test_a_container_before_storage_drivers(tmp_path, flat):
    root = old(tmp_path / "docker")
    container(root, "containers/{}/rw")

    got = contents(flat(f"{root}#container:cccc")[0])

    assert got == {"./": "", "d/": "", "d/c": "1", "new": "new"}
