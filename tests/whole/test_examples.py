"""The examples work: with make, in a chroot, in virtual machines."""

import ast
import os
import re
import select
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from builders import archive, docker_archive, layers, member, oci_files
from flatten.cli import registry
from listing import contents
from needs import need, root_only

EXAMPLES = Path(__file__).parents[2] / "examples"
LOGS = Path(__file__).parents[2] / "check-engines"
FLATTEN = f"{sys.executable} -m flatten"
BUSYBOX = shutil.which("busybox")


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "app.tar"
    path.write_bytes(docker_archive(layers(["a", "d/x"])))
    return path


@pytest.fixture
def machine(tmp_path):
    """Return an image with a static busybox, and a file to print."""
    if BUSYBOX is None or b"statically" not in subprocess.run(
        ["file", "-L", BUSYBOX], capture_output=True, check=True
    ).stdout:  # fmt: skip
        pytest.skip("needs a static busybox (busybox, or busybox-static), and file")
    words = [
        "bin/", member("bin/busybox", Path(BUSYBOX).read_bytes(), mode=0o755),
        "bin/sh->busybox", "etc/", member("etc/motd", b"hello from the image\n"),
    ]  # fmt: skip
    path = tmp_path / "app.tar"
    path.write_bytes(docker_archive(layers(words)))
    return path


