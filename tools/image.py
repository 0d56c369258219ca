"""Make a container image of flatten with flatten, without a Dockerfile.

    python tools/image.py dist/*.whl dist/flatten-image.tar

mmdebstrap makes a Debian root with Python and the tools that make disk images. The
root becomes the only layer of an image. flatten adds the wheel and what it depends on,
leaves documentation out, and writes the result for `docker load`:

    docker load -i dist/flatten-image.tar
    docker run --rm -i flatten-image:0.2.0 - <image.tar >rootfs.tar
"""

import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

SUITE = "bookworm"
PYTHON = "3.11"  # of the suite
PACKAGES = ("python3", "e2fsprogs", "erofs-utils", "squashfs-tools-ng")
MIRROR = os.environ.get("DEBIAN_MIRROR", "http://deb.debian.org/debian")
LEFT_OUT = (
    "/usr/share/doc", "/usr/share/info", "/usr/share/locale", "/usr/share/man",
    "/var/cache", "/var/lib/apt/lists", "/var/log", "__pycache__",
)  # fmt: skip
SCRIPT = """#!/usr/bin/python3
from flatten.cli.main import script

script()
"""


def install(wheel: Path, target: Path) -> None:
    """Install a wheel and its dependencies for the suite's Python, not for this one.

    What pip puts outside of the packages (scripts, manual page) is removed again.
    """
    machine = platform.machine()
    platforms = [f"manylinux2014_{machine}", f"manylinux_2_28_{machine}"]
    subprocess.run(
        [
            sys.executable, "-m", "pip", "install", "--quiet", "--no-compile",
            "--disable-pip-version-check", "--target", target, "--only-binary=:all:",
            "--python-version", PYTHON, *(f"--platform={name}" for name in platforms),
            wheel.resolve(),
        ],
        check=True,
    )  # fmt: skip
    for name in ("bin", "share"):
        shutil.rmtree(target / name, ignore_errors=True)


def debian(root: Path) -> None:
    """Write a Debian root as a tar."""
    include = f"--include={','.join(PACKAGES)}"
    subprocess.run(
        ["mmdebstrap", "--quiet", "--variant=essential", include, SUITE, root, MIRROR],
        check=True,
    )


def image(root: Path, out: Path) -> None:
    """Write a docker-archive whose only layer is a tar."""
    with root.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    machine = {"x86_64": "amd64", "aarch64": "arm64"}
    config = {
        "architecture": machine.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {
            "Entrypoint": ["/usr/local/bin/flatten"],
            "Cmd": ["--help"],
            "Env": ["PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        "history": [{"created_by": f"mmdebstrap {SUITE}"}],
    }
    manifest = [{"Config": "config.json", "RepoTags": None, "Layers": ["layer.tar"]}]
    with tarfile.open(out, "w") as tar:
        tar.add(root, "layer.tar")
        for name, document in (("config.json", config), ("manifest.json", manifest)):
            data = json.dumps(document).encode()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def make(wheel: Path, out: Path) -> None:
    """Make the image of a wheel."""
    version = wheel.name.split("-")[1]
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        site, script = work / "site", work / "flatten"
        install(wheel, site)
        script.write_text(SCRIPT)
        script.chmod(0o755)
        debian(work / "root.tar")
        image(work / "root.tar", work / "base.tar")
        subprocess.run(
            [
                sys.executable, "-m", "flatten", work / "base.tar", "--docker", out,
                "--tag", f"flatten-image:{version}",
                "--add", f"{site}:/usr/lib/python3/dist-packages",
                "--add", f"{script}:/usr/local/bin/flatten",
                *(f"--exclude={pattern}" for pattern in LEFT_OUT),
            ],
            check=True,
        )  # fmt: skip


if __name__ == "__main__":
    make(Path(sys.argv[1]), Path(sys.argv[2]))
