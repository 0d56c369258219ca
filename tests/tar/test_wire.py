"""Fields, records and maps: valid, at the limit, broken."""

import pytest

from builders import block, record
from flatten.tar import wire

NUMBERS = {
    "octal with a NUL": (b"0000644\0", 0o644),
    "octal with a space": (b"0000644 ", 0o644),
    "octal with leading spaces": (b"   644 \0", 0o644),
    "octal that fills the field": (b"77777777", 0o77777777),
    "octal with a space, then junk": (b"644 junk", 0o644),
    "octal with a NUL, then junk": (b"644\0junk", 0o644),
    "a leading NUL, and 0": (b"\x00000000\0", 0),
    "empty": (b"\0" * 8, 0),
    "spaces only": (b" " * 8, 0),
    "base-256": (b"\x80" + b"\0" * 6 + b"\x01", 1),
    "base-256, large": (b"\x80\0\0\0\xff\xff\xff\xff", 2**32 - 1),
    "base-256, negative": (b"\xff" * 8, -1),
    "base-256, very negative": (b"\xff\xff\xff\xff\0\0\0\0", -(2**32)),
}


@pytest.mark.parametrize(("field", "want"), NUMBERS.values(), ids=NUMBERS)
def test_parse_number(field, want):
    got = wire.parse_number(field)

    assert got == want


NO_NUMBERS = {
    "a decimal digit": b"0000648\0",
    "a sign": b"-000644\0",
    "a plus sign": b"+000644\0",
    "an underscore": b"000_644\0",
    "a prefix": b"0o00644\0",
    "a letter": b"00x0644\0",
    "digits, then a letter": b"0000644x",
    "two leading NULs": b"\0\x0000644\0",
    "a leading NUL": b"\x00000644\0",
}


@pytest.mark.parametrize("field", NO_NUMBERS.values(), ids=NO_NUMBERS)
def test_parse_number_refuses(field):
    with pytest.raises(ValueError, match=r"not a number|not octal"):
        wire.parse_number(field)


@pytest.mark.parametrize("width", [8, 12])
@pytest.mark.parametrize(
    "value", [0, 1, 8**7 - 1, 8**7, 8**11 - 1, 8**11, -1, -(2**31), 2**55]
)
def test_numbers_come_back(value, width):
    field = wire.format_number(value, width)

    assert len(field) == width
    assert wire.parse_number(field) == value


CHECKSUMS = {
    "as GNU tar and Go write it": lambda total: b"%06o\0 " % total,
    "as seven digits": lambda total: b"%07o\0" % total,
    "with leading spaces": lambda total: b"%6o\0 " % total,
    "with a space and a NUL": lambda total: b"%06o \0" % total,
}


@pytest.mark.parametrize("write", CHECKSUMS.values(), ids=CHECKSUMS)
@pytest.mark.parametrize("name", [b"name", b"\xff" * 100])
def test_checksum_spellings(write, name):
    head = block(name, checksum=b" " * 8)
    head = head[:148] + write(sum(head)) + head[156:]

    assert wire.checksum_error(head) == ""


def test_checksum_of_signed_bytes():
    head = block(b"\xff" * 50, checksum=b" " * 8)
    signed = sum(byte - 256 if byte > 127 else byte for byte in head)
    head = head[:148] + b"%06o\0 " % signed + head[156:]

    assert wire.checksum_error(head) == ""


def test_checksum_is_exact_where_adler_wraps():
    """The sum of a block passes 65521, the modulus of the quick test."""
    head = block(b"\xff" * 100, b"x", target=b"\xff" * 100, tail=b"\xff" * 167)
    assert sum(head) > 65521
    assert wire.checksum_error(head) == ""

    total = sum(head[:148]) + sum(head[156:]) + 256
    wrong = head[:148] + b"%06o\0 " % (total + 1) + head[156:]
    assert "checksum" in wire.checksum_error(wrong)


@pytest.mark.parametrize("name", [b"name", b"\xff" * 100])
def test_checksum_that_is_off_by_the_modulus_of_adler(name):
    head = block(name)
    total = sum(head[:148]) + sum(head[156:]) + 256

    wrong = head[:148] + b"%06o\0 " % (total + 65521) + head[156:]

    assert "checksum" in wire.checksum_error(wrong)


