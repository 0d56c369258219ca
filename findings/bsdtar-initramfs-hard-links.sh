#!/bin/bash
# Converting a root file system tar to an initramfs with bsdtar loses every
# hard link, with exit status 0.
#
# Expected:  `bsdtar -cf root.cpio --format=newc @root.tar`, the short way from
#            a tar to an initramfs, keeps a file's second name or refuses it.
# Happens:   the second name becomes an entry without a file type (mode 0644
#            instead of 0100644) and without data. GNU cpio says "unknown file
#            type", skips it and exits with 0; the kernel skips such an entry
#            silently; bsdtar extracts an empty file.
#            From a directory the same command keeps the links.
# Cause:     tar has the data with the first name and newc with the last one, so
#            a stream cannot be converted. Up to 3.4 bsdtar at least warned.
# Matters:   the busybox image is one file with some 400 names, all of them hard
#            links: such an initramfs has one command. A Debian image loses
#            /usr/bin/perl or /usr/bin/perl5.36.0, whichever comes second.
# Sources:   github.com/libarchive/libarchive/issues/1469 ("There isn't anything
#            sensible we can do here") and 1386; Linux init/initramfs.c, do_name(),
#            Documentation/driver-api/early-userspace/buffer-format.rst.
# Versions:  bsdtar 3.6.2 (the library also in 3.8.10), GNU cpio 2.13.
. "$(dirname "$0")/common.bash"
need python3 tar
debian libarchive-tools=3.6.2-1+deb12u5 libarchive13=3.6.2-1+deb12u5 cpio=2.13+dfsg-7.1

mkdir tree
echo data >tree/first
ln tree/first tree/second
tar -C tree -cf root.tar first second
bsdtar -cf root.cpio --format=newc @root.tar
bsdtar -cf directory.cpio --format=newc -C tree first second

cat >entry.py <<'PY'
import sys

# Print an entry's mode, link count and size. A header is text: the magic number
# and 13 fields of 8 hexadecimal digits. The name follows it.
archive, name = open(sys.argv[1], "rb").read(), sys.argv[2].encode() + b"\0"
start = archive.index(name) - 110
fields = [int(archive[start + i : start + i + 8], 16) for i in range(6, 110, 8)]
print(f"{fields[1]:o} {fields[4]} {fields[6]}")
PY
entry() { python3 entry.py "$@"; }

# extracted NAME: what GNU cpio makes of the entry in root.cpio.
extracted() {
    rm -rf out
    mkdir out
    (cd out && cpio --extract --quiet <../root.cpio 2>../said && cat "$1" 2>/dev/null || echo none)
}

expect "mode, links and size of the first name" "100644 0 5" "$(entry root.cpio first)"
expect "mode, links and size of the second name" "644 0 0" "$(entry root.cpio second)"
expect "the last name, from a directory" "100644 2 5" "$(entry directory.cpio second)"
expect "GNU cpio extracts the first name" data "$(extracted first)"
expect "GNU cpio extracts the second name" none "$(extracted second)"
expect "GNU cpio says" "cpio: second: unknown file type" "$(cat said)"
mkdir by-bsdtar
bsdtar -xf root.cpio -C by-bsdtar
expect "bsdtar extracts the second name with size" 0 "$(stat -c %s by-bsdtar/second)"
