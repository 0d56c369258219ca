#!/bin/bash
# mke2fs -d writes the year 2040 as 1903, and two Python readers of ext4 read
# it as 2040 again.
#
# Expected:  an inode of 256 bytes, the default, has two more bits of seconds
#            (the epoch bits), so a time from 2038-01-19 to 2446 is kept. A
#            program that reads the image back shows a wrong time as wrong.
# Happens:   mke2fs 1.47.0 sets the low 32 bits and leaves the epoch bits 0,
#            which is 1903 for debugfs and the kernel. dissect.extfs and ext4
#            give the low 32 bits as an unsigned number, so they report 2040;
#            their fault hides the other one. For 1960, which mke2fs writes
#            correctly, both report 2096.
# Cause:     mke2fs copies st_mtime to the 128-byte struct ext2_inode. In
#            ext4 the low 32 bits are signed, and the epoch counts 2^32 seconds.
# Matters:   a check of a disk image by one of these libraries passes, and the
#            booted machine sees other times: make and rsync act on them.
#            e2fsprogs 1.47.2 (Debian 13) writes 2038-01-19 03:14:07 instead.
# Sources:   e2fsprogs v1.47.0 misc/create_inode.c, set_inode_extra();
#            Linux fs/ext4/inode-test.c, whose table decodes both halves;
#            dissect.extfs dissect/extfs/extfs.py, _parse_ns_ts().
# Versions:  e2fsprogs 1.47.0; PyPI dissect.extfs 3.15, ext4 1.4.1.
. "$(dirname "$0")/common.bash"
debian e2fsprogs=1.47.0-2+b2 libext2fs2=1.47.0-2+b2
pypi dissect.extfs==3.15 ext4==1.4.1

mkdir tree
for year in 1960 2037 2040; do
    touch --date "$year-01-01" tree/$year
done
mke2fs -q -t ext4 -I 256 -d tree disk.ext4 8M &>/dev/null

cat >read.py <<'PY'
import sys
from datetime import datetime, timedelta

import ext4
from dissect.extfs import ExtFS

reader, name = sys.argv[1:]
with open("disk.ext4", "rb") as disk:
    if reader == "dissect.extfs":
        time = ExtFS(disk).get("/" + name).mtime
    else:
        seconds = ext4.Volume(disk).inode_at("/" + name).i_mtime
        time = datetime(1970, 1, 1) + timedelta(seconds=seconds)
print(time.year)
PY
# year_in READER FILE
year_in() {
    case $1 in
        debugfs) debugfs -R "stat /$2" disk.ext4 2>/dev/null | sed -n 's/^ *mtime:.* //p' ;;
        *) python read.py "$1" "$2" ;;
    esac
}
for reader in debugfs dissect.extfs ext4; do
    expect "2037 in $reader" 2037 "$(year_in $reader 2037)"
done
expect "1960 in debugfs" 1960 "$(year_in debugfs 1960)"
expect "2040 in debugfs" 1903 "$(year_in debugfs 2040)"
for reader in dissect.extfs ext4; do
    expect "1960 in $reader" 2096 "$(year_in $reader 1960)"
    expect "2040 in $reader" 2040 "$(year_in $reader 2040)"
done
