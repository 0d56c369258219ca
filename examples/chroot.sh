#!/bin/sh
# Run a command in the filesystem of an image, as root, without a container engine:
#
#     sudo examples/chroot.sh app.tar /bin/busybox uname -m
set -eu

: "${FLATTEN:=flatten}"
case ${1:-} in
  -h | --help) echo "usage: chroot.sh IMAGE COMMAND [ARGUMENT...]"; exit 0 ;;
esac
if [ $# -lt 2 ]; then
  echo "usage: chroot.sh IMAGE COMMAND [ARGUMENT...]" >&2
  exit 2
fi
image=$1
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
$FLATTEN "$image" -o "$work/rootfs/"
chroot "$work/rootfs" "$@"
