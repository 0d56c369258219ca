"""A short round of the fuzzers' targets: seeds, and mutations of them, always the same.

``tests/fuzz/run.py`` runs them for long, with atheris; what that found is in ``FOUND``.
"""

import random
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

from seeds import seeds
from targets import TARGETS

from builders import block, layer, member

ROUNDS = 60  # mutations of each seed

FOUND = {
    "an outer archive that breaks after a name": (
        "image", member("manifest.json", b"[]") + block(b"x", size=-512),
    ),
    "an mtime of nineteen digits": ("layer", layer(member("x", mtime=-(1 << 62) + 1))),
}  # fmt: skip


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_escapes_from_seeds_and_their_mutations(target):
    chance = random.Random(target)
    for seed in seeds(target):
        TARGETS[target](seed)
        for _ in range(ROUNDS if len(seed) < 20_000 else ROUNDS // 6):
            TARGETS[target](mutated(seed, chance))


def mutated(data, chance):
    """Change, insert, remove and repeat some bytes."""
    out = bytearray(data)
    for _ in range(chance.randrange(1, 5)):
        at = chance.randrange(len(out) + 1)
        size = chance.choice((1, 2, 8, 100, 512))
        what = chance.randrange(5)
        if what == 0:
            out[at : at + size] = chance.randbytes(size)
        elif what == 1:
            out[at:at] = out[at : at + size]
        elif what == 2:
            del out[at : at + size]
        elif what == 3:
            out[at : at + 1] = chance.choice((b"\0", b"\xff", b"7", b"/", b".", b" "))
        else:
            start = at // 512 * 512
            out[start:start] = out[start : start + 512]
    return bytes(out)


@pytest.mark.parametrize(("target", "data"), FOUND.values(), ids=FOUND)
def test_what_was_found_stays_fixed(target, data):
    TARGETS[target](data)


def test_seeds_are_small():
    assert sum(len(seed) for target in TARGETS for seed in seeds(target)) < 200_000
