"""Recognise bytes that are not a tar by their magic numbers, for messages."""

from typing import Final

START: Final = 1 << 17  # bytes to look at; btrfs has its magic after 64 KiB

UTF_16: Final = "text in UTF-16, as PowerShell's > writes it"
LFS_POINTER: Final = "a Git LFS pointer"
HTML: Final = "an HTML page"
ZIP: Final = "a ZIP archive"
_MAGIC: Final[tuple[tuple[int, bytes, str], ...]] = (
    (0, b"hsqs", "a SquashFS file system"),
    (1024, b"\xe2\xe1\xf5\xe0", "an EROFS file system"),
    (1080, b"\x53\xef", "an ext2, ext3 or ext4 file system"),
    (0, b"XFSB", "an XFS file system"),
    (65_600, b"_BHRfS_M", "a btrfs file system"),
    (32_769, b"CD001", "an ISO 9660 file system"),
    (0, b"\x45\x3d\xcd\x28", "a cramfs file system"),
    (0, b"-rom1fs-", "a romfs file system"),
    (1024, b"\x10\x20\xf5\xf2", "an F2FS file system"),
    (82, b"FAT32 ", "a FAT file system"),
    (54, b"FAT1", "a FAT file system"),
    (3, b"NTFS ", "an NTFS file system"),
    (512, b"EFI PART", "a disk image with a partition table"),
    (0, b"QFI\xfb", "a qcow2 disk image"),
    (0, b"KDMV", "a VMDK disk image"),
    (0, b"conectix", "a VHD disk image"),
    (0, b"vhdxfile", "a VHDX disk image"),
    (0, b"SFAR", "a nydus file system (RAFS)"),
    (0, b"\0asm", "a WebAssembly module"),
    (0, b"\x7fELF", "an ELF program"),
    (0, b"MZ", "a Windows program"),
    (0, b"#!", "a script"),
    (0, b"PK\3\4", ZIP),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (0, b"Rar!\x1a\7", "a RAR archive"),
    (0, b"070701", "a cpio archive"),
    (0, b"070702", "a cpio archive"),
    (0, b"070707", "a cpio archive"),
    (0, b"\xc7\x71", "a cpio archive"),
    (0, b"!<arch>\n", "an ar archive, such as a Debian package"),
    (0, b"\xed\xab\xee\xdb", "an RPM package"),
    (0, b"\x1f\x8b", "gzip data"),
    (0, b"\x28\xb5\x2f\xfd", "zstd data"),
    (0, b"\xfd7zXZ\0", "xz data"),
    (0, b"BZh", "bzip2 data"),
    (0, b"\x04\x22\x4d\x18", "lz4 data"),
    (0, b"\x89LZO", "lzop data"),
    (0, b"LZIP", "lzip data"),
    (0, b"age-encryption.org", "a file encrypted by age"),
    (0, b"-----BEGIN PGP", "a PGP message"),
    (0, b"LUKS\xba\xbe", "an encrypted disk (LUKS)"),
    (0, b"%PDF", "a PDF document"),
    (0, b"SQLite format 3\0", "an SQLite database"),
    (0, b"\xff\xfe", UTF_16),
    (0, b"\xfe\xff", UTF_16),
    (0, b"version https://git-lfs.github.com/spec/", LFS_POINTER),
    (0, b"version https://hawser.github.com/spec/", LFS_POINTER),
)
"""Offset, bytes there, and what has them."""

_TEXTS: Final = (
    ((b"<!doctype html", b"<html"), HTML),
    ((b"<?xml",), "an XML document"),
    ((b"{", b"["), "JSON or similar text"),
)  # the first words of a text, in small letters, and what begins so


def recognise(start: bytes) -> str | None:
    r"""Return what begins with some bytes, or None if that is unknown.

    Args:
        start: The first ``START`` bytes, or all if there are fewer.

    >>> recognise(b"hsqs" + bytes(92)), recognise(b"{}"), recognise(b"\x01\x02")
    ('a SquashFS file system', 'JSON or similar text', None)
    """
    if not start:
        return "an empty file"
    for offset, magic, what in _MAGIC:
        if start.startswith(magic, offset):
            return what
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()[:64].lower()
    for words, what in _TEXTS:
        if text.startswith(words):
            return what
    head = start[:512]
    printable = all(byte in b"\t\n\r" or 0x20 <= byte < 0x7F for byte in head)
    return "text" if printable else None
