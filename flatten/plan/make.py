"""Plan the tar of a tree; its size is known before the first byte is written.

Order: depth first, a directory before its contents, siblings by name in byte order. The
order does not depend on the layers, so equal trees give equal bytes. A plain ``tar -x``
keeps the mtimes of directories, since it sets them on leaving a directory.

Most layers are in this order too. Members that are consecutive both in the output and
in their layer become one span, with new headers patched over the layer's, so that
copying takes a few large reads however many members there are.
"""

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Final

from ..tar.members import Extra, Members
from ..tar.wire import BLOCK_SIZE, padded
from ..tar.write_header import RECORD_SIZE
from ..tree.tree import Tree
from ..tree.walk import later_names, walk
from .encode import encode_header
from .plan import CHECKPOINT, FULL, VARIANT, Plan, header_length

BODY: Final = 1 << 17  # bytes from which a content is copied separately, by the kernel
SHARED: Final = 1 << 16  # the same, for contents whose blocks can be shared

_BUSYBOX_BLOCKS: Final = 8  # blocks of name: busybox tar reads at most 4,095 bytes
MOST_ZEROS: Final = 1 << 28  # bytes of holes that are written as zeros, in all
_OCTAL_LIMIT: Final = 8**11  # sizes and mtimes from this value on are in base-256


@dataclass(frozen=True, slots=True)
class Placement:
    """Alignment of contents in the output, to share the blocks of their source.

    Attributes:
        block: The file system's block size.
        origins: By layer, a function from an offset in its stream to one in a file, or
            None if the bytes are in no file.
    """

    block: int
    origins: Sequence[Callable[[int], int | None]]


def make_plan(  # noqa: PLR0913 - what a plan can be asked for
    tree: Tree,
    *,
    posix: bool = False,
    sparse: bool = True,
    clamp_mtime: int | None = None,
    placement: Placement | None = None,
    entries: Sequence[tuple[bytes, int]] | None = None,
) -> Plan:
    """Return the plan for a tree: the members to write, and the size of the tar.

    Args:
        tree: The tree, with all layers applied.
        posix: Write POSIX headers (pax) throughout, with fractions of seconds.
        sparse: Write sparse files as sparse members, not with zeros for their holes.
            If the holes have more than ``MOST_ZEROS`` bytes, that is always done, with
            a warning: a layer of a few bytes can have a hole larger than any disk.
        clamp_mtime: Reduce later mtimes to this one, as ``tar --clamp-mtime`` does.
        placement: Align large contents so that blocks can be shared. This is done with
            GNU ``L`` headers whose names are padded with NULs, as all readers allow.
        entries: Output paths and inodes to write instead of the whole tree.

    Raises:
        FormatError: The tree cannot be written as a tar that flatten would accept.
    """
    members = tree.members
    if clamp_mtime is not None:
        _clamp(members, clamp_mtime)
    if entries is None:
        paths, inodes = walk(tree)
    else:
        paths = [path for path, _ in entries]
        inodes = array("I", [inode for _, inode in entries])
    links = later_names(tree, paths, inodes)
    plan = Plan(
        members,
        paths,
        inodes,
        links,
        posix=posix,
        sparse=sparse,
        warnings=tree.warnings,
    )
    if not sparse:
        _keep_large_holes(plan)
    plan.separate_from = BODY if placement is None else SHARED
    _measure(plan, placement)
    return plan


def _keep_large_holes(plan: Plan) -> None:
    """Keep sparse files sparse if their holes have too many bytes."""
    members = plan.members
    files = plan.sparse_files()
    holes = sum(members.sizes[file] - members.stored(file) for file in files)
    if holes > MOST_ZEROS:
        plan.sparse = True
        plan.warnings.append(
            f"{len(files):,} sparse files have holes of {holes:,} bytes, too many to "
            "write as zeros; they are sparse members, which not all programs read"
        )


def _clamp(members: Members, latest: int) -> None:
    """Reduce later mtimes to ``latest``, without a fraction."""
    mtimes = members.mtimes
    members.mtimes = array("q", [min(mtime, latest) for mtime in mtimes])
    for member, extra in members.extras.items():
        if mtimes[member] >= latest and extra.nanoseconds:
            members.extras[member] = Extra(extra.records, extra.sparse, extra.device)


