"""Report progress to a function or with a bar. The only module that imports tqdm."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Literal, NoReturn, Self, get_args

from ..errors import UsageError, quoted

if TYPE_CHECKING:
    from tqdm import tqdm

ProgressBar = Literal["auto", "always", "never"]
Progress = Callable[[int, int], object]

DELAY: Final = 0.5  # seconds of reading until its bar is shown


class Reporter:
    """Reports the progress of one export: first of reading, then of writing.

    While the image is read, a bar shows how many bytes have been inflated, or have come
    from a pipe; how many there will be is not known. Then it shows the bytes written. A
    function is called for writing only. As a context manager it removes the bar.
    """

    def __init__(self, progress: ProgressBar | Progress) -> None:
        """Show nothing yet.

        Raises:
            UsageError: ``progress`` is neither a word nor a function.
        """
        words = get_args(ProgressBar)
        if progress not in words and not callable(progress):
            raise UsageError(
                f"{quoted(str(progress))} is not a valid progress; choose from "
                f"{', '.join(words)}"
            )
        self._progress = progress
        self._lock = threading.Lock()
        self._reading: tqdm[NoReturn] | None = None

    def __enter__(self) -> Self:
        """Prepare the bar for reading, which is shown after ``DELAY``."""
        if self._shows_bar():
            self._reading = bar("flatten: reading", delay=DELAY)
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the bar for reading."""
        self._end_reading()

    def _end_reading(self) -> None:
        with self._lock:
            if self._reading is not None:
                self._reading.close()
                self._reading = None

    def read(self, count: int) -> None:
        """Report more bytes that were inflated; any thread may call it."""
        with self._lock:
            if self._reading is not None:
                self._reading.update(count)

    @contextmanager
    def writing(self, total: int) -> Iterator[Callable[[int], object] | None]:
        """Report the progress of writing while the body runs.

        Yield the function to call after each write with the number of bytes written, or
        None if progress is not reported.

        Args:
            total: Number of bytes to write, approximately.
        """
        self._end_reading()
        if callable(self._progress):
            self._progress(0, total)
            yield _counting(total, self._progress)
            self._progress(total, total)
        elif self._shows_bar():
            with bar("flatten", total) as shown:
                yield shown.update
        else:
            yield None

    def _shows_bar(self) -> bool:
        if callable(self._progress) or sys.stderr is None:
            return False
        terminal = self._progress == "auto" and sys.stderr.isatty()
        return terminal or self._progress == "always"


def bar(
    label: str, total: int | None = None, *, delay: float = 0, unit: str = "B"
) -> "tqdm[NoReturn]":
    """Return a progress bar on standard error; bytes are counted in units of 1024."""
    from tqdm import tqdm  # 30 to 70 ms

    return tqdm(
        desc=label,
        total=total,
        delay=delay,
        leave=False,
        dynamic_ncols=True,
        unit=unit,
        unit_scale=unit == "B",
        unit_divisor=1024,
    )


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