@pytest.mark.parametrize("field", [b"888888\0 ", b"0123489\0", b"      \0 "])
def test_a_checksum_that_is_not_octal(field):
    head = block(b"name")

    assert "header checksum is" in wire.checksum_error(head[:148] + field + head[156:])


def test_checksum_error_shows_both_sums():
    head = block(b"name")
    wrong = head[:148] + b"012345\0 " + head[156:]

    got = wire.checksum_error(wrong)

    assert got.startswith("header checksum is '012345', but its bytes sum to 0o")


RECORDS = {
    "none": (b"", []),
    "one": (record(b"a", b"b"), [(b"a", b"b")]),
    "an equals sign in the value": (record(b"a", b"b=c"), [(b"a", b"b=c")]),
    "a line end in the value": (record(b"a", b"b\nc"), [(b"a", b"b\nc")]),
    "a NUL in the value": (record(b"a", b"b\0c"), [(b"a", b"b\0c")]),
    "an empty value": (record(b"a", b""), [(b"a", b"")]),
    "a length that counts its own growth": (
        record(b"k", b"v" * 94),
        [(b"k", b"v" * 94)],
    ),
    "NULs after the records": (record(b"a", b"b") + bytes(9), [(b"a", b"b")]),
}


@pytest.mark.parametrize(("body", "want"), RECORDS.values(), ids=RECORDS)
def test_parse_records(body, want):
    got = wire.parse_records(body)

    assert got == want
    assert wire.format_records(got) == body.rstrip(b"\0")


NO_RECORDS = {
    "no length": b"a=b\n",
    "no space": b"5a=b\n",
    "a length of 0": b"0 a=b\n",
    "a length that is too short": b"2 a=b\n",
    "a length within the record": b"5 a=b\n",
    "a length that is too long": b"7 a=b\n",
    "a length beyond all sense": b"99999999999999999999 a=b\n",
    "a negative length": b"-6 a=b\n",
    "a hexadecimal length": b"0x6 a=b\n",
    "no equals sign": b"5 ab\n",
    "no keyword": b"5 =b\n",
    "a NUL in the keyword": b"7 a\0=b\n",
    "no line end": b"6 a=bc",
}


@pytest.mark.parametrize("body", NO_RECORDS.values(), ids=NO_RECORDS)
def test_parse_records_refuses(body):
    with pytest.raises(ValueError, match="a PAX record"):
        wire.parse_records(body)


@pytest.mark.parametrize(
    "value", [b"", b".", b"1e5", b"--1", b"1.2.3", b" 1", b"9" * 30]
)
def test_parse_time_refuses(value):
    with pytest.raises(ValueError, match="not a time"):
        wire.parse_time(value)


MAPS = {
    "a hole at the end": ([(0, 5)], 10, 5, ((0, 5),)),
    "a hole at the start": ([(5, 5)], 10, 5, ((5, 5),)),
    "nothing but a hole": ([], 10, 0, ()),
    "regions that touch are joined": (
        [(0, 512), (512, 512), (2048, 1)], 9999, 1025, ((0, 1024), (2048, 1)),
    ),
    "empty regions are dropped": ([(0, 2), (5, 0), (9, 0)], 9, 2, ((0, 2),)),
    "no hole: no sparse file": ([(0, 512), (512, 5)], 517, 517, None),
    "no bytes: no sparse file": ([(0, 0)], 0, 0, None),
}  # fmt: skip


@pytest.mark.parametrize(("regions", "size", "stored", "want"), MAPS.values(), ids=MAPS)
def test_sparse_map(regions, size, stored, want):
    got = wire.sparse_map(regions, size, stored)

    assert got == want


NO_MAPS = {
    "overlap": ([(0, 512), (511, 5)], 1000, 517),
    "wrong order": ([(512, 512), (0, 512)], 9999, 1024),
    "beyond the file": ([(8, 5)], 10, 5),
    "negative length": ([(0, -5)], 10, -5),
    "more than is stored": ([(0, 5)], 10, 4),
    "less than is stored": ([(0, 5)], 10, 6),
    "a part of a block, and one more": ([(0, 5), (512, 5)], 999, 10),
}  # fmt: skip


@pytest.mark.parametrize(("regions", "size", "stored"), NO_MAPS.values(), ids=NO_MAPS)
def test_sparse_map_refuses(regions, size, stored):
    with pytest.raises(ValueError, match="sparse region"):
        wire.sparse_map(regions, size, stored)
