"""Deltas and cut images in real engines: a base and its delta give the whole tree.

`make check-engines` runs it.
"""

import json
import subprocess
from pathlib import Path

import pytest

import flatten
from builders import archive, config, digest, docker_archive, layers, member
from engines import call, rows
from flatten.image.history import Point
from kinds import history
from listing import disk_listing
from needs import need, root_only

pytestmark = [pytest.mark.engines, root_only]

TARS = layers(
    ["bin/", "d/", "d/a", "d/b", "d/sub/", "d/sub/x", "e/", "e/1", "e/2", "h=d/a", "gone/",
     "gone/x", "swap/", "swap/x", "file", "s->d", member("x", b"0", records={b"SCHILY.xattr.user.k": b"v"})],
    ["d/", "-d/a", "-gone", "e/", "e/*", "mid"],
    ["d/", "d/sub/", "d/sub/y", "d/c", "-mid", "swap", "file/", "file/in", "e/", "d/b", "l=d/b"],
    ["e/", "gone/", "gone/new", member("late", b"3", records={b"mtime": b"1600000000.25"})],
)  # fmt: skip
STEPS = {"history": history("one", "-ENV A=1", "two", "three", "four", "-CMD [\"x\"]"),
         "config": {"Env": ["A=1"], "Cmd": ["x"]}}  # fmt: skip


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image.tar"
    path.write_bytes(docker_archive(TARS, config_document=config(TARS, **STEPS)))
    return path


@pytest.fixture(params=[1, 2, 3])
def rebuilt(image, tmp_path, request):
    """Return an archive of the first layers and one with what the others add."""
    flatten.export(
        image, tmp_path / "delta.tar", format="pax", since=Point(layer=request.param)
    )
    tars = [*TARS[: request.param], (tmp_path / "delta.tar").read_bytes()]
    more = {"config": STEPS["config"]}
    path = tmp_path / "rebuilt.tar"
    path.write_bytes(
        docker_archive(tars, tags=["us/delta:1"], config_document=config(tars, **more))
    )
    return path


def exported(engine, archive_, name, tmp_path):
    engine("load", "-i", archive_)
    container = engine("create", name).strip()
    engine("export", container, "-o", tmp_path / "export.tar")
    engine("rm", container)
    found = rows(tmp_path / "export.tar")
    for row in found.values():
        row.pop("layer", None)
        if row["type"] == "dir":
            row["mtime"] = 0  # engines make entries in directories
    return found


def squashed(image, tmp_path):
    """Return an archive of one layer, the right tree."""
    flatten.export(image, tmp_path / "flat.tar", format="pax")
    tar = (tmp_path / "flat.tar").read_bytes()
    more = {"config": STEPS["config"]}
    (tmp_path / "one.tar").write_bytes(
        docker_archive([tar], tags=["us/one:1"], config_document=config([tar], **more))
    )
    return tmp_path / "one.tar"


def test_docker_applies_a_delta(docker, image, rebuilt, tmp_path):
    want = exported(docker, squashed(image, tmp_path), "us/one:1", tmp_path)

    assert exported(docker, rebuilt, "us/delta:1", tmp_path) == want
    assert "gone/new" in want


def test_podman_applies_a_delta(podman, image, rebuilt, tmp_path):
    want = exported(podman, squashed(image, tmp_path), "localhost/us/one:1", tmp_path)

    assert exported(podman, rebuilt, "localhost/us/delta:1", tmp_path) == want


def test_umoci_applies_a_delta(image, rebuilt, tmp_path):
    need("umoci")
    need("skopeo")
    found = []
    for source in (squashed(image, tmp_path), rebuilt):
        layout = tmp_path / f"{source.stem}-layout"
        call(
            "skopeo",
            "--insecure-policy",
            "copy",
            f"docker-archive:{source}",
            f"oci:{layout}:x",
        )
        call("umoci", "unpack", "--image", f"{layout}:x", tmp_path / source.stem)
        found.append(
            {
                row["path"]: row
                for row in disk_listing(tmp_path / source.stem / "rootfs")
            }
        )

    assert found[0] == found[1]


@pytest.mark.parametrize("step", [1, 2, 4])
def test_docker_loads_an_image_that_was_cut(docker, image, tmp_path, step):
    """The layers until a step and the config of that step are an image of their own."""
    done = subprocess.run(
        ["python3", "-m", "flatten", "config", image, "--at", str(step)],
        capture_output=True, check=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    document = done.stdout
    count = len(json.loads(document)["rootfs"]["diff_ids"])
    names = [f"{n}/layer.tar" for n in range(count)]
    manifest = [
        {
            "Config": f"{digest(document)}.json",
            "RepoTags": ["us/cut:1"],
            "Layers": names,
        }
    ]
    path = tmp_path / "cut.tar"
    path.write_bytes(archive([
        *zip(names, TARS, strict=False), (f"{digest(document)}.json", document),
        ("manifest.json", json.dumps(manifest).encode()),
    ]))  # fmt: skip

    docker("load", "-i", path)
    (found,) = json.loads(docker("inspect", "us/cut:1"))

    if "io.containerd" not in docker("info", "-f", "{{.DriverStatus}}"):
        # With containerd's store, the id is the digest of the manifest.
        assert found["Id"] == f"sha256:{digest(document)}"
    assert len(found["RootFS"]["Layers"]) == count
    assert found["Config"]["Env"] == (["A=1"] if step > 1 else found["Config"]["Env"])
    assert len(docker("history", "-q", "us/cut:1").split()) == step
