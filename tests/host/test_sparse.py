"""Files that are stored without their holes: read as the whole."""

from random import Random

import pytest

import flatten
from builders import Bytes
from flatten.host.sparse import Sparse


class Stored(Bytes):
    """Bytes in memory that are also filled into views, and copied by a descriptor."""

    def readinto(self, offset, view):
        view[:] = self.data[offset : offset + len(view)]

    def extent(self, offset):
        return 7, 1000 + offset, len(self.data) - offset


def random_file(random):
    """Return regions, the bytes that are stored of them, and the whole file."""
    regions, stored, whole = [], b"", bytearray()
    for _ in range(random.randrange(6)):
        whole += bytes(random.choice((0, 1, 7, 512)))
        data = random.randbytes(random.choice((0, 1, 5, 512)))
        regions.append((len(whole), len(data)))
        stored += data
        whole += data
    whole += bytes(random.choice((0, 3)))
    return tuple(regions), stored, bytes(whole)


@pytest.mark.parametrize("seed", range(50))
def test_any_part_is_that_of_the_whole_file(seed):
    random = Random(seed)
    regions, stored, whole = random_file(random)
    sparse = Sparse(Stored(stored), regions, len(whole), "file")

    assert sparse.size() == len(whole)
    assert sparse.read(0, len(whole) + 9) == whole
    for _ in range(50):
        offset, count = random.randrange(len(whole) + 2), random.randrange(600)
        assert sparse.read(offset, count) == whole[offset : offset + count]


@pytest.mark.parametrize("seed", range(50))
def test_an_extent_is_of_one_region(seed):
    regions, stored, whole = random_file(Random(seed))
    sparse = Sparse(Stored(stored), regions, len(whole), "file")

    for offset in range(len(whole)):
        found = sparse.extent(offset)
        in_region = any(start <= offset < start + count for start, count in regions)
        assert (found is not None) == in_region
        if found is not None:
            _, place, count = found
            assert stored[place - 1000 :][:count] == whole[offset : offset + count]
            assert count >= 1


def test_a_view_beyond_the_end_is_refused():
    sparse = Sparse(Stored(b"abc"), ((2, 3),), 8, "file")

    with pytest.raises(flatten.FormatError, match="ends too soon"):
        sparse.readinto(5, memoryview(bytearray(4)))
