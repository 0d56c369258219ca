"""Fleets: images that share their lowest layers, as those of factories do."""

import gzip
import random

from builders import archive, docker_archive, layer, member, oci_files
from command import run

BASE = [
    layer(
        member("bin/", type=b"5", mode=0o755),
        *(member(f"bin/tool{at:03}", b"%d" % at * 200) for at in range(50)),
        member("etc/", type=b"5"),
        member("etc/gone", b"of the base"),
    ),
    layer(
        member("usr/", type=b"5"),
        member("usr/library", random.Random(1).randbytes(100_000)),
        member("etc/same=bin/tool001"),
        "etc/link=bin/tool001",
    ),
]


def pack(data):
    return gzip.compress(data, 1, mtime=0)


def delta(at):
    """Return the layers that only image ``at`` has."""
    noise = random.Random(at).randbytes(3000 + at)
    tops = [layer(member("app/", type=b"5"), member("app/own", noise))]
    if at % 2:
        tops.append(layer(member("etc/.wh.gone"), member("usr/more", b"%d" % at)))
    return tops


def middle(at):
    """Return a layer that every third image has, above the base."""
    return [layer(member("opt/", type=b"5"), member("opt/m", b"middle"))] * (
        at % 3 == 0
    )


def layers_of(at):
    return [*BASE, *middle(at), *delta(at)]


def oci_archive(tars, **more):
    return archive([*oci_files(tars, **{"pack": pack} | more).items()])


def fleet(folder, count=6):
    """Write archives of several kinds; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for at in range(count):
        tars, name = layers_of(at), [f"app{at}:1"]
        data = docker_archive(tars, tags=name) if at % 4 == 3 else oci_archive(tars)
        paths.append(folder / f"app{at}.tar")
        paths[-1].write_bytes(data)
    return paths


def singly(path, out, *options):
    """Flatten one image by the command; return the output's bytes."""
    done = run(path, "-o", out, *options)
    assert done.returncode == 0, done.stderr
    return out.read_bytes()
