#!/bin/sh
# Boot an image in a virtual machine, to a shell on this terminal:
#
#     examples/boot.sh app.tar                # from an ext4 disk
#     examples/boot.sh --initramfs app.tar    # from memory, without any disk
#
# An image has no kernel: this takes Debian's (linux-image-cloud-amd64), and for the disk
# its initrd, which has the drivers. Needs qemu-system-x86, no root, no KVM; leave with
# `busybox poweroff -f` or Ctrl-A X. The image needs a /bin/sh.
set -eu

: "${FLATTEN:=flatten}" "${QEMU:=qemu-system-x86_64}" "${ACCEL:=tcg}"
case ${1:-} in
  -h | --help) echo "usage: boot.sh [--initramfs] IMAGE"; exit 0 ;;
esac
initramfs=
if [ "${1:-}" = --initramfs ]; then
  initramfs=yes
  shift
fi
if [ $# -ne 1 ]; then
  echo "usage: boot.sh [--initramfs] IMAGE" >&2
  exit 2
fi
command -v "$QEMU" > /dev/null || { echo "boot.sh: $QEMU not found: install qemu-system-x86" >&2; exit 1; }
: "${KERNEL:=$(ls /boot/vmlinuz-* | tail -n 1)}"
: "${INITRD:=$(ls /boot/initrd.img-* | tail -n 1)}"

image=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Where the kernel and the initrd mount what they bring.
mkdir -p "$work/skeleton/dev" "$work/skeleton/proc" "$work/skeleton/sys" "$work/skeleton/run"
chmod 755 "$work/skeleton" "$work/skeleton"/*

if [ -n "$initramfs" ]; then
  printf '#!/bin/sh\nexec /bin/sh\n' > "$work/init"
  chmod 755 "$work/init"
  $FLATTEN "$image" --add "$work/skeleton:." --add "$work/init:/init" -o "$work/root.cpio.gz"
  set -- -initrd "$work/root.cpio.gz" -append "console=ttyS0 panic=-1 quiet"
else
  $FLATTEN "$image" --add "$work/skeleton:." -o "$work/root.ext4"
  set -- -initrd "$INITRD" -drive "file=$work/root.ext4,format=raw,if=virtio" \
    -append "console=ttyS0 panic=-1 quiet root=/dev/vda rw init=/bin/sh"
fi
"$QEMU" -accel "$ACCEL" -m 512 -nographic -no-reboot -net none -kernel "$KERNEL" "$@"
