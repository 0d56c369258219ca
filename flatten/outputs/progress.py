"""A bar on a terminal, nothing elsewhere. The only module that imports tqdm."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def bar(total: int, mode: str = "auto") -> Iterator[Callable[[int], object] | None]:
    """Show a bar of bytes, their rate and the time left; yield what moves it on.

    It is on standard error.

    Args:
        total: All bytes that there will be.
        mode: ``auto`` (on a terminal), ``always`` or ``never``.
    """
    closed = sys.stderr is None
    if closed or mode == "never" or (mode == "auto" and not sys.stderr.isatty()):
        yield None
        return
    from tqdm import tqdm  # noqa: PLC0415 - 30 to 70 ms

    with tqdm(
        desc="flatten", total=total, leave=False, dynamic_ncols=True,
        unit="B", unit_scale=True, unit_divisor=1024,
    ) as shown:  # fmt: skip
        yield shown.update
