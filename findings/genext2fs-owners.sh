#!/bin/bash
# genext2fs gives root the files of user 65536, and shortens larger user ids.
#
# Expected:  ext2 has had 32-bit user and group ids since Linux 2.4, and a tar
#            holds them, so `genext2fs -a` keeps them or refuses.
# Happens:   the id is stored modulo 65536: 65536 becomes 0, 100000 (the first
#            subordinate id of a rootless container) becomes 34464. Exit
#            status 0, no message, and e2fsck finds nothing wrong.
# Cause:     the functions that make inodes take 16-bit ids, and the high halves
#            l_i_uid_high and l_i_gid_high of the inode stay 0.
# Matters:   genext2fs makes the root disks of embedded systems, from a tar and
#            without root. With a tree of shifted owners, its files change
#            hands, and those of id 65536 become root's.
# Sources:   genext2fs genext2fs.c, chmod_fs() and mknod_fs(); e2fsprogs
#            lib/ext2fs/ext2_fs.h, l_i_uid_high.
# Versions:  genext2fs 1.5.0 (Debian 12 and 13; it calls itself 1.4.2).
. "$(dirname "$0")/common.bash"
need python3
debian genext2fs=1.5.0-3 e2fsprogs=1.47.0-2+b2 libext2fs2=1.47.0-2+b2

python3 - <<'PY'
import tarfile

with tarfile.open("tree.tar", "w") as archive:
    for owner in 65534, 65535, 65536, 100000:
        member = tarfile.TarInfo(str(owner))
        member.uid = member.gid = owner
        archive.addfile(member)
PY
genext2fs --size-in-blocks 1024 --tarball tree.tar disk.ext2 &>/dev/null
e2fsck -fn disk.ext2 &>/dev/null
echo "e2fsck: clean"

owner() { debugfs -R "stat /$1" disk.ext2 2>/dev/null | awk '$1 == "User:" { print $2, $4 }'; }
expect "user and group 65535" "65535 65535" "$(owner 65535)"
expect "user and group 65536" "0 0" "$(owner 65536)"
expect "user and group 100000" "34464 34464" "$(owner 100000)"
