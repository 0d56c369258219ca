"""Layers put together from headers and files; files below a directory."""

import gzip
import hashlib
import os
import random
import tarfile
from base64 import b64encode
from io import BytesIO

import pytest

from builders import TRUSTED, layer, member, naive_crc64, split, split_lines
from flatten import FlattenError, FormatError, IntegrityError
from flatten.host.beneath import MAX_OPEN, Beneath
from flatten.host.inputs import open_file
from flatten.host.limits import Limits
from flatten.host.spools import Pool
from flatten.image.assembly import AssembledLayer, Headers
from flatten.image.crc64 import crc64
from flatten.image.image import Image
from flatten.image.tarsplit import assemble
from flatten.image.verify import checking
from flatten.tar.layer import read_layer
from flatten.tar.members import Members
from headers import sparse_gnu, sparse_pax

BIG = os.urandom(300_000)
LAYER = layer(
    "d/",
    member("d/one", b"1" * 700),
    member("d/empty"),
    "s->d/one",
    member("d/" + "long" * 40, b"long"),
    "h=d/one",
    member("d/café".encode(), b"x" * 512),
    member("big", BIG, records={b"SCHILY.xattr.user.a": b"b"}),
    end=bytes(5000) + b"junk",
)


@pytest.fixture
def make(tmp_path):
    """Return what unpacks a layer and assembles it again."""
    pools = []

    def run(tar=LAYER, record=None, **limits):
        tree = tmp_path / "tree"
        with tarfile.open(fileobj=BytesIO(tar)) as opened:
            opened.extractall(tree, **TRUSTED)
        (tmp_path / "split.gz").write_bytes(split(tar) if record is None else record)
        pool = Pool(Limits(**limits))
        pools.append(pool)
        source = open_file(str(tmp_path / "split.gz"), pool)
        beneath = Beneath(str(tree))
        pools.extend([source, beneath])
        return assemble(source, beneath, pool, "layer 1"), tree

    yield run
    for pool in reversed(pools):
        pool.close()


@pytest.mark.parametrize("memory", [0, 1 << 20])
def test_the_stream_is_the_layer_byte_for_byte_wherever_it_is_read(make, memory):
    assembly, _ = make(memory=memory)
    rng = random.Random(1)

    assert assembly.size() == len(LAYER)
    assert assembly.read(0, 1 << 30) == LAYER
    for _ in range(300):
        start = rng.randrange(len(LAYER))
        count = rng.choice([1, 511, 512, 4096, 100_000])
        assert assembly.read(start, count) == LAYER[start : start + count]
        view = memoryview(bytearray(min(count, len(LAYER) - start)))
        assembly.readinto(start, view)
        assert view == LAYER[start : start + count]
    assert assembly.read(len(LAYER) + 5, 10) == b""
    with pytest.raises(FormatError, match="ends too soon"):
        assembly.readinto(len(LAYER) - 1, memoryview(bytearray(2)))


def test_headers_are_read_without_the_files(make):
    assembly, tree = make()
    (tree / "d" / "one").unlink()
    members = Members()

    index = read_layer(Headers(assembly), "layer 1", 0, members)

    assert b"d/one" in index.paths
    assert members.sizes[index.paths.index(b"big")] == 300_000
    with pytest.raises(FormatError, match=r"d/one' is not there"):
        assembly.read(0, len(LAYER))


def test_the_map_of_a_sparse_file_is_read_from_its_content(make):
    numbers = b"1\n4096\n3\n".ljust(512, b"\0")
    records = {
        b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0",
        b"GNU.sparse.name": b"hole", b"GNU.sparse.realsize": b"8192",
    }  # fmt: skip
    tar = layer(member("hole", numbers + b"abc", records=records))
    entries = [
        {"type": 2, "payload": b64encode(tar[:1536]).decode()},
        {"type": 1, "name": "stored", "size": 515, "payload": None},
        {"type": 2, "payload": b64encode(tar[2051:]).decode()},
    ]
    assembly, tree = make(record=split_lines(entries))
    (tree / "stored").write_bytes(numbers + b"abc")
    members = Members()

    read_layer(Headers(assembly), "layer 1", 0, members)

    assert assembly.read(0, len(tar)) == tar
    assert members.extras[0].sparse == ((4096, 3),)


SPARSE = {
    "old GNU": sparse_gnu(b"hole", [(512, 1024), (9000, 100)], 9100, b"a" * 1124),
    "PAX 0.0": sparse_pax("0.0", b"hole", [(512, 1024), (9000, 9)], 9100, b"b" * 1033),
    "PAX 0.1": sparse_pax("0.1", b"hole", [(0, 512), (9000, 100)], 9100, b"c" * 612),
}


