#!/bin/bash
# tar-stream damages the file capability of newuidmap, but not of newgidmap.
#
# Expected:  copying entries from tar-stream's extract() to its pack() (the
#            README's way to edit an archive) keeps extended attributes, or
#            drops all of them.
# Happens:   it keeps those whose bytes are valid UTF-8. An invalid byte becomes
#            the three bytes of U+FFFD. The capability of newgidmap
#            (CAP_SETGID, bit 6: 0x40) survives, the one of newuidmap
#            (CAP_SETUID, bit 7: 0x80) grows from 20 to 22 bytes.
# Cause:     PAX records are decoded to strings and encoded again.
# Matters:   Linux refuses a security.capability of a wrong size, so the layer
#            fails to unpack or newuidmap loses its capability, and rootless
#            containers inside the image stop working. Tests that use ping
#            (CAP_NET_RAW, bit 13: 0x00 0x20) do not show it.
# Sources:   tar-stream headers.js, decodePax() and encodePax();
#            Linux security/commoncap.c, validheader(), and
#            include/uapi/linux/capability.h, XATTR_CAPS_SZ_2.
# Versions:  npm tar-stream 3.2.2.
. "$(dirname "$0")/common.bash"
need python3
npm_install tar-stream@3.2.2

cat >capabilities.py <<'PY'
import io, struct, sys, tarfile

KEY = "SCHILY.xattr.security.capability"
if sys.argv[1] == "make":
    with tarfile.open("in.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        for name, bit in ("newuidmap", 7), ("newgidmap", 6), ("ping", 13):
            # Revision 2, effective: permitted and inheritable masks follow.
            value = struct.pack("<5I", 0x02000001, 1 << bit, 0, 0, 0)
            member = tarfile.TarInfo(name)
            member.pax_headers = {KEY: value.decode("utf-8", "surrogateescape")}
            archive.addfile(member)
else:
    with tarfile.open(sys.argv[1]) as archive:
        value = archive.getmember(sys.argv[2]).pax_headers[KEY]
    value = value.encode("utf-8", "surrogateescape")
    print(len(value), "bytes", value[4:8].hex(" "))
PY
python3 capabilities.py make

cat >copy.mjs <<'JS'
import { createReadStream, createWriteStream } from 'node:fs';
import { pipeline } from 'node:stream/promises';
import tar from 'tar-stream';

const extract = tar.extract();
const pack = tar.pack();
extract.on('entry', (header, stream, next) => stream.pipe(pack.entry(header, next)));
extract.on('finish', () => pack.finalize());
await Promise.all([
  pipeline(createReadStream('in.tar'), extract),
  pipeline(pack, createWriteStream('out.tar')),
]);
JS
node copy.mjs

capability() { python3 capabilities.py "$@"; }
for name in ping newgidmap; do
    expect "$name" "$(capability in.tar $name)" "$(capability out.tar $name)"
done
expect "newuidmap before" "20 bytes 80 00 00 00" "$(capability in.tar newuidmap)"
expect "newuidmap after" "22 bytes ef bf bd 00" "$(capability out.tar newuidmap)"
