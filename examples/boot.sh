#!/bin/sh
# Boot an image in a virtual machine, with a shell on this terminal:
#
#     examples/boot.sh app.tar                # from an ext4 disk
#     examples/boot.sh --erofs app.tar        # from a read-only EROFS
#     examples/boot.sh --index app.tar        # from the archive itself, by an EROFS index
#     examples/boot.sh --initramfs app.tar    # from memory, without a disk
#
# A container image has no kernel. This takes Debian's (linux-image-cloud-amd64) and, for
# the disk, its initrd, which has the drivers. Needs qemu-system-x86, but neither root nor
# KVM. Debian's initrd reads EROFS with a line "erofs" in /etc/initramfs-tools/modules,
# after update-initramfs -u; $INITRD may name another. Leave with `busybox poweroff -f` or Ctrl-A X. The image needs a /bin/sh.
set -eu

: "${FLATTEN:=flatten}" "${QEMU:=qemu-system-x86_64}" "${ACCEL:=tcg}"
usage="usage: boot.sh [--erofs | --index | --initramfs] IMAGE"
case ${1:-} in
  -h | --help) echo "$usage"; exit 0 ;;
esac
from=--ext4
case ${1:-} in
  --erofs | --index | --initramfs) from=$1; shift ;;
esac
if [ $# -ne 1 ]; then
  echo "$usage" >&2
  exit 2
fi
fail() { echo "boot.sh: $*" >&2; exit 1; }

# Print the last of some files, in the order of the shell.
last() { shift $(($# - 1)); echo "$1"; }

command -v "$QEMU" > /dev/null || fail "$QEMU not found: install qemu-system-x86"
: "${KERNEL:=$(last /boot/vmlinuz-*)}" "${INITRD:=$(last /boot/initrd.img-*)}"
[ -r "$KERNEL" ] || fail "cannot read $KERNEL: install linux-image-cloud-amd64"
[ "$from" = --initramfs ] || [ -r "$INITRD" ] || fail "cannot read $INITRD"

image=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The mount points of what the kernel and the initrd bring.
for name in dev proc sys run; do mkdir -p "$work/skeleton/$name"; done
chmod 755 "$work/skeleton" "$work/skeleton"/*

if [ "$from" = --initramfs ]; then
  printf '#!/bin/sh\nexec /bin/sh\n' > "$work/init"
  chmod 755 "$work/init"
  $FLATTEN "$image" --add "$work/skeleton:." --add "$work/init:/init" \
    -o "$work/root.cpio.gz"
  set -- -initrd "$work/root.cpio.gz" -append "console=ttyS0 panic=-1 quiet"
elif [ "$from" != --ext4 ]; then
  # The layers of the archive must be plain, as docker save writes them.
  set -- -drive "file=$work/root.erofs,format=raw,if=virtio,readonly=on"
  flags=ro
  if [ "$from" = --index ]; then
    index=--index flags=ro,device=/dev/vdb
    set -- "$@" -drive "file=$image,format=raw,if=virtio,readonly=on"
  fi
  $FLATTEN "$image" --add "$work/skeleton:." -o "$work/root.erofs" ${index:-}
  set -- "$@" -initrd "$INITRD" -append "console=ttyS0 panic=-1 quiet root=/dev/vda ro \
rootdelay=180 rootfstype=erofs rootflags=$flags init=/bin/sh"
else
  $FLATTEN "$image" --add "$work/skeleton:." -o "$work/root.ext4"
  set -- -initrd "$INITRD" -drive "file=$work/root.ext4,format=raw,if=virtio" \
    -append "console=ttyS0 panic=-1 quiet root=/dev/vda rw init=/bin/sh"
fi
"$QEMU" -accel "$ACCEL" -m 512 -nographic -no-reboot -net none -kernel "$KERNEL" "$@"