@pytest.mark.parametrize("hole", SPARSE.values(), ids=SPARSE)
def test_a_sparse_file_that_is_recorded_with_its_holes(make, hole):
    """As docker records it, and then finds that the digest is another."""
    tar = layer(hole, "after")
    stored = len(hole.rstrip(b"\0"))
    start = tar.index(hole[stored - 1 :][:1] * 9)
    size = stored - start
    entries = [
        {"type": 2, "payload": b64encode(tar[:start]).decode()},
        {"type": 1, "name": "hole", "size": 9100, "payload": None},
        {"type": 2, "payload": b64encode(tar[start + size :]).decode()},
    ]
    assembly, tree = make(layer("other"), split_lines(entries))
    with tarfile.open(fileobj=BytesIO(tar)) as opened:
        opened.extractall(tree, **TRUSTED)

    assert assembly.read(0, len(tar)) == tar
    descriptor, place, length = assembly.extent(start + 3)
    assert os.pread(descriptor, length, place) == tar[start + 3 :][:length]
    assert assembly.origin(start + 3) == place
    (tree / "hole").write_bytes(b"short")
    with pytest.raises(
        FormatError, match="it is 5 bytes, the layer records 9,100 bytes"
    ):
        assembly.read(0, len(tar))


def test_a_sparse_file_whose_map_is_lost_is_said(make):
    hole = sparse_pax("1.0", b"hole", [(512, 1024)], 9100, b"a" * 1024)
    entries = [
        {"type": 2, "payload": b64encode(hole[:1536]).decode()},
        {"type": 1, "name": "hole", "size": 9100, "payload": None},
    ]
    with pytest.raises(
        FormatError,
        match=r"entry 1 .* the map of a sparse file is missing, so docker cannot save",
    ):
        make(record=split_lines(entries))


def test_a_header_in_a_content_is_an_error_and_not_overlooked(make):
    hidden = member("hidden")
    tar = layer(member("a", b"x" * 512), hidden)
    entries = [
        {"type": 2, "payload": b64encode(tar[:512]).decode()},
        {"type": 1, "name": "a", "size": 1024, "payload": None},
        {"type": 2, "payload": b64encode(tar[1536:]).decode()},
    ]
    assembly, tree = make(record=split_lines(entries))
    (tree / "a").write_bytes(b"x" * 512 + hidden)

    assert assembly.read(0, len(tar)) == tar
    with pytest.raises(FormatError, match="header checksum"):
        read_layer(Headers(assembly), "layer 1", 0, Members())


def test_a_large_content_is_a_descriptor_the_kernel_can_copy_from(make):
    assembly, _ = make()
    start = LAYER.index(BIG)

    descriptor, offset, length = assembly.extent(start + 7)

    assert os.pread(descriptor, 300_000, offset) == BIG[7:]
    assert length == len(BIG) - 7
    assert assembly.extent(start - 1) is None
    assert assembly.extent(start) == (descriptor, 0, len(BIG))
    assert assembly.extent(len(LAYER) - 1) is None


def shorten(tree):
    (tree / "d" / "one").write_bytes(b"short")


def lengthen(tree):
    (tree / "d" / "one").write_bytes(b"1" * 701)


def remove(tree):
    (tree / "d" / "one").unlink()


def fifo(tree):
    remove(tree)
    os.mkfifo(tree / "d" / "one")


def link_out(tree):
    remove(tree)
    (tree.parent / "outside").write_bytes(b"1" * 700)
    (tree / "d" / "one").symlink_to(tree.parent / "outside")


def directory_link_out(tree):
    (tree / "d").rename(tree.parent / "moved")
    (tree / "d").symlink_to("../moved")


CHANGES = {
    "a file that became shorter": (
        shorten,
        "it is 5 bytes, the layer records 700 bytes",
    ),
    "a file that became longer": (lengthen, "it is 701 bytes"),
    "a file that is gone": (remove, "is not there"),
    "a FIFO in its place": (fifo, "it is not a regular file, the layer records 700 bytes"),
    "a symlink in its place": (link_out, "it is a symlink"),
    "its directory a symlink out of the tree": (directory_link_out, "is not there"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "why"), CHANGES.values(), ids=CHANGES)
def test_a_changed_tree_is_an_error_that_names_the_file(make, change, why):
    assembly, tree = make()
    change(tree)

    with pytest.raises(FlattenError, match=f"^layer 1: .*d/one.*{why}"):
        assembly.read(0, len(LAYER))
    assert isinstance(Headers(assembly).read(0, 4096), bytes)


def test_a_wrong_digest_names_the_file_that_was_edited(make):
    assembly, tree = make()
    (tree / "d" / "one").write_bytes(b"1" * 699 + b"2")
    digest = f"sha256:{hashlib.sha256(LAYER).hexdigest()}"
    image = Image("root", "id", (), {}, ())
    layer = AssembledLayer("layer 1", digest, lambda: assembly, image.resources)

    with (
        image,
        pytest.raises(IntegrityError, match=r"layer 1: .*/d/one' was changed on disk"),
        checking([layer]) as check,
    ):
        check.finish()


def test_a_symlink_to_a_directory_is_followed_inside_the_tree(make):
    tar = layer("usr/", "usr/lib/", "lib->/usr/lib", member("usr/lib/a", b"data"))
    record = split(tar, edit={"name": "lib/a"})
    assembly, _ = make(tar, record)

    assert assembly.read(0, len(tar)) == tar


