#!/bin/sh
# Run a command in an image's tree, as root, without any container engine:
#
#     sudo examples/chroot.sh app.tar /bin/busybox uname -m
set -eu

: "${FLATTEN:=flatten}"
image=$1
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
$FLATTEN "$image" -o "$work/rootfs/"
chroot "$work/rootfs" "$@"
