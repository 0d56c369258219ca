"""A model of batches that are larger than these machines: time, bytes, saturation.

    python bench/fleet.py                       # the table of docs/scale.md
    python bench/fleet.py --svg docs/scale.svg  # its chart

The costs of one image come from ``bench/batch.py``; the shares of bytes from public
studies. Images are drawn with a fixed seed, and dealt to workers in runs of those with
the same base, as a batch on a cluster deals them. Each resource is a queue: a worker's
processor, the registry's bandwidth, and the bandwidth of the storage.
"""

import argparse
import random
from bisect import bisect_left
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import accumulate, pairwise, product
from pathlib import Path

import plot

WORKERS = (1, 10, 100, 1000)
FLEETS = (10_000, 1_000_000)
KINDS = {False: "tars", True: "EROFS indexes"}
KEPT = 4  # bases that a worker keeps
RUNS = 4  # runs of images for each worker, as in flatten/batch/run.py


@dataclass(frozen=True)
class Costs:
    """What things cost. The first six are measured by ``bench/batch.py``.

    Attributes:
        read: CPU seconds for a MB of a layer, uncompressed, that a worker reads: it is
            inflated, hashed, indexed.
        image: CPU seconds for an image besides the bytes of its layers and its output.
        write: CPU seconds for a MB that is written and hashed.
        hash: CPU seconds for a MB of a plain layer that is verified and indexed again.
        index: MB of an EROFS index.
        packed: Bytes of a compressed layer for a byte of it.
        registry: MB a second that the registry sends to all workers: 10 Gbit/s.
        storage: MB a second that the storage takes from all workers: 40 Gbit/s.
    """

    read: float = 0.0046
    image: float = 0.35
    write: float = 0.0008
    hash: float = 0.0012
    index: float = 2.1
    packed: float = 0.5
    registry: float = 1250.0
    storage: float = 5000.0


@dataclass(frozen=True)
class Fleet:
    """Images on shared bases.

    Attributes:
        bases: For each base, how many images are on it.
        base: MB of a base, uncompressed.
        own: MB of each image's own layers, in the order of the bases.
    """

    bases: Sequence[int]
    base: float
    own: Sequence[float]


