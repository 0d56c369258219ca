#!/bin/bash
# mkfs.btrfs --rootdir makes a file system that btrfs check calls broken, if a
# file of the tree has a hard link outside of it.
#
# Expected:  the image has as many links to a file as the tree has names for it.
# Happens:   the inode's link count is the host's st_nlink, whether or not the
#            other names are in the tree. mkfs.btrfs exits with 0, and
#            `btrfs check` fails with "link count wrong". The inode numbers are
#            the host's plus 256, so that two copies of one tree give different
#            images, even with the same --uuid.
# Cause:     mkfs copied stat's fields to the inode. 6.10.1 stopped making hard
#            links from --rootdir; 6.12 detects them properly.
# Matters:   trees that share files by hard links are how root file systems are
#            kept: `cp -al`, `ostree checkout -H`, rsync --link-dest, a store of
#            deduplicated layers. The tree itself is correct.
# Sources:   btrfs-progs CHANGES, 6.10.1 and 6.12; mkfs/rootdir.c of 6.2.
# Versions:  btrfs-progs 6.2, of Debian 12.
. "$(dirname "$0")/common.bash"
debian btrfs-progs=6.2-1+deb12u2

# image TREE: make image.btrfs of this tree.
image() {
    rm -f image.btrfs
    truncate --size 128M image.btrfs
    mkfs.btrfs -q -U 00000000-0000-0000-0000-000000000001 --rootdir "$1" image.btrfs >/dev/null
}
check() {
    if btrfs check image.btrfs >check.log 2>&1; then
        echo clean
    else
        grep -o 'link count wrong' check.log
    fi
}
inode_numbers() {
    btrfs inspect-internal dump-tree -t 5 image.btrfs |
        sed -n 's/^\titem .* key (\([0-9]*\) INODE_ITEM.*/\1/p' | paste -sd ' '
}

mkdir first
echo text >first/file
ln first/file first/second-name
image first
expect "two names, both in the tree" clean "$(check)"
numbers=$(inode_numbers)
expect "inode numbers (256 is the root)" "256 $((256 + $(stat -c %i first/file)))" "$numbers"

cp -a first second
image second
expect "a copy has the same inode numbers" no \
    "$([ "$(inode_numbers)" = "$numbers" ] && echo yes || echo no)"

cp -al first third
rm third/second-name
image third
expect "three names, one in the tree" "link count wrong" "$(check)"
