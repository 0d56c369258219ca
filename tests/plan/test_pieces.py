"""The pieces of a tar are the same bytes, with the kernel and without it."""

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

import flatten
from builders import Bytes, block, layer, member, pax
from flatten.outputs.write_tar import write_tar
from flatten.plan.make import Placement, make_plan
from flatten.plan.pieces import pieces
from flatten.plan.plan import CHECKPOINT, FULL, Headers, Section, Span
from flatten.tar import kernel
from flatten.tar.layer import read_layer
from flatten.tar.members import Members
from flatten.tar.write_header import owner_fields
from flatten.tree.tree import Tree

LONG = b"d/" * 60 + b"name"
XATTR = {b"SCHILY.xattr.user.a": b"b"}


class Layer(Bytes):
    """A layer that refuses reads outside of it."""

    def readinto(self, offset, view):
        assert 0 <= offset <= offset + len(view) <= len(self.data)
        view[:] = self.data[offset : offset + len(view)]

    def extent(self, _offset):
        return None


class Sink:
    """Takes a tar, in memory."""

    def __init__(self):
        self.data = bytearray()

    def write(self, view):
        self.data += view
        return len(view)

    def descriptor(self):
        return None


def planned(tars, **how):
    tree = Tree(Members())
    layers = [Layer(tar) for tar in tars]
    for position, tar in enumerate(layers):
        tree.apply(read_layer(tar, f"layer {position}", position, tree.members))
    return make_plan(tree, **how), layers


def flattened(tars):
    """Return the tar of some layers, or the error."""
    sink = Sink()
    try:
        plan, layers = planned(tars)
    except flatten.FormatError as error:
        return str(error)
    assert write_tar(pieces(plan), layers, sink) == plan.size
    return bytes(sink.data)


def both(tars):
    """Return what is written with the kernel, and without it."""
    if kernel.encode is None:
        pytest.skip("needs the compiled kernel")
    with_kernel = flattened(tars)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel, "encode", None)
        return with_kernel, flattened(tars)


NAMES = st.sampled_from(
    [b"a", b"b", b"d/a", b"d/b", b"d/e/f", b".c", b"n" * 100, b"n" * 101, LONG, b"x" * 700]
)  # fmt: skip
SIZES = st.sampled_from(
    [0, 1, 511, 512, 513, 2000, (1 << 17) - 1, 1 << 17, (1 << 17) + 511]
)
OWN_HEADERS = st.one_of(
    st.builds(
        lambda name, size, mode, uid, mtime: member(
            name, bytes([65 + size % 7]) * size, mode=mode, uid=uid, mtime=mtime
        ),
        NAMES, SIZES, st.sampled_from([0o644, 0o7777]), st.sampled_from([0, 1000, 1 << 21]),
        st.sampled_from([0, 1_700_000_000, -1, 8**11]),
    ),
    NAMES.map(lambda name: member(name + b"/", type=b"5")),
    NAMES.map(lambda name: member(name, type=b"2", target=name)),
    NAMES.map(lambda name: member(name, type=b"1", target=b"a")),
    NAMES.map(lambda name: member(name, type=b"6")),
    NAMES.map(lambda name: member(name, type=b"3", device=(1, 3))),
    NAMES.map(lambda name: member(name, b"data", records=XATTR)),
    NAMES.map(lambda name: pax({b"path": name}) + block(b"x", size=3) + b"abc".ljust(512, b"?")),
)  # fmt: skip
LAYERS = st.lists(
    st.lists(OWN_HEADERS, max_size=12).map(lambda each: layer(*each)), max_size=3
)


@given(LAYERS)
def test_both_write_the_same_bytes(tars):
    with_kernel, without = both(tars)

    assert with_kernel == without


def written(piece):
    return len(piece) if isinstance(piece, bytes) else piece.length


@pytest.mark.parametrize("form", ["gnu", "pax", "shared"])
@given(LAYERS)
def test_the_size_is_that_of_the_members(form, tars):
    shared = Placement(4096, [lambda offset: offset + 512] * len(tars))
    how = {"gnu": {}, "pax": {"posix": True}, "shared": {"placement": shared}}[form]
    try:
        plan, _ = planned(tars, **how)
    except flatten.FormatError:
        return

    *members, end = map(written, pieces(plan))

    size = sum(members)
    assert end == 1024 + -(size + 1024) % 10240
    assert plan.size == size + end


def test_a_link_whose_target_is_long_has_more_than_one_header():
    link = member("z", type=b"1", records={b"linkpath": LONG})

    plan, _ = planned([layer(member(LONG, b"data"), link)])

    assert plan.special[-1] == FULL
    assert plan.size == sum(map(written, pieces(plan)))


@pytest.mark.parametrize("form", [{}, {"posix": True}], ids=["gnu", "pax"])
def test_checkpoints_are_where_their_members_begin(form):
    names = [b"%04d/" % n for n in range(900)]
    plan, _ = planned([
        layer(
            *(member(name + b"file", b"data") for name in names),
            *(member(name + b"link", type=b"1", target=b"0000/file") for name in names),
            *(member(name + b"xattr", b"data", records=XATTR) for name in names),
            *(member(name + 101 * b"n", b"data") for name in names),
        )
    ], **form)  # fmt: skip

    starts = range(0, len(plan), CHECKPOINT)
    before = [sum(map(written, pieces(plan, Section(0, n, 0)))) for n in starts]
    assert list(plan.checkpoints) == before


def test_plain_members_of_a_layer_are_one_span():
    plan, _ = planned([layer(*(member(f"{n}", b"data" * n) for n in range(9)))])

    span, *rest = pieces(plan)

    assert isinstance(span, Span)
    assert [piece for piece in rest if isinstance(piece, Span)] == []
    (_, headers), *others = span.patches
    if kernel.encode is None:
        assert len(others) == 2 * 8 - 1  # the first content is empty
        assert isinstance(headers, bytes)
    else:
        assert others == []
        assert (headers.start, headers.stop) == (0, 9)