def draw(images: int, base: float = 300.0, seed: int = 1) -> Fleet:
    """Draw a fleet.

    75 % of images have under 5 % of bytes of their own (AWS Lambda, ATC 2023), here 0.3
    to 5 %; the others 5 to 60 %. The popularity of bases is Zipf's, with one base for a
    hundred images, so that about 3 % of the bytes are unique (Docker Hub, 2019).
    """
    dice = random.Random(seed)
    count = max(images // 100, 1)
    weights = list(accumulate(1 / rank for rank in range(1, count + 1)))
    on = [0] * count
    for _ in range(images):
        on[bisect_left(weights, dice.random() * weights[-1])] += 1
    small, large = (0.003, 0.05), (0.05, 0.6)
    own = [
        base * dice.uniform(*(small if dice.random() < 0.75 else large))
        for _ in range(images)
    ]
    return Fleet([n for n in on if n], base, own)


@dataclass(frozen=True)
class Outcome:
    """What a batch takes.

    Attributes:
        hours: Wall time.
        fetched: TB from the registry.
        stored: TB of outputs, and of layers that are kept.
        used: The share of the time that workers, registry and storage were busy.
    """

    hours: float
    fetched: float
    stored: float
    used: Mapping[str, float]

    def limit(self) -> str:
        """Return the resource that was busy most."""
        name = max(self.used, key=lambda name: self.used[name])
        return f"{name} ({self.used[name]:.0%})"


class Queue:
    """A resource that serves one after another, at a rate.

    Attributes:
        busy: Seconds that it has worked.
    """

    def __init__(self, rate: float) -> None:
        """Serve ``rate`` MB a second."""
        self.busy = 0.0
        self._rate = rate
        self._free = 0.0

    def serve(self, size: float, at: float) -> float:
        """Serve some MB from a time on; return when that is done."""
        self._free = max(self._free, at) + size / self._rate
        self.busy += size / self._rate
        return self._free


def simulate(fleet: Fleet, workers: int, costs: Costs, *, index: bool) -> Outcome:
    """Return what a fleet takes.

    Args:
        fleet: The images.
        workers: Processors, each of which makes an image at a time and keeps the bases
            that it used last.
        costs: What things cost.
        index: Write EROFS indexes over a directory of layers that all workers share,
            instead of tars.
    """
    registry, storage = Queue(costs.registry), Queue(costs.storage)
    stops = [
        len(fleet.own) * at // (RUNS * workers) for at in range(RUNS * workers + 1)
    ]
    runs = iter(pairwise(stops))
    free = [
        (0.0, worker, *run) for worker, run in zip(range(workers), runs, strict=False)
    ]
    bases = [base for base, count in enumerate(fleet.bases) for _ in range(count)]
    kept = [deque[int](maxlen=KEPT) for _ in range(workers)]
    layers: set[int] = set()  # bases that the directory of layers has
    read = written = busy = seconds = 0.0
    while free:
        start, worker, at, stop = heappop(free)
        seconds = max(seconds, start)
        if at == stop:
            if run := next(runs, None):
                heappush(free, (start, worker, *run))
            continue
        base, own = bases[at], fleet.own[at]
        below = 0.0 if base in kept[worker] else fleet.base
        if below:
            kept[worker].append(base)
        fetched, stored, again = own + below, fleet.base + own, 0.0
        if index:
            fetched = own if base in layers else own + fleet.base
            stored = fetched + costs.index
            again = below if base in layers else 0.0
            layers.add(base)
        work = (
            costs.image
            + costs.read * fetched
            + costs.write * stored
            + costs.hash * again
        )
        end = max(
            start + work,
            registry.serve(costs.packed * fetched, start),
            storage.serve(stored + again, start),
        )
        heappush(free, (end, worker, at + 1, stop))
        read, written, busy = read + fetched, written + stored, busy + work
    used = {
        "workers": busy / workers / seconds,
        "registry": registry.busy / seconds,
        "storage": storage.busy / seconds,
    }
    return Outcome(seconds / 3600, costs.packed * read / 1e6, written / 1e6, used)


def measured() -> dict[tuple[int, bool, int], Outcome]:
    """Return the outcomes of all fleets, kinds of outputs and numbers of workers."""
    costs, found = Costs(), {}
    for images in FLEETS:
        fleet = draw(images)
        for index, workers in product((False, True), WORKERS):
            got = simulate(fleet, workers, costs, index=index)
            found[images, index, workers] = got
    return found


def table(found: Mapping[tuple[int, bool, int], Outcome]) -> str:
    """Return the table of docs/scale.md."""
    rows = [
        "| images | outputs | workers | hours | TB fetched | TB stored | busiest |",
        "|---|---|---|---|---|---|---|",
    ]
    for (images, index, workers), got in found.items():
        rows.append(
            f"| {images:,} | {KINDS[index]} | {workers:,} | {got.hours:,.2f} | "
            f"{got.fetched:,.2f} | {got.stored:,.1f} | {got.limit()} |"
        )
    return "\n".join(rows)


def chart(found: Mapping[tuple[int, bool, int], Outcome]) -> str:
    """Return the chart: images an hour, by outputs and workers."""
    groups: dict[str, list[plot.Bar]] = {}
    for (images, index, workers), got in found.items():
        rate = images / got.hours
        bar = plot.Bar(f"{workers:,} workers", rate, f"{rate:,.0f}", "own")
        groups.setdefault(f"{images:,} images, {KINDS[index]}", []).append(bar)
    note = "model: bench/fleet.py; registry 10 Gbit/s, storage 40 Gbit/s"
    return plot.draw("Images an hour (higher is better)", note, groups, None)


def main() -> None:
    """Print the table, and draw the chart."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--svg", type=Path, help="write the chart to this file")
    args = parser.parse_args()
    found = measured()
    print(table(found))
    if args.svg:
        args.svg.write_text(chart(found))


if __name__ == "__main__":
    main()
