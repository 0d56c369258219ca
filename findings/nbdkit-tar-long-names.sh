#!/bin/bash
# nbdkit's tar filter serves the wrong bytes for a disk whose name is long.
#
# Expected:  `nbdkit file x.tar --filter=tar tar-entry=PATH` serves the disk
#            PATH inside the archive, whatever the length of PATH.
# Happens:   if PATH has more than 100 bytes and the archive is in GNU format,
#            the first 1,024 bytes served are the member's name record and
#            header, and the last 1,024 bytes of the disk are missing. Nothing
#            is reported. The same archive in PAX format is served correctly.
# Cause:     the filter asks GNU tar for the member's position (`tar -tRv`) and
#            adds one header. For a GNU long name, GNU tar prints the block of
#            the name record, which is two or more blocks before the member's
#            header. For PAX it prints the block of the member's own header.
# Matters:   a virtual machine disk in a container image (KubeVirt's
#            containerDisk) is a member of a layer, which this filter reads
#            without unpacking. Without --readonly, a write to the first two
#            sectors goes to the name record and the header in the archive.
# Sources:   nbdkit filters/tar/tar.c, calculate_offset_of_entry();
#            GNU tar src/list.c, simple_print_header(), which subtracts
#            recent_long_name_blocks from the block number.
# Versions:  nbdkit 1.32.5 (also 1.42.3 of Debian 13), GNU tar 1.34.
. "$(dirname "$0")/common.bash"
need python3
debian nbdkit=1.32.5-1 libnbd-bin=1.14.2-1 libnbd0=1.14.2-1 \
    tar=1.34+dfsg-1.2+deb12u1

python3 - <<'PY'
import io, tarfile

disk = b"".join(b"sector %d".ljust(512, b".") % n for n in range(8))
for name, format in ("gnu", tarfile.GNU_FORMAT), ("pax", tarfile.PAX_FORMAT):
    with tarfile.open(name + ".tar", "w", format=format) as archive:
        for path in "disk/short.img", "disk/" + "n" * 100 + ".img":
            member = tarfile.TarInfo(path)
            member.size = len(disk)
            archive.addfile(member, io.BytesIO(disk))
PY
short=disk/short.img
long=$(tar -tf gnu.tar | tail -n 1)

# first_bytes ARCHIVE PATH: print the first 8 bytes that the filter serves.
first_bytes() {
    # shellcheck disable=SC2016 # nbdkit sets $uri for the command
    nbdkit --readonly --unix - \
        "$libraries/nbdkit/plugins/nbdkit-file-plugin.so" \
        --filter="$libraries/nbdkit/filters/nbdkit-tar-filter.so" \
        "file=$1" "tar-entry=$2" --run 'nbdcopy "$uri" served.img'
    head -c 8 served.img
}

expect "GNU format, short name" "sector 0" "$(first_bytes gnu.tar "$short")"
expect "PAX format, long name" "sector 0" "$(first_bytes pax.tar "$long")"
expect "GNU format, long name" "disk/nnn" "$(first_bytes gnu.tar "$long")"
expect "Python reads of that member" "sector 0" "$(python3 -c '
import sys, tarfile
print(tarfile.open(sys.argv[1]).extractfile(sys.argv[2]).read(8).decode())
' gnu.tar "$long")"
