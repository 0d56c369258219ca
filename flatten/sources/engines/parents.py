"""Chains of parents: layers, snapshots and build steps, each on another."""

from collections.abc import Callable, Hashable
from typing import TypeVar

from ...errors import FormatError
from ..documents import MAX_LAYERS

T = TypeVar("T", bound=Hashable)


def with_parents(top: T | None, parent: Callable[[T], T | None], where: str) -> list[T]:
    """Return an item and all that it is built on, the oldest first.

    Args:
        top: The last one; None for an empty chain.
        parent: Returns what an item is built on, or None.
        where: The chain's name in messages.

    Raises:
        FormatError: They go in a circle, or there are more than ``MAX_LAYERS``.

    >>> with_parents(3, lambda number: number - 1 or None, "numbers")
    [1, 2, 3]
    """
    chain: dict[T, None] = {}
    while top is not None:
        if top in chain:
            raise FormatError("its parents go in a circle", where=where)
        if len(chain) == MAX_LAYERS:
            raise FormatError(f"more than {MAX_LAYERS:,} parents", where=where)
        chain[top] = None
        top = parent(top)
    return [*chain][::-1]
