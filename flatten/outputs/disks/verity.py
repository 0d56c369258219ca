"""The dm-verity hash tree of a file system, as ``veritysetup format`` writes it.

::

    block 0    the header
    ...        the levels of the tree, the top one first: the hashes of 128 blocks each
               of the level below it; the lowest one has the hashes of the file system

A hash is the SHA-256 of the salt and a block of 4 KiB. The hash of the top level's
block is the *root hash*: who knows it can check each block that is read.

Salt and UUID follow from the first block of the file system, which has its own UUID or
describes its size, so that equal file systems give equal trees.

Reference: cryptsetup wiki, "DMVerity"; Linux, Documentation/admin-guide/device-mapper/
verity.rst; the header is struct verity_sb of cryptsetup, lib/verity/verity.c.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from struct import Struct
from typing import Final

from ...errors import FlattenError, quoted
from .. import atomic
from ..job import Job
from .stamps import version_8

BLOCK: Final = 4096
_HASH: Final = hashlib.sha256().digest_size
_FANOUT: Final = BLOCK // _HASH  # hashes in a block
_STEP: Final = 64  # blocks of hashes that are written at once
_HEADER: Final = Struct("<8sII16s32sIIQH6x256s168x")
_ZEROS: Final = bytes(BLOCK)


@contextmanager
def sealing(
    job: Job, path: str | os.PathLike[str] | None
) -> Iterator[Callable[[Path], None]]:
    """Yield a function that writes the hash tree of a finished file system.

    The tree and, in a second file, the root hash get their names when the body ends
    normally. Without a path the function does nothing.

    Args:
        job: The job; the root hash is put into what it reports.
        path: The file for the tree. ``.roothash`` is appended for the second file.

    Raises:
        FlattenError: A file cannot be read or written.
    """
    if path is None:
        yield lambda _: None
        return
    path = Path(path)
    with (
        atomic.create(path, sync=job.sync) as out,
        atomic.create(root_hash_path(path), sync=job.sync) as root_out,
    ):

        def seal(name: Path) -> None:
            try:
                with open(name, "r+b", buffering=0) as file:
                    root = write_tree(file.fileno(), out)
                os.write(root_out, root.encode())
            except OSError as error:
                raise FlattenError(
                    f"{quoted(str(path))}: cannot write: {error.strerror}"
                ) from error
            job.made.root_hash = root

        yield seal


def root_hash_path(path: Path) -> Path:
    """Return the path of the file for the root hash, beside that for the tree.

    >>> root_hash_path(Path("app.verity"))
    PosixPath('app.verity.roothash')
    """
    return path.with_name(f"{path.name}.roothash")


def write_tree(data: int, out: int) -> str:
    """Write the hash tree of an open file to another; return the root hash in hex.

    The file is made a multiple of 4 KiB long, since dm-verity covers whole blocks.

    Raises:
        OSError: A file cannot be read or written.
    """
    size = os.fstat(data).st_size
    os.ftruncate(data, size + -size % BLOCK)
    blocks = -(-size // BLOCK)
    seed = hashlib.sha256(b"flatten verity" + os.pread(data, BLOCK, 0)).digest()
    salt, uuid = seed, version_8(hashlib.sha256(seed).digest())
    header = _HEADER.pack(
        b"verity", 1, 1, uuid, b"sha256", BLOCK, BLOCK, blocks, len(salt), salt
    )
    _write(out, header.ljust(BLOCK, b"\0"), 0)
    tree = _Tree(out, salt)
    source, start, count = data, 0, blocks
    for at in reversed(_levels(blocks)):
        tree.write_level(source, start, count, at)
        source, start, count = out, at, -(-count // _FANOUT)
    return tree.hashes(source, start, 1).hex()


def _levels(blocks: int) -> list[int]:
    """Return the block of the output at which each level starts, the top one first.

    >>> _levels(1), _levels(128), _levels(129), _levels(128 * 128 + 1)
    ([], [1], [1, 2], [1, 2, 4])
    """
    sizes: list[int] = []
    while blocks > 1:
        blocks = -(-blocks // _FANOUT)
        sizes.insert(0, blocks)
    return [1 + sum(sizes[:level]) for level in range(len(sizes))]


def _write(out: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        done = os.pwrite(out, view, at)
        view, at = view[done:], at + done


class _Tree:
    """Hashes blocks with one salt, and writes the hashes to one file."""

    def __init__(self, out: int, salt: bytes) -> None:
        self._out = out
        self._salted = hashlib.sha256(salt)
        self._zeros = self._hash(_ZEROS)  # of which disks have many

    def write_level(self, source: int, start: int, count: int, at: int) -> None:
        """Write the hashes of some blocks of a file, from block ``at`` on."""
        for first in range(0, count, _STEP * _FANOUT):
            some = min(_STEP * _FANOUT, count - first)
            hashes = self.hashes(source, start + first, some)
            padded = hashes + bytes(-len(hashes) % BLOCK)
            _write(self._out, padded, (at + first // _FANOUT) * BLOCK)

    def hashes(self, source: int, start: int, count: int) -> bytes:
        """Return the hashes of some blocks of a file, one after another."""
        found = []
        for first in range(start, start + count, _FANOUT):
            size = min(_FANOUT, start + count - first) * BLOCK
            data = os.pread(source, size, first * BLOCK)
            for at in range(0, size, BLOCK):
                block = data[at : at + BLOCK]
                found.append(self._zeros if block == _ZEROS else self._hash(block))
        return b"".join(found)

    def _hash(self, block: bytes) -> bytes:
        salted = self._salted.copy()
        salted.update(block)
        return salted.digest()
