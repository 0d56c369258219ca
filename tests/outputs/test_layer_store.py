"""The directory of plain layers that images share."""

import gzip
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

import flatten
from builders import (
    config,
    digest,
    docker_archive,
    layers,
    legacy_archive,
    member,
    oci_files,
)
from flatten.errors import FlattenError, IntegrityError
from flatten.image.verify import checking
from flatten.outputs.layer_store import LayerStore
from flatten.pipeline import plan_image
from flatten.plan.pieces import pieces
from flatten.sources.open import open_image
from kinds import (
    containerd,
    containers_storage,
    docker,
    docker_root,
    oci,
    oci_archive,
)
from needs import root_only

TARS = layers(["a", "d/", "d/x", "l=a"], ["b", "d/y"], ["-a", "d/x"])


def packed(path, tars=TARS, **more):
    """Write an archive of compressed layers; return the reference."""
    data = [gzip.compress(tar, mtime=0) for tar in tars]
    path.write_bytes(docker_archive(data, config_document=config(tars, **more)))
    return str(path)


@contextmanager
def stored(reference, folder):
    """Open an image whose layers are in the store."""
    with open_image(reference) as image:
        yield LayerStore(folder, sync=False).stored(image)


def names(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def written(image):
    """Return the bytes of the planned tar that are no layer's, and its spans."""
    return list(pieces(plan_image(image)))


def packed_layout(folder, tars):
    """Write a layout of compressed layers; return the reference."""
    for name, data in oci_files(tars, pack=gzip.compress).items():
        path = folder / "layout" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return str(folder / "layout")


@pytest.mark.parametrize("source", [packed_layout, docker_root, containers_storage])
def test_layers_of_every_kind_are_stored_by_diff_id(tmp_path, source):
    reference = source(tmp_path, TARS)

    with stored(reference, tmp_path / "store"):
        pass

    assert names(tmp_path / "store") == sorted(f"sha256/{digest(t)}" for t in TARS)
    for tar in TARS:
        assert (tmp_path / "store/sha256" / digest(tar)).read_bytes() == tar


@pytest.mark.parametrize("source", [docker, oci, oci_archive, containerd])
def test_plain_layers_stay_where_they_are(tmp_path, source):
    reference = source(tmp_path, TARS)

    with open_image(reference) as image:
        again = LayerStore(tmp_path / "store").stored(image)

        assert again.layers == image.layers
    assert not (tmp_path / "store").exists()


def test_the_image_is_the_same(tmp_path):
    reference = packed(tmp_path / "i.tar")

    with open_image(reference) as image, stored(reference, tmp_path / "store") as again:
        assert written(again) == written(image)
        assert [layer.name for layer in again.layers] == [
            layer.name for layer in image.layers
        ]
        assert (again.id, again.names) == (image.id, image.names)


def test_layers_of_images_before_diff_ids_get_their_hash(tmp_path):
    packed = [gzip.compress(tar) for tar in TARS]
    (tmp_path / "i.tar").write_bytes(legacy_archive(packed))

    with stored(str(tmp_path / "i.tar"), tmp_path / "store") as image:
        assert [x.diff_id for x in image.layers] == [
            f"sha256:{digest(t)}" for t in TARS
        ]


def test_a_layer_that_is_stored_is_not_read(tmp_path):
    reference = packed(tmp_path / "i.tar")
    with stored(reference, tmp_path / "store"):
        pass
    broken = [b"\x1f\x8b broken"] * len(TARS)
    (tmp_path / "i.tar").write_bytes(
        docker_archive(broken, config_document=config(TARS))
    )

    with stored(reference, tmp_path / "store") as image:
        assert len(plan_image(image)) == 5


def test_a_layer_without_its_diff_id_is_not_stored(tmp_path):
    wrong = config(TARS, rootfs={"type": "layers", "diff_ids": [
        f"sha256:{digest(TARS[0])}", f"sha256:{'0' * 64}", f"sha256:{digest(TARS[2])}"
    ]})  # fmt: skip
    packed = [gzip.compress(tar) for tar in TARS]
    (tmp_path / "i.tar").write_bytes(docker_archive(packed, config_document=wrong))

    with pytest.raises(
        IntegrityError, match=f"expected sha256:0{{64}}, found sha256:{digest(TARS[1])}$"
    ), stored(str(tmp_path / "i.tar"), tmp_path / "store"):  # fmt: skip
        pass

    assert names(tmp_path / "store") == [f"sha256/{digest(TARS[0])}"]


def test_a_layer_that_was_changed_in_the_store_does_not_verify(tmp_path):
    reference = packed(tmp_path / "i.tar")
    with stored(reference, tmp_path / "store"):
        pass
    path = tmp_path / "store/sha256" / digest(TARS[1])
    path.write_bytes(TARS[1].replace(b"root", b"toor", 1) + b"\0")

    with (
        stored(reference, tmp_path / "store") as image,
        checking(image.layers) as check,
        pytest.raises(IntegrityError, match="was changed; remove it"),
    ):
        check.finish()


def test_a_layer_that_changes_while_it_is_read_is_noticed(tmp_path):
    reference = packed(tmp_path / "i.tar")
    with stored(reference, tmp_path / "store") as image:
        plan_image(image)
        image.check_unchanged()
        with open(tmp_path / "store/sha256" / digest(TARS[1]), "ab") as file:
            file.write(b"more")

        with pytest.raises(FlattenError, match="changed while being read"):
            image.check_unchanged()


RUN = """
import os, sys
from pathlib import Path
from flatten.outputs.layer_store import LayerStore
from flatten.sources.open import open_image

sys.stdin.read()  # until all are ready
with open_image(sys.argv[1]) as image:
    stored = LayerStore(Path(sys.argv[2])).stored(image)
    print([os.fstat(layer.open().descriptor).st_ino for layer in stored.layers])
"""


def test_runs_at_once_write_a_layer_once(tmp_path):
    tars = layers([member("large", os.urandom(3_000_000))], ["b"])
    reference = packed(tmp_path / "i.tar", tars)
    run = [sys.executable, "-c", RUN, reference, str(tmp_path / "store")]
    running = [
        subprocess.Popen(run, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    for process in running:
        process.stdin.close()
    said = set()
    for process in running:
        with process:
            said.add(process.stdout.read())

    assert [process.returncode for process in running] == [0] * 6
    assert len(said) == 1, "each has opened the same files"
    assert names(tmp_path / "store") == sorted(f"sha256/{digest(t)}" for t in tars)


def test_what_a_killed_run_left_is_removed(tmp_path):
    reference = packed(tmp_path / "i.tar")
    folder = tmp_path / "store/sha256"
    folder.mkdir(parents=True)
    name = digest(TARS[0])
    (folder / f".{name}.lock").touch()
    (folder / f".{name}.0123456789ab.flatten-part").write_bytes(b"half")

    with stored(reference, tmp_path / "store"):
        pass

    assert names(tmp_path / "store") == sorted(f"sha256/{digest(t)}" for t in TARS)


@root_only
def test_a_full_disk_leaves_nothing(tmp_path):
    reference = packed(tmp_path / "i.tar", layers([member("a", os.urandom(3 << 20))]))
    store = tmp_path / "store"
    store.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", store], check=True
    )
    try:
        with pytest.raises(
            FlattenError, match=r"sha256/[0-9a-f]{64}': cannot write: No space left"
        ), stored(reference, store):  # fmt: skip
            pass
        assert names(store) == []
    finally:
        subprocess.run(["umount", "--lazy", store], check=True)


@pytest.mark.parametrize("where", ["file/store", "file"])
def test_a_directory_that_cannot_be_made(tmp_path, where):
    reference = packed(tmp_path / "i.tar")
    (tmp_path / "file").touch()

    with pytest.raises(
        flatten.FlattenError, match="sha256': cannot create: Not a directory"
    ), stored(reference, Path(tmp_path, where)):  # fmt: skip
        pass
