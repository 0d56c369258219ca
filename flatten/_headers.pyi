"""The kernel for plain tar headers. Users import ``flatten.tar.kernel``."""

from typing import Any

from typing_extensions import Buffer

def scan(
    buffer: Buffer,
    base: int,
    state: Buffer,
    kinds: Buffer,
    numbers: Buffer,
    names: Buffer,
    targets: Buffer,
    /,
) -> None:
    """Append a row for each plain header, up to the first header that is not plain.

    It also stops at the end of ``buffer``, and where there is no more room. Other
    threads run meanwhile.

    Args:
        buffer: Bytes of a stream.
        base: Their offset in the stream.
        state: Five int64: the rows, bytes of names and bytes of targets that are in
            use; the offset of the next header; the end of the data before it.
        kinds: A byte a row: the typeflag.
        numbers: Four columns of int64, one after another: the owner (mode << 42 |
            uid << 21 | gid), the size, the offset of the data, the mtime.
        names: The normalised path of each row, with a NUL after it.
        targets: The target of each link, with a NUL after it.

    Raises:
        ValueError: The state cannot be that of a scan.
    """

def encode(
    plan: tuple[Any, ...],
    start: int,
    stop: int,
    below: int,
    most: int,
    out: Buffer | None,
    /,
) -> tuple[int, int]:
    """Find plain members that follow each other in the plan and in one layer.

    Their headers and padding, as long as what is between their contents in the layer,
    are written to ``out``. It is given in a second call, when it has the layer's bytes.

    Args:
        plan: Paths (list of bytes), targets (dict), and as buffers inodes (uint32),
            special (uint8), kinds (uint8), layers (uint16), owners (uint32), sizes,
            data, mtimes (int64), and 24 bytes of mode, uid and gid fields an owner.
            The first, the third and the fourth are by position, the others by inode.
        start: Position of the first member.
        stop: Position after the last member that is looked at.
        below: Contents of that many bytes or more do not belong to them.
        most: Maximum bytes from the first header to the end of the last content.
        out: The layer's bytes from the first header on, or None.

    Returns:
        The position after them, and the bytes that they take.
    """
