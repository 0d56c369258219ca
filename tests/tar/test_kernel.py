"""The kernel, and the scanner in Python, read headers as the reader does, or not at all."""

import random
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import block, layer, long_name, member, pax
from flatten.tar import kernel
from flatten.tar.kernel import MOST, Scanner
from flatten.tar.members import Allowance, Members
from flatten.tar.plain import PlainScanner
from headers import GNU, KINDS, NAMES, rows_or_error, sparse_gnu, sparse_pax

needs_kernel = pytest.mark.skipif(
    kernel.scan is None, reason="needs the compiled kernel"
)


@pytest.fixture(autouse=True)
def both_ways():
    """Run each test once, in place of the folder's fixture."""


LONG = b"d/" * 60 + b"name"
PLAIN = {
    "a file with data": member("a", b"data"),
    "a directory": member("d/", type=b"5"),
    "a symlink": member("s", type=b"2", target="../a b"),
    "a symlink without a target": block(b"s", b"2"),
    "a hard link": member("h", type=b"1", target="./d/a"),
    "a name of 100 bytes": member("n" * 100),
    "a name that begins with ./": member("./a/b"),
    "bytes that are no text": block(b"\xff\xfe", uname=b"\x80"),
    "a name with .wh. inside": member("a.wh.b"),
    "names with dots": member(".a/b./c..d/e"),
    "a name in a prefix": block(b"name", tail=b"d/e"),
    "a path in a PAX header": pax({b"path": LONG}) + block(LONG),
    "a directory with a path in a PAX header": pax({b"path": LONG + b"/"}) + block(b"x", b"5"),
    "a GNU header": block(b"x", magic=GNU),
    "a v7 header": block(b"x", magic=b"", uname=b""),
    "numbers of fewer digits": block(b"x", mode=b"644", uid=b"0 ", gid=b"17\0009"),
    "file type bits in the mode": block(b"x", mode=0o100644),
    "the largest numbers": block(b"x", uid=8**7 - 1, gid=8**7 - 1, mtime=8**11 - 1),
    "a directory with a size": block(b"d/", b"5", size=5000),
}  # fmt: skip
OTHER = {
    "a wrong checksum": block(b"x", checksum=b"000001\0 "),
    "a checksum in another form": block(b"x", checksum=b"0011204\0"),
    "typeflag NUL": block(b"x", b"\0"),
    "a device": block(b"x", b"3"),
    "a FIFO": block(b"x", b"6"),
    "a GNU long name": long_name(LONG) + block(LONG),
    "no name": block(b""),
    "the root": block(b"./", b"5"),
    "a whiteout": block(b"d/.wh.x"),
    "a name below a whiteout": block(b".wh.x/y"),
    "a name with two slashes": block(b"a//b"),
    "a name with two slashes at its end": block(b"a//", b"5"),
    "a name that begins with a slash": block(b"/a"),
    "a name with ..": block(b"a/../b"),
    "a name with . inside": block(b"a/./b"),
    "a name that begins with ././": block(b"././b"),
    "a hard link to the root": block(b"x", b"1", target=b"/"),
    "a hard link to ..": block(b"x", b"1", target=b"../x"),
    "a symlink with data": block(b"x", b"2", size=1, target=b"y"),
    "a mode that is no number": block(b"x", mode=b"rwx"),
    "a mode that is empty": block(b"x", mode=b""),
    "a number with a leading space": block(b"x", size=b" 5"),
    "a number without an end": block(b"x", size=b"0" * 12),
    "a number in base-256": block(b"x", uid=1 << 21),
    "an mtime before the epoch": block(b"x", mtime=-1),
    "a digit 8": block(b"x", size=b"18"),
    "a star prefix of 131 bytes": block(b"x", tail=b"p" * 131),
    "a prefix in a GNU header": block(b"x", magic=GNU, tail=b"p"),
    "a PAX header with another record": pax({b"path": b"a", b"mtime": b"1"}) + block(b"x"),
    "a PAX header with a wrong length": pax(b"99 path=x\n") + block(b"x"),
    "a PAX header whose length has four digits": pax(b"0021 path=nnnnnnnnnn\n") + block(b"x"),
    "a PAX path without a newline": pax(b"9 path=xy") + block(b"x"),
    "a PAX path with a newline": pax({b"path": b"a\nb"}) + block(b"x"),
    "a PAX path with a NUL": pax({b"path": b"a\0b"}) + block(b"x"),
    "an empty PAX path": pax({b"path": b""}) + block(b"x"),
    "a PAX path of 600 bytes": pax({b"path": b"n" * 600}) + block(b"x"),
    "a PAX header, and then a device": pax({b"path": b"a"}) + block(b"x", b"3"),
    "a PAX header, and then another one": pax({b"path": b"a"}) + pax({b"path": b"b"}) + block(b"x"),
    "a PAX header, and then a wrong prefix": pax({b"path": b"a"}) + block(b"x", magic=GNU, tail=b"p"),
    "a PAX header, and then nothing": pax({b"path": b"a"}),
    "a part of a header": block(b"x")[:511],
    "a zero block": bytes(512),
}  # fmt: skip


