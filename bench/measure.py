"""Whole commands measured from outside, two at a time, in turns.

    python bench/measure.py 'flatten i.tar -o {out}' 'cp ref.tar {out}'

Wall time is from the monotonic clock; CPU time and peak memory come from the kernel
(``wait4``), with those of the children that a command waited for. After one run of
each, which warms the page cache, the order is A B A B, so that a noisy minute is in
both; what counts is the ratio pair by pair. Output goes to a scratch directory, which
is emptied between runs, outside the clock.

The kernel counts a child's peak from what its parent held, so this stays small: it
imports little, and images are made in other processes. A peak at or below
``floor_kib`` is this program's.
"""

import argparse
import json
import os
import resource
import shlex
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

PAIRS = 5


@dataclass(frozen=True)
class Command:
    """What to run; ``stdin`` and ``stdout`` are files, or else /dev/null."""

    name: str
    argv: tuple[str, ...]
    stdin: Path = Path(os.devnull)
    stdout: Path = Path(os.devnull)


@dataclass(frozen=True)
class Run:
    """What one run took: seconds, and KiB of memory at its peak."""

    wall_s: float
    user_s: float
    sys_s: float
    peak_kib: int

    @property
    def cpu_s(self) -> float:
        """Return user and system time together."""
        return self.user_s + self.sys_s


@dataclass(frozen=True)
class Spread:
    """The median of some values, and their range."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{short(self.median)} ({short(self.low)}..{short(self.high)})"


class CommandFailedError(Exception):
    """A command ended with a code other than 0."""


def short(value: float) -> str:
    """Write a number with three digits, or as many as it has before the point.

    >>> short(1.2345), short(23221.4)
    ('1.23', '23,221')
    """
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def spread(values: Iterable[float]) -> Spread:
    """Return median, least and most.

    >>> print(spread([3, 1, 2]))
    2 (1..3)
    """
    ordered = sorted(values)
    return Spread(statistics.median(ordered), ordered[0], ordered[-1])


def floor_kib() -> int:
    """Return this process's own peak, below which no child's can be seen."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def empty(scratch: Path) -> None:
    """Remove what a run left, and keep the directory."""
    for entry in os.scandir(scratch):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry)
        else:
            os.unlink(entry)


def run(command: Command, scratch: Path) -> Run:
    """Run a command to its end in an empty scratch directory.

    Raises:
        CommandFailedError: It ended with another code than 0.
    """
    empty(scratch)
    messages = scratch / "stderr"
    writing = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    files = [
        (os.POSIX_SPAWN_OPEN, 0, command.stdin, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, command.stdout, writing, 0o644),
        (os.POSIX_SPAWN_OPEN, 2, messages, writing, 0o644),
    ]
    started = time.perf_counter()
    pid = os.posix_spawnp(command.argv[0], command.argv, os.environ, file_actions=files)
    _, status, used = os.wait4(pid, 0)
    wall = time.perf_counter() - started
    if status:
        said = messages.read_text(errors="replace").strip().splitlines()
        code = os.waitstatus_to_exitcode(status)
        raise CommandFailedError(f"{command.name}: code {code}: {' '.join(said[-1:])}")
    return Run(
        round(wall, 4), round(used.ru_utime, 4), round(used.ru_stime, 4), used.ru_maxrss
    )


def pairs(
    a: Command, b: Command, scratch: Path, count: int = PAIRS
) -> list[tuple[Run, Run]]:
    """Run two commands in turns, after a run of each that is not counted."""
    run(a, scratch), run(b, scratch)
    done = [(run(a, scratch), run(b, scratch)) for _ in range(count)]
    empty(scratch)
    return done


def report(a: str, b: str, done: Sequence[tuple[Run, Run]]) -> str:
    """Say what pairs took: each command's spread, and the ratios pair by pair."""
    lines = []
    for name, runs in zip((a, b), zip(*done, strict=True), strict=True):
        wall, cpu = spread(r.wall_s for r in runs), spread(r.cpu_s for r in runs)
        peak = max(r.peak_kib for r in runs) >> 10
        lines.append(f"  {name}: wall {wall} s, CPU {cpu} s, peak {peak} MiB")
    walls = " ".join(f"{one.wall_s / two.wall_s:.3f}" for one, two in done)
    cpus = " ".join(f"{one.cpu_s / two.cpu_s:.3f}" for one, two in done if two.cpu_s)
    return "\n".join([*lines, f"  wall ratios: {walls}", f"  CPU ratios: {cpus}"])


def records(
    about: Mapping[str, Any], done: Sequence[tuple[Run, Run]], values: Sequence[float]
) -> list[dict[str, Any]]:
    """Return one record a pair; ``values`` are what it comes to."""
    return [
        {**about, "pair": number, "value": value, "a": asdict(a), "b": asdict(b)}
        for number, ((a, b), value) in enumerate(zip(done, values, strict=True), 1)
    ]


def append(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Append records to a file of JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as out:
        out.writelines(json.dumps(line) + "\n" for line in lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Compare two commands given on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("a", metavar="A", help="a command; {out} is where to write")
    parser.add_argument("b", metavar="B", help="the one to compare it with")
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--scratch", type=Path, help="write below this [default: .]")
    parser.add_argument("--save", type=Path, help="append JSON lines to this file")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(dir=args.scratch or Path()) as folder:
        scratch = Path(folder).absolute()
        out = str(scratch / "out")
        a, b = (
            Command(text, tuple(w.replace("{out}", out) for w in shlex.split(text)))
            for text in (args.a, args.b)
        )
        try:
            done = pairs(a, b, scratch, args.pairs)
        except CommandFailedError as error:
            print(f"measure: {error}", file=sys.stderr)
            return 1
    print(report(a.name, b.name, done))
    if args.save:
        about = {"row": f"{a.name} / {b.name}", "unit": "x"}
        ratios = [one.wall_s / two.wall_s for one, two in done]
        append(args.save, records(about, done, ratios))
    return 0


if __name__ == "__main__":
    sys.exit(main())
