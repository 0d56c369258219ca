#!/bin/bash
# Current extractors do not keep a root file system's absolute symlinks.
#
# Expected:  an extractor either keeps a symlink's target or refuses it. The
#            root of any Debian image has `/etc/alternatives` in dozens of them.
# Happens:   node-tar rewrites `/etc/localtime -> /usr/share/zoneinfo/UTC` to
#            `usr/share/zoneinfo/UTC`, relative to the link, so it dangles; the
#            promise resolves, and only an `onwarn` handler hears of it.
#            7-Zip puts the output folder's own path in front of the target, so
#            the link is good here and dangles after the tree is moved.
#            tar-fs and modern-tar stop with an error at the first such link
#            and leave what they extracted before it.
# Cause:     each of them was changed against links that leave the folder.
#            The way out is `preservePaths: true` (node-tar),
#            `validateSymlinks: false` (tar-fs).
# Matters:   a tree unpacked in this way has no working awk, editor or time zone,
#            and a chroot or disk image made from it is broken without an error.
# Sources:   node-tar CHANGELOG 7.5 ("Sanitize absolute linkpaths properly") and
#            src/unpack.ts, STRIPABSOLUTEPATH; 7-Zip issue
#            github.com/ip7z/7zip/issues/149; tar-fs index.js, validateSymlinks.
# Versions:  npm tar 7.5.23, tar-fs 3.1.3, modern-tar 0.8.6; 7-Zip 26.02, which
#            Debian 12 ships as 22.01+really26.02.
. "$(dirname "$0")/common.bash"
need python3
debian 7zip=22.01+really26.02+dfsg-0+deb12u1
npm_install tar@7.5.23 tar-fs@3.1.3 modern-tar@0.8.6

python3 - <<'PY'
import io, tarfile

with tarfile.open("root.tar", "w") as archive:
    target = tarfile.TarInfo("usr/share/zoneinfo/UTC")
    target.size = 4
    archive.addfile(target, io.BytesIO(b"TZif"))
    link = tarfile.TarInfo("etc/localtime")
    link.type, link.linkname = tarfile.SYMTYPE, "/usr/share/zoneinfo/UTC"
    archive.addfile(link)
PY
mkdir tar node-tar 7zip tar-fs modern-tar

cat >extract.mjs <<'JS'
import { createReadStream } from 'node:fs';
import { pipeline } from 'node:stream/promises';
import { x } from 'tar';
import tarFs from 'tar-fs';
import { unpackTar } from 'modern-tar/fs';

await x({ file: 'root.tar', cwd: 'node-tar' });
for (const sink of [tarFs.extract('tar-fs'), unpackTar('modern-tar')])
  await pipeline(createReadStream('root.tar'), sink).then(
    () => console.log('no error'),
    (error) => console.log(error.message.replace(process.cwd(), '')),
  );
JS

exists() { if [ -e "$1" ]; then echo yes; else echo no; fi; }
link=etc/localtime
tar -xf root.tar -C tar
expect "GNU tar" /usr/share/zoneinfo/UTC "$(readlink "tar/$link")"
errors=$(node extract.mjs)
expect "node-tar" usr/share/zoneinfo/UTC "$(readlink "node-tar/$link")"
expect "node-tar's link leads to a file" no "$(exists "node-tar/$link")"
7zz x -o7zip root.tar >/dev/null
expect "7-Zip, from the output folder on" /usr/share/zoneinfo/UTC \
    "$(readlink "7zip/$link" | sed "s:^$work/7zip::")"
mv 7zip moved
expect "7-Zip's link leads to a file after a move" no "$(exists "moved/$link")"
expect "tar-fs" "/tar-fs/etc/localtime is not a valid symlink" "$(sed -n 1p <<<"$errors")"
expect "modern-tar" \
    'Symlink "/usr/share/zoneinfo/UTC" points outside the extraction directory.' \
    "$(sed -n 2p <<<"$errors")"
