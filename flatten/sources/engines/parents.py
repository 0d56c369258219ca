"""Chains of parents: of layers, snapshots and build steps."""

from collections.abc import Callable, Hashable
from typing import TypeVar

from ...errors import FormatError
from ..documents import MAX_LAYERS

T = TypeVar("T", bound=Hashable)


def with_parents(top: T | None, parent: Callable[[T], T | None], where: str) -> list[T]:
    """Return an item with its parents, oldest first.

    Args:
        top: The last item; None for an empty chain.
        parent: Returns the parent of an item, or None if it has none.
        where: The chain's name in messages.

    Raises:
        FormatError: The chain is circular, or longer than ``MAX_LAYERS``.

    >>> with_parents(3, lambda number: number - 1 or None, "numbers")
    [1, 2, 3]
    """
    chain: dict[T, None] = {}
    while top is not None:
        if top in chain:
            raise FormatError("the chain of parents is circular", where=where)
        if len(chain) == MAX_LAYERS:
            raise FormatError(
                f"the chain has more than {MAX_LAYERS:,} parents", where=where
            )
        chain[top] = None
        top = parent(top)
    return [*chain][::-1]
