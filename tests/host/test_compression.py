"""Compressed layers and archives in, compressed tars out."""

import bz2
import gzip
import io
import lzma
import os
import runpy
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
import zstandard

import flatten
from builders import archive, config, docker_archive, layer, layers, member, oci_files
from listing import contents

DATA = Path(__file__).parents[1] / "data"
TARS = layers(
    ["a", member("text", b"the same line\n" * 9000)],
    ["-a", member("noise", os.urandom(300_000))],
    ["d/", "d/x"],
)


def zstd(data, **options):
    return zstandard.ZstdCompressor(**options).compress(data)


def halves(data, pack):
    """Compress two halves, one after the other."""
    return pack(data[: len(data) // 2]) + pack(data[len(data) // 2 :])


def zstd_stream(data):
    """Compress without saying how much it is."""
    compressor = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    return compressor.compress(data) + compressor.flush()


def gzip_with_everything(data):
    """Write a gzip header that has all optional fields."""
    extra = b"\x05\0extra" + b"name\0" + b"comment\0"
    head = b"\x1f\x8b\x08\x1e" + b"\1\2\3\4" + b"\2\3" + extra
    head += (zlib.crc32(head) & 0xFFFF).to_bytes(2, "little")
    body = zlib.compressobj(6, zlib.DEFLATED, -15)
    packed = body.compress(data) + body.flush()
    size = (len(data) & 0xFFFFFFFF).to_bytes(4, "little")
    return head + packed + zlib.crc32(data).to_bytes(4, "little") + size


SKIPPABLE = b"\x5e\x2a\x4d\x18\x05\0\0\0skip!"

FORMATS = {
    "gzip": gzip.compress,
    "gzip, level 1": lambda data: gzip.compress(data, 1),
    "gzip, stored": lambda data: gzip.compress(data, 0),
    "gzip, all header fields": gzip_with_everything,
    "gzip, several members": lambda data: halves(data, gzip.compress),
    "gzip, an empty member": lambda data: gzip.compress(b"") + gzip.compress(data),
    "gzip, zeros after it": lambda data: gzip.compress(data) + bytes(5000),
    "zstd": zstd,
    "zstd, with a checksum": lambda data: zstd(data, write_checksum=True),
    "zstd, without the content size": zstd_stream,
    "zstd, several frames": lambda data: halves(data, zstd),
    "zstd, an empty frame": lambda data: zstd(b"") + zstd(data),
    "zstd, skippable frames": lambda data: SKIPPABLE + halves(data, zstd) + SKIPPABLE,
    "zstd, zeros after it": lambda data: zstd(data) + bytes(5000),
    "xz": lzma.compress,
    "xz, several streams": lambda data: halves(data, lzma.compress),
    "xz, padded": lambda data: lzma.compress(data) + bytes(512),
    "bzip2": bz2.compress,
    "bzip2, several streams": lambda data: halves(data, bz2.compress),
}


@pytest.fixture
def flat(tmp_path):
    """Return a function from an archive to the tar that it becomes."""

    def run(data, name="image.tar", **options):
        (tmp_path / name).write_bytes(data)
        flatten.export(tmp_path / name, tmp_path / "rootfs.tar", **options)
        return (tmp_path / "rootfs.tar").read_bytes()

    return run


@pytest.fixture
def plain(flat):
    return flat(docker_archive(TARS))


def packed_archive(pack, tars=TARS):
    """Return a docker archive whose layers are compressed, with diff_ids of the tars."""
    return docker_archive([pack(tar) for tar in tars], config_document=config(tars))


@pytest.mark.parametrize("pack", FORMATS.values(), ids=FORMATS)
def test_layers(flat, plain, pack):
    assert flat(packed_archive(pack)) == plain


@pytest.mark.parametrize("pack", FORMATS.values(), ids=FORMATS)
def test_whole_archives(flat, plain, pack):
    assert flat(pack(docker_archive(TARS))) == plain


def test_each_layer_is_sniffed_by_itself(flat, plain):
    packs = [gzip.compress, bytes, zstd]

    tars = [pack(tar) for pack, tar in zip(packs, TARS, strict=True)]

    assert flat(docker_archive(tars, config_document=config(TARS))) == plain


@pytest.mark.parametrize(
    "start", [b"BZhello", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ"]
)
def test_a_layer_whose_first_name_looks_compressed_is_a_tar(flat, start):
    got = contents(flat(docker_archive([layer(member(start, b"x"))])))

    assert "x" in got.values()


@pytest.mark.parametrize("pack", [gzip.compress, zstd, lzma.compress, bz2.compress])
def test_a_damaged_archive_is_malformed_not_unknown(flat, pack):
    whole = pack(docker_archive(TARS))

    with pytest.raises(flatten.FormatError):
        flat(whole[: len(whole) // 2])


def test_an_error_in_a_thread_is_reported(flat, monkeypatch, tmp_path):
    """Neither a digest that nobody checked, nor a reader that waits for ever."""
    monkeypatch.setattr(flatten.image.verify, "STEP", None)
    with pytest.raises(flatten.FlattenError, match="cannot check digests"):
        flat(docker_archive(TARS))
    monkeypatch.undo()
    monkeypatch.setattr(flatten.host.spools, "decompress", None)
    with pytest.raises(flatten.FlattenError, match="cannot inflate"):
        flat(packed_archive(gzip.compress))
    assert not (tmp_path / "rootfs.tar").exists()


def test_an_empty_layer_may_be_compressed(flat):
    assert contents(flat(packed_archive(gzip.compress, [b"", layer("a")]))) == {
        "a": "0"
    }


@pytest.mark.parametrize("pack", [gzip.compress, zstd, lzma.compress, bz2.compress])
def test_every_truncation_is_an_error(flat, pack):
    tar = layer("a", member("b", os.urandom(2000)), end=b"")
    whole = pack(tar)
    for size in {*range(8, len(whole) - 1, 97), *range(len(whole) - 12, len(whole))}:
        data = packed_archive(lambda _, size=size: whole[:size], [tar])
        with pytest.raises(flatten.FormatError):
            flat(data, verify=False)


@pytest.mark.parametrize(
    "pack", [gzip.compress, lambda d: zstd(d, write_checksum=True), lzma.compress,
             bz2.compress],
)  # fmt: skip
def test_every_corruption_is_an_error_even_unverified(flat, pack):
    """Or it changes nothing: bzip2 may have tables that no byte uses."""
    tar = layer("a", member("b", os.urandom(2000)), end=b"")
    whole = pack(tar)
    want = flat(packed_archive(lambda _: whole, [tar]), verify=False)
    for at in range(10, len(whole), 61):
        broken = whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :]
        data = packed_archive(lambda _, broken=broken: broken, [tar])
        try:
            got = flat(data, verify=False)
        except flatten.FormatError:
            continue
        assert got == want, f"byte {at} was changed, and nobody saw it"


BEHIND = {
    "gzip": gzip.compress,
    "zstd": zstd,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
}


@pytest.mark.parametrize("pack", BEHIND.values(), ids=BEHIND)
def test_garbage_after_the_end_is_refused(flat, pack):
    with pytest.raises(flatten.FormatError):
        flat(packed_archive(lambda tar: pack(tar) + b"junk"))


def test_a_zstd_window_over_128_mib_is_refused(flat):
    parameters = zstandard.ZstdCompressionParameters(window_log=28, enable_ldm=True)
    compressor = zstandard.ZstdCompressor(compression_params=parameters)

    def pack(tar):
        stream = compressor.compressobj()
        return stream.compress(tar) + stream.flush()

    with pytest.raises(flatten.FormatError, match="broken zstd data"):
        flat(packed_archive(pack))


def test_a_message_names_layer_and_offset(flat, tmp_path):
    with pytest.raises(flatten.FormatError) as caught:
        flat(packed_archive(lambda tar: gzip.compress(tar)[:-9]))

    assert str(caught.value).startswith(f"{tmp_path / 'image.tar'}, layer 1 of 3 (")
    assert "truncated gzip data at byte " in str(caught.value)


def test_a_diff_id_is_of_the_uncompressed_layer(flat, tmp_path):
    tars = [gzip.compress(tar) for tar in TARS]
    wrong = docker_archive(tars, config_document=config(tars))

    with pytest.raises(flatten.IntegrityError, match=r"layer [123] of 3"):
        flat(wrong)
    assert not (tmp_path / "rootfs.tar").exists()


# --- what real tools write


@pytest.mark.parametrize("path", sorted(DATA.glob("*.tar.gz")), ids=lambda p: p.name)
def test_one_image_as_skopeo_and_podman_write_it(tmp_path, path):
    made = runpy.run_path(str(DATA / "image.py"))["TARS"]
    (tmp_path / "i.tar").write_bytes(docker_archive(made))
    flatten.export(tmp_path / "i.tar", tmp_path / "want.tar")
    with gzip.open(path) as opened:
        (tmp_path / "real.tar").write_bytes(opened.read())

    for source in (path, tmp_path / "real.tar"):
        flatten.export(source, tmp_path / "got.tar")
        assert (tmp_path / "got.tar").read_bytes() == (
            tmp_path / "want.tar"
        ).read_bytes()


def estargz(*words):
    """Write a layer as eStargz: each member a gzip member, a landmark, the TOC last."""
    parts = [layer(word, end=b"") for word in words]
    parts.insert(1, member(".prefetch.landmark", b"\x0f"))
    parts += [
        member("stargz.index.json", b'{"version": 1, "entries": []}'),
        bytes(1024),
    ]
    return b"".join(parts), b"".join(map(gzip.compress, parts))


def test_files_that_estargz_adds_are_left_out(flat):
    tar, packed = estargz("a", "b=a", "d/")

    got = contents(flat(packed_archive(lambda _: packed, [tar])))

    assert got == {"a": "0", "b": "0", "d/": ""}


@pytest.mark.parametrize("name", [".prefetch.landmark", ".no.prefetch.landmark"])
def test_the_landmark_of_a_zstd_chunked_layer_is_left_out(flat, name):
    """Its table of contents is not in the tar; the header has no mode, owner or time."""
    landmark = member(name, b"\x0f", mode=0, mtime=0)

    got = contents(flat(docker_archive(layers(["a", landmark, "d/"]))))

    assert got == {"a": "0", "d/": ""}


@pytest.mark.parametrize(
    "header",
    [{"mode": 0o400}, {"uid": 1}, {"gid": 1}, {"mtime": 1}, {"data": b"\x0f\x0f"}],
    ids=str,
)
def test_a_file_whose_header_is_not_a_landmarks_is_kept(flat, header):
    fields = {"mode": 0, "mtime": 0, "data": b"\x0f"} | header
    other = member(".no.prefetch.landmark", **fields)

    assert ".no.prefetch.landmark" in contents(flat(docker_archive(layers([other]))))


def test_files_that_only_have_the_names_of_estargz_files_are_kept(flat):
    words = ["stargz.index.json", ".prefetch.landmark", "a", "x=.prefetch.landmark"]

    got = contents(flat(docker_archive(layers(words))))

    assert sorted(got) == [".prefetch.landmark", "a", "stargz.index.json", "x"]


# --- memory, scratch space, limits


@pytest.mark.parametrize("memory", [0, 1000, 400_000])
def test_data_beyond_the_memory_budget_goes_to_scratch_space(flat, plain, memory):
    limits = flatten.Limits(memory=memory)

    assert flat(packed_archive(gzip.compress), limits=limits) == plain
    assert flat(gzip.compress(docker_archive(TARS)), limits=limits) == plain


def test_no_scratch_space_is_an_error_that_says_so(flat, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))

    with pytest.raises(flatten.FlattenError, match=r"scratch space in .*--memory"):
        flat(packed_archive(gzip.compress), limits=flatten.Limits(memory=0))


LIMITS = {
    "inflated bytes": (flatten.Limits(size=200_000), "--max-size"),
    "members": (flatten.Limits(members=4), "--max-members"),
}


@pytest.mark.parametrize(("limits", "option"), LIMITS.values(), ids=LIMITS)
def test_limits_name_the_option(flat, tmp_path, limits, option):
    with pytest.raises(flatten.FormatError, match=f"if that is right, .*{option}"):
        flat(packed_archive(gzip.compress), limits=limits)
    assert not (tmp_path / "rootfs.tar").exists()


def test_the_size_of_a_plain_output_is_limited_too(flat):
    with pytest.raises(flatten.FormatError, match=r"makes a tar of .*--max-size"):
        flat(docker_archive(TARS), limits=flatten.Limits(size=100_000))


def zeros_layer(size, pack):
    """Compress a layer that holds one file of zeros, without holding it."""
    head = member("zeros", size=size)
    parts = pack(head), pack(bytes(1 << 20)) * (size >> 20), pack(bytes(1024))
    return b"".join(parts)


MEASURE = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stderr=subprocess.PIPE)
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10
print(done.returncode, peak, done.stderr.decode(), sep="|", end="")
"""


def run_measured(*args):
    """Run the command; return exit code, errors and peak memory in MiB.

    From a small process: what is measured begins at the size of the parent.
    """
    command = [sys.executable, "-c", MEASURE, sys.executable, "-m", "flatten"]
    done = subprocess.run(
        [*command, *map(str, args)], capture_output=True, text=True, check=True
    )
    code, peak, errors = done.stdout.split("|", 2)
    return int(code), errors, int(peak)


def test_a_gigabyte_of_zeros_takes_no_memory(tmp_path):
    packed = zeros_layer(1 << 30, gzip.compress)
    data = docker_archive([packed], config_document={})
    (tmp_path / "i.tar").write_bytes(data)

    code, errors, peak = run_measured(tmp_path / "i.tar", "-o", "/dev/null")

    assert (code, errors) == (0, "")
    assert peak < 200


def test_a_bomb_is_refused_by_its_ratio(tmp_path):
    packed = zeros_layer(2 << 30, lambda data: zstd(data, level=19))
    (tmp_path / "i.tar").write_bytes(docker_archive([packed], config_document={}))

    code, errors, peak = run_measured(tmp_path / "i.tar", "-o", "/dev/null")

    assert code == 4
    assert "inflates to more than 2,000 times its size" in errors
    assert "--max-ratio" in errors
    assert peak < 200


# --- standard input


def run(*args, **options):
    command = [sys.executable, "-m", "flatten", *map(str, args)]
    return subprocess.run(command, capture_output=True, check=False, **options)


INPUTS = {
    "plain": lambda data: data,
    "gzip": gzip.compress,
    "zstd": zstd,
}


@pytest.mark.parametrize("pack", INPUTS.values(), ids=INPUTS)
@pytest.mark.parametrize("memory", ["1M", "0"])
def test_standard_input(tmp_path, plain, pack, memory):
    data = pack(docker_archive(TARS))
    (tmp_path / "packed").write_bytes(data)

    from_pipe = run("-", "--memory", memory, input=data)
    with open(tmp_path / "packed", "rb") as opened:
        from_file = run("-#app:1", "--memory", memory, stdin=opened)

    assert (from_pipe.returncode, from_pipe.stderr) == (0, b"")
    assert from_pipe.stdout == from_file.stdout == plain


def test_a_fifo(tmp_path, plain):
    os.mkfifo(tmp_path / "fifo")
    with subprocess.Popen(
        [sys.executable, "-m", "flatten", tmp_path / "fifo"], stdout=subprocess.PIPE
    ) as process:
        (tmp_path / "fifo").write_bytes(docker_archive(TARS))
        assert process.stdout.read() == plain


def test_standard_input_that_is_not_an_image():
    for data in (b"", b"hello"):
        got = run("-", input=data)
        assert got.returncode == 3
        assert got.stderr.startswith(b"flatten: standard input: not a container image")
    assert run("-", stdin=subprocess.DEVNULL).returncode == 3


# --- compressed output

OUTPUTS = {
    "out.tar.gz": (None, gzip.decompress, b"\x1f\x8b"),
    "out.tgz": (None, gzip.decompress, b"\x1f\x8b"),
    "out.tar.zst": (None, None, b"\x28\xb5\x2f\xfd"),
    "out.tar.xz": (None, lzma.decompress, b"\xfd7zXZ"),
    "out.tar.bz2": (None, bz2.decompress, b"BZh9"),
    "a": ("gzip:0", gzip.decompress, b"\x1f\x8b"),
    "b": ("gzip:9", gzip.decompress, b"\x1f\x8b"),
    "c": ("zstd:19", None, b"\x28\xb5\x2f\xfd"),
    "d": ("xz:0", lzma.decompress, b"\xfd7zXZ"),
    "e.tar.gz": ("none", bytes, b"text"[:0]),
}


def unzstd(data):
    with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data)) as stream:
        return stream.read()


@pytest.mark.parametrize("name", OUTPUTS)
def test_compressed_output(tmp_path, plain, name):
    how, unpack, magic = OUTPUTS[name]
    outs = []
    for image in (docker_archive(TARS), packed_archive(gzip.compress)):
        (tmp_path / "i.tar").write_bytes(image)
        flatten.export(tmp_path / "i.tar", tmp_path / name, compress=how)
        outs.append((tmp_path / name).read_bytes())

    assert outs[0] == outs[1]
    assert outs[0].startswith(magic)
    assert (unpack or unzstd)(outs[0]) == plain


@pytest.mark.parametrize("how", ["gzip", "zstd"])
def test_the_bytes_do_not_depend_on_the_number_of_processors(tmp_path, how):
    noise = [member(f"{n}", os.urandom(1_500_000) + b"x" * 3_000_000) for n in range(3)]
    (tmp_path / "i.tar").write_bytes(docker_archive(layers(noise)))
    all_of_them = os.sched_getaffinity(0)
    outs = set()
    for processors in (all_of_them, {min(all_of_them)}):
        os.sched_setaffinity(0, processors)
        try:
            flatten.export(tmp_path / "i.tar", tmp_path / "o", compress=how)
        finally:
            os.sched_setaffinity(0, all_of_them)
        outs.add((tmp_path / "o").read_bytes())

    assert len(outs) == 1


@pytest.mark.parametrize("how", ["zip", "gzip:10", "zstd:0", "zstd:x", "xz:-1", ""])
def test_an_unknown_compression_is_refused(flat, how):
    with pytest.raises(flatten.UsageError, match="--compress"):
        flat(docker_archive(TARS), compress=how)


@pytest.mark.parametrize("how", ["gzip", "gzip:9", "zstd", "xz:0", "none"])
def test_a_failure_while_compressing_ends_at_once(tmp_path, how):
    big = [member(f"{n}", os.urandom(3_000_000)) for n in range(5)]
    (tmp_path / "i.tar").write_bytes(docker_archive(layers(big)))

    got = run(tmp_path / "i.tar", "-o", "/dev/full", "--compress", how, timeout=60)

    assert got.returncode == 1
    assert (
        got.stderr == b"flatten: '/dev/full': cannot write: No space left on device\n"
    )


@pytest.mark.parametrize("how", ["gzip", "zstd", "xz:0"])
def test_a_reader_that_leaves_a_compressor_ends_it_silently(tmp_path, how):
    big = [member(f"{n}", os.urandom(3_000_000)) for n in range(9)]
    (tmp_path / "i.tar").write_bytes(docker_archive(layers(big)))
    command = [sys.executable, "-m", "flatten", tmp_path / "i.tar", "--compress", how]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 141


def test_an_archive_in_an_archive_is_not_opened(flat):
    with pytest.raises(flatten.SourceError):
        flat(archive([("inner.tar", docker_archive(TARS))]))


def test_all_layers_of_an_oci_archive_may_be_compressed(flat, plain):
    files = oci_files(TARS, pack=zstd)

    assert flat(archive(files.items())) == plain
