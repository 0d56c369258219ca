"""Charts of results, as SVG.

    python bench/plot.py RESULTS [--out docs]

``performance-walls.svg`` has the seconds of flatten and of other tools, by image.
``performance-targets.svg`` has each row's value by its target: a bar that ends before
the line meets it.

The charts have no background. Their colours follow the reader's colour scheme, so they
can be read on light and dark pages.
"""

import argparse
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from compare import Result, last_results
from rivals import TOOLS

BARS, VALUES, ROW, GAP, TOP = 440, 60, 22, 16, 46  # pixels
LETTER = 6.4  # pixels, a little more than the mean of a text
ABOUT = "{cpu}, {cores} cores, {fs}, Python {python}, commit {commit}, {day}"
STYLE = """
text { font: 12px system-ui, "DejaVu Sans", sans-serif; fill: #24292f; }
.title { font-size: 14px; font-weight: 600; } .note { fill: #57606a; font-size: 11px; }
.own { fill: #2da44e; } .other { fill: #8c959f; } .missed { fill: #d1672c; }
.line { stroke: #24292f; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; } .note { fill: #9da7b3; } .line { stroke: #e6edf3; }
  .own { fill: #3fb950; } .other { fill: #768390; } .missed { fill: #e0823d; }
}
"""


@dataclass(frozen=True)
class Bar:
    """A bar of a chart.

    Attributes:
        name: The text at its left.
        value: Its length.
        text: The text at its end.
        kind: A class of ``STYLE``: ``own``, ``other`` or ``missed``.
    """

    name: str
    value: float
    text: str
    kind: str


def draw(
    title: str, note: str, groups: Mapping[str, Sequence[Bar]], mark: float | None
) -> str:
    """Return a chart of horizontal bars.

    Args:
        title: The text above.
        note: The text below that.
        groups: The bars by the title of their group; "" has no title.
        mark: The value of a vertical line, if there is one.
    """
    most = max(bar.value for bars in groups.values() for bar in bars)
    scale = BARS / most
    left = 16 + LETTER * max(len(bar.name) for bars in groups.values() for bar in bars)
    line = 0 if mark is None else mark * scale
    out = [_text(8, 18, title, "title"), _text(8, 36, note, "note")]
    y = TOP
    for name, bars in groups.items():
        if name:
            y += GAP + ROW
            out.append(_text(8, y - 6, name, "title"))
        for bar in bars:
            width = max(bar.value * scale, 1)
            middle = y + ROW - 7
            rect = (
                f'<rect class="{bar.kind}" x="{left:.1f}" y="{y + 3}" '
                f'width="{width:.1f}" height="{ROW - 6}" rx="2"/>'
            )
            end = left + max(width, line) + 6
            out += [_text(left - 8, middle, bar.name, "", "end"), rect]
            out.append(_text(end, middle, bar.text))
            y += ROW
    if line:
        x = f"{left + line:.1f}"
        out.append(f'<line class="line" x1="{x}" x2="{x}" y1="{TOP}" y2="{y + 4}"/>')
    width, height = left + BARS + VALUES, y + 14
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" '
        f'width="{width:.0f}" height="{height}" role="img" '
        f'aria-label="{escape(title)}">\n'
        f"<style>{STYLE}</style>\n" + "\n".join(out) + "\n</svg>\n"
    )


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    style = f' class="{kind}"' if kind else ""
    return (
        f'<text x="{x:.1f}" y="{y}" text-anchor="{anchor}"{style}>{escape(text)}</text>'
    )


def about(results: Iterable[Result]) -> str:
    """Return the machine and the day of some results."""
    first = next(iter(results)).pairs[0]["machine"]
    return ABOUT.format(**first, day=first["run"][:10])


def _tool(result: Result) -> str:
    """Return the tool that a row compares seconds with, or ""."""
    against = result.pairs[0]["row"].partition(": wall / ")[2]
    return against if against in TOOLS else ""


def plot_walls(results: Mapping[str, Result]) -> str:
    """Draw the median seconds of flatten and of other tools, by image.

    flatten runs in turns with each tool; its bar is the median of all these runs.
    """
    seconds = defaultdict[str, dict[str, list[float]]](lambda: defaultdict(list))
    for result in results.values():
        image = result.pairs[0]["row"].partition(":")[0]
        for pair in result.pairs:
            for side, name in zip("ab", pair["names"], strict=True):
                seconds[image][name].append(pair[side]["wall_s"])
    groups = {}
    for image, tools in seconds.items():
        medians = {name: statistics.median(walls) for name, walls in tools.items()}
        groups[image] = [
            Bar(name, wall, f"{wall:.1f} s", "own" if name == "flatten" else "other")
            for name, wall in sorted(medians.items(), key=lambda item: item[1])
        ]
    title = "Seconds from an image to one tar (lower is better)"
    return draw(title, about(results.values()), groups, None)


def plot_targets(results: Mapping[str, Result]) -> str:
    """Draw each value as a part of its target."""
    bars = []
    for name, result in results.items():
        part = result.values.median / result.pairs[0]["target"]
        text = name.removesuffix(" [full]")
        bars.append(Bar(text, part, f"{part:.2f}", "own" if part <= 1 else "missed"))
    return draw(
        "Measured value as a part of its target (lower is better, the line is 1)",
        about(results.values()), {"": bars}, 1,
    )  # fmt: skip


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
    walls = {n: r for n, r in results.items() if _tool(r)}
    for name, plot, shown in (
        ("targets", plot_targets, with_target),
        ("walls", plot_walls, walls),
    ):
        if shown:
            path = args.out / f"performance-{name}.svg"
            path.write_text(plot(shown))
            print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
