"""Compressed layers whose headers alone are read, forward."""

import gzip
import os
import random

import pytest

from builders import END, Bytes, layer, member, pax
from flatten import FormatError
from flatten.host.forward import Forward, forward
from flatten.host.limits import Limits
from flatten.tar.layer import read_layer
from flatten.tar.members import Members


def chunks(data, size):
    return (data[at : at + size] for at in range(0, len(data), size))


@pytest.mark.parametrize("size", [1, 7, 512, 5000, 1 << 20])
def test_forward_reads_return_the_right_bytes(size):
    data = os.urandom(20_000)
    source = Forward(chunks(data, size), "layer", Limits())
    places = random.Random(size)
    offset = 0
    while offset < len(data) + 3000:
        count = places.choice([0, 1, 512, 4096])
        assert source.read(offset, count) == data[offset : offset + count]
        offset += places.choice([0, 0, 1, 512, 3000])

    assert source.size() == len(data)


def test_the_length_may_be_asked_for_before_the_last_reads():
    data = os.urandom(300_000)
    source = Forward(chunks(data, 1000), "layer", Limits())
    source.read(100, 10)

    assert source.size() == 300_000
    assert source.read(612, 512) == data[612:1124]


@pytest.mark.parametrize("tail", [END, END + b"junk" * 500, b"", bytes(30_000)])
def test_headers_are_those_of_the_layer(tail):
    tar = layer(
        "d/", member("big", os.urandom(600_000)), "s->d", "-d/x", member("n" * 300),
        member("m", b"x", records={b"SCHILY.xattr.user.a": b"b" * 9000}), pax({b"a": b"b"}),
        "z", end=tail,
    )  # fmt: skip
    plain, packed = Members(), Members()
    want = read_layer(Bytes(tar), "layer", 0, plain)

    source = forward(Bytes(gzip.compress(tar)), Limits(), "layer")
    got = read_layer(source, "layer", 0, packed)

    assert isinstance(source, Forward)
    assert (got, packed) == (want, plain)
    assert source.size() == len(tar)


def test_plain_layers_are_left_as_they_are():
    source = Bytes(layer("a"))

    assert forward(source, Limits(), "layer") is source


def test_a_layer_that_inflates_beyond_the_limit_is_refused():
    source = forward(
        Bytes(gzip.compress(bytes(2_000_000))), Limits(size=1_000_000), "layer"
    )

    with pytest.raises(
        FormatError, match=r"layer: inflates beyond 1,000,000 bytes.*--max-size"
    ):
        source.size()


def test_the_ratio_is_limited():
    stored, limits = 1000, Limits(ratio=2000)
    zeros = bytes(1 << 20)
    source = Forward((zeros for _ in range(1 << 12)), "layer", limits, stored)

    with pytest.raises(FormatError, match=r"2,000 times its size.*--max-ratio"):
        source.size()