def kernel_scanner(into, paths):
    return Scanner(kernel.scan, into, paths)


def python_scanner(into, paths):
    return PlainScanner(into, paths, hidden=[])


def scanned(scanner, tar):
    """Return the paths that a kind of scanner finds, and where it stops."""
    paths = []
    scanner = scanner(Members(), paths)
    stop, _ = scanner.scan(tar, 0, 0, 0)
    scanner.flush()
    return paths, stop


@pytest.mark.parametrize(
    "scanner", [pytest.param(kernel_scanner, marks=needs_kernel), python_scanner]
)
@pytest.mark.parametrize("tar", PLAIN.values(), ids=PLAIN)
def test_plain_headers_are_taken(tar, scanner):
    after = member("after")

    paths, stop = scanned(scanner, tar + after)

    assert (len(paths), stop) == (2, len(tar + after))


@needs_kernel
@pytest.mark.parametrize("tar", OTHER.values(), ids=OTHER)
def test_the_kernel_stops_before_any_other_header(tar):
    before = member("before", b"data")

    assert scanned(kernel_scanner, before + tar) == ([b"before"], len(before))


def all_ways(tar, **limits):
    """Return what is read with the kernel, with Python's scanner, and with neither."""
    with_kernel = rows_or_error(tar, Members(**limits))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel, "scan", None)
        in_python = rows_or_error(tar, Members(**limits))
        patch.setattr("flatten.tar.plain._KINDS", frozenset())
        return with_kernel, in_python, rows_or_error(tar, Members(**limits))


@pytest.mark.parametrize("tar", (PLAIN | OTHER).values(), ids=PLAIN | OTHER)
def test_all_ways_read_the_same(tar):
    with_kernel, in_python, with_neither = all_ways(
        member("b", b"data") + tar + layer("c")
    )

    assert with_kernel == in_python == with_neither


TEXTS = st.one_of(
    st.sampled_from([b"a", b"d/", b"./a", b"/", b".wh.a", b"a/../b", b"n" * 100, b"", LONG]),
    st.binary(max_size=120),
    st.text("ab./", max_size=40).map(str.encode),
)  # fmt: skip
NUMBERS = st.one_of(
    st.integers(0, 8**7 - 1),
    st.sampled_from([b"644", b" 7 ", b"0000644\0", b"0000644 ", b"8", b"", b"1 2", b"\xff" * 8]),
    st.binary(max_size=8),
)  # fmt: skip
SIZES = st.one_of(
    st.sampled_from([0, 1, 511, 512, 513, 70_000, 8**11, -1, b"5 ", b"1" * 12, b"0\0" + b"7"])
)  # fmt: skip
BLOCKS = st.builds(
    block,
    TEXTS.map(lambda text: text.ljust(1, b"x")),
    st.sampled_from([b"0"] * 6 + [b"1", b"2", b"5", b"3", b"\0", b"7", b"x", b"L", b"g", b"D"]),
    mode=NUMBERS, uid=NUMBERS, gid=NUMBERS, size=SIZES, mtime=SIZES, target=TEXTS,
    magic=st.sampled_from([b"ustar\x0000", GNU, b""]),
    tail=st.one_of(st.just(b""), st.just(b""), TEXTS, st.binary(max_size=167)),
    checksum=st.sampled_from([None] * 30 + [b"000000\0 ", b"0010000\0"]),
)  # fmt: skip
PAX = st.one_of(
    TEXTS.map(lambda path: pax({b"path": path})), st.binary(max_size=80).map(pax)
)
MEMBERS = st.one_of(
    st.sampled_from([*PLAIN.values(), *(head for head, _ in [*NAMES.values(), *KINDS.values()])]),
    BLOCKS, PAX,
    TEXTS.map(lambda name: member(name or b"x", b"data")),
    st.integers(0, 80_000).map(lambda size: member("data", bytes(size))),
    st.sampled_from([
        bytes(512), sparse_gnu(b"x", [(512, 5)], 9000, b"data!"),
        sparse_pax("1.0", b"x", [(512, 5)], 9000, b"data!"),
    ]),
)  # fmt: skip


