"""The rows of one layer, separate from its image, for sending or storing them."""

from array import array
from dataclasses import dataclass

from ..errors import FormatError
from ..tar.layer import LayerIndex, Removal
from ..tar.members import Allowance, Column, Extra, Members, Owner


@dataclass(frozen=True, slots=True)
class Rows:
    """The members of a layer, numbered from 0, in columns as in ``Members``.

    Attributes:
        owner_table: The owners in the layer, in order of first appearance.
    """

    paths: list[bytes]
    removals: list[Removal]
    bookkeeping: set[int]
    owner_table: list[Owner]
    kinds: bytes
    owners: Column
    sizes: Column
    data: Column
    mtimes: Column
    targets: dict[int, bytes]
    extras: dict[int, Extra]

    @classmethod
    def of(cls, index: LayerIndex, members: Members) -> "Rows":
        """Copy the rows of a layer, which are the last ones of ``members``."""
        first = index.first
        rows = slice(first, first + len(index.paths))
        owners = members.owners[rows]
        numbers = {owner: new for new, owner in enumerate(dict.fromkeys(owners))}
        targets, extras = members.targets, members.extras
        return cls(
            index.paths,
            index.removals,
            {member - first for member in index.bookkeeping},
            [members.owner_table[owner] for owner in numbers],
            bytes(members.kinds[rows]),
            array("I", map(numbers.__getitem__, owners)),
            members.sizes[rows],
            members.data[rows],
            members.mtimes[rows],
            {at - first: targets[at] for at in sorted(targets) if at >= first},
            {at - first: extras[at] for at in sorted(extras) if at >= first},
        )

    def append(self, where: str, position: int, into: Members) -> LayerIndex:
        """Append the rows to ``into``, and return the layer's index.

        Args:
            where: The layer's name in messages.
            position: The layer's position in its image.
            into: Receives the members.

        Raises:
            FormatError: There would be too many members, or too much data in them.
        """
        into.check_limit(len(self.paths), where=where)
        self._charge(into.allowance, where)
        first = len(into)
        owners = [into.owner(owner) for owner in self.owner_table]
        into.kinds.extend(self.kinds)
        into.owners.extend(map(owners.__getitem__, self.owners))
        into.sizes.extend(self.sizes)
        into.data.extend(self.data)
        into.mtimes.extend(self.mtimes)
        into.layers.extend([position] * len(self.paths))
        into.targets.update((first + at, to) for at, to in self.targets.items())
        into.extras.update((first + at, extra) for at, extra in self.extras.items())
        bookkeeping = {first + member for member in self.bookkeeping}
        return LayerIndex(where, first, self.paths, self.removals, bookkeeping)

    def _charge(self, allowance: Allowance, where: str) -> None:
        """Charge the allowance for the rows' data outside the columns."""
        try:
            for length in map(len, self.paths):
                if length > Allowance.FREE:
                    allowance.take(length)
            for target in self.targets.values():
                allowance.take(len(target))
            for extra in self.extras.values():
                allowance.take(extra.memory())
        except ValueError as error:
            raise FormatError(str(error), where=where) from error
