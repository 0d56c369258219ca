#!/bin/bash
# mkfs.erofs --tar=f loses or renames sparse files, and opens directories to all.
#
# Expected:  each member becomes a file of its name and contents, or an error. A
#            directory that the archive does not list gets the mode that tar -x
#            would give it, 0755.
# Happens:   GNU tar writes sparse files in one of two ways. The file is missing if
#            the archive has GNU format, and is called GNUSparseFile.NUMBER/NAME and
#            begins with the map of its holes if the archive has PAX format. A
#            directory that is not listed has mode 0777. The exit status is 0, and
#            standard error is empty.
# Cause:     the reader of tar members knows neither typeflag S (its message is at a
#            level that is off by default) nor the records GNU.sparse.*. It makes a
#            missing directory with mode 0777.
# Matters:   a disk image or a database in a root file system is sparse, and
#            `tar --sparse` is how one is packed. Anyone may replace the programs in
#            a /usr/bin of mode 0777 if the file system is below a writable overlay.
# Sources:   GNU tar manual, "Storing Sparse Files"; mkfs.erofs(1), --tar; erofs-utils
#            lib/tar.c, tarerofs_parse_tar().
# Versions:  erofs-utils 1.9.4-1 of Debian 14 (testing). Needs root and debootstrap.
. "$(dirname "$0")/common.bash"
need python3 tar
forky erofs-utils=1.9.4-1

truncate -s 1M sparse
printf end >>sparse
tar --format=gnu --sparse -cf gnu.tar sparse
tar --format=pax --sparse -cf pax.tar sparse
python3 - <<'PY'
import tarfile

with tarfile.open("folder.tar", "w") as archive:
    archive.addfile(tarfile.TarInfo("bin/tool"))
PY
mv ./*.tar root

inside() { unshare --mount chroot root "$@"; }
# made ARCHIVE: make the image; print the exit status and the errors.
made() {
    local status=0
    rm -rf root/image root/tree
    inside mkfs.erofs --quiet --tar=f image "$1.tar" >/dev/null 2>errors || status=$?
    echo "$status $(cat errors)"
    inside fsck.erofs --extract=tree image >/dev/null 2>&1
}
files() { (cd root/tree && find . -type f -printf '%P, %s bytes\n' | sed 's/\.[0-9]*\//.NUMBER\//'); }
expect "GNU tar, both formats" "sparse sparse" "$(tar -tf root/gnu.tar) $(tar -tf root/pax.tar)"
expect "mkfs.erofs, GNU format" "0 " "$(made gnu)"
expect "files" "" "$(files)"
expect "mkfs.erofs, PAX format" "0 " "$(made pax)"
expect "files" "GNUSparseFile.NUMBER/sparse, 515 bytes" "$(files)"
expect "mkfs.erofs, a directory that is not listed" "0 " "$(made folder)"
expect "mode of the directory" 777 "$(stat -c %a root/tree/bin)"
