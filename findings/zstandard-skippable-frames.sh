#!/bin/bash
# A layer made by pzstd is empty for two of zstandard's stream readers.
#
# Expected:  the stream interfaces of one library give the same bytes for one
#            valid file; if they stop after a frame, they stop in the same place.
# Happens:   pzstd starts each of its frames with a skippable frame. For such a
#            file copy_stream() and stream_reader() give all the data,
#            read_to_iter() and decompressobj() give 0 bytes, all without an
#            error, and decompress() fails with "decompressed 0 bytes;
#            expected 4". The parameter read_across_frames=False of
#            stream_reader() does not stop read().
# Cause:     a skippable frame counts as a frame. The loops that stop at the end
#            of a frame stop there, with nothing in hand.
# Matters:   zstd layers with several frames are usual: pzstd, zstd:chunked
#            (frames for files, the table of contents in a skippable frame) and
#            seekable zstd. Zero bytes without an error look like an empty layer.
# Sources:   RFC 8878 section 3 (one or more frames) and 3.1.2 (skippable
#            frames); python-zstandard docs/news.rst 0.22.0 and
#            zstandard/backend_cffi.py.
# Versions:  PyPI zstandard 0.25.0; pzstd of zstd 1.5.4.
. "$(dirname "$0")/common.bash"
debian zstd=1.5.4+dfsg2-5+deb12u1
pypi zstandard==0.25.0

head -c 100000 /dev/zero >layer
pzstd --quiet layer -o layer.zst
expect "magic number, of a skippable frame" 184d2a50 \
    "$(od -An -tx4 --endian=little -N 4 layer.zst | tr -d ' ')"
expect "zstd" 100000 "$(zstd --quiet --decompress --stdout layer.zst | wc -c)"

cat >read.py <<'PY'
import io, sys

import zstandard

blob = open("layer.zst", "rb").read()
reader = zstandard.ZstdDecompressor()
match sys.argv[1]:
    case "copy_stream":
        data = io.BytesIO()
        reader.copy_stream(io.BytesIO(blob), data)
        data = data.getvalue()
    case "stream_reader":
        data = reader.stream_reader(io.BytesIO(blob), read_across_frames=False).read()
    case "read_to_iter":
        data = b"".join(reader.read_to_iter(io.BytesIO(blob)))
    case "decompressobj":
        data = reader.decompressobj().decompress(blob)
    case "decompress":
        try:
            data = reader.decompress(blob)
        except zstandard.ZstdError as error:
            sys.exit(print(str(error).rpartition(": ")[2]))
print(len(data))
PY
for call in copy_stream stream_reader; do
    expect "$call" 100000 "$(python read.py $call)"
done
for call in read_to_iter decompressobj; do
    expect "$call" 0 "$(python read.py $call)"
done
expect decompress "decompressed 0 bytes; expected 4" "$(python read.py decompress)"