def _measure(plan: Plan, placement: Placement | None) -> None:
    """Mark the members that need more than one plain header; compute the tar's size."""
    _mark(plan, placement)
    total = 0
    for checkpoint in range(0, len(plan), CHECKPOINT):
        plan.checkpoints.append(total)
        start, stop = checkpoint, min(checkpoint + CHECKPOINT, len(plan))
        for marked in compress(range(start, stop), plan.special[start:stop]):
            total += _plain_length(plan, start, marked)
            total += _marked_length(plan, placement, marked, total)
            start = marked + 1
        total += _plain_length(plan, start, stop)
    total += 2 * BLOCK_SIZE
    plan.size = total + -total % RECORD_SIZE


def _mark(plan: Plan, placement: Placement | None) -> None:
    """Mark the members that need more than one plain header, or might need it.

    Those that might are the large contents, if there is a placement.
    """
    members, inodes, special = plan.members, plan.inodes, plan.special
    if plan.posix:
        special[:] = bytes([FULL]) * len(plan)
        return
    if placement is not None:
        for position, inode in enumerate(inodes):
            if members.sizes[inode] >= SHARED:
                special[position] = VARIANT
    for position, target in plan.links.items():
        special[position] = FULL if len(target) > 100 else VARIANT
    if full := _full(members):
        for position, inode in enumerate(inodes):
            if inode in full:
                special[position] = FULL


def _full(members: Members) -> set[int]:
    """Return the inodes whose headers are encoded in full: few, or none."""
    sizes, mtimes = members.sizes, members.mtimes
    full = {inode for inode, target in members.targets.items() if len(target) > 100}
    full.update(members.extras)
    if max(sizes, default=0) >= _OCTAL_LIMIT:
        full.update(n for n, size in enumerate(sizes) if size >= _OCTAL_LIMIT)
    if min(mtimes, default=0) < 0 or max(mtimes, default=0) >= _OCTAL_LIMIT:
        full.update(n for n, at in enumerate(mtimes) if not 0 <= at < _OCTAL_LIMIT)
    return full


def _plain_length(plan: Plan, start: int, stop: int) -> int:
    """Return the bytes of consecutive plain members in the tar."""
    if start == stop:
        return 0
    sizes, paths = plan.members.sizes, plan.paths[start:stop]
    last = BLOCK_SIZE - 1  # as ``padded`` does, without a call for each member
    contents = sum([sizes[inode] + last & ~last for inode in plan.inodes[start:stop]])
    if max(map(len, paths)) <= 100:
        return BLOCK_SIZE * len(paths) + contents
    return sum(map(header_length, paths)) + contents


def _marked_length(
    plan: Plan, placement: Placement | None, position: int, at: int
) -> int:
    """Return the bytes in the tar of a marked member that starts at ``at``."""
    path, inode = plan.paths[position], plan.inodes[position]
    linked = position in plan.links
    content = 0 if linked else padded(plan.stored(inode))
    if plan.special[position] == FULL:
        return len(encode_header(plan, position, path, inode)) + content
    if linked or placement is None:
        return header_length(path) + content
    name = _place(plan, placement, position, at)
    if position not in plan.name_blocks:
        plan.special[position] = 0
    return name + BLOCK_SIZE + content


def _place(plan: Plan, placement: Placement, position: int, at: int) -> int:
    """Return the bytes of name to write before a member at ``at`` to align its content.

    That is 0 if the content is already aligned and the name is short. Names that would
    become too long for busybox are not padded; their contents are copied.
    """
    members, inode = plan.members, plan.inodes[position]
    origin = placement.origins[members.layers[inode]](members.data[inode])
    length = len(plan.paths[position])
    least = (length + BLOCK_SIZE) // BLOCK_SIZE  # blocks of the name with its NUL
    unpadded = BLOCK_SIZE * (1 + least) if length > 100 else 0
    if origin is None:
        return unpadded
    away = origin - at - BLOCK_SIZE  # distance to alignment, without a name
    if length <= 100 and away % placement.block == 0:
        return 0
    blocks = least + (away - BLOCK_SIZE * (1 + least)) % placement.block // BLOCK_SIZE
    if blocks > _BUSYBOX_BLOCKS:
        return unpadded
    plan.name_blocks[position] = blocks
    return BLOCK_SIZE * (1 + blocks)
