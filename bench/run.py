"""Measure flatten against its targets, and print their table.

    python bench/run.py [--quick | --full] [--only WORD] [--rivals] [--save FILE]

``--quick``, the default, is a few minutes with small images; ``--full`` has those that
the targets speak of. Pair by pair results go to standard error as they come, the table
to standard output, and one JSON line a pair to ``bench/results/`` (or FILE).
"""

import argparse
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import corpus
import machine
import measure
import rivals
import targets
import volumes
from measure import Command, Spread
from targets import MEASURES, Target

HERE = Path(__file__).resolve().parent
VOLUME = 1 << 34  # bytes: an image, its output, and that once more
HEAD = ("image", "measure", "target", "stretch", "measured (spread)", "ok")


@dataclass(frozen=True)
class Bench:
    """How to measure: the same for all rows.

    Attributes:
        place: Where images are copied to before they are flattened, if anywhere.
    """

    quick: bool
    pairs: int
    cache: Path
    flatten: tuple[str, ...]
    scratch: Path
    kept: Path
    results: Path
    place: Path | None = None

    @cached_property
    def machine(self) -> dict[str, str]:
        """Return what the machine is."""
        return machine.facts(self.scratch)

    def make(self, name: str, form: str) -> corpus.Made:
        """Return an image, made in another process, to keep this one small.

        Raises:
            NoPackagesError: PyPI cannot be reached.
        """
        size = ["--quick"] if self.quick else []
        argv = [sys.executable, str(HERE / "corpus.py"), name, "--forms", form, *size]
        argv += ["--cache", str(self.cache)]
        done = subprocess.run(argv, stdout=subprocess.DEVNULL, check=False)
        if done.returncode == corpus.UNREACHABLE:
            raise NoPackagesError("not here: no PyPI")
        done.check_returncode()
        return corpus.make(name, form, self.cache, quick=self.quick)

    def job(self, name: str, form: str) -> rivals.Job:
        """Return an image to flatten."""
        made = self.make(name, form)
        if self.place is not None:
            made = replace(made, path=Path(shutil.copy(made.path, self.place)))
        return rivals.Job(made, self.scratch, self.kept, self.flatten)


class SkippedError(Exception):
    """A row that cannot be measured here."""


class NoPackagesError(SkippedError):
    """An image that is made of packages, which cannot be fetched."""


def measured(bench: Bench, target: Target) -> Spread:
    """Measure one row, report it, and save its pairs.

    Raises:
        SkippedError: Something that it needs is not here.
        measure.CommandFailedError: A command failed.
    """
    rival = rivals.RIVALS.get(target.against)
    if rival and (reason := rival.missing(target.form)):
        raise SkippedError(f"not here: {reason}")
    with on_volume(bench, target.volume) as bench_there:
        job = bench_there.job(target.image, target.form)
        a = rivals.flatten(job, *target.options)
        b = opponent(bench_there, target, job)
        done = measure.pairs(a, b, job.scratch, bench.pairs)
    kind = MEASURES[target.measure]
    values = [kind.value(one, two, job.image.members) for one, two in done]
    about = {
        "row": f"{target.label}: {target.text}",
        "unit": kind.unit,
        "target": target.wanted,
        "scale": "quick" if bench.quick else "full",
        "names": [a.name, b.name],
        "members": job.image.members,
        "machine": bench.machine,
    }
    measure.append(bench.results, measure.records(about, done, values))
    say(f"{about['row']}\n{measure.report(a.name, b.name, done)}")
    return measure.spread(values)


@contextmanager
def on_volume(bench: Bench, kind: str) -> Iterator[Bench]:
    """Yield how to measure on a file system of a kind; the images' own for none.

    Raises:
        SkippedError: There can be none here.
    """
    if not kind:
        yield bench
        return
    if reason := volumes.missing(kind):
        raise SkippedError(f"not here: {reason}")
    with volumes.mounted(kind, bench.cache, VOLUME) as place:
        scratch, kept = place / "scratch", place / "kept"
        scratch.mkdir()
        kept.mkdir()
        yield replace(bench, scratch=scratch, kept=kept, place=place)


def opponent(bench: Bench, target: Target, job: rivals.Job) -> Command:
    """Return the command that a row compares with."""
    if rival := rivals.RIVALS.get(target.against):
        return rival.command(job)
    other = bench.job(target.against, target.form)
    return rivals.flatten(other, *target.options)


