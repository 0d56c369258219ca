#!/bin/bash
# Two files whose names are not UTF-8 become one with node-tar and modern-tar.
#
# Expected:  a name is bytes, as in the tar and in the file system. GNU tar,
#            bsdtar and Python's tarfile keep it.
# Happens:   "caf\xe8" and "caf\xe9" (Latin-1) are both extracted as "caf" and
#            U+FFFD, so one file overwrites the other, without an error.
#            The format, GNU or PAX, makes no difference.
# Cause:     names are decoded to JavaScript strings, and an invalid byte becomes
#            U+FFFD. tar-stream's entries have such names too.
# Matters:   Latin-1 names are in packages of certificates, dictionaries and test
#            data. A file is lost, and nothing says so.
# Sources:   pax(1) of POSIX.1-2017, hdrcharset; Node.js docs, Buffer, "UTF-8:
#            invalid sequences become U+FFFD".
# Versions:  npm tar 7.5.23, modern-tar 0.8.6, tar-stream 3.2.2; GNU tar 1.34
#            writes and reads the archive.
. "$(dirname "$0")/common.bash"
debian tar=1.34+dfsg-1.2+deb12u1
npm_install tar@7.5.23 modern-tar@0.8.6 tar-stream@3.2.2

mkdir in
echo grave >in/$'caf\xe8'
echo acute >in/$'caf\xe9'
tar --format=gnu -C in --sort=name -cf gnu.tar .
tar --format=posix -C in --sort=name -cf pax.tar .

cat >extract.mjs <<'JS'
import { createReadStream, mkdirSync } from 'node:fs';
import { pipeline } from 'node:stream/promises';
import { x } from 'tar';
import { unpackTar } from 'modern-tar/fs';
import tarStream from 'tar-stream';

const [file] = process.argv.slice(2);
mkdirSync('node-tar');
await x({ file, cwd: 'node-tar' });
await pipeline(createReadStream(file), unpackTar('modern-tar'));
const names = new Set();
const extract = tarStream.extract();
extract.on('entry', (header, stream, next) => {
  if (header.type === 'file') names.add(header.name);
  stream.resume();
  next();
});
await pipeline(createReadStream(file), extract);
console.log(names.size);
JS

files() { find "$1" -type f | wc -l; }
for archive in gnu pax; do
    rm -rf out node-tar modern-tar
    mkdir out
    tar -xf $archive.tar -C out
    expect "GNU tar, $archive" "2 files" "$(files out) files"
    names=$(node extract.mjs $archive.tar)
    for reader in node-tar modern-tar; do
        expect "$reader, $archive" "1 file" "$(files $reader) file"
    done
    expect "tar-stream, $archive" "1 name of a file" "$names name of a file"
done
