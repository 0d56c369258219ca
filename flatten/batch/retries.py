"""Which errors are tried again, and when."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from ..errors import FlattenError

LONGEST: Final = 60.0  # seconds of a pause

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True, slots=True)
class Retries:
    """How often, and after which pauses.

    Attributes:
        count: Attempts after the first one.
        pause: Seconds before the second attempt; each further pause is twice as long.
    """

    count: int = 3
    pause: float = 1.0

    def due(self, attempts: int, exit_code: int) -> float | None:
        """Return the seconds until the next attempt, or None if there is none.

        Errors of the network, of the machine, and lost workers have exit code 1. All
        others are final: another attempt would find the same bytes.
        """
        if attempts > self.count or exit_code != FlattenError.exit_code:
            return None
        return min(self.pause * 2.0 ** (attempts - 1), LONGEST)

    def call(self, do: Callable[[A], B], item: A) -> B:
        """Call a function until it returns, or raises a final error.

        Raises:
            FlattenError: The last error.
        """
        attempts = 1
        while True:
            try:
                return do(item)
            except FlattenError as error:
                wait = self.due(attempts, error.exit_code)
                if wait is None:
                    raise
            time.sleep(wait)
            attempts += 1
