"""Copying a file of the page cache inside the kernel, its room asked for first or not.

    python bench/micro/reserve.py FILE

writes copies beside FILE, which should be some gigabytes. Seconds of CPU, in pairs.
"""

import os
import statistics
import sys
import time
from pathlib import Path

from flatten.host.space import reserve

PAIRS = 5


def copy(source: int, out: Path, *, first: bool) -> float:
    """Copy to a new file; return the CPU time it takes."""
    size = os.fstat(source).st_size
    out.unlink(missing_ok=True)
    descriptor = os.open(out, os.O_WRONLY | os.O_CREAT, 0o600)
    started, offset = time.process_time(), 0
    if first:
        reserve(descriptor, size, str(out))
    while offset < size:
        offset += os.copy_file_range(source, descriptor, 1 << 24, offset)
    took = time.process_time() - started
    os.close(descriptor)
    out.unlink()
    return took


if __name__ == "__main__":
    path = Path(sys.argv[1])
    source = os.open(path, os.O_RDONLY)
    out = path.with_name(f".{path.name}.copy")
    copy(source, out, first=False)
    pairs = [[copy(source, out, first=one) for one in (False, True)]
             for _ in range(PAIRS)]  # fmt: skip
    plain, reserved = (statistics.median(each) for each in zip(*pairs, strict=True))
    ratio = statistics.median(two / one for one, two in pairs)
    print(f"plain {plain:.2f} s, reserved {reserved:.2f} s, ratio {ratio:.2f}")
