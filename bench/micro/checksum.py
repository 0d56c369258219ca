"""The checksum of a header block: by Adler-32, and by ``sum``. Microseconds a block."""

import statistics
import timeit
import zlib

BLOCK = bytes(range(256)) * 2
ROUNDS, LOOPS = 9, 20_000


def median_us(statement: str) -> float:
    """Return the median time of one run, in microseconds."""
    timer = timeit.Timer(statement, globals={"BLOCK": BLOCK, "zlib": zlib})
    return statistics.median(timer.repeat(ROUNDS, LOOPS)) / LOOPS * 1e6


if __name__ == "__main__":
    adler = median_us("(zlib.adler32(BLOCK) & 0xFFFF) - 1 + 256 - sum(BLOCK[148:156])")
    plain = median_us("sum(BLOCK) + 256 - sum(BLOCK[148:156])")
    print(f"adler32 {adler:.2f} us, sum {plain:.2f} us, ratio {plain / adler:.1f}")
