#!/bin/bash
# libblkid 2.42 does not recognise EROFS images with blocks of 512 or 1,024 bytes.
#
# Expected:  `mkfs.erofs -b512` makes a valid image, which fsck.erofs accepts, and so
#            blkid, udev and mount find its type. libblkid 2.38 does.
# Happens:   `blkid -p` of an image with blocks of 512 or 1,024 bytes prints nothing
#            and exits with 2, "no file system". With 2,048 and 4,096 bytes it
#            prints TYPE="erofs". The same images are recognised by libblkid 2.38.
# Cause:     the checksum, which mkfs.erofs writes by default, is taken over a
#            block less the 1,024 bytes before the superblock. For these block sizes
#            that is 0 or negative, the check fails, and the image with it.
# Matters:   an EROFS image of the smallest size, or one that refers to the data of a
#            tar archive (whose blocks are 512 bytes), has no UUID and no label in
#            /dev/disk/by-*, and so root=UUID=... does not find it at boot.
# Sources:   mkfs.erofs(1), -b ("cannot be less than 512 bytes"); util-linux
#            libblkid/src/superblocks/erofs.c, erofs_verify_checksum().
# Versions:  util-linux 2.42.4-1 and erofs-utils 1.9.4-1 of Debian 14 (testing);
#            2.38.1 of Debian 12. Needs root and debootstrap.
. "$(dirname "$0")/common.bash"
need blkid
forky util-linux=2.42.4-1 libblkid1=2.42.4-1 erofs-utils=1.9.4-1

inside() { unshare --mount chroot root "$@"; }
mkdir root/tree
head -c 100000 /dev/zero >root/tree/file
# type_of ROOT IMAGE: print the type that the libblkid of / or of root finds.
type_of() {
    local status=0 found
    case $1 in
    /) found=$(blkid -p -s TYPE -o value "root/$2") || status=$? ;;
    root) found=$(inside blkid -p -s TYPE -o value "$2") || status=$? ;;
    esac
    echo "${found:-nothing}, exit $status"
}
blkid --version | grep -q 'libblkid 2\.38\.' || skip "blkid of this system is not 2.38"
for size in 512 1024 2048 4096; do
    inside mkfs.erofs --quiet -b$size image.$size tree
    inside fsck.erofs image.$size >/dev/null
    expect "blocks of $size bytes, libblkid 2.38" "erofs, exit 0" "$(type_of / image.$size)"
    case $size in 512 | 1024) found="nothing, exit 2" ;; *) found="erofs, exit 0" ;; esac
    expect "blocks of $size bytes, libblkid 2.42" "$found" "$(type_of root image.$size)"
done
