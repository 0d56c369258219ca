"""CRC-32C (Castagnoli), as Linux computes it: without the final inversion.

Reference: RFC 3720, appendix B.4; Linux, lib/crc32.c.
"""

from typing import Final

_POLYNOMIAL: Final = 0x82F63B78  # reflected


def _remainder(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (_POLYNOMIAL if byte & 1 else 0)
    return byte


_TABLE: Final = tuple(map(_remainder, range(256)))


def crc32c(data: bytes) -> int:
    """Return the state after ``data``, from the usual start value of 32 one bits.

    The checksum of the RFC is this state with all bits inverted:

    >>> hex(crc32c(b"123456789") ^ 0xFFFFFFFF)
    '0xe3069283'
    """
    state = 0xFFFFFFFF
    for byte in data:
        state = state >> 8 ^ _TABLE[(state ^ byte) & 0xFF]
    return state
