"""Install each built distribution into a fresh venv and run the demo with it.

    python tools/try_dist.py dist/*.whl dist/*.tar.gz

The sdist is installed twice: with a C compiler, and as on a machine without one.
"""

import os
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

from stage import GENERATED

ROOT = Path(__file__).parents[1]
IN_WHEEL = {
    "flatten/_headers.abi3.so", "flatten/_headers.pyi", "flatten/py.typed",
    "flatten/views/page.css", "flatten/views/page.html", "flatten/views/page.js",
}  # fmt: skip
IN_SDIST = {
    "CHANGELOG.md", "LICENSE", "Makefile", "README.md", "bench/run.py", "docs/cli.md",
    "examples/make_image.py", "flatten/_headers.c", "flatten/py.typed", "setup.py",
    "tests/conftest.py", "tools/stage.py",
}  # fmt: skip
NO_KERNEL = "there is no compiled kernel"  # what --verbose then says


def missing(path: Path) -> list[str]:
    """Return the required files that a distribution lacks."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            return sorted(IN_WHEEL.difference(wheel.namelist()))
    with tarfile.open(path) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    return sorted(IN_SDIST - names)


def try_out(path: Path, scratch: Path, *, compiler: bool = True) -> None:
    """Install a distribution, check its files and flatten the demo image."""
    lacking = missing(path)
    if lacking:
        raise SystemExit(f"{path}: missing: {', '.join(lacking)}")
    prefix = scratch / "venv"
    venv.create(prefix, with_pip=True)
    python, flatten = prefix / "bin/python", prefix / "bin/flatten"
    environment = dict(os.environ)
    if not compiler:
        environment |= {"PATH": str(prefix / "bin"), "CC": "/bin/false"}
    subprocess.run(
        [
            python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
            path.resolve(),
        ],
        check=True, env=environment,
    )  # fmt: skip
    for name in GENERATED:
        if not (prefix / name).stat().st_size:
            raise SystemExit(f"{path}: {name} is empty")
    image, out = scratch / "image.tar", scratch / "rootfs.tar"
    subprocess.run([python, ROOT / "examples/make_image.py", image], check=True)
    # Not from the checkout, whose package would come first.
    said = subprocess.run(
        [flatten, image, "-o", out, "--verbose"],
        check=True, cwd=scratch, stderr=subprocess.PIPE, text=True,
    ).stderr  # fmt: skip
    if (NO_KERNEL in said) is compiler:
        raise SystemExit(f"{path}: with {compiler=}, flatten says: {said}")
    with tarfile.open(out) as tar:
        member = tar.extractfile("etc/motd")
        motd = member.read() if member else b""
    if motd != b"hello from the application\n":
        raise SystemExit(f"{path}: the demo's etc/motd is {motd!r}")
    report = scratch / "report.html"
    subprocess.run([flatten, "report", image, "-o", report], check=True, cwd=scratch)
    version = subprocess.run(
        [flatten, "--version"], check=True, cwd=scratch, capture_output=True, text=True
    ).stdout.split()[-1]
    if f"-{version}" not in path.name:
        raise SystemExit(f"{path}: the command says version {version}")
    how = "with" if compiler or path.suffix == ".whl" else "without"
    print(f"{path}: installs {how} the kernel, and the demo runs")


if __name__ == "__main__":
    for path in map(Path, sys.argv[1:]):
        for compiler in (True,) if path.suffix == ".whl" else (True, False):
            with tempfile.TemporaryDirectory() as directory:
                try_out(path, Path(directory), compiler=compiler)