def row(bench: Bench, target: Target) -> tuple[str, ...]:
    """Return one row of the table."""
    unit = MEASURES[target.measure].unit
    numbers = (quantity(target.wanted, unit), quantity(target.stretch, unit))
    first = (target.label, target.text, *numbers)
    try:
        found = measured(bench, target)
    except NoPackagesError as reason:
        if instead := targets.without_pypi(target):
            say(f"{target.label}: {reason}; {instead.image} stands in for it")
            return row(bench, instead)
        return (*first, str(reason), "-")
    except SkippedError as reason:
        return (*first, str(reason), "-")
    except measure.CommandFailedError as error:
        return (*first, f"failed: {error}", "no")
    return (*first, quantity(found, unit), verdict(target, found))


def verdict(target: Target, found: Spread) -> str:
    """Say whether a target is reached."""
    if target.wanted is None:
        return "-"
    if target.stretch is not None and found.median <= target.stretch:
        return "stretch"
    return "yes" if found.median <= target.wanted else "no"


def quantity(value: float | Spread | None, unit: str) -> str:
    """Write a number of the table, with its unit unless it is a ratio."""
    if value is None:
        return "-"
    text = str(value) if isinstance(value, Spread) else f"{value:g}"
    return text if unit == "x" else f"{text} {unit}"


def against_rivals(wanted: Sequence[Target]) -> Iterator[Target]:
    """Yield a row for each plain image of some rows and each tool there is."""
    for image in dict.fromkeys(each.image for each in wanted if each.form == "plain"):
        for name in rivals.TOOLS:
            yield Target(image, "plain", (), "wall", name)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Write rows as a Markdown table."""
    widths = [max(len(each[column]) for each in rows) for column in range(len(rows[0]))]
    lines = ["| " + " | ".join(map(str.ljust, each, widths)) + " |" for each in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def say(text: str) -> None:
    """Report progress."""
    print(text, file=sys.stderr, flush=True)


def find_flatten(given: str | None) -> tuple[str, ...]:
    """Return the command to measure: that of this Python's environment, or any."""
    if given:
        return tuple(shlex.split(given))
    beside = Path(sys.executable).with_name("flatten")
    found = str(beside) if beside.exists() else shutil.which("flatten")
    return (found,) if found else (sys.executable, "-m", "flatten")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="small images [default]")
    size.add_argument("--full", action="store_true", help="those of the targets")
    parser.add_argument(
        "--only", metavar="WORD", help="rows that have it in their text"
    )
    parser.add_argument(
        "--rivals", action="store_true", help="every tool there is, too"
    )
    parser.add_argument("--pairs", type=int, default=measure.PAIRS)
    parser.add_argument("--flatten", metavar="COMMAND", help="measure this instead")
    parser.add_argument("--cache", type=Path, default=corpus.default_cache())
    parser.add_argument("--save", type=Path, metavar="FILE", help="append results here")
    return parser


@contextmanager
def set_up(args: argparse.Namespace) -> Iterator[Bench]:
    """Make the directories to write to, on the images' file system, and remove them."""
    args.cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="scratch-", dir=args.cache) as folder:
        scratch, kept = Path(folder, "scratch"), Path(folder, "kept")
        scratch.mkdir()
        kept.mkdir()
        yield Bench(
            not args.full, args.pairs, args.cache, find_flatten(args.flatten),
            scratch, kept, args.save or HERE / "results" / "local.jsonl",
        )  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, and return 1 if a command failed."""
    args = build_parser().parse_args(argv)
    wanted = list(targets.TARGETS)
    if args.rivals:
        wanted += against_rivals(wanted)
    if args.only:
        wanted = [t for t in wanted if args.only in f"{t.label}: {t.text}"]
    with set_up(args) as bench:
        rows = [row(bench, target) for target in wanted]
        about = machine.line(bench.machine)
        if machine.facts(bench.scratch)["source"] != bench.machine["source"]:
            about += "\nflatten's code changed while it was measured"
    size = "quick, smaller images than the targets speak of" if bench.quick else "full"
    print(f"{table([HEAD, *rows])}\n\n{about}\n{size}; medians of {bench.pairs} pairs")
    return any("failed" in each[4] for each in rows)


if __name__ == "__main__":
    sys.exit(main())
