"""A fleet of images on one base: one batch against single runs.

    python bench/batch.py --images 100 --base 300M [tars|indexes|registry ...]

Makes an OCI layout of images with gzip layers: one base, and a delta of 1 to 5 MB each.

========  ======================================================================
tars      each image by itself, then all by ``flatten batch``: are they equal, and
          how long do both take
indexes   an EROFS index of the base and of each delta alone, then of all images by
          a batch, with a directory of layers
registry  a batch from a registry on this machine (docker-registry, skopeo): how
          many bytes are fetched
========  ======================================================================

Outputs are deleted once their digest is known, so the space of a few is enough.
"""

import argparse
import gzip
import hashlib
import io
import json
import os
import random
import sys
import tarfile
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import measure

MEMBER = 20_000  # average bytes of a file
WORDS = 4096  # bytes of text that repeats, so that half of each file compresses


def files(dice: random.Random, size: int, folder: str) -> Iterator[tuple[str, bytes]]:
    """Yield names and contents of files, of that many bytes in total."""
    text = bytes(dice.choices(b"abcdefghij \n", k=WORDS))
    number = 0
    while size > 0:
        length = min(size, int(dice.lognormvariate(9, 1.3)) + 1)
        half = length // 2
        data = dice.randbytes(half) + (text * (half // WORDS + 2))[: length - half]
        yield f"{folder}/{number % 97:02}/{number:06}", data
        size -= length
        number += 1


def layer(dice: random.Random, size: int, folder: str) -> bytes:
    """Return a layer tar with directories, files and some hard links."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        known = set()
        last = ""
        for name, data in files(dice, size, folder):
            parent = name.rpartition("/")[0]
            if parent not in known:
                known.add(parent)
                info = tarfile.TarInfo(parent)
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(info)
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1_700_000_000
            tar.addfile(info, io.BytesIO(data))
            if last and dice.random() < 0.02:
                info = tarfile.TarInfo(f"{name}.link")
                info.type, info.linkname = tarfile.LNKTYPE, last
                tar.addfile(info)
            last = name
    return out.getvalue()


class Layout:
    """An OCI layout that grows."""

    def __init__(self, folder: Path) -> None:
        """Create an empty one."""
        self.folder = folder
        self.stored = 0
        self._manifests: list[dict[str, Any]] = []
        (folder / "blobs/sha256").mkdir(parents=True)
        (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def blob(self, data: bytes, kind: str) -> dict[str, Any]:
        """Store a blob; return its descriptor."""
        digest = hashlib.sha256(data).hexdigest()
        path = self.folder / "blobs/sha256" / digest
        if not path.exists():
            path.write_bytes(data)
            self.stored += len(data)
        kind = f"application/vnd.oci.image.{kind}"
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data)}

    def layer(self, tar: bytes) -> tuple[dict[str, Any], str]:
        """Store a layer; return its descriptor and diff_id."""
        packed = gzip.compress(tar, 6, mtime=0)
        diff_id = f"sha256:{hashlib.sha256(tar).hexdigest()}"
        return self.blob(packed, "layer.v1.tar+gzip"), diff_id

    def image(self, name: str, layers: list[tuple[dict[str, Any], str]]) -> None:
        """Add an image."""
        rootfs = {"type": "layers", "diff_ids": [diff_id for _, diff_id in layers]}
        config = {"architecture": "amd64", "os": "linux", "rootfs": rootfs}
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": self.blob(json.dumps(config).encode(), "config.v1+json"),
            "layers": [descriptor for descriptor, _ in layers],
        }
        found = self.blob(json.dumps(manifest).encode(), "manifest.v1+json")
        found["annotations"] = {"org.opencontainers.image.ref.name": name}
        self._manifests.append(found)

    def finish(self) -> None:
        """Write the index."""
        index = {"schemaVersion": 2, "manifests": self._manifests}
        (self.folder / "index.json").write_text(json.dumps(index))


def make(folder: Path, count: int, base: int) -> Layout:
    """Write a fleet; ``base`` and ``deltaN`` are images of one layer."""
    layout = Layout(folder)
    below = layout.layer(layer(random.Random(0), base, "usr"))
    layout.image("base:1", [below])
    for number in range(count):
        dice = random.Random(number + 1)
        tar = layer(dice, dice.randrange(1 << 20, 5 << 20), f"app{number % 7}")
        own = layout.layer(tar)
        layout.image(f"image{number}:1", [below, own])
        layout.image(f"delta{number}:1", [own])
    layout.finish()
    return layout


def flatten(*arguments: str) -> tuple[str, ...]:
    """Return a command of this checkout's."""
    return (sys.executable, "-m", "flatten", *arguments)


def singly(
    layout: Path, names: Sequence[str], suffix: str, scratch: Path, *more: str
) -> dict[str, Any]:
    """Flatten each image by itself; return digests, and seconds in total."""
    digests, runs = {}, []
    out = scratch / f"out{suffix}"
    for name in names:
        argv = flatten(f"{layout}#{name}:1", "-o", str(out), "--no-fsync", *more)
        runs.append(measure.run(measure.Command(name, argv), scratch))
        with out.open("rb") as file:
            digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
        out.unlink()
    return totals(runs) | {"digests": digests}


def totals(runs: list[measure.Run]) -> dict[str, Any]:
    """Return wall and CPU time in total, and the highest peak."""
    return {
        "wall_s": round(sum(run.wall_s for run in runs), 2),
        "cpu_s": round(sum(run.cpu_s for run in runs), 2),
        "peak_kib": max(run.peak_kib for run in runs),
    }


@contextmanager
def deleting(pipe: Path, keep: bool) -> Iterator[list[dict[str, Any]]]:
    """Yield the results that come through a pipe; their outputs are deleted."""
    found: list[dict[str, Any]] = []
    os.mkfifo(pipe)

    def read() -> None:
        with pipe.open() as lines:
            for line in lines:
                found.append(json.loads(line))
                if found[-1]["state"] == "done" and not keep:
                    os.unlink(found[-1]["output"])

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield found
    finally:
        thread.join()
        pipe.unlink()


def together(
    source: str | Path, suffix: str, scratch: Path, *more: str, keep: bool = False
) -> dict[str, Any]:
    """Flatten all images by one batch; return digests, seconds and bytes fetched."""
    field = "{tag}" if str(source).startswith("docker:") else "{name}"
    out = f"{scratch.parent}/outputs/{field}{suffix}"
    argv = flatten("batch", str(source), "-o", out, "--no-fsync", "--results", "-")
    pipe = scratch.parent / "results"
    with deleting(pipe, keep) as found:
        command = measure.Command("batch", (*argv, *more), stdout=pipe)
        done = measure.run(command, scratch)
    return totals([done]) | {
        "digests": {
            Path(r["output"]).name.partition(".")[0]: r["sha256"] for r in found
        },
        "fetched": sum(result["bytes_fetched"] for result in found),
        "written": sum(result["bytes"] for result in found),
    }


def listed(layout: Path, names: Sequence[str]) -> Path:
    """Write a list of images; return its path."""
    path = layout.parent / "list"
    path.write_text("".join(f"{layout}#{name}:1\n" for name in names))
    return path


def compared(one: dict[str, Any], other: dict[str, Any]) -> dict[str, float]:
    """Return the ratios of the times of two measurements."""
    return {key: round(other[key] / one[key], 3) for key in ("wall_s", "cpu_s")}


def tars(layout: Layout, names: Sequence[str], scratch: Path) -> dict[str, Any]:
    """Measure full tars, by a batch and by single runs."""
    single = singly(layout.folder, names, ".tar", scratch)
    batch = together(listed(layout.folder, names), ".tar", scratch)
    same = sum(single["digests"][n] == d for n, d in batch["digests"].items())
    return {"single": single, "batch": batch, "equal": same,
            "ratio": compared(single, batch)}  # fmt: skip


def indexes(layout: Layout, names: Sequence[str], scratch: Path) -> dict[str, Any]:
    """Measure EROFS indexes of all images, and of the base and each delta alone."""
    folder = scratch.parent

    def how(name: str) -> tuple[str, ...]:
        return ("--index", "--layers", str(folder / name))

    parts = ["base", *(name.replace("image", "delta") for name in names)]
    alone = singly(layout.folder, parts, ".erofs", scratch, *how("alone"))
    images = listed(layout.folder, names)
    batch = together(images, ".erofs", scratch, *how("layers"))
    single = singly(layout.folder, names[:5], ".erofs", scratch, *how("layers"))
    same = sum(batch["digests"][n] == d for n, d in single["digests"].items())
    stored = sum(file.stat().st_size for file in (folder / "layers/sha256").iterdir())
    beyond = batch["written"] / len(names)
    return {"alone": alone, "batch": batch, "equal_of_5": same, "layers": stored,
            "index_bytes": beyond, "ratio": compared(alone, batch)}  # fmt: skip


def from_registry(
    layout: Layout, names: Sequence[str], scratch: Path
) -> dict[str, Any]:
    """Push the fleet to a registry on this machine, and flatten it from there."""
    sys.path.append(str(Path(__file__).parents[1] / "tests/support"))
    from registries import push, registry

    with registry(scratch.parent / "registry") as host:
        for name in names:
            push(f"oci:{layout.folder}:{name}:1", f"{host}/fleet:{name}")
        found = together(f"docker://{host}/fleet", ".tar", scratch)
    return found | {"of_stored": round(found["fetched"] / layout.stored, 4)}


MEASURED = {"tars": tars, "indexes": indexes, "registry": from_registry}


def main() -> int:
    """Make a fleet, measure, and print what came out as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", choices=[*MEASURED, []], help="default: all")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--base", default="300M", help="bytes of the base")
    parser.add_argument("--scratch", type=Path, help="write below this [default: .]")
    parser.add_argument("--save", type=Path, help="append JSON to this file")
    args = parser.parse_args()
    base = int(args.base.removesuffix("M")) << 20
    names = [f"image{number}" for number in range(args.images)]
    with tempfile.TemporaryDirectory(dir=args.scratch or Path()) as name:
        scratch = Path(name).absolute() / "scratch"
        scratch.mkdir()
        layout = make(scratch.parent / "layout", args.images, base)
        for what in args.what or MEASURED:
            found = MEASURED[what](layout, names, scratch)
            for part in found.values():
                if isinstance(part, dict):
                    part.pop("digests", None)
            found.pop("digests", None)
            found |= {"what": what, "images": args.images, "base": base,
                      "stored": layout.stored}  # fmt: skip
            print(json.dumps(found, indent=2), flush=True)
            if args.save:
                measure.append(args.save, [found])
    return 0


if __name__ == "__main__":
    sys.exit(main())
