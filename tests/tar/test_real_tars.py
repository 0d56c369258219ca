"""Layers that are tars of the tools in use: what we refuse, none of them writes."""

import os
import shutil
import subprocess
import tarfile

import pytest

import flatten
from builders import docker_archive
from listing import listing

GNU = [f"tar --format={name} -cf" for name in ("v7", "oldgnu", "gnu", "ustar", "posix")]
BSD = [f"bsdtar --format={name} -cf" for name in ("v7", "ustar", "gnutar", "pax")]
COMMANDS = [*GNU, "tar -S --format=gnu -cf", "tar -S --format=posix -cf", *BSD,
            "bsdtar --format=pax --no-xattrs -cf", "busybox tar -cf"]  # fmt: skip
PYTHON = {
    "GNU": tarfile.GNU_FORMAT,
    "PAX": tarfile.PAX_FORMAT,
    "ustar": tarfile.USTAR_FORMAT,
}
FIELDS = ("type", "mode", "uid", "gid", "size", "sha256", "linkname")


@pytest.fixture
def tree(tmp_path):
    """Return a directory with all that a tar of an ordinary user can hold."""
    root = tmp_path / "tree"
    deep = root / ("d" * 80) / ("e" * 60)
    deep.mkdir(parents=True)
    (root / "a").write_bytes(b"a" * 1000)
    (root / "a").chmod(0o4755)
    (root / "empty").touch()
    (deep / "file").write_text("deep")
    (root / ("n" * 150)).write_text("long")
    (root / "café").write_text("name")
    (root / "link").symlink_to("a")
    (root / "long link").symlink_to("t" * 150)
    (root / "same").hardlink_to(root / "a")
    os.mkfifo(root / "pipe")
    with (root / "sparse").open("wb") as sparse:
        sparse.seek(1 << 20)
        sparse.write(b"end")
        sparse.truncate(3 << 20)
    os.utime(root / "a", (1e9 + 0.5, 1e9 + 0.25))
    return root


def flattened(layer, tmp_path):
    """Return what is in a layer, as the listing of the output says, by path."""
    image = tmp_path / "image.tar"
    image.write_bytes(docker_archive([layer.read_bytes()]))
    flatten.export(image, tmp_path / "rootfs.tar")
    return by_path(tmp_path / "rootfs.tar")


def by_path(path):
    return {row["path"]: [row.get(name) for name in FIELDS] for row in listing(path)}


@pytest.mark.parametrize("command", COMMANDS)
def test_what_a_tool_writes_is_read(tree, tmp_path, command):
    program, *options = command.split()
    if not shutil.which(program):
        pytest.skip(f"needs {program}")
    layer = tmp_path / "layer.tar"
    names = sorted(os.listdir(tree))
    subprocess.run(
        [program, *options, layer, *names], cwd=tree, check=False, capture_output=True
    )  # v7 and ustar cannot hold all names, and say so

    got = flattened(layer, tmp_path)

    assert got == by_path(layer)
    assert len(got) >= 7


@pytest.mark.parametrize("format", PYTHON.values(), ids=PYTHON)
def test_what_python_writes_is_read(tree, tmp_path, format):
    layer = tmp_path / "layer.tar"
    with tarfile.open(layer, "w", format=format) as opened:
        for path in sorted(tree.rglob("*")):
            name = str(path.relative_to(tree))
            if format != tarfile.USTAR_FORMAT or len(name) < 100:
                try:
                    opened.add(path, name, recursive=False)
                except ValueError:  # a link's target, for ustar
                    assert format == tarfile.USTAR_FORMAT

    got = flattened(layer, tmp_path)

    assert got == by_path(layer)
    assert len(got) >= 7
