"""Reading bbolt files, and errors in damaged ones."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bolts import PAGE, bolt, branch, leaf, meta, pages
from builders import Bytes
from flatten import FlattenError, FormatError
from flatten.sources.engines.bolt import Bucket, read_bolt


def everything(bucket: Bucket):
    return bucket.values() | {
        key: everything(child) for key, child in bucket.buckets().items()
    }


def read(data):
    return read_bolt(lambda: Bytes(data), "meta.db", everything)


TREES = {
    "nothing": {},
    "values": {b"a": b"1", b"b": b""},
    "an empty bucket": {b"a": {}},
    "an inline bucket": {b"a": {b"b": b"c"}},
    "many keys, below branches of branches": {b"%03d" % n: b"v" for n in range(200)},
    "a value over many pages": {b"a": bytes(3000), b"b": b"2"},
    "buckets five deep": {b"a": {b"b": {b"c": {b"d": {b"e": b"f"}}}}},
    "values and buckets between each other": {
        b"a": b"1", b"b": {b"c": {}}, b"d": b"2", b"e": {b"%d" % n: b"" for n in range(9)},
    },
}  # fmt: skip


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
def test_a_written_tree_is_read_back(tree):
    assert read(bolt(tree)) == tree


VALUES = st.binary(max_size=40)
SPARSE_TREES = st.recursive(
    st.dictionaries(st.binary(min_size=1, max_size=8), VALUES, max_size=9),
    lambda below: st.dictionaries(
        st.binary(min_size=1, max_size=8), VALUES | below, max_size=9
    ),
    max_leaves=20,
)


@given(SPARSE_TREES)
def test_any_written_tree_is_read_back(tree):
    assert read(bolt(tree)) == tree


def texts(tree):
    """Yield all keys and values."""
    for key, value in tree.items():
        yield key
        if isinstance(value, dict):
            yield from texts(value)
        else:
            yield value


@given(st.data())
def test_any_changed_byte_is_read_or_refused(data):
    """A changed byte is an error, or changes what is read to other bytes of the file.

    Only meta pages have checksums, so a byte of a key or a value can change unnoticed.
    """
    file = bytearray(
        bolt({b"a": {b"b": b"c"}, b"d": {b"%d" % n: b"" for n in range(9)}})
    )
    for _ in range(data.draw(st.integers(1, 4))):
        file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))
    try:
        got = read(bytes(file))
    except FormatError:
        return
    assert all(text in file for text in texts(got))


def test_a_missing_bucket_is_empty():
    found = read_bolt(
        lambda: Bytes(bolt({b"a": {b"b": {b"c": b"d"}}})),
        "meta.db",
        lambda top: (
            top.find(b"a", b"b").values(),
            top.find(b"a", b"x", b"y").values(),
        ),
    )

    assert found == ({b"c": b"d"}, {})


INLINE = struct.pack("<QQ", 0, 0)


def bucket(page):
    return struct.pack("<QQ", page, 0)


BROKEN = {
    "empty": (b"", "not a bbolt file"),
    "another format": (b"SQLite format 3\0" * 100, "not a bbolt file"),
    "two meta pages with wrong checksums": (
        meta(0, 3, 4, 1, checksum=1) + meta(1, 3, 4, 1, checksum=1) + bytes(PAGE),
        "not a bbolt file",
    ),
    "another version": (meta(0, 3, 4, 1, version=3), "not a bbolt file"),
    "an invalid page size": (meta(0, 3, 4, 1, page_size=1000), "not a bbolt file"),
    "a root that is a meta page": (pages(leaf(3, []), root=1), "page 1 of a file with 4"),
    "a root beyond the end": (pages(leaf(3, []), root=9), "page 9 of a file with 4"),
    "a root beyond the pages in use": (
        pages(leaf(3, []), leaf(4, []), root=4, high=4), "page 4 of a file with 4",
    ),
    "a file that is cut off": (pages(leaf(3, []), high=9, root=8), "a page of 0 bytes"),
    "a page cut off": (pages(leaf(3, []))[:-1], "the file ends inside a page at byte 1,536"),
    "a page of the freelist": (pages(leaf(3, [], flags=16)), "flags 0x10 in a tree"),
    "a page with the number of another": (pages(leaf(4, [])), "a page with the number of page 4"),
    "a branch that is its own child": (
        pages(branch(3, [(b"a", 3)])), "a page that is used twice at byte 1,536",
    ),
    "a circle of branches": (
        pages(branch(3, [(b"a", 4)]), branch(4, [(b"a", 3)])), "a page that is used twice",
    ),
    "a page below two branches": (
        pages(branch(3, [(b"a", 4), (b"b", 4)]), leaf(4, [(0, b"a", b"")])),
        "a page that is used twice",
    ),
    "a bucket inside itself": (
        pages(leaf(3, [(1, b"a", bucket(3))])), "a page that is used twice",
    ),
    "two buckets of one page": (
        pages(leaf(3, [(1, b"a", bucket(4)), (1, b"b", bucket(4))]), leaf(4, [])),
        "a page that is used twice",
    ),
    "more elements than fit": (
        pages(leaf(3, [], count=40)), "an element that extends beyond",
    ),
    "more elements than the page has bytes": (
        pages(leaf(3, [], count=65535)), "an element that extends beyond",
    ),
    "more children than fit": (
        pages(branch(3, [], count=65535)), "65,535 children do not fit",
    ),
    "a value beyond its page": (
        pages(leaf(3, [])[:10] + struct.pack("<HIIIII", 1, 0, 0, 16, 1, 9999)),
        "an element that extends beyond",
    ),
    "a position of 4 GiB": (
        pages(struct.pack("<QHHI", 3, 2, 1, 0) + struct.pack("<IIII", 0, 2**32 - 1, 1, 1)),
        "an element that extends beyond",
    ),
    "elements that share the same 400 bytes": (
        pages(struct.pack("<QHHI", 3, 2, 3, 0)
              + b"".join(struct.pack("<IIII", 0, 60, 0, 400) for _ in range(3))),
        "an element that extends beyond",
    ),
    "keys out of order": (
        pages(leaf(3, [(0, b"b", b""), (0, b"a", b"")])), "keys are not in order",
    ),
    "one key twice": (
        pages(leaf(3, [(0, b"a", b"1"), (0, b"a", b"2")])), "keys are not in order",
    ),
    "leaves out of order": (
        pages(branch(3, [(b"a", 4), (b"b", 5)]), leaf(4, [(0, b"b", b"")]),
              leaf(5, [(0, b"a", b"")])),
        "keys are not in order",
    ),
    "a bucket of three bytes": (pages(leaf(3, [(1, b"a", b"abc")])), "a bucket of 3"),
    "an inline bucket without a page": (
        pages(leaf(3, [(1, b"a", INLINE + b"short")])), "a page of 5 bytes",
    ),
    "an inline branch": (
        pages(leaf(3, [(1, b"a", INLINE + branch(0, []))])), "that is not a leaf page",
    ),
    "a bucket in an inline bucket": (
        pages(leaf(3, [(1, b"a", INLINE + leaf(0, [(1, b"b", INLINE)]))])),
        "a nested bucket in an inline bucket",
    ),
    "an overflow of 4 billion pages": (
        pages(leaf(3, [], overflow=2**32 - 1)), "bytes of pages",
    ),
    "an overflow beyond the end": (
        pages(leaf(3, [], overflow=3)), "the file ends inside a page",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("data", "why"), BROKEN.values(), ids=BROKEN)
def test_broken(data, why):
    with pytest.raises(FormatError) as caught:
        read(data)

    assert why in str(caught.value)
    assert str(caught.value).startswith("meta.db: ")


def test_the_last_transaction_is_used():
    old, new = leaf(3, [(0, b"a", b"old")]), leaf(4, [(0, b"a", b"new")])
    body = pages(old, new)[2 * PAGE :]

    def file(*metas):
        return b"".join(metas) + body

    later, earlier = meta(1, 4, 5, 9), meta(0, 3, 5, 8)
    torn = meta(1, 4, 5, 9, checksum=0)
    assert read(file(earlier, later)) == {b"a": b"new"}
    assert read(file(earlier, torn)) == {b"a": b"old"}
    assert read(file(meta(0, 3, 5, 8, checksum=0), later)) == {b"a": b"new"}
    assert read(file(meta(0, 4, 5, 10), later)) == {b"a": b"new"}


def test_the_second_meta_page_is_found_with_large_pages():
    body = leaf(2, [(0, b"a", b"b")]).ljust(65536, b"\0")
    data = bytes(65536) + meta(1, 2, 3, 1, page_size=65536) + body

    assert read(data) == {b"a": b"b"}


def test_a_file_that_changes_during_reading_is_read_again():
    states = [bolt({b"a": b"%d" % n}, transaction=n) for n in (10, 11, 11, 11)]

    got = read_bolt(lambda: Bytes(states.pop(0)), "meta.db", everything)

    assert got == {b"a": b"11"}


def test_an_error_in_an_inconsistent_read_is_retried():
    broken = pages(leaf(9, []))  # of transaction 2
    states = [broken, *[bolt({b"a": b"b"})] * 3]

    assert read_bolt(lambda: Bytes(states.pop(0)), "meta.db", everything) == {
        b"a": b"b"
    }


def test_a_file_that_keeps_changing_is_an_error():
    counter = iter(range(2, 1000))

    with pytest.raises(FlattenError, match="a daemon keeps writing to it"):
        read_bolt(
            lambda: Bytes(bolt({}, transaction=next(counter))), "meta.db", everything
        )


def test_the_bytes_of_pages_are_limited(monkeypatch):
    monkeypatch.setattr("flatten.sources.engines.bolt.MAX_READ", 4 * PAGE)

    with pytest.raises(FormatError, match="over 2,048 bytes of pages"):
        read(bolt({b"%02d" % n: b"" for n in range(30)}))
