"""Limits on what an image may take, and what the machine has: memory and processors."""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..errors import FormatError

_MIN_BUDGET: Final = 1 << 26


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on the resources that an image may take; real images stay far below them.

    Attributes:
        memory: Bytes of inflated data to keep in memory; None means a quarter of the
            free memory, within the control group's limit.
        size: Maximum total bytes of all inflated layers, and of the output.
        members: Maximum number of members in all layers.
        ratio: Maximum ratio of a layer's inflated size to its compressed size. It is
            only checked above 1 GiB, as smaller layers do no harm.
        processes: Maximum number of processes, including this one. None means one per
            processor, at most four; 1 never forks.
    """

    memory: int | None = None
    size: int = 1 << 40
    members: int = 8_000_000
    ratio: int = 2000
    processes: int | None = None


def processors() -> int:
    """Return the number of processors that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except OSError:  # refused by a seccomp filter
        return os.cpu_count() or 1


RATIO_COUNTS_FROM: Final = 1 << 30  # inflated bytes


def check_ratio(limits: Limits, length: int, stored: int, where: str) -> None:
    """Check that inflated bytes are not too many for those that are stored.

    Args:
        limits: The limits.
        length: Inflated bytes so far.
        stored: Bytes as stored, or 0 if that is unknown.
        where: The stream, in messages.

    Raises:
        FormatError: They are too many.
    """
    if length > RATIO_COUNTS_FROM and stored and length > limits.ratio * stored:
        raise FormatError(
            f"inflates to more than {limits.ratio:,} times its size; if that is right, "
            "allow more with --max-ratio",
            where=where,
        )


def free_memory() -> int:
    """Return the bytes of free memory, also within the control group's limit.

    Reference: Linux Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
    """
    free = _MIN_BUDGET
    with suppress(OSError, ValueError, IndexError):
        text = Path("/proc/meminfo").read_text().partition("MemAvailable:")[2]
        free = int(text.split()[0]) << 10
    for group, limit, used in (
        (_cgroup(""), "memory.max", "memory.current"),
        (_cgroup("memory"), "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        for folder in () if group is None else (group, *group.parents):
            with suppress(OSError, ValueError):  # "max" is not a number
                most = int((folder / limit).read_text())
                free = min(free, max(most - int((folder / used).read_text()), 0))
    return max(free, _MIN_BUDGET)


def _cgroup(controller: str) -> Path | None:
    """Return the directory of this process's control group."""
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controller in controllers.split(","):
                root = Path("/sys/fs/cgroup", controller)
                return root / path.lstrip("/")
    return None
