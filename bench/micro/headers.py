"""The checksum of a plain header: remembered by its field, and computed each time.

Headers of 4,000 sizes, as an image has; the digits of few sums come up again and again.
Microseconds a header.
"""

import statistics
import timeit
import zlib

from flatten.tar.wire import checksum_error
from flatten.tar.write_header import header

BLOCKS = [header(b"usr/lib/x", ord("0"), size=size) for size in range(4_000)]
ROUNDS = 9


def remembered() -> int:
    """Check all headers as read_tar does; return how many were computed."""
    known: dict[bytes, int] = {}
    computed = 0
    for block in BLOCKS * 5:
        total = zlib.adler32(block) & 0xFFFF
        if total != known.get(block[148:156]) or not block.isascii():
            computed += 1
            assert not checksum_error(block)
            known[block[148:156]] = total
    return computed


def computed() -> None:
    """Check all headers by the digits of each."""
    for block in BLOCKS * 5:
        assert not checksum_error(block)


def median_us(statement: str) -> float:
    """Return the median time for one header, in microseconds."""
    timer = timeit.Timer(statement, globals=globals())
    return statistics.median(timer.repeat(ROUNDS, 1)) / len(BLOCKS) / 5 * 1e6


if __name__ == "__main__":
    one, two = median_us("remembered()"), median_us("computed()")
    print(f"remembered {one:.2f} us ({remembered()} of {len(BLOCKS) * 5:,} computed), "
          f"computed {two:.2f} us, ratio {two / one:.1f}")  # fmt: skip
