"""What flatten is to reach, as a table: a row is one pair of commands.

A row's value is a ratio of flatten to something else (``wall`` or ``cpu``), or one of
the others below. Lower is better in all of them. Rows without a target are there to
be compared over time.
"""

from collections.abc import Callable
from dataclasses import dataclass

from measure import Run

BASE_MEMORY = 60_000_000
NO_VERIFY = ("--no-verify",)
SHARED = (*NO_VERIFY, "--reflink=always")
COPIED = "cp --reflink=never"


@dataclass(frozen=True)
class Measure:
    """How a pair of runs, and the image's members, come to a value."""

    text: str
    unit: str
    value: Callable[[Run, Run, int], float]


MEASURES = {
    "wall": Measure("wall / {against}", "x", lambda a, b, _: a.wall_s / b.wall_s),
    "cpu": Measure("CPU / {against}", "x", lambda a, b, _: a.cpu_s / b.cpu_s),
    "over": Measure(
        "wall over {against}", "ms", lambda a, b, _: (a.wall_s - b.wall_s) * 1000
    ),
    "member": Measure(
        "CPU over {against}, a member",
        "us",
        lambda a, b, members: (a.cpu_s - b.cpu_s) / members * 1e6,
    ),
    "memory": Measure(
        "peak RSS less 60 MB, a member",
        "bytes",
        lambda a, _b, members: (a.peak_kib * 1024 - BASE_MEMORY) / members,
    ),
    "growth": Measure(
        "CPU at 4 x members / 1 x", "x", lambda a, b, _: a.cpu_s / b.cpu_s
    ),
}


@dataclass(frozen=True)
class Target:
    """One row.

    Attributes:
        options: Of flatten; none is the default, which verifies.
        against: A key of ``rivals.RIVALS``, or an image to flatten instead.
        wanted: The value to reach; ``stretch`` is the one to reach later.
        volume: The kind of file system to do it on; a key of ``volumes.MAKE``.
    """

    image: str
    form: str
    options: tuple[str, ...]
    measure: str
    against: str
    wanted: float | None = None
    stretch: float | None = None
    volume: str = ""

    @property
    def label(self) -> str:
        """Name the image, its form, and the options."""
        where = (f"on {self.volume}",) if self.volume else ()
        return ", ".join((self.image, self.form, *where, *self.options))

    @property
    def text(self) -> str:
        """Say what is measured."""
        return MEASURES[self.measure].text.format(against=self.against)


TARGETS = (
    Target("big-files", "plain", NO_VERIFY, "wall", "cp", 1.1, 1.0),
    Target("big-files", "plain", (), "wall", "hash, cp", 1.0, 0.8),
    Target("big-files", "plain", NO_VERIFY, "wall", "crane", 0.5, 0.35),
    Target("python-like", "plain", NO_VERIFY, "wall", "cp", 1.4, 1.15),
    Target("python-like", "plain", (), "wall", "hash, cp", 1.0, 0.8),
    Target("python-like", "plain", NO_VERIFY, "wall", "crane", 0.5, 0.35),
    Target("python-like", "gzip", (), "wall", "igzip -dc", 1.0, 0.65),
    Target("python-like", "gzip", NO_VERIFY, "wall", "igzip -dc"),
    Target("python-like", "gzip-one", (), "wall", "igzip -dc", 1.5, 1.2),
    Target("python-like", "gzip-hybrid", (), "wall", "crane", 0.3, 0.2),
    Target("python-like", "zstd", (), "wall", "zstd -dc", 1.3, 1.0),
    Target("python-like", "zstd", NO_VERIFY, "wall", "zstd -dc"),
    Target("many-small", "plain", NO_VERIFY, "wall", "cp", 2.0, 1.5),
    Target("many-small", "plain", (), "wall", "hash, cp", 2.0, 1.5),
    Target("many-small", "plain", NO_VERIFY, "cpu", "crane", 0.15, 0.1),
    Target("many-small", "plain", NO_VERIFY, "wall", "crane", 0.3, 0.2),
    Target("many-small", "plain", (), "memory", "python3 -c pass", 350, 200),
    Target("many-small", "plain", (), "growth", "many-small-quarter", 4.4, 4.1),
    Target("python-like", "gzip", (), "memory", "python3 -c pass"),
    Target("layers-127", "plain", NO_VERIFY, "member", "python3 -c pass"),
    Target("links", "plain", NO_VERIFY, "member", "python3 -c pass"),
    Target("deep", "plain", NO_VERIFY, "member", "python3 -c pass"),
    Target("tiny", "plain", (), "over", "python3 -c pass", 120, 60),
    Target("big-files", "plain", SHARED, "wall", COPIED, 0.05, 0.02, "xfs"),
    Target("big-files", "plain", SHARED, "wall", COPIED, 0.05, 0.02, "btrfs"),
    Target("python-like", "plain", SHARED, "wall", COPIED, 0.6, 0.4, "xfs"),
    Target("python-like", "plain", SHARED, "wall", COPIED, 0.6, 0.4, "btrfs"),
)


def without_pypi(target: Target) -> Target | None:
    """Return what to measure where there are no packages: compressed rows only.

    Their time is that of the decompressor, which text of another kind can show too;
    the plain rows are about these packages' sizes.
    """
    if target.image != "python-like" or target.form == "plain":
        return None
    return Target(
        "many-small", target.form, target.options, target.measure, target.against,
        target.wanted, target.stretch,
    )  # fmt: skip
