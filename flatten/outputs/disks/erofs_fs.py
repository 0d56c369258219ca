"""The on-disk structures of EROFS that flatten writes. No I/O.

All numbers are little-endian. Names of fields are in the order of the structures.

==================  ========  ====================================================
structure           bytes     fields
==================  ========  ====================================================
erofs_super_block   128       magic, checksum, feature_compat, blkszbits,
                              sb_extslots, root_nid, inos, build_time,
                              build_time_nsec, blocks, meta_blkaddr, xattr_blkaddr,
                              uuid, volume_name, feature_incompat, u1,
                              extra_devices, devt_slotoff, dirblkbits,
                              xattr_prefix_count, xattr_prefix_start, packed_nid
erofs_inode         64        i_format, i_xattr_icount, i_mode, i_reserved, i_size,
_extended                     i_u, i_ino, i_uid, i_gid, i_mtime, i_mtime_nsec,
                              i_nlink
erofs_dirent        12        nid, nameoff, file_type
erofs_xattr_ibody   12        h_name_filter, h_shared_count
_header
erofs_xattr_entry   4         e_name_len, e_name_index, e_value_size
erofs_inode_chunk   8         advise, device_id, blkaddr
_index
erofs_deviceslot    128       tag, blocks, mapped_blkaddr
==================  ========  ====================================================

An inode's number, its *nid*, is its position in the file in slots of 32 bytes, since
``meta_blkaddr`` is 0 here. The inode is followed by its xattrs and then, by its layout,
by the last bytes of its content or by its chunk table.

i_mtime is unsigned in the header file, but the kernel assigns it to a signed number, so
that times before 1970 are kept in two's complement.

Reference: Linux, fs/erofs/erofs_fs.h; https://erofs.docs.kernel.org, "On-disk format".
"""

from collections.abc import Iterable
from struct import Struct
from typing import Final

from ...tar.members import BLOCK as BLOCK_DEVICE
from ...tar.members import CHAR, DIRECTORY, FIFO, FILE, SYMLINK
from .crc32c import crc32c

BLOCK: Final = 4096  # bytes; Linux before 6.4 reads blocks of a page only
BLOCKS: Final = tuple(1 << bits for bits in range(9, 17))
"""The sizes that a block can have, in bytes. Linux reads at most those of a page."""

SLOT: Final = 32  # bytes that a nid counts
MAX_BLOCKS: Final = (1 << 32) - 1  # the last address means a hole
MAX_LABEL: Final = 15  # bytes; the field has 16, and tools expect a NUL
MAX_NAME: Final = 255  # bytes (EROFS_NAME_LEN), also of an xattr's full name in Linux
MAX_VALUE: Final = (1 << 16) - 1  # bytes of an xattr

_SUPERBLOCK: Final = Struct("<IIIBBHQQIIII16s16sIHHHBBIQ24x")
INODE: Final = Struct("<HHHHQIIIIqII16x")
DIRENT: Final = Struct("<QHBx")
XATTR_HEADER: Final = Struct("<IB7x")
XATTR_ENTRY: Final = Struct("<BBH")

CHUNK_INDEX: Final = Struct("<HHI")  # aligned to its size
_DEVICE: Final = Struct("<64sI60x")  # the other files are found by their numbers alone

_SUPERBLOCK_AT: Final = 1024
_MAGIC: Final = 0xE0F5E1E2
_COMPAT_CHECKSUM: Final = 0x1  # of the superblock
_COMPAT_MTIME: Final = 0x2  # i_mtime is the mtime
_INCOMPAT_CHUNKED_FILE: Final = 0x4
_INCOMPAT_DEVICE_TABLE: Final = 0x8

# i_format: the version in bit 0, and the layout of the content from bit 1 on
EXTENDED: Final = 1
FLAT_PLAIN: Final = 0 << 1  # in blocks
FLAT_INLINE: Final = 2 << 1  # in blocks, and its last bytes after the inode
CHUNK_BASED: Final = 4 << 1  # in chunks; their addresses are after the inode

MAX_CHUNK_BITS: Final = 31  # a chunk has ``block << bits`` bytes
ADDRESS: Final = Struct("<I")  # an entry of a chunk table
INDEXES: Final = 0x20  # in i_u: the table has a CHUNK_INDEX for each chunk
HOLE: Final = (1 << 32) - 1  # the address of a chunk of zeros

