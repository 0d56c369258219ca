"""zstd:chunked layers in a registry, of which only parts are fetched."""

import random

import pytest

import flatten
from builders import layer, member
from chunked import chunked_layout, zstd_chunked
from flatten.options import Access
from registries import cut_at_random, need_registry, push, wrong_range

pytestmark = need_registry

NOISE = random.Random(2).randbytes(1 << 20)
TAR = layer("etc/", member("etc/name", b"here"), member("etc/noise", NOISE))
PARTS = Access(parts=True)


@pytest.fixture(scope="module")
def name(host, tmp_path_factory):
    folder = tmp_path_factory.mktemp("layout")
    for path, data in chunked_layout([zstd_chunked(TAR), zstd_chunked(TAR)]).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    push(f"oci:{folder}", f"{host}/a/chunked:1")
    return "a/chunked:1"


def small_file(address, name):
    with flatten.open_image(f"docker://{address}/{name}", access=PARTS) as image:
        found = image.root.joinpath("etc/name").read_bytes()
        assert found == b"here"
        return image.transfer()


def test_the_table_and_the_chunks_that_are_read_are_fetched(proxy, name):
    transfer = small_file(proxy.address, name)

    assert transfer.fetched < 0.03 * transfer.size
    blobs = [path for path, _ in proxy.seen if "/blobs/" in path]
    assert len(blobs) <= 3, "the config, the table, the chunk"


def test_broken_transfers_are_resumed(proxy, name):
    proxy.cut = cut_at_random(1)

    assert small_file(proxy.address, name).fetched > 0


def test_a_registry_without_ranges_sends_the_whole_layer(proxy, name):
    def trouble(handler):
        del handler.headers["Range"]
        return False

    proxy.trouble = trouble
    transfer = small_file(proxy.address, name)
    assert transfer.fetched >= transfer.size


def test_another_range_than_asked_for(proxy, name):
    proxy.spoil = wrong_range
    with pytest.raises(flatten.FormatError, match=r"bytes 0-9/10.*asked for bytes"):
        small_file(proxy.address, name)
