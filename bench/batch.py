"""A fleet of images on one base: one batch against single runs.

    python bench/batch.py --images 100 --base 300M

Makes an OCI layout of images with gzip layers: one base, and a delta of 1 to 5 MB each.
Flattens each by itself, then all by ``flatten batch``, and compares the outputs, wall
time and CPU time. Outputs are deleted once their digest is known, so the space of a few
is enough. With docker-registry and skopeo, the same images then come from a registry on
this machine, to count the bytes that are fetched.
"""

import argparse
import gzip
import hashlib
import io
import json
import os
import random
import shutil
import sys
import tarfile
import tempfile
import threading
from collections.abc import Iterator
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
    """Write a fleet."""
    layout = Layout(folder)
    below = layout.layer(layer(random.Random(0), base, "usr"))
    for number in range(count):
        dice = random.Random(number + 1)
        own = layer(dice, dice.randrange(1 << 20, 5 << 20), f"app{number % 7}")
        layout.image(f"image{number}:1", [below, layout.layer(own)])
    layout.finish()
    return layout


def flatten(*arguments: str) -> tuple[str, ...]:
    """Return a command of this checkout's."""
    return (sys.executable, "-m", "flatten", *arguments)


def singly(layout: Path, count: int, suffix: str, scratch: Path) -> dict[str, Any]:
    """Flatten each image by itself; return digests, and seconds in total."""
    digests, runs = {}, []
    out = scratch / f"out{suffix}"
    for number in range(count):
        name = f"image{number}"
        argv = flatten(f"{layout}#{name}:1", "-o", str(out), "--no-fsync")
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
    source: str, suffix: str, scratch: Path, *more: str, keep: bool = False
) -> dict[str, Any]:
    """Flatten all images by one batch; return digests, seconds and bytes fetched."""
    field = "{tag}" if source.startswith("docker:") else "{name}"
    out = f"{scratch.parent}/outputs/{field}{suffix}"
    argv = flatten("batch", source, "-o", out, "--no-fsync", "--results", "-", *more)
    pipe = scratch.parent / "results"
    with deleting(pipe, keep) as found:
        command = measure.Command("batch", argv, stdout=pipe)
        done = measure.run(command, scratch)
    return totals([done]) | {
        "digests": {
            Path(r["output"]).name.partition(".")[0]: r["sha256"] for r in found
        },
        "fetched": sum(result["bytes_fetched"] for result in found),
        "states": sorted({result["state"] for result in found}),
    }


def from_registry(layout: Layout, count: int, folder: Path, scratch: Path) -> Any:
    """Push the fleet to a registry on this machine, and flatten it from there."""
    sys.path.append(str(Path(__file__).parents[1] / "tests/support"))
    from registries import push, registry

    with registry(folder / "registry") as host:
        for number in range(count):
            name = f"image{number}"
            push(f"oci:{layout.folder}:{name}:1", f"{host}/fleet:{name}")
        return together(f"docker://{host}/fleet", ".tar", scratch)


def main() -> int:
    """Make a fleet, measure, and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--base", default="300M", help="bytes of the base")
    parser.add_argument("--suffix", default=".tar")
    parser.add_argument("--registry", action="store_true", help="also from a registry")
    parser.add_argument("--scratch", type=Path, help="write below this [default: .]")
    parser.add_argument("--save", type=Path, help="append JSON to this file")
    args = parser.parse_args()
    base = int(args.base.removesuffix("M")) << 20
    with tempfile.TemporaryDirectory(dir=args.scratch or Path()) as name:
        folder = Path(name).absolute()
        scratch = folder / "scratch"
        scratch.mkdir()
        layout = make(folder / "layout", args.images, base)
        print(f"{args.images} images, {layout.stored >> 20:,} MiB stored", flush=True)
        single = singly(layout.folder, args.images, args.suffix, scratch)
        report("single runs", single)
        batch = together(str(layout.folder), args.suffix, scratch)
        shutil.rmtree(folder / "outputs")
        report("batch", batch)
        same = sum(single["digests"][n] == d for n, d in batch["digests"].items())
        ratio = batch["wall_s"] / single["wall_s"]
        cpu = batch["cpu_s"] / single["cpu_s"]
        print(f"equal outputs: {same}; wall {ratio:.3f}, CPU {cpu:.3f} of single runs")
        found = {"images": args.images, "base": base, "stored": layout.stored,
                 "equal": same, "single": single, "batch": batch}  # fmt: skip
        if args.registry:
            got = from_registry(layout, args.images, folder, scratch)
            report("batch from a registry", got)
            more = got["fetched"] / layout.stored
            print(f"fetched {got['fetched']:,} bytes: {more:.4f} of what is stored")
            found["registry"] = got
    if args.save:
        for part in ("single", "batch", "registry"):
            found.get(part, {}).pop("digests", None)
        measure.append(args.save, [found])
    return 0 if same == args.images else 1


def report(name: str, found: dict[str, Any]) -> None:
    """Print what some runs took."""
    print(
        f"{name}: wall {found['wall_s']} s, CPU {found['cpu_s']} s, "
        f"peak {found['peak_kib'] >> 10} MiB",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