def make(*targets, cwd):
    (cwd / "Makefile").write_text(f"include {EXAMPLES / 'flatten.mk'}\n")
    need("make")
    return subprocess.run(
        ["make", f"FLATTEN={FLATTEN}", *targets], cwd=cwd, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


def test_make_makes_what_is_asked_for_once(image, tmp_path):
    first = make("app.rootfs.tar", cwd=tmp_path)
    second = make("app.rootfs.tar", cwd=tmp_path)
    later = time.time() + 5
    os.utime(image, (later, later))
    third = make("app.rootfs.tar", cwd=tmp_path)

    assert (first.returncode, second.returncode, third.returncode) == (0, 0, 0)
    assert contents(tmp_path / "app.rootfs.tar") == {"a": "0", "d/": "", "d/x": "0"}
    assert " -o 'app.rootfs.tar' 'app.tar'" in first.stdout
    assert "is up to date" in second.stdout
    assert third.stdout == first.stdout


def test_make_fills_a_directory_again(image, tmp_path):
    for stamp in (0, 5):
        later = time.time() + stamp
        os.utime(image, (later, later))
        assert make("app.rootfs.stamp", cwd=tmp_path).returncode == 0

    assert (tmp_path / "app.rootfs" / "d" / "x").read_text() == "0"


def test_make_leaves_no_target_of_an_image_that_is_broken(image, tmp_path):
    image.write_bytes(image.read_bytes()[:2000])

    got = make("-k", "app.rootfs.tar", "app.cpio.gz", cwd=tmp_path)

    assert got.returncode == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["Makefile", "app.tar"]


@root_only
def test_make_makes_all_kinds_at_once(image, tmp_path):
    need("tar2sqfs", "mkfs.erofs", "mke2fs", "qemu-img")
    kinds = (
        "rootfs.tar",
        "rootfs.tar.zst",
        "ext4",
        "qcow2",
        "squashfs",
        "erofs",
        "cpio.gz",
    )
    targets = [f"app.{kind}" for kind in kinds]

    got = make("-j4", *targets, cwd=tmp_path)

    assert got.returncode == 0, got.stderr
    assert {p.name for p in tmp_path.iterdir()} == {"Makefile", "app.tar", *targets}
    assert image.exists()


def test_make_quotes_names(image, tmp_path):
    name = "a&b_(1)"
    image.rename(tmp_path / f"{name}.tar")

    got = make(f"{name}.rootfs.tar", cwd=tmp_path)

    assert got.returncode == 0, got.stderr
    assert contents(tmp_path / f"{name}.rootfs.tar") == {"a": "0", "d/": "", "d/x": "0"}


SCRIPTS = ["boot.sh", "chroot.sh", "pipeline.sh"]


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_without_arguments_prints_its_usage(script, tmp_path):
    got = subprocess.run(
        [EXAMPLES / script], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert got.returncode == 2
    assert got.stderr.startswith(f"usage: {script} ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_has_help(script):
    got = subprocess.run(
        [EXAMPLES / script, "--help"], capture_output=True, text=True, check=True
    )

    assert got.stdout.startswith(f"usage: {script} ")


def test_boot_looks_for_qemu_before_it_makes_a_disk(tmp_path):
    got = subprocess.run(
        [EXAMPLES / "boot.sh", "app.tar"],
        env=os.environ | {"QEMU": "no-such-qemu", "TMPDIR": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert got.returncode == 1
    assert got.stderr == ("boot.sh: no-such-qemu not found: install qemu-system-x86\n")
    assert list(tmp_path.iterdir()) == []


@root_only
def test_a_chroot_runs_busybox(machine, tmp_path):
    spaced = machine.rename(tmp_path / "my app.tar")
    got = subprocess.run(
        [EXAMPLES / "chroot.sh", spaced, "/bin/busybox", "cat", "/etc/motd"],
        env=os.environ | {"FLATTEN": FLATTEN, "TMPDIR": str(tmp_path)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert got.stdout == "hello from the image\n"


@root_only
def test_the_pipeline_ends_in_a_disk_and_its_proof(tmp_path):
    need("skopeo", "mke2fs")
    files = oci_files(layers(["a", "d/x"]), names=("x",))
    (tmp_path / "i.tar").write_bytes(archive(files.items()))
    out = tmp_path / "my disk"
    subprocess.run(
        [EXAMPLES / "pipeline.sh", f"oci-archive:{tmp_path}/i.tar:x", out],
        env=os.environ | {"FLATTEN": FLATTEN, "SKOPEO": "skopeo --insecure-policy"},
        check=True,
    )  # fmt: skip

    assert {p.name for p in out.iterdir()} == {
        "SHA256SUMS", "config.json", "disk.ext4", "image.tar", "rootfs.list", "rootfs.tar",
    }  # fmt: skip
    subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=out, check=True)


def test_the_commands_in_pipelines_are_understood():
    shown = []
    for name in ("github-actions.yml", "gitlab-ci.yml", "../docs/machines.md"):
        text = (EXAMPLES / name).read_text().replace("\\\n", " ")
        shown += re.findall(r"^(?: {4}|.*- (?:run: )?|\s+)(?:sudo )?flatten ((?!-image).*)$",
                            text, re.MULTILINE)  # fmt: skip

    assert len(shown) >= 10
    for command in shown:
        words = shlex.split(command.partition(" | ")[0], comments=True)
        name, arguments = registry.split(words)
        registry.build_parser(name).parse_args(arguments)


def test_the_bazel_rule_is_starlark():
    """Which is a subset of Python, but for its builtins."""
    tree = ast.parse((EXAMPLES / "flatten.bzl").read_text())

    assert {type(node) for node in tree.body} <= {ast.Expr, ast.FunctionDef, ast.Assign}


def initrd_with_erofs(kernel, folder):
    """Make an initrd as Debian does, with the module for EROFS; return its path."""
    need("mkinitramfs")
    settings = folder / "initramfs-tools"
    shutil.copytree("/etc/initramfs-tools", settings)
    with (settings / "modules").open("a") as file:
        file.write("\nerofs\n")
    version = kernel.name.removeprefix("vmlinuz-")
    initrd = folder / "initrd"
    subprocess.run(["mkinitramfs", "-d", settings, "-o", initrd, version], check=True)
    return str(initrd)


@pytest.mark.engines
@pytest.mark.parametrize("args", [[], ["--erofs"], ["--index"], ["--initramfs"]],
                         ids=["ext4", "erofs", "index", "initramfs"])  # fmt: skip
def test_a_machine_boots_to_a_shell_that_prints_a_file(machine, args, tmp_path):
    need("qemu-system-x86_64", *(() if args else ("mke2fs",)))
    kernels = sorted(Path("/boot").glob("vmlinuz-*"))
    if not kernels:
        pytest.skip("needs a kernel in /boot (linux-image-cloud-amd64)")
    environment = os.environ | {"FLATTEN": FLATTEN}
    if args in (["--erofs"], ["--index"]):
        environment["INITRD"] = initrd_with_erofs(kernels[-1], tmp_path)
    LOGS.mkdir(exist_ok=True)
    log = b""
    started = time.monotonic()
    with subprocess.Popen(
        [EXAMPLES / "boot.sh", *args, machine], env=environment,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as running:  # fmt: skip
        for wait_for, line in (
            (b" # ", b"/bin/busybox cat /etc/motd\n"),
            (b"hello from the image\r\n", b"/bin/busybox poweroff -f\n"),
            (b"Power down", b""),
        ):
            while wait_for not in log and time.monotonic() - started < 280:
                if select.select([running.stdout], [], [], 1)[0]:
                    data = os.read(running.stdout.fileno(), 65536)
                    log += data
                    if not data:
                        break
            running.stdin.write(line)
            running.stdin.flush()
        if b"Power down" not in log:
            running.kill()
    (LOGS / f"boot-{args[0].strip('-') if args else 'ext4'}.log").write_bytes(log)

    assert b"hello from the image\r\n" in log
    assert b"Power down" in log
    assert running.returncode == 0
