#!/bin/bash
# busybox tar gives root the files of owners above 2,097,151.
#
# Expected:  busybox tar, Alpine's tar, honours PAX records: it reads names and
#            link targets of any length from them.
# Happens:   it reads no other record. Where the header cannot hold the owner,
#            the field is 0, and root owns the file. A time before 1970 becomes
#            1970 for the same reason. Nothing is reported, exit status 0. From
#            a GNU format archive of the same file both are right.
# Cause:     the ustar owner field has seven octal digits. Go's archive/tar,
#            which container engines write layers with, stores a larger owner
#            as a PAX record and 0 in the header; busybox reads base-256
#            numbers but only the records path and linkpath.
# Matters:   OpenShift runs each project's containers with a user id such as
#            1000660000, so that files of such owners get into layers. A root
#            file system unpacked by an Alpine installer then has them as
#            root's, and the service that owned them cannot write to them.
# Sources:   busybox archival/libarchive/get_header_tar.c, process_pax_hdr();
#            POSIX.1-2017 pax, "pax Extended Header" (uid, gid, mtime);
#            Go archive/tar/strconv.go, formatOctal() ("Last resort, just write
#            zero").
# Versions:  busybox 1.35.0 (also 1.37.0 of Debian 13).
. "$(dirname "$0")/common.bash"
need python3
debian busybox-static=1:1.35.0-4+deb12u1+b1

python3 - <<'PY'
import io, tarfile

for name, format in ("gnu", tarfile.GNU_FORMAT), ("pax", tarfile.PAX_FORMAT):
    with tarfile.open(name + ".tar", "w", format=format) as archive:
        for path, owner in ("small", 2_097_151), ("large", 1_000_660_000):
            member = tarfile.TarInfo(path)
            member.uid, member.mtime = owner, -86_400
            archive.addfile(member)
PY

# Extraction sets what the list shows; it needs root to set owners.
listed() { busybox tar -tvf "$1.tar" | awk -v name="$2" '$6 == name { print $2, $4 }'; }
expect "GNU format" "1000660000/0 1969-12-31" "$(listed gnu large)"
expect "PAX format, owner 2097151" "2097151/0 1970-01-01" "$(listed pax small)"
expect "PAX format, owner 1000660000" "0/0 1970-01-01" "$(listed pax large)"
