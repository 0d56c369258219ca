#!/bin/bash
# mke2fs -d takes quadratic time for a large directory and leaves it unindexed.
#
# Expected:  time grows with the number of files; and as dir_index is on by
#            default, a directory of many blocks gets a hash tree.
# Happens:   twice the names in one directory take about four times as long:
#            0.3, 1.0 and 4.2 s of CPU time for 2,000, 4,000 and 8,000 names.
#            The directory is linear. The kernel builds a tree only when a
#            directory grows from its first to its second block, so it stays
#            linear after mounting, and a look-up in it may read all of its
#            blocks. `e2fsck -fyD` indexes it.
# Cause:     libext2fs appends a name by walking the directory from its first
#            block, for every name. 1.47.3 walks only the last block
#            (EXT2FS_LINK_APPEND); Debian 13's 1.47.2 does not.
# Matters:   an image with a package cache, a mail spool or a data set of many
#            small files takes minutes to become a disk, and that directory
#            stays slow on the machine that boots it.
# Sources:   e2fsprogs commit 53aa6c54 ("libext2fs: add the EXT2FS_LINK_APPEND
#            flag to ext2fs_link()", which states the O(n**2)) and
#            lib/ext2fs/link.c; Linux fs/ext4/namei.c, ext4_add_entry() and
#            make_indexed_dir().
# Versions:  e2fsprogs 1.47.0 (also 1.47.2 of Debian 13).
. "$(dirname "$0")/common.bash"
debian e2fsprogs=1.47.0-2+b2 libext2fs2=1.47.0-2+b2

# cpu_ms NAMES: make a disk of one directory with so many names, and print the
# CPU time that mke2fs took, in milliseconds.
cpu_ms() {
    rm -rf tree disk.ext4
    mkdir -p tree/large
    (cd tree/large && seq --format 'a-configuration-file-of-a-package-%06.0f' "$1" | xargs touch)
    local TIMEFORMAT='%U %S'
    { time mke2fs -q -t ext4 -d tree disk.ext4 200M &>/dev/null; } 2>&1 |
        awk '{ printf "%d\n", 1000 * ($1 + $2) }'
}
for names in 1500 3000 6000; do
    milliseconds[names]=$(cpu_ms $names)
    echo "$names names: ${milliseconds[names]} ms of CPU time"
done
expect "6000 names take more than 8 times as long as 1500" yes \
    "$([ "${milliseconds[6000]}" -gt $((8 * milliseconds[1500])) ] && echo yes || echo no)"

expect "features have dir_index" 1 "$(dumpe2fs -h disk.ext4 2>/dev/null | grep -c dir_index)"
indexed() {
    if debugfs -R 'htree_dump /large' disk.ext4 2>&1 | grep -q 'Not a hash-indexed'; then
        echo no
    else
        echo yes
    fi
}
expect "indexed" no "$(indexed)"
e2fsck -fyD disk.ext4 >/dev/null 2>&1 || true # 1: "file system was modified"
expect "indexed after e2fsck -fyD" yes "$(indexed)"