XATTR_UNIT: Final = 4  # bytes; sizes and numbers of xattrs count it
MAX_SHARED: Final = 255  # shared xattrs of one inode
MAX_XATTRS: Final = XATTR_HEADER.size + XATTR_UNIT * ((1 << 16) - 2)

XATTR_PREFIXES: Final = {
    b"user.": 1,
    b"system.posix_acl_access": 2,
    b"system.posix_acl_default": 3,
    b"trusted.": 4,
    b"security.": 6,
}
"""What xattrs' names can start with, and its e_name_index; the rest is the name."""

FILE_TYPES: Final = {
    FILE: 1, DIRECTORY: 2, CHAR: 3, BLOCK_DEVICE: 4, FIFO: 5, SYMLINK: 7,
}  # fmt: skip
"""The file_type of a directory entry, by the tar typeflag."""


def head_size(block: int, devices: int = 0) -> int:
    """Return the bytes before the first inode: whole blocks with the superblock.

    >>> head_size(512), head_size(4096), head_size(512, 4)
    (1536, 4096, 2048)
    """
    end = _SUPERBLOCK_AT + _SUPERBLOCK.size + _DEVICE.size * devices
    return end + -end % block


def encode_devices(devices: Iterable[tuple[bytes, int]]) -> bytes:
    """Encode the table of other files: the tag and the number of blocks of each."""
    return b"".join([_DEVICE.pack(tag, blocks) for tag, blocks in devices])


def encode_head(  # noqa: PLR0913 - the fields of a structure, by keyword
    *,
    block: int,
    root: int,
    inodes: int,
    time: int,
    blocks: int,
    xattrs: int,
    uuid: bytes,
    label: bytes,
    chunked: bool,
    devices: bytes = b"",
) -> bytes:
    """Return the bytes before the first inode.

    The checksum is from the superblock to the end of its block. Blocks of up to 1 KiB
    have none: libblkid 2.42 recognises no such image with a checksum, as it subtracts
    the superblock's offset from the size of a block.

    Args:
        block: The size of a block, in bytes.
        root: The nid of the root, less than 65,536.
        inodes: The number of inodes.
        time: When the file system was made, in seconds since the epoch.
        blocks: The number of blocks.
        xattrs: The block at which the shared xattrs start.
        uuid: 16 bytes.
        label: At most 16 bytes.
        chunked: There is a file in chunks.
        devices: The table of other files, if there are any.
    """
    checked = block > _SUPERBLOCK_AT
    features = _INCOMPAT_CHUNKED_FILE if chunked else 0
    if devices:
        features |= _INCOMPAT_DEVICE_TABLE
    count = len(devices) // _DEVICE.size
    table_at = _SUPERBLOCK_AT + _SUPERBLOCK.size

    def padded(checksum: int) -> bytes:
        fields = _SUPERBLOCK.pack(
            _MAGIC,
            checksum,
            _COMPAT_MTIME | (_COMPAT_CHECKSUM if checked else 0),
            block.bit_length() - 1,
            0,  # sb_extslots
            root,
            inodes,
            time,
            0,  # build_time_nsec
            blocks,
            0,  # meta_blkaddr
            xattrs,
            uuid,
            label,
            features,
            0,  # u1: compressors
            count,
            table_at // _DEVICE.size if devices else 0,
            0,  # dirblkbits: a directory's blocks are as large as others
            0,  # xattr_prefix_count
            0,  # xattr_prefix_start
            0,  # packed_nid
        )
        size = head_size(block, count) - _SUPERBLOCK_AT
        return (fields + devices).ljust(size, b"\0")

    checksum = crc32c(padded(0)[: block - _SUPERBLOCK_AT]) if checked else 0
    return bytes(_SUPERBLOCK_AT) + padded(checksum)


def encode_device(major: int, minor: int) -> int:
    """Return a device number in the kernel's form (``new_encode_dev``).

    >>> hex(encode_device(7, 259))
    '0x100703'
    """
    return minor & 0xFF | major << 8 | (minor & ~0xFF) << 12
