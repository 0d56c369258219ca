#!/bin/bash
# Three current readers extract a sparse member as another file, without error.
#
# Expected:  a reader that does not know GNU tar's sparse members refuses them.
# Happens:   a file of 1 MiB that holds 5 bytes (`tar -S`) is extracted from
#            PAX as "GNUSparseFile.PID/database", 4,608 bytes that begin with
#            the text of the sparse map, by fastar, node-tar and modern-tar.
#            From GNU format fastar is right; modern-tar gives a file of the
#            right name with only the 4,096 stored bytes; node-tar leaves the
#            member out. No call fails.
# Cause:     sparse format 1.0 stores the real name and size in records
#            GNU.sparse.name and GNU.sparse.realsize, and the map in the data,
#            so that older readers get something. fastar is the Rust crate
#            "tar", which reads the old format (typeflag S) only.
# Matters:   GNU tar is what people archive a tree with, and -S is the usual
#            advice for trees with databases, /var/log/lastlog or disk images.
# Sources:   GNU tar manual, "Storing Sparse Files" (appendix "Tar Internals");
#            tar-rs src/archive.rs, parse_sparse_header().
# Versions:  PyPI fastar 0.12.0; npm tar 7.5.23, modern-tar 0.8.6; GNU tar 1.34
#            writes the archives.
. "$(dirname "$0")/common.bash"
debian tar=1.34+dfsg-1.2+deb12u1
pypi fastar==0.12.0
npm_install tar@7.5.23 modern-tar@0.8.6

truncate --size 1M database
printf hello | dd of=database bs=1 seek=100000 conv=notrunc status=none
tar --sparse --format=posix -cf pax.tar database
tar --sparse --format=gnu -cf gnu.tar database

cat >extract.mjs <<'JS'
import { createReadStream } from 'node:fs';
import { pipeline } from 'node:stream/promises';
import { x } from 'tar';
import { unpackTar } from 'modern-tar/fs';

const [archive, reader] = process.argv.slice(2);
if (reader === 'node-tar') await x({ file: archive, cwd: 'out' });
else await pipeline(createReadStream(archive), unpackTar('out'));
JS

# extracted READER ARCHIVE: print the name and the size of the extracted file.
extracted() {
    rm -rf out
    mkdir out
    case $1 in
        GNU-tar) tar -xf "$2" -C out ;;
        fastar) python -c 'import fastar, sys
with fastar.open(sys.argv[1], "r") as archive:
    archive.unpack("out")' "$2" ;;
        *) node extract.mjs "$2" "$1" ;;
    esac
    find out -type f -printf '%P %s' | sed 's/File\.[0-9]*/File.PID/'
}

for archive in gnu pax; do
    expect "GNU tar, $archive" "database 1048576" "$(extracted GNU-tar $archive.tar)"
done
for reader in fastar node-tar modern-tar; do
    expect "$reader, pax" "GNUSparseFile.PID/database 4608" "$(extracted $reader pax.tar)"
done
expect "fastar, gnu" "database 1048576" "$(extracted fastar gnu.tar)"
expect "modern-tar, gnu" "database 4096" "$(extracted modern-tar gnu.tar)"
expect "node-tar, gnu" "" "$(extracted node-tar gnu.tar)"
