"""Report progress to a function or with a bar. The only module that imports tqdm."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, get_args

from ..errors import UsageError, quoted

ProgressBar = Literal["auto", "always", "never"]
Progress = Callable[[int, int], object]


def check_choice(progress: ProgressBar | Progress) -> None:
    """Check that the argument is a word or a callable.

    Raises:
        UsageError: It is neither.
    """
    words = get_args(ProgressBar)
    if progress not in words and not callable(progress):
        raise UsageError(
            f"{quoted(str(progress))} is not a valid progress; choose from "
            f"{', '.join(words)}"
        )


@contextmanager
def reporting(
    total: int, progress: ProgressBar | Progress
) -> Iterator[Callable[[int], object] | None]:
    """Report progress while the body runs.

    Yield the function to call after each write with the number of bytes written, or
    None if progress is not reported.

    Args:
        total: Number of bytes to write, approximately.
        progress: As for ``pipeline.export``.
    """
    if callable(progress):
        progress(0, total)
        yield _counting(total, progress)
        progress(total, total)
        return
    closed = sys.stderr is None
    terminal = not closed and sys.stderr.isatty()
    if closed or progress == "never" or (progress == "auto" and not terminal):
        yield None
        return
    from tqdm import tqdm  # 30 to 70 ms

    with tqdm(
        desc="flatten",
        total=total,
        leave=False,
        dynamic_ncols=True,
        unit="B",
        unit_scale=True,
        unit_divisor=1024,
    ) as shown:
        yield shown.update


def _counting(total: int, progress: Progress) -> Callable[[int], object]:
    """Return a function that counts bytes and calls ``progress`` below the total.

    Outputs count differently: padding and headers may be missing, and with several
    processes the bytes of the others are estimated.
    """
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if done < total:
            progress(done, total)

    return advance
