"""Charts of results, as SVG.

    python bench/plot.py RESULTS [--out docs]

``performance-targets.svg`` has each row's value by its target; a bar that ends before
the line reaches it. ``performance-walls.svg`` has the seconds of both commands.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compare import Result, last_results

GOOD, BAD, OTHER, LINE = "#3b7d4f", "#b5483a", "#8a8f98", "#222222"
HEIGHT = 0.42  # inches a row
ABOUT = "{cpu}, {cores} cores, {fs}, Python {python}, commit {commit}"


def chart(results: dict[str, Result]) -> tuple[Any, Any]:
    """Return an empty chart with a line for each row, the first at the top."""
    import matplotlib as mpl  # noqa: PLC0415 - wanted here only, and slow

    mpl.use("svg")
    mpl.rcParams |= {"svg.hashsalt": "flatten", "svg.fonttype": "none"}
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(
        figsize=(10, 1.2 + HEIGHT * len(results)), layout="constrained"
    )
    axes.set_yticks(range(len(results)), list(results))
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    first = next(iter(results.values())).pairs[0]
    axes.set_title(ABOUT.format(**first["machine"]), fontsize=8, loc="right")
    return figure, axes


def plot_targets(results: dict[str, Result]) -> Any:
    """Draw each value as a part of its target, with its spread."""
    figure, axes = chart(results)
    for place, result in enumerate(results.values()):
        target, found = result.pairs[0]["target"], result.values
        reached = found.median <= target
        error = [[found.median - found.low], [found.high - found.median]]
        axes.barh(
            place, found.median / target, 0.6, color=GOOD if reached else BAD,
            xerr=[[side[0] / target] for side in error], ecolor=LINE, capsize=2,
        )  # fmt: skip
    axes.axvline(1, color=LINE, linewidth=1)
    axes.set_xlim(left=0)
    axes.set_xlabel("value / target (lower is better)")
    return figure


def plot_walls(results: dict[str, Result]) -> Any:
    """Draw the median seconds of flatten and of what it is compared with."""
    figure, axes = chart(results)
    for place, result in enumerate(results.values()):
        for side, color, shift in (("a", GOOD, -0.2), ("b", OTHER, 0.2)):
            wall = statistics.median(pair[side]["wall_s"] for pair in result.pairs)
            axes.barh(place + shift, wall, 0.36, color=color)
            name = result.pairs[0]["names"][side == "b"]
            axes.text(wall, place + shift, f" {name} {wall:.2f}", va="center", size=7)
    axes.set_xlabel("seconds of wall time (median)")
    return figure


def main(argv: Sequence[str] | None = None) -> int:
    """Draw the charts of a result file, and print their paths."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", metavar="RESULTS", type=Path)
    parser.add_argument(
        "--out", type=Path, default=Path("docs"), help="[default: docs]"
    )
    args = parser.parse_args(argv)
    results = {
        name: result
        for name, result in last_results(args.results).items()
        if "machine" in result.pairs[0]
    }
    with_target = {n: r for n, r in results.items() if r.pairs[0]["target"]}
    ratios = {n: r for n, r in results.items() if r.unit == "x"}
    for name, draw, shown in (
        ("targets", plot_targets, with_target),
        ("walls", plot_walls, ratios),
    ):
        if shown:
            path = args.out / f"performance-{name}.svg"
            draw(shown).savefig(path, metadata={"Date": None})
            print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