def test_members_with_xattrs_are_in_the_span_of_their_neighbours():
    tar = flattened([layer("a", member("b", b"data", records=XATTR), "c", "d")])

    (span,) = [piece for piece in pieces(planned([tar])[0]) if isinstance(piece, Span)]

    assert [at for at, _ in span.places()][-1] == span.length - 512 - 1


def test_the_first_member_of_a_layer_after_a_large_one():
    """Its header is where the padding of the large content would begin, less a block."""
    tar = layer(member("z", b"last"), member("a", bytes((1 << 17) + 511)))

    plan, _ = planned([tar])

    assert all(piece.offset >= 0 for piece in pieces(plan) if isinstance(piece, Span))
    assert len(flattened([tar])) == plan.size


def test_padding_in_a_layer_may_have_any_bytes():
    parts = [block(b"%d" % n, size=n) + (b"x" * n).ljust(512, b"?") for n in (1, 2, 3)]

    assert b"?" not in flattened([layer(*parts)])


OWNER = owner_fields((0o644, 0, 0))
COLUMNS = {
    "paths": [b"a", b"b/", b"s"],
    "targets": {2: b"target"},
    "inodes": array("I", [0, 1, 2]),
    "special": bytearray(3),
    "kinds": bytearray(b"052"),
    "layers": array("H", [0, 0, 0]),
    "owners": array("I", [0, 0, 0]),
    "sizes": array("q", [4, 0, 0]),
    "data": array("q", [512, 1536, 2048]),
    "mtimes": array("q", [7, 8, 9]),
    "owner_fields": OWNER,
}
ALL = (3, 2048)
FIRST = (1, 516)
FOUND = {
    "all that follow each other": ({}, ALL),
    "one that is special": ({"special": bytearray([0, 1, 0])}, FIRST),
    "a first one that is special": ({"special": bytearray([1, 0, 0])}, (0, 0)),
    "one in another layer": ({"layers": array("H", [0, 1, 0])}, FIRST),
    "one elsewhere in the layer": ({"data": array("q", [512, 2048, 2560])}, FIRST),
    "one in no layer": ({"data": array("q", [512, -1, 2048])}, FIRST),
    "one whose header would begin before the layer": (
        {"paths": [b"n" * 101, b"b/", b"s"]}, (0, 0),
    ),
    "a long name that has no room": ({"paths": [b"a", b"n" * 101, b"s"]}, FIRST),
    "one that begins inside a block": ({"data": array("q", [513, 1537, 2049])}, (0, 0)),
    "a size below 0": ({"sizes": array("q", [4, -1, 0])}, FIRST),
    "a size in base-256": ({"sizes": array("q", [4, 1 << 33, 0])}, FIRST),
    "an mtime below 0": ({"mtimes": array("q", [7, -1, 9])}, FIRST),
    "an mtime in base-256": ({"mtimes": array("q", [7, 1 << 33, 9])}, FIRST),
    "an owner that is not there": ({"owners": array("I", [0, 1, 0])}, FIRST),
    "an inode that is not there": ({"inodes": array("I", [0, 3, 2])}, FIRST),
    "a symlink without a target": ({"targets": {}}, (2, 1536)),
    "a symlink with a long target": ({"targets": {2: b"t" * 101}}, (2, 1536)),
    "fewer paths": ({"paths": [b"a"]}, FIRST),
    "fewer inodes": ({"inodes": array("I", [0])}, FIRST),
    "fewer marks": ({"special": bytearray(1)}, FIRST),
    "fewer kinds": ({"kinds": bytearray(b"0")}, FIRST),
    "fewer mtimes": ({"mtimes": array("q", [7])}, FIRST),
    "fewer bytes of owners": ({"owner_fields": OWNER[:23]}, (0, 0)),
}  # fmt: skip


def find(changes, *, start=0, stop=3, below=1000, most=1 << 18, out=None):
    if kernel.encode is None:
        pytest.skip("needs the compiled kernel")
    plan = tuple((COLUMNS | changes).values())
    return kernel.encode(plan, start, stop, below, most, out)


@pytest.mark.parametrize(("changes", "want"), FOUND.values(), ids=FOUND)
def test_the_kernel_finds_plain_members(changes, want):
    assert find(changes) == want


def test_the_kernel_finds_members_within_bounds():
    assert find({}, stop=2) == (2, 1536)
    assert find({}, start=1) == (3, 1024)
    assert find({}, start=3) == (3, 0)
    assert find({}, start=-1) == (-1, 0)
    assert find({}, stop=99) == ALL
    assert find({}, most=2048) == ALL
    assert find({}, most=2047) == (2, 1536)
    assert find({}, below=4) == (0, 0)
    assert find({}, below=5) == ALL


def test_the_kernel_writes_no_more_than_there_is_room_for():
    out = bytearray(b"?" * 2048)

    assert find({}, out=memoryview(out)[:2047]) == (2, 1536)
    assert out[512:516] == b"????"
    assert out[516:1024] == bytes(508)
    assert out[1536:] == b"?" * 512


@pytest.mark.parametrize(
    "changes", [{"paths": ["text"]}, {"targets": {2: "text"}}, {"kinds": None}]
)
def test_the_kernel_refuses_other_types(changes):
    with pytest.raises(TypeError):
        find(changes)


def test_headers_are_found_where_they_are():
    headers = Headers(tuple(COLUMNS.values()), 0, 3, 2048)

    assert list(headers.places()) == [(0, 512), (1024, 512), (1536, 512)]
