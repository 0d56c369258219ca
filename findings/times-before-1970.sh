#!/bin/bash
# A file's time before 1970 moves a second, becomes 1970, or hides the file.
#
# Expected:  a time of -86,400 (1969-12-31 00:00 UTC), which GNU tar writes in
#            base-256 and POSIX format in a record, is read as it is, or the
#            archive is refused.
# Happens:   GNU format: tar-stream gives -86,399; modern-tar leaves the file out,
#            without an error, and takes what follows its header for the next one.
#            POSIX format: tar-stream gives 0, as it does not read the record.
# Cause:     a negative base-256 number is a two's complement; tar-stream inverts
#            its bytes, without the 1 that has to be added. modern-tar reads it as a
#            positive number that is too large, and goes on in the next block.
# Matters:   times before 1970 are rare, but archives made with
#            SOURCE_DATE_EPOCH=0 in a time zone east of Greenwich have them, and so
#            have files that were restored with a wrong clock.
# Sources:   GNU tar manual, "Basic Tar Format": base-256 is "a signed binary
#            number"; tar-stream headers.js, parse256().
# Versions:  npm tar-stream 3.2.2, modern-tar 0.8.6; GNU tar 1.34 writes the
#            archives.
. "$(dirname "$0")/common.bash"
debian tar=1.34+dfsg-1.2+deb12u1
npm_install tar-stream@3.2.2 modern-tar@0.8.6

touch -d @-86400 file
echo last >last
tar --format=gnu -cf gnu.tar file last
tar --format=posix -cf pax.tar file last

cat >read.mjs <<'JS'
import { createReadStream } from 'node:fs';
import { pipeline } from 'node:stream/promises';
import { unpackTar } from 'modern-tar/fs';
import tarStream from 'tar-stream';

const [file] = process.argv.slice(2);
const extract = tarStream.extract();
extract.on('entry', (header, stream, next) => {
  if (header.name === 'file') console.log(header.mtime.getTime() / 1000);
  stream.resume();
  next();
});
await pipeline(createReadStream(file), extract);
await pipeline(createReadStream(file), unpackTar(`modern-tar-${file}`));
JS

mkdir out
tar -xf gnu.tar -C out 2>/dev/null # it says that the time is old
expect "GNU tar" -86400 "$(stat -c %Y out/file)"
expect "tar-stream, gnu" -86399 "$(node read.mjs gnu.tar)"
expect "tar-stream, pax" 0 "$(node read.mjs pax.tar)"
listed() { find "$1" -type f -printf '%P\n' | sort | tr '\n' ' '; }
expect "modern-tar, gnu" "last " "$(listed modern-tar-gnu.tar)"
expect "modern-tar, pax" "file last " "$(listed modern-tar-pax.tar)"
