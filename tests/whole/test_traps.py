"""Images made to cost too much, at full size: time grows with them, memory stays small.

Each shape is flattened by the command at a quarter, half and full size; the processor
time of the last may be three times that of the second, at most, and the peak memory is
the process's own, from the kernel. ``pytest -s`` prints the table of docs/security.md.
Run by `make check-engines`: it takes ten minutes and 7 GB in the temporary directory.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from builders import END, block, member, oci_files, padded, pax

pytestmark = pytest.mark.engines

MIB = 1 << 20


class Image:
    """A docker archive that is written as its layers are made."""

    def __init__(self, path):
        self.file = path.open("wb")
        self.names, self.diff_ids = [], []

    def add(self, members):
        """Add a layer."""
        start, hashed = self.file.tell(), hashlib.sha256()
        self.file.write(bytes(512))
        for data in (*members, END):
            hashed.update(data)
            self.file.write(data)
        end = self.file.tell()
        self.names.append(f"{len(self.names)}/layer.tar")
        self.diff_ids.append(f"sha256:{hashed.hexdigest()}")
        self.file.seek(start)
        size = end - start - 512
        self.file.write(block(self.names[-1].encode(), size=size))
        self.file.seek(end)

    def finish(self, images=1, more=b"{}"):
        """Write the documents, of so many images that are the same."""
        config = {"rootfs": {"type": "layers", "diff_ids": self.diff_ids}}
        text = json.dumps(config).encode()[:-1] + b', "more": ' + more + b"}"
        listed = [
            {"Config": "c.json", "RepoTags": [f"a:{n}"], "Layers": self.names}
            for n in range(images)
        ]
        self.file.write(member("c.json", text))
        self.file.write(member("manifest.json", json.dumps(listed).encode()))
        self.file.write(END)
        self.file.close()


_KNOWN = {}


def entry(name, data=b"", type=b"0", target=b""):
    """Write a member of a short name, ten times as fast as ``member``."""
    if len(name) > 100 or len(target) > 100:
        return member(name, data, type=type, target=target)
    key = type, len(data)
    if key not in _KNOWN:
        head = block(b"", type, size=len(data))
        head = head[:148] + b" " * 8 + head[156:]
        _KNOWN[key] = head, sum(head)
    head, total = _KNOWN[key]
    total += sum(name) + sum(target)
    return b"".join((
        name.ljust(100, b"\0"), head[100:148], b"%06o\0 " % total, type,
        target.ljust(100, b"\0"), head[257:], padded(data),
    ))  # fmt: skip


def image_of(*layers):
    """Return what writes an image of some layers."""

    def write(path):
        image = Image(path)
        for members in layers:
            image.add(members)
        image.finish()

    return write


def rewritten(count):
    return image_of(
        *([entry(b"d/%06d" % n, b"%d" % layer) for n in range(count)] for layer in range(127))
    )  # fmt: skip


def outer(count):
    def write(path):
        image = Image(path)
        image.add([entry(b"a")])
        for n in range(count):
            image.file.write(entry(b"%07d" % n))
        image.finish()

    return write


def manifests(count):
    def write(path):
        image = Image(path)
        image.add([entry(b"a")])
        image.finish(images=count)

    return write


def nested_config(count):
    def write(path):
        image = Image(path)
        image.add([entry(b"a")])
        image.finish(more=b"[" * count + b"]" * count)

    return write


def index(count):
    def write(path):
        files = oci_files([entry(b"a") + END], names=[f"a:{n}" for n in range(count)])
        path.write_bytes(b"".join(member(*pair) for pair in files.items()) + END)

    return write


def numbers(count, name, *more, **said):
    return [entry(name % n, *more, **said) for n in range(count)]


def links(count):
    return [entry(b"a", b"x"), *numbers(count, b"l%06d", type=b"1", target=b"a")]


SHAPES = {
    "files in one directory": (1_000_000, lambda n: image_of(numbers(n, b"d/%07d")), 400),
    "directories in each other": (
        10_000, lambda n: image_of(entry(b"d/" * i, type=b"5") for i in range(1, n + 1)), 300,
    ),
    "paths that 127 layers rewrite": (50_000, rewritten, 300),
    "whiteouts": (
        100_000, lambda n: image_of(numbers(n, b"%06d"), numbers(n, b".wh.%06d")), 300,
    ),
    "opaque marks": (
        100_000,
        lambda n: image_of(numbers(n, b"%06d/x"), numbers(n, b"%06d/.wh..wh..opq")), 300,
    ),
    "opaque marks of one directory": (
        100_000, lambda n: image_of(numbers(n, b"d/%06d"), [entry(b"d/.wh..wh..opq")] * n), 300,
    ),
    "names of one file": (100_000, lambda n: image_of(links(n)), 300),
    "names of a file that is replaced": (
        100_000, lambda n: image_of(links(n), [entry(b"a", b"y")]), 300,
    ),
    "hard links, each to the next": (
        100_000,
        lambda n: image_of(
            [*(entry(b"l%d" % i, b"", b"1", b"l%d" % (i + 1)) for i in range(n)),
             entry(b"l%d" % n)]
        ), 300,
    ),
    "entries through 40 symlinks": (
        100_000,
        lambda n: image_of(
            [*(entry(b"s%d" % i, b"", b"2", b"s%d" % (i + 1)) for i in range(39)),
             entry(b"s39", b"", b"2", b"d"), entry(b"d/", type=b"5")],
            numbers(n, b"s0/%06d/x"),
        ), 300,
    ),
    "names of 64 KiB": (
        1000, lambda n: image_of([member(b"%d" % i + b"n" * 65_000) for i in range(n)]), 300,
    ),
    "PAX headers of 1 MiB": (
        100,
        lambda n: image_of(
            member(b"%d" % i, records={b"comment": b"c" * 1_000_000}) for i in range(n)
        ), 300,
    ),
    "members below a global header of 1 MiB": (
        100_000,
        lambda n: image_of([pax({b"comment": b"c" * 1_000_000}, b"g"), *numbers(n, b"%d")]),
        300,
    ),
    "files around an image": (1_000_000, outer, 300),
    "images in one manifest": (10_000, manifests, 300),
    "images in an index": (4_000, index, 300),
    "lists in each other, in the config": (100_000, nested_config, 300),
}  # fmt: skip
"""What there is many of: how many, what writes so many, and MiB of memory allowed."""

REFUSED = {"lists in each other, in the config"}


@pytest.mark.parametrize(("most", "shape", "memory"), SHAPES.values(), ids=SHAPES)
def test_time_grows_with_the_size(request, most, shape, memory):
    name = request.node.callspec.id
    cost = {n: flattened(shape, n) for n in (most // 4, most // 2, most)}
    seconds = [spent for _, spent, _ in cost.values()]
    peak = cost[most][2]
    times = ", ".join(f"{spent:.1f}" for spent in seconds)
    print(f"\n| {most:,} {name} | {times} s | {peak >> 20} MiB |")

    assert {code for code, _, _ in cost.values()} == {4 if name in REFUSED else 0}
    assert seconds[2] < 3 * seconds[1]
    assert peak < memory * MIB


def flattened(shape, count):
    """Write an image and flatten it; return the exit code, seconds, bytes of memory.

    It is written in a process of its own: a child's peak begins with its parent's.
    """
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder, "image.tar"), Path(folder, "out.tar")
        child = os.fork()
        if not child:
            shape(count)(path)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        with subprocess.Popen(
            [sys.executable, "-m", "flatten", path, "-o", out, "-q", "--no-fsync"],
            stderr=subprocess.DEVNULL,
        ) as process:
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, used.ru_utime + used.ru_stime, used.ru_maxrss << 10
