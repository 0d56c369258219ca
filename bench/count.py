"""Figures of a run that do not depend on how busy the machine is.

    python bench/count.py IMAGE [OPTION...]

System calls by name, and the bytes that went through user space in them (strace);
instructions (valgrind's callgrind, with ``--instructions``, which takes minutes);
members a second of CPU. The output is written beside the image, and removed.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import measure

CALL = re.compile(r"^(?:\[pid +\d+\] |\d+ +)?(\w+)\(.* = (\d+)(?: |$)")
THROUGH = frozenset(
    ("read", "pread64", "readv", "preadv", "preadv2", "write", "pwrite64", "writev")
)
"""Calls that copy between the kernel and the process."""


def traced(argv: Sequence[str], folder: Path) -> tuple[Counter[str], Counter[str]]:
    """Run a command under strace; return its calls, and their bytes, by name."""
    log = folder / "strace"
    subprocess.run(["strace", "-f", "-qq", "-o", str(log), *argv], check=True)
    calls: Counter[str] = Counter()
    moved: Counter[str] = Counter()
    with log.open(errors="replace") as lines:
        for line in lines:
            if found := CALL.match(line):
                calls[found[1]] += 1
                moved[found[1]] += int(found[2])
    return calls, moved


def instructions(argv: Sequence[str], folder: Path) -> int:
    """Run a command under callgrind; return how many instructions it takes."""
    out = f"--callgrind-out-file={folder / 'callgrind'}"
    done = subprocess.run(
        ["valgrind", "--tool=callgrind", out, *argv],
        check=True, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    (found,) = re.findall(r"Collected : (\d+)", done.stderr)
    return int(found)


def main(argv: Sequence[str] | None = None) -> int:
    """Count, and print the figures as a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image", type=Path)
    parser.add_argument("--instructions", action="store_true")
    args, options = parser.parse_known_args(argv)
    if not shutil.which("strace"):
        print("count: no strace on PATH", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(dir=args.image.resolve().parent) as home:
        folder = Path(home)
        out = folder / "out.tar"
        command = [sys.executable, "-m", "flatten", str(args.image), "-o", str(out)]
        command += ["--no-fsync", *options]
        scratch = folder / "scratch"
        scratch.mkdir()
        run = measure.run(measure.Command("flatten", tuple(command)), scratch)
        calls, moved = traced(command, folder)
        size = out.stat().st_size
        through = sum(moved[name] for name in THROUGH)
        rows = [
            ("CPU, s", f"{run.cpu_s:.2f}"),
            ("output, bytes", f"{size:,}"),
            ("system calls", f"{calls.total():,}"),
            *((f"- {name}", f"{count:,}") for name, count in calls.most_common(8)),
            ("through user space, bytes", f"{through:,} ({through / size:.2f} x)"),
        ]
        if args.instructions:
            rows.append(("instructions", f"{instructions(command, folder):,}"))
    print("\n".join(f"| {name} | {figure} |" for name, figure in rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