BROKEN = {
    "no JSON": (b"{", "entry 0 of its tar-split record: Expecting"),
    "no object": (b"[]", "unknown entry type"),
    "another type": (b'{"type":3}', "unknown entry type"),
    "a payload that is not text": (
        b'{"type":2,"payload":[]}',
        "a value is not a string",
    ),
    "a payload that is no base64": (b'{"type":2,"payload":"A"}', "entry 0"),
    "a size that is not valid": (b'{"type":1,"name":"a","size":"x"}', "a size of 'x'"),
    "a negative size": (b'{"type":1,"name":"a","size":-1}', "a size of -1"),
    "a huge size": (b'{"type":1,"name":"a","size":9223372036854775807}', "bytes"),
    "a name that leaves the tree": (
        b'{"type":1,"name":"../a","size":1,"payload":null}', "leaves the root",
    ),
    "a CRC-64 of another length": (
        b'{"type":1,"name":"a","size":1,"payload":"AAAA","position":0}', "of 3 bytes",
    ),
    "nested too deep": (b"[" * 100_000, "nested too deep"),
}  # fmt: skip


@pytest.mark.parametrize(("line", "why"), BROKEN.values(), ids=BROKEN)
def test_a_broken_record_is_refused(make, line, why):
    with pytest.raises(FormatError, match=f"^layer 1: .*{why}"):
        make(record=gzip.compress(line + b"\n"))


def test_a_name_that_is_not_utf_8_or_needs_escapes(make):
    names = [b"caf\xe9", b'a"<\\']
    tar = layer(*(member(name, b"data") for name in names))
    entries = [
        {"type": 2, "payload": b64encode(tar[:512]).decode()},
        {"type": 1, "name_raw": b64encode(names[0]).decode(), "size": 4},
        {"type": 2, "payload": b64encode(tar[516:1536]).decode()},
        {"type": 1, "name": names[1].decode(), "size": 4},
        {"type": 2, "payload": b64encode(tar[1540:]).decode()},
    ]
    assembly, _ = make(tar, split_lines(entries))

    assert assembly.read(0, len(tar)) == tar


def test_crc64_is_that_of_the_definition():
    rng = random.Random(2)
    for count in [*range(70), 1000, 4321]:
        data = rng.randbytes(count)
        assert crc64(data) == naive_crc64(data)
        assert crc64(data[count // 3 :], crc64(data[: count // 3])) == crc64(data)


# --- files below a directory

LINKS = {
    "absolute": ("/real", b"a"),
    "relative": ("./deep/../real", b"a"),
    "dots that would leave it": ("../../../../../real", b"a"),
    "a chain": ("other", b"a"),
    "through a symlink and back": ("hop/../real", b"a"),
    "a circle": ("link", None),
    "to nothing": ("/nothing", None),
    "to a file": ("real/a", None),
    "outside": ("/outside", None),
}


@pytest.mark.parametrize(("target", "want"), LINKS.values(), ids=LINKS)
def test_symlinks_are_followed_as_in_a_chroot(tmp_path, target, want):
    top = tmp_path / "top"
    (top / "real").mkdir(parents=True)
    (top / "real" / "a").write_bytes(b"a")
    (top / "deep" / "down").mkdir(parents=True)
    (top / "other").symlink_to("real")
    (top / "hop").symlink_to("deep")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "a").write_bytes(b"secret")
    (top / "link").symlink_to(target)

    with Beneath(str(top)) as beneath:
        assert beneath.is_directory(b"link") is (want is not None)
        if want is None:
            with pytest.raises(OSError, match=r"."):
                beneath.open(b"link/a")
        else:
            os.close(beneath.open(b"link/a"))
            assert beneath.names(b"link") == [b"a"]
        with pytest.raises(NotADirectoryError):
            beneath.directory(b"link")


def test_an_absolute_symlink_of_a_moved_root_counts_from_its_longest_tail(tmp_path):
    (tmp_path / "graph" / "id" / "layer").mkdir(parents=True)
    (tmp_path / "layer").mkdir()
    (tmp_path / "diff").symlink_to("/var/lib/docker/graph/id/layer")
    with Beneath(str(tmp_path), moved=True) as beneath:
        assert beneath.status(b"graph/id/layer").st_ino == (
            beneath.below(b"diff").status(b"").st_ino
        )


def test_more_directories_than_a_process_may_have_open(tmp_path):
    with Beneath(str(tmp_path)) as beneath:
        for number in range(MAX_OPEN + 50):
            folder = tmp_path / f"{number}"
            folder.mkdir()
            (folder / "a").write_bytes(b"%d" % number)
        views = [beneath.below(b"%d" % n) for n in range(MAX_OPEN + 50)]
        for _ in range(2):
            for number, view in enumerate(views):
                descriptor = view.open(b"a")
                assert os.read(descriptor, 9) == b"%d" % number
                os.close(descriptor)
        assert len(beneath._opened.descriptors) == MAX_OPEN
        deep = b"d/" * 400 + b"d"
        os.makedirs(os.path.join(os.fsencode(tmp_path), deep))
        assert beneath.names(deep) == []