def changed(parts, position, byte, cut):
    """Join the parts of a tar, and change one of its bytes, or its end."""
    tar = bytearray(b"".join(parts))
    if byte is not None and tar:
        tar[position % len(tar)] = byte
    return bytes(tar[: len(tar) - cut])


TARS = st.builds(
    changed,
    st.lists(MEMBERS, max_size=12),
    st.integers(0, 1 << 16),
    st.one_of(st.none(), st.integers(0, 255)),
    st.sampled_from([0, 0, 0, 1, 512, 1000]),
)


@given(TARS)
def test_all_ways_read_the_same_of_any_bytes(tar):
    with_kernel, in_python, with_neither = all_ways(tar)

    assert with_kernel == in_python == with_neither


@given(TARS, st.integers(0, 6), st.integers(0, 300))
def test_all_ways_refuse_the_same_member_over_a_limit(tar, members, bytes_left):
    with_kernel, in_python, with_neither = all_ways(
        tar, limit=members, allowance=Allowance(left=bytes_left)
    )

    assert with_kernel == in_python == with_neither


def test_many_rows_are_moved_in_several_steps():
    names = [b"%b/%d" % (b"d" * (n % 90), n) for n in range(9000)]
    tar = layer(
        *(
            member(name, type=b"2", target="t" * (n % 100))
            for n, name in enumerate(names)
        )
    )

    with_kernel, in_python, with_neither = all_ways(tar)

    assert with_kernel == in_python == with_neither
    assert len(with_kernel[0].paths) == 9000


@pytest.mark.parametrize("seed", range(5))
def test_members_that_end_anywhere_in_what_is_read_at_once(seed):
    chance = random.Random(seed)
    parts = [
        member(LONG + b"%d" % n, chance.randbytes(chance.choice((0, 5, 700, 2000, MOST))))
        if n % 3 else pax({b"path": LONG + b"%d" % n}) + block(b"x")
        for n in range(300)
    ]  # fmt: skip

    with_kernel, in_python, with_neither = all_ways(b"".join(parts) + bytes(1024))

    assert with_kernel == in_python == with_neither
    assert len(with_kernel[0].paths) == 300


STATES = {
    "fewer numbers": array("q", [0] * 4),
    "rows below 0": array("q", [-1, 0, 0, 0, 0]),
    "more names than there is room for": array("q", [0, 99, 0, 0, 0]),
    "more targets than there is room for": array("q", [0, 0, 99, 0, 0]),
}


@needs_kernel
@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_impossible_states_are_refused(state):
    with pytest.raises(ValueError, match="the state of the scan is impossible"):
        kernel.scan(
            b"",
            0,
            state,
            bytearray(9),
            array("q", [0] * 36),
            bytearray(9),
            bytearray(9),
        )


@needs_kernel
@pytest.mark.parametrize(
    ("rows", "names", "targets"), [(0, 99, 99), (9, 1, 99), (9, 99, 1)]
)
def test_the_kernel_stops_where_there_is_no_room(rows, names, targets):
    state, tar = array("q", [0] * 5), member("s", type=b"2", target="t")

    kernel.scan(
        tar, 0, state, bytearray(rows), array("q", [0] * 4 * rows), bytearray(names),
        bytearray(targets),
    )  # fmt: skip

    assert list(state) == [0, 0, 0, 0, 0]


@needs_kernel
def test_offsets_are_those_of_the_stream():
    state, tar = array("q", [0, 0, 0, 1 << 40, 0]), member("a", b"data")
    numbers = array("q", [0] * 4)

    kernel.scan(tar, 1 << 40, state, bytearray(1), numbers, bytearray(9), bytearray(9))

    assert list(state) == [1, 2, 0, (1 << 40) + 1024, (1 << 40) + 516]
    assert numbers[2] == (1 << 40) + 512
