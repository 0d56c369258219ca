"""An image from a registry of this machine, against the same image on disk.

    python bench/registry.py [--quick | --image oci:DIR:TAG] [--pairs N] [--scratch DIR]

starts Debian's docker-registry, pushes the image with skopeo, and measures in turns, as
``measure.py`` does:

- ``flatten docker://...`` against ``flatten`` of the same image as an OCI layout;
- ``flatten docker://...`` against ``skopeo copy`` to a layout, then ``flatten``;
- ``skopeo copy`` alone against ``flatten`` of the layout: what ratios can come to.

The registry is a process of its own on the same processors. Its CPU time is in the wall
times, but not in the CPU times.
"""

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import corpus
from measure import PAIRS, Command, CommandFailedError, pairs, report

CONFIG = """\
version: 0.1
log: {{accesslog: {{disabled: true}}, level: error}}
storage: {{filesystem: {{rootdirectory: {folder}/data}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""
COPY = 'skopeo --insecure-policy copy -q --src-tls-verify=false "$1" "oci:$2/layout:1"'
FLATTEN = "flatten --no-fsync -q"


@contextlib.contextmanager
def registry(folder: Path) -> Iterator[str]:
    """Run a registry whose data are below a folder; yield its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "config.json").write_text(CONFIG.format(folder=folder, port=port))
    with subprocess.Popen(
        ["docker-registry", "serve", folder / "config.json"], stderr=subprocess.DEVNULL
    ) as process:
        try:
            for _ in range(100):
                with contextlib.suppress(OSError):
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                time.sleep(0.1)
            yield f"localhost:{port}"
        finally:
            process.terminate()


def skopeo(*arguments: str) -> None:
    """Copy an image with skopeo."""
    command = ["skopeo", "--insecure-policy", "copy", "-q", *arguments]
    subprocess.run(command, check=True)


def measured(reference: str, layout: Path, scratch: Path, count: int) -> None:
    """Measure and print the pairs."""
    out = scratch / "out.tar"

    def shell(name: str, script: str) -> Command:
        words = ("sh", "-euc", script, "sh", f"docker://{reference}", str(scratch))
        return Command(name, words)

    direct = shell("registry", f'{FLATTEN} "$1" -o {out}')
    on_disk = shell("layout", f"{FLATTEN} oci:{layout} -o {out}")
    copied = shell("skopeo, layout", f'{COPY}; {FLATTEN} "oci:$2/layout" -o {out}')
    copy = shell("skopeo", COPY)
    for a, b in ((direct, on_disk), (direct, copied), (copy, on_disk)):
        print(f"{a.name} / {b.name}")
        print(report(a.name, b.name, pairs(a, b, scratch, count)))


def main(argv: Sequence[str] | None = None) -> int:
    """Push the image, and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image", help="another image, as skopeo names it")
    parser.add_argument("--quick", action="store_true", help="a small image")
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--scratch", type=Path, help="write below this [default: .]")
    args = parser.parse_args(argv)
    image = args.image
    if image is None:
        cache = corpus.default_cache()
        made = corpus.make("python-like", "gzip", cache, quick=args.quick)
        image = f"oci-archive:{made.path}"
    with tempfile.TemporaryDirectory(dir=args.scratch or Path()) as name:
        folder = Path(name).absolute()
        scratch, layout = folder / "scratch", folder / "layout"
        scratch.mkdir()
        with registry(folder) as host:
            reference = f"{host}/bench/image:1"
            skopeo(image, f"docker://{reference}", "--dest-tls-verify=false")
            skopeo(f"docker://{reference}", f"oci:{layout}:1", "--src-tls-verify=false")
            size = sum(os.path.getsize(path) for path in layout.glob("blobs/sha256/*"))
            print(json.dumps({"bytes": size, "load": os.getloadavg()[0]}))
            try:
                measured(reference, layout, scratch, args.pairs)
            except CommandFailedError as error:
                print(f"registry: {error}", file=sys.stderr)
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
