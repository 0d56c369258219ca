"""Streams that are no tar: what they are is said, and none reads as an empty tar."""

import gzip

import pytest

import flatten
from builders import Bytes, docker_archive, layer
from flatten.tar.layer import read_layer
from flatten.tar.magic import START, recognise
from flatten.tar.members import Members
from listing import contents

STREAMS = {
    "SquashFS": (b"hsqs" + bytes(4092), "not a tar, but a SquashFS file system"),
    "EROFS, after a KiB of zeros": (
        bytes(1024) + b"\xe2\xe1\xf5\xe0" + bytes(3068),
        "not a tar, but an EROFS file system",
    ),
    "ext4, after a KiB of zeros": (
        bytes(1080) + b"\x53\xef" + bytes(3000),
        "not a tar, but an ext2, ext3 or ext4 file system",
    ),
    "btrfs, after 64 KiB of zeros": (
        bytes(65_600) + b"_BHRfS_M" + bytes(4096),
        "not a tar, but a btrfs file system",
    ),
    "WebAssembly": (b"\0asm\1\0\0\0" + bytes(1016), "not a tar, but a WebAssembly"),
    "a script": (b"#!/bin/sh\n" * 60, "not a tar, but a script"),
    "text of less than a block": (b"hello", "not a tar, but text"),
    "a byte after many zeros": (
        bytes(2 * START + 5) + b"x",
        f"not a tar: data after {2 * START + 5:,} zero bytes",
    ),
    "a byte after a zero block": (
        bytes(512) + b"x",
        "not a tar: data after 512 zero bytes",
    ),
    "a member after a zero block": (
        bytes(512) + layer("a"),
        "not a tar: data after 512 zero bytes",
    ),
    "a member after two zero blocks": (
        bytes(1024) + layer("a"),
        "not a tar: data after 1,024 zero bytes",
    ),
    "unknown bytes": (bytes(range(256)) * 16, "header checksum is"),
}


@pytest.mark.parametrize(("stream", "why"), STREAMS.values(), ids=STREAMS)
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_a_layer_that_is_not_a_tar_is_refused(tmp_path, stream, why, pack):
    (tmp_path / "i.tar").write_bytes(
        docker_archive([pack(stream)], config_document={"os": "linux"})
    )

    with pytest.raises(flatten.FormatError) as caught:
        flatten.export(tmp_path / "i.tar", tmp_path / "o.tar")

    assert f"layer.tar): {why}" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["i.tar"]


EMPTY = {
    "no bytes": b"",
    "one zero": b"\0",
    "two zero blocks": bytes(1024),
    "a record": bytes(10_240),
    "many zeros, and no whole block": bytes(2 * START + 5),
}


@pytest.mark.parametrize("stream", EMPTY.values(), ids=EMPTY)
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_a_layer_of_zeros_is_empty(tmp_path, stream, pack):
    tars = [layer("a"), stream, layer("b")]
    packed = [tars[0], pack(stream), tars[2]]
    (tmp_path / "i.tar").write_bytes(
        docker_archive(packed, config_document={"os": "linux"})
    )

    flatten.export(tmp_path / "i.tar", tmp_path / "o.tar")

    assert contents(tmp_path / "o.tar") == {"a": "0", "b": "0"}


def test_the_error_is_at_the_start_of_the_layer():
    with pytest.raises(flatten.FormatError) as caught:
        read_layer(Bytes(bytes(2000) + b"x"), "layer", 0, Members())

    assert caught.value.offset == 0


@pytest.mark.parametrize(
    ("start", "what"),
    [
        (b"", "an empty file"),
        (b"\xff\xfem\0", "text in UTF-16, as PowerShell's > writes it"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (b"\n <!DOCTYPE HTML>", "an HTML page"),
        (b'<?xml version="1.0"?>', "an XML document"),
        (b"\xef\xbb\xbf{}", "JSON or similar text"),
        (b"hello\n", "text"),
        (b"\1\2\3", None),
    ],
)
def test_recognise(start, what):
    assert recognise(start) == what
