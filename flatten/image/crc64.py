"""CRC-64/ISO, which tar-split records for contents; computed at hundreds of MB/s.

Python has no fast CRC for this polynomial, x^64 + x^4 + x^3 + x + 1. But the polynomial
is so sparse that long integers suffice: x^64m is x^4m + x^3m + x^m + 1 if m is a power
of two, so the first bits of a message are folded into later ones with four shifts, a
large part at a time.

Reference: ISO 3309; Go hash/crc64, ``crc64.ISO``.
"""

from typing import Final

_ONES: Final = (1 << 64) - 1


def crc64(data: bytes, crc: int = 0) -> int:
    """Return the CRC-64 of ``data``, continuing from ``crc`` of the data before it.

    >>> hex(crc64(b"123456789")), crc64(b"56789", crc64(b"1234")) == crc64(b"123456789")
    ('0xb90956c775a41001', True)
    """
    # The first bit is the lowest, the coefficient of the highest power.
    number = int.from_bytes(data, "little") ^ crc ^ _ONES
    bits = 8 * len(data) + 64
    while bits > 64:
        power = 1 << ((bits - 1) // 64).bit_length() - 1
        count = min(60 * power, bits - 64 * power)
        first = number & (1 << count) - 1
        number >>= count
        bits -= count
        for shift in (64, 63, 61, 60):
            number ^= first << shift * power - count
    return number ^ _ONES
