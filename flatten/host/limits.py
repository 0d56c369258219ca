"""What an image may cost: sizes, numbers, and the memory that is free."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_MIN_BUDGET: Final = 1 << 26


@dataclass(frozen=True, slots=True)
class Limits:
    """What an image may cost; no real one comes near the defaults.

    Attributes:
        memory: Bytes of inflated data to keep in memory; None is a quarter of what
            is free, in the control group too.
        size: Bytes that all layers together may inflate to, and bytes of output.
        members: Members of all layers together.
        ratio: How many times its own size a layer may inflate to. It counts from
            1 GiB on: a smaller one does no harm.
    """

    memory: int | None = None
    size: int = 1 << 40
    members: int = 8_000_000
    ratio: int = 2000


def free_memory() -> int:
    """Return the bytes of memory that are free, also under the control group's limit.

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
            with suppress(OSError, ValueError):  # "max" is no number
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
