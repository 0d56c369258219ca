"""Two result files side by side: what became slower.

    python bench/compare.py BEFORE AFTER [--percent 10]

Compares the median of each row that both have, of the last run in each file. All values
are better when lower. Exits 1 if one rose by more than ``--percent``.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measure import Spread, spread


@dataclass(frozen=True)
class Result:
    """The pairs of one row in its last run: the records, and their values."""

    pairs: tuple[dict[str, Any], ...]
    values: Spread

    @property
    def unit(self) -> str:
        """Return what the values are in; a ratio is in ``x``."""
        return str(self.pairs[0]["unit"])


def last_results(path: Path) -> dict[str, Result]:
    """Read a file of JSON lines: each row's last run, by row and scale."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for line in path.read_text().splitlines():
        record = json.loads(line)
        name = f"{record['row']} [{record.get('scale', 'by hand')}]"
        if record["pair"] == 1:
            runs[name] = []
        runs[name].append(record)
    return {
        name: Result(tuple(pairs), spread(pair["value"] for pair in pairs))
        for name, pairs in runs.items()
    }


def change(before: Result, after: Result) -> float:
    """Return by how many percent a value rose.

    One that is a difference can be none or less; then any rise is without measure.
    """
    old, new = before.values.median, after.values.median
    if old <= 0:
        return 0.0 if new <= old else float("inf")
    return (new / old - 1) * 100


def compare(
    before: dict[str, Result], after: dict[str, Result], percent: float
) -> list[str]:
    """Print the rows that both have, and return those that are worse."""
    worse = []
    for name in sorted(before.keys() & after.keys()):
        rise = change(before[name], after[name])
        mark = "worse" if rise > percent else "better" if rise < -percent else ""
        print(
            f"{rise:+7.1f} %  {before[name].values!s:>24} -> "
            f"{after[name].values!s:<24} {after[name].unit:<5}  {name}  {mark}".rstrip()
        )
        if mark == "worse":
            worse.append(name)
    for name in sorted(before.keys() ^ after.keys()):
        where = "before" if name in before else "after"
        print(f"{'':9}  only {where}: {name}")
    return worse


def main(argv: Sequence[str] | None = None) -> int:
    """Compare two files, and return 1 if a row is worse."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", metavar="BEFORE", type=Path)
    parser.add_argument("after", metavar="AFTER", type=Path)
    parser.add_argument("--percent", type=float, default=10.0, help="[default: 10]")
    args = parser.parse_args(argv)
    before, after = last_results(args.before), last_results(args.after)
    if not before.keys() & after.keys():
        parser.error("the files have no row in common")
    worse = compare(before, after, args.percent)
    if worse:
        print(f"{len(worse)} worse by more than {args.percent:g} %", file=sys.stderr)
    return bool(worse)


if __name__ == "__main__":
    sys.exit(main())
