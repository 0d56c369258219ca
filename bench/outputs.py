"""Write one image as every kind of output, and print a table of what each takes.

    python bench/outputs.py [--runs N] [--scratch DIR] [IMAGE]

IMAGE is a plain one of many small files unless another is given. Outputs take turns:
each once, N times over, after one round that does not count. The table has medians.
Peak memory is that of the largest process, flatten's or a tool's. Outputs whose tools
are missing are left out, with a message.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import corpus
from measure import Command, CommandFailedError, Run, run, short, spread

OUTPUTS = (
    ("a tar", "out.tar", ()),
    ("a directory", "out/", ()),
    ("`.cpio`", "out.cpio", ()),
    ("`.erofs`", "out.erofs", ()),
    ("`.erofs`, `--compress lz4hc`", "out.erofs", ("--compress", "lz4hc")),
    ("`.ext4`", "out.ext4", ()),
    ("`.qcow2`", "out.qcow2", ()),
    ("`.squashfs`", "out.squashfs", ()),
)


def size(path: Path) -> int:
    """Return the bytes that a file, or a directory tree, takes on the disk."""
    found = [path, *path.rglob("*")]
    return sum(entry.lstat().st_blocks * 512 for entry in found)


def commands(image: Path, scratch: Path) -> list[tuple[Command, Path]]:
    """Return the command for each output, and where it writes."""
    return [
        (
            Command(
                name,
                (sys.executable, "-m", "flatten", str(image), "--no-fsync", "-q",
                 *options, "-o", os.path.join(scratch, out)),
            ),
            scratch / out,
        )
        for name, out, options in OUTPUTS
    ]  # fmt: skip


def row(name: str, runs: list[Run], taken: int) -> str:
    """Return a line of the table."""
    wall = spread(r.wall_s for r in runs).median
    cpu = spread(r.cpu_s for r in runs).median
    peak = max(r.peak_kib for r in runs) >> 10
    return f"| {name} | {short(wall)} | {short(cpu)} | {peak} | {taken >> 20:,} |"


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image", nargs="?", type=Path, metavar="IMAGE")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--scratch", type=Path, default=Path())
    args = parser.parse_args()
    image = args.image
    if image is None:
        cache = corpus.default_cache()
        image = corpus.make("many-small", "plain", cache, quick=True).path
    done: dict[str, list[Run]] = {}
    sizes: dict[str, int] = {}
    with tempfile.TemporaryDirectory(dir=args.scratch) as folder:
        todo = commands(image.absolute(), Path(folder).absolute())
        for turn in range(1 + args.runs):
            for command, out in list(todo):
                try:
                    took = run(command, out.parent)
                except CommandFailedError as error:
                    print(f"outputs: {error}", file=sys.stderr)
                    todo.remove((command, out))
                    continue
                sizes[command.name] = size(out)
                if turn:
                    done.setdefault(command.name, []).append(took)
    print("| output | wall s | CPU s | peak MiB | MiB on the disk |")
    print("|---|---|---|---|---|")
    for name, runs in done.items():
        print(row(name, runs, sizes[name]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
