"""The images of the corpus that are made up: what is in which layer.

A recipe takes a size (its unit is in ``RECIPES``) and yields layers. It draws all
that it needs from one seeded generator, so that an image is the same everywhere.
Content is a stretch of one of two pools: noise, which no compressor makes smaller,
and words, which gzip makes about a third of. The pools are larger than the windows
that gzip and zstd look back in, so repeats are not found.
"""

import math
import random
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial

from layer import (
    DIRECTORY,
    OPAQUE,
    WHITEOUT,
    Entry,
    Layer,
    file,
    hard_link,
    put,
    symlink,
)

SEED = 20_240_131
POOL = 64 << 20
WORDS = 8 << 20
CHUNK = 1 << 20
SYLLABLES = "ba co de fi ga hu in jo ka le mo nu op pa qu re si to un ve wa xi yo ze"


@cache
def noise_pool() -> bytes:
    """Return bytes without any pattern."""
    return random.Random(SEED).randbytes(POOL)


@cache
def names() -> list[str]:
    """Return 3,000 words, to make names and text of."""
    rng = random.Random(SEED)
    parts = SYLLABLES.split()
    return ["".join(rng.choices(parts, k=rng.randint(1, 5))) for _ in range(3_000)]


@cache
def word_pool() -> bytes:
    """Return text that looks like source: few words often, many words seldom."""
    rng = random.Random(SEED)
    vocabulary = [*"(){};=.,", "\n  ", "\n", *names()]
    weights = [1 / (rank + 3) for rank, _ in enumerate(vocabulary)]
    text = " ".join(rng.choices(vocabulary, weights, k=WORDS // 3))
    return text.encode()[:WORDS]


def stretch(pool: Callable[[], bytes], start: int, size: int) -> Iterator[bytes]:
    """Yield ``size`` bytes of a pool from ``start`` on, round and round."""
    data = memoryview(pool())
    start %= len(data)
    while size:
        piece = data[start : start + min(size, CHUNK)]
        yield piece.tobytes()
        size -= len(piece)
        start = (start + len(piece)) % len(data)


def noise(rng: random.Random, size: int) -> Entry:
    """Return a file that cannot be compressed."""
    return file(size, partial(stretch, noise_pool, rng.randrange(POOL), size))


def text(rng: random.Random, size: int) -> Entry:
    """Return a file like source text."""
    return file(size, partial(stretch, word_pool, rng.randrange(WORDS), size))


def text_size(rng: random.Random, median: int = 2_500, most: int = 1 << 20) -> int:
    """Draw a size as files of source have it: its mean is 3.5 times its median."""
    return min(int(rng.lognormvariate(math.log(median), 1.6)), most)


def big_files(size: int) -> Iterator[Layer]:
    """Yield 8 layers of a few large files; two replace or remove what was there."""
    rng = random.Random(SEED)
    share = size // 8
    for number in range(8):
        layer: Layer = {}
        for part, percent in enumerate((50, 30, 20)):
            path = f"srv/data/shard-{number}/part-{part}.bin"
            put(layer, path, noise(rng, share * percent // 100 + 37 * number))
        if number == 4:
            put(layer, "srv/data/shard-1/part-1.bin", noise(rng, share // 4))
        if number == 6:
            put(layer, "srv/data/shard-2/part-2.bin", WHITEOUT)
        yield layer


class Packages:
    """Packages as npm lays them out, and what later layers do to them."""

    ROOTS = ("usr/lib/node_modules", "srv/app/node_modules", "opt/tools/node_modules")
    FOLDERS = ("lib", "dist", "dist/esm", "dist/types", "src", "src/internal", "test")
    SUFFIXES = (".js", ".js", ".js", ".d.ts", ".js.map", ".json", ".md")

    def __init__(self) -> None:
        self.rng = random.Random(SEED)
        self.files: dict[str, list[str]] = {}  # of each package that is still there

    def name(self) -> str:
        """Draw a name of one to three words."""
        return "-".join(self.rng.choices(names(), k=self.rng.randint(1, 3)))

    def add(self, layer: Layer) -> None:
        """Add a package of about 30 members; every third one inside another."""
        rng = self.rng
        root = rng.choice(self.ROOTS)
        if self.files and rng.random() < 0.3:
            root = rng.choice(list(self.files)[-40:]) + "/node_modules"
        scope = f"@{rng.choice(names())}/" if rng.random() < 0.15 else ""
        home = f"{root}/{scope}{self.name()}"
        if home in self.files or home in layer:
            return
        paths = [f"{home}/package.json", f"{home}/README.md", f"{home}/index.js"]
        folders = rng.sample(self.FOLDERS, k=rng.randint(1, 4))
        for _ in range(int(rng.expovariate(1 / 24))):
            base = self.name() + rng.choice(self.SUFFIXES)
            paths.append(f"{home}/{rng.choice(folders)}/{base}")
        for path in paths:
            put(layer, path, text(rng, text_size(rng)))
        if rng.random() < 0.2:
            link = f"{root}/.bin/{home.rpartition('/')[2]}"
            put(layer, link, symlink(f"../{home.removeprefix(root + '/')}/index.js"))
        self.files[home] = paths

    def change(self, layer: Layer, count: int) -> None:
        """Replace ``count`` files, and remove a few packages and files."""
        rng = self.rng
        for home in rng.sample(sorted(self.files), k=count):
            put(layer, rng.choice(self.files[home]), text(rng, text_size(rng)))
        for home in rng.sample(sorted(self.files), k=count // 20):
            self.remove(layer, home)
        for home in rng.sample(sorted(self.files), k=count // 8):
            if len(self.files[home]) > 1 and self.files[home][-1] not in layer:
                put(layer, self.files[home].pop(), WHITEOUT)

    def remove(self, layer: Layer, home: str) -> None:
        """Remove a package with those inside it; half of them are made anew."""
        inside = f"{home}/"
        for other in [home, *(n for n in self.files if n.startswith(inside))]:
            del self.files[other]
        for path in [path for path in layer if path.startswith(inside)]:
            del layer[path]
        layer.pop(home, None)
        if self.rng.random() < 0.5:
            put(layer, home, WHITEOUT)
            return
        put(layer, inside, OPAQUE)
        path = f"{inside}index.js"
        put(layer, path, text(self.rng, text_size(self.rng)))
        self.files[home] = [path]


def many_small(members: int) -> Iterator[Layer]:
    """Yield 12 layers of small files, with 6 % replaced or removed on the way."""
    packages = Packages()
    for number, percent in enumerate((20, 4, 12, 1, 25, 8, 2, 10, 6, 1, 9, 2)):
        layer: Layer = {}
        if number:
            packages.change(layer, members // 600)
        while len(layer) < members * percent // 100:
            packages.add(layer)
        yield layer


def layers_127(members: int) -> Iterator[Layer]:
    """Yield 127 layers, as many as docker allows; each replaces what others had."""
    rng = random.Random(SEED)
    for number in range(127):
        layer: Layer = {}
        put(layer, "etc/release", text(rng, 40 + number))
        for index in range(members // 140):
            path = f"srv/step-{number % 20:02}/{rng.choice(names())}-{index:04}"
            put(layer, path, text(rng, text_size(rng)))
        yield layer


def links(members: int) -> Iterator[Layer]:
    """Yield 5 layers of a store of files and far more hard links and symlinks to it.

    Later layers replace and remove names whose other names stay.
    """
    rng = random.Random(SEED)
    for number in range(5):
        layer: Layer = {}
        for index in range(members // 60):
            stored = f"nix/store/{rng.randrange(1 << 40):010x}-{rng.choice(names())}"
            put(layer, stored, text(rng, text_size(rng)))
            for copy in range(rng.choice((1, 2, 3, 6, 30))):
                put(layer, f"usr/lib/{number}/{index}/{copy}", hard_link(stored))
            for copy in range(3):
                target = f"../../../{stored}"
                put(layer, f"usr/share/{number}/{index}-{copy}", symlink(target))
        if number:
            for index in range(0, members // 60, 7):
                put(layer, f"usr/lib/{number - 1}/{index}/0", WHITEOUT)
                put(layer, f"usr/lib/{number - 1}/{index + 1}/0", text(rng, 500))
        yield layer


def deep(members: int) -> Iterator[Layer]:
    """Yield 4 layers of directories 60 deep, whose names need PAX headers."""
    rng = random.Random(SEED)
    roots = [f"deep/{name}" for name in rng.sample(names(), k=members // 240)]
    for number in range(4):
        layer: Layer = {}
        for root in roots[number % 2 :: 2]:
            path = root
            for level in range(60):
                path += f"/{level:02}-{root[5:]}"
                if level % 2 == number // 2:
                    put(layer, f"{path}/file", text(rng, text_size(rng)))
        yield layer


def tiny(size: int) -> Iterator[Layer]:
    """Yield 2 layers of together ``size`` bytes, as a small base with a program."""
    rng = random.Random(SEED)
    base: Layer = {}
    for index in range(450):
        path = f"usr/{rng.choice(('lib', 'bin', 'share/misc'))}/{names()[index]}"
        put(base, path, text(rng, text_size(rng, 1_500)))
    for name in ("cat", "ls", "sh"):
        put(base, f"bin/{name}", symlink("busybox"))
    put(base, "bin/busybox", noise(rng, size // 4))
    yield base
    yield {"app": noise(rng, size // 2), "bin": DIRECTORY, "bin/ls": WHITEOUT}


Recipe = Callable[[int], Iterable[Layer]]

RECIPES: dict[str, tuple[Recipe, int, int]] = {
    "big-files": (big_files, 1 << 30, 4 << 30),
    "many-small": (many_small, 62_000, 275_000),
    "many-small-quarter": (many_small, 15_500, 68_750),
    "layers-127": (layers_127, 10_000, 60_000),
    "links": (links, 30_000, 200_000),
    "deep": (deep, 12_000, 60_000),
    "tiny": (tiny, 7_000_000, 7_000_000),
}
"""Recipe, and its size in quick and in full runs: bytes, or about as many members."""
