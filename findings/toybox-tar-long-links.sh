#!/bin/bash
# toybox tar cuts the target of a link to 100 bytes in PAX archives.
#
# Expected:  the record "linkpath" of a PAX header gives the target of a link that
#            does not fit into the 100 bytes of the header, as "path" gives the name.
# Happens:   the name is right, and the target is cut. A symlink points nowhere; a
#            hard link is a link to another file, if one has the first 100 bytes as
#            its name. The exit status is 0, and nothing is said. The same archive in
#            GNU format is extracted as it should be.
# Cause:     "path" is the only record of a PAX header that is read; the header's
#            own field gives the target.
# Matters:   PAX is the format of image layers by Go programs, and toybox is the tar
#            of Android and of small initramfs. The targets of node_modules and of the
#            Nix store are long.
# Sources:   POSIX pax, "pax Header Block", linkpath; toybox toys/posix/tar.c,
#            unpack_tar().
# Versions:  toybox 0.8.9 of Debian 12.
. "$(dirname "$0")/common.bash"
need python3 tar
debian toybox=0.8.9+dfsg-1

python3 - <<'PY'
import io, tarfile

LONG = "f" * 120
for name, format_ in ("pax", tarfile.PAX_FORMAT), ("gnu", tarfile.GNU_FORMAT):
    with tarfile.open(name + ".tar", "w", format=format_) as archive:
        for path, data in (LONG, b"right\n"), (LONG[:100], b"wrong\n"):
            file = tarfile.TarInfo(path)
            file.size = len(data)
            archive.addfile(file, io.BytesIO(data))
        for path, kind in ("symlink", tarfile.SYMTYPE), ("hardlink", tarfile.LNKTYPE):
            link = tarfile.TarInfo(path)
            link.type, link.linkname = kind, LONG
            archive.addfile(link)
PY

# extracted ARCHIVE PROGRAM...: print what the links are after extraction by PROGRAM.
extracted() {
    local archive=$1 status=0
    shift
    rm -rf tree
    mkdir tree
    "$@" -xf "$archive.tar" -C tree &>said || status=$?
    local target
    target=$(readlink tree/symlink)
    echo "exit $status$(cat said), hard link to the $(cat tree/hardlink) file," \
        "symlink of ${#target} bytes"
}
right="exit 0, hard link to the right file, symlink of 120 bytes"
expect "GNU tar, PAX format" "$right" "$(extracted pax tar)"
expect "toybox, GNU format" "$right" "$(extracted gnu toybox tar)"
expect "toybox, PAX format" "exit 0, hard link to the wrong file, symlink of 100 bytes" \
    "$(extracted pax toybox tar)"
