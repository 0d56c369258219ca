#!/bin/sh
# Boot an image in a virtual machine, with a shell on this terminal:
#
#     examples/boot.sh app.tar                # from an ext4 disk
#     examples/boot.sh --initramfs app.tar    # from memory, without a disk
#
# A container image has no kernel. This takes Debian's (linux-image-cloud-amd64) and, for
# the disk, its initrd, which has the drivers. Needs qemu-system-x86, but neither root nor
# KVM. Leave with `busybox poweroff -f` or Ctrl-A X. The image needs a /bin/sh.
set -eu

: "${FLATTEN:=flatten}" "${QEMU:=qemu-system-x86_64}" "${ACCEL:=tcg}"
usage="usage: boot.sh [--initramfs] IMAGE"
case ${1:-} in
  -h | --help) echo "$usage"; exit 0 ;;
esac
initramfs=
if [ "${1:-}" = --initramfs ]; then
  initramfs=yes
  shift
fi
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
[ -n "$initramfs" ] || [ -r "$INITRD" ] || fail "cannot read $INITRD"

image=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The mount points of what the kernel and the initrd bring.
for name in dev proc sys run; do mkdir -p "$work/skeleton/$name"; done
chmod 755 "$work/skeleton" "$work/skeleton"/*

if [ -n "$initramfs" ]; then
  printf '#!/bin/sh\nexec /bin/sh\n' > "$work/init"
  chmod 755 "$work/init"
  $FLATTEN "$image" --add "$work/skeleton:." --add "$work/init:/init" \
    -o "$work/root.cpio.gz"
  set -- -initrd "$work/root.cpio.gz" -append "console=ttyS0 panic=-1 quiet"
else
  $FLATTEN "$image" --add "$work/skeleton:." -o "$work/root.ext4"
  set -- -initrd "$INITRD" -drive "file=$work/root.ext4,format=raw,if=virtio" \
    -append "console=ttyS0 panic=-1 quiet root=/dev/vda rw init=/bin/sh"
fi
"$QEMU" -accel "$ACCEL" -m 512 -nographic -no-reboot -net none -kernel "$KERNEL" "$@"
