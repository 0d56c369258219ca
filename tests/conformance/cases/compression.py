"""Rules 36 to 38: layers listed twice, compression, digests."""

import gzip

from ..images import (
    Layer,
    bzip2,
    gzip_and_zeros,
    packed,
    sha256,
    two_gzip_members,
    two_zstd_frames,
    xz,
    zstd,
)
from ..layers import layer_tar, member
from .case import DIFF_IDS, FORMAT, MEDIA_TYPES, REFUSED, VERIFICATION, case

OCI = ("oci",)
ARCHIVE = ("docker-archive",)
WORDS = ("d/", "d/x")
TREE = {"d/": "", "d/x": "1"}
TAR = layer_tar(*WORDS)
ZIPPED = gzip.compress(TAR)
WRONG = sha256(b"something else")
NAMED_GZIP = ZIPPED[:3] + b"\x08" + ZIPPED[4:10] + b"layer.tar\0" + ZIPPED[10:]


def gzipped(number: int, *words: str) -> Layer:
    tar = layer_tar(*words, number=number)
    return Layer(tar, gzip.compress(tar), "+gzip")


def zstd_layer(number: int, *words: str) -> Layer:
    tar = layer_tar(*words, number=number)
    return Layer(tar, zstd(tar), "+zstd")


CASES = (
    # 36: a layer twice
    case(36, "a layer that is listed twice is applied twice, in its place", DIFF_IDS,
         [["a"], ["-a"], layer_tar("a")], {"a": "1"}),
    case(36, "a layer that is listed twice in a row", DIFF_IDS,
         [["a", "b"], layer_tar("a", "b"), ["-b"]], {"a": "1"}),
    case(36, "a whiteout that is listed twice", DIFF_IDS,
         [["a", "k"], ["-a"], layer_tar("a"), layer_tar("-a")], {"k": "1"}),
    case(36, "thirty layers", DIFF_IDS,
         [[f"f{n}", "last"] for n in range(1, 31)],
         {**{f"f{n}": f"{n}" for n in range(1, 31)}, "last": "30"}),
    # 37: compression
    case(37, "a layer in gzip", MEDIA_TYPES,
         [packed(gzip.compress, *WORDS, suffix="+gzip")], TREE, forms=OCI),
    case(37, "a layer in zstd", MEDIA_TYPES,
         [packed(zstd, *WORDS, suffix="+zstd")], TREE, forms=OCI),
    case(37, "layers of three kinds", MEDIA_TYPES,
         [["a"], gzipped(2, "b", "-a"), zstd_layer(3, "c")], {"b": "2", "c": "3"},
         forms=OCI),
    case(37, "a plain layer above one in gzip", MEDIA_TYPES,
         [gzipped(1, "a", "k"), ["-a", "b"]], {"b": "2", "k": "1"}, forms=OCI),
    case(37, "gzip of several members (RFC 1952, 2.2)", MEDIA_TYPES,
         [packed(two_gzip_members, *WORDS, suffix="+gzip")], TREE, forms=OCI),
    case(37, "gzip with a file name (RFC 1952, 2.3)", MEDIA_TYPES,
         [Layer(TAR, NAMED_GZIP, "+gzip")], TREE, forms=OCI),
    case(37, "zstd of several frames and skippable ones (RFC 8878, 3.1)", MEDIA_TYPES,
         [packed(two_zstd_frames, *WORDS, suffix="+zstd")], TREE, forms=OCI),
    case(37, "zeros behind gzip", MEDIA_TYPES,
         [packed(gzip_and_zeros, *WORDS, suffix="+gzip")], TREE, REFUSED, forms=OCI),
    case(37, "gzip with the media type of a plain tar", MEDIA_TYPES,
         [packed(gzip.compress, *WORDS, suffix="")], TREE, REFUSED, forms=OCI),
    case(37, "a plain tar with the media type of gzip", MEDIA_TYPES,
         [Layer(TAR, None, "+gzip")], TREE, REFUSED, forms=OCI),
    case(37, "gzip with a wrong checksum", MEDIA_TYPES,
         [Layer(TAR, ZIPPED[:-8] + bytes(4) + ZIPPED[-4:], "+gzip")], REFUSED,
         forms=OCI),
    case(37, "gzip that is cut", MEDIA_TYPES,
         [Layer(TAR, ZIPPED[:-20], "+gzip")], REFUSED, forms=OCI),
    *(case(37, f"a layer in {name}, in a docker-archive", FORMAT,
           [packed(pack, *WORDS, suffix="")], TREE, REFUSED, forms=ARCHIVE)
      for name, pack in {
          "gzip": gzip.compress, "zstd": zstd, "bzip2": bzip2, "xz": xz}.items()),
    case(37, "plain and compressed layers in one docker-archive", FORMAT,
         [["a"], gzipped(2, "b")], {"a": "1", "b": "2"}, REFUSED, forms=ARCHIVE),
    # 38: digests
    case(38, "a layer that does not have its digest", VERIFICATION,
         [["a"], Layer(layer_tar("b"), digest=WRONG)], REFUSED, forms=OCI),
    case(38, "a compressed layer that does not have its digest", VERIFICATION,
         [Layer(TAR, ZIPPED, "+gzip", digest=WRONG)], REFUSED, forms=OCI),
    case(38, "a layer that does not have its diff_id", DIFF_IDS,
         [["a"], Layer(layer_tar("b"), diff_id=f"sha256:{WRONG}")],
         REFUSED, {"a": "1", "b": "1"}),
    case(38, "a layer with the diff_id of another", DIFF_IDS,
         [["a"], Layer(layer_tar("b"), diff_id=f"sha256:{sha256(layer_tar('a'))}")],
         REFUSED, {"a": "1", "b": "1"}, {"a": "1"}),
    case(38, "a layer with files that are named as those of an archive", DIFF_IDS,
         [[member("manifest.json", "[]"), member("layer.tar", "1")]],
         {"manifest.json": "[]", "layer.tar": "1"}),
)  # fmt: skip
