"""`make wheels` and `make image`: what is released installs and runs."""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import flatten

pytestmark = pytest.mark.engines  # two minutes, and PyPI

ROOT = Path(__file__).parents[2]
STAMPS = (".installed", ".release-tools")  # make must leave this environment as it is


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Return the wheel that `make wheels` builds, checks and tries."""
    for tool in ("auditwheel", "build", "check_wheel_contents", "twine"):
        if find_spec(tool) is None:
            pytest.skip(f"needs {tool}, which `make wheels` installs")
    folder = tmp_path_factory.mktemp("dist")
    installed = [f"--old-file={sys.prefix}/{name}" for name in STAMPS]
    subprocess.run(
        [
            "make", "wheels", *installed, f"VENV={sys.prefix}", f"DIST={folder}/dist",
            f"STAGE={folder}/stage",
        ],
        cwd=ROOT, check=True,
    )  # fmt: skip
    names = sorted(path.name for path in (folder / "dist").iterdir())
    stem = f"flatten_image-{flatten.__version__}"
    assert names[1:] == [f"{stem}.tar.gz"]
    assert re.fullmatch(rf"{stem}-cp311-abi3-manylinux.*\.whl", names[0])
    return folder / "dist" / names[0]


def test_pipx_runs_the_wheel(wheel, tmp_path):
    pipx = shutil.which("pipx") or pytest.skip("needs pipx")
    done = subprocess.run(
        [pipx, "run", "--spec", wheel, "flatten", "--version"],
        env=os.environ | {"PIPX_HOME": str(tmp_path)},
        check=True, capture_output=True, text=True,
    )  # fmt: skip

    assert done.stdout == f"flatten {flatten.__version__}\n"


@pytest.fixture(scope="module")
def image(wheel, tmp_path_factory):
    """Return the container image that `make image` makes of the wheel."""
    if not shutil.which("mmdebstrap"):
        pytest.skip("needs mmdebstrap")
    out = tmp_path_factory.mktemp("image") / "flatten-image.tar"
    script = ROOT / "tools" / "image.py"
    subprocess.run([sys.executable, script, wheel, out], cwd=ROOT, check=True)
    return out


def test_skopeo_reads_the_image(image):
    skopeo = shutil.which("skopeo") or pytest.skip("needs skopeo")
    done = subprocess.run(
        [skopeo, "inspect", "--config", f"docker-archive:{image}"],
        check=True, capture_output=True,
    )  # fmt: skip
    config = json.loads(done.stdout)

    assert config["config"]["Entrypoint"] == ["/usr/local/bin/flatten"]
    assert len(config["rootfs"]["diff_ids"]) == 1


def test_the_image_runs_flatten(image, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("needs root, for chroot")
    root = tmp_path / "root"
    flatten.export(image, f"{root}/")
    assert not list(root.rglob("__pycache__"))
    assert not (root / "usr/share/doc").exists()

    done = subprocess.run(
        ["chroot", root, "flatten", "--version"],
        env={"PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
        check=True, capture_output=True, text=True,
    )  # fmt: skip

    assert done.stdout == f"flatten {flatten.__version__}\n"
