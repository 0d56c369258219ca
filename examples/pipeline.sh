#!/bin/sh
# A pipeline without containers: from an image in a registry to a verified disk.
#
#     examples/pipeline.sh docker://docker.io/library/debian:12 out/
#
# skopeo fetches the image. flatten checks the digest of every layer, and writes the disk,
# a tar and a list of what is in them. The list can verify the tree later. This needs no
# daemon and no root.
set -eu

: "${FLATTEN:=flatten}" "${SKOPEO:=skopeo}" "${KIND:=ext4}"
case ${1:-} in
  -h | --help) echo "usage: pipeline.sh SOURCE OUTDIR"; exit 0 ;;
esac
if [ $# -ne 2 ]; then
  echo "usage: pipeline.sh SOURCE OUTDIR" >&2
  exit 2
fi
from=$1
out=$2
mkdir -p "$out"

$SKOPEO copy --quiet "$from" "oci-archive:$out/image.tar:pipeline"
$FLATTEN "$out/image.tar" -o "$out/rootfs.tar" --list-out "$out/rootfs.list" \
  --config-out "$out/config.json"
$FLATTEN "$out/image.tar" -o "$out/disk.$KIND"
$FLATTEN verify "$out/rootfs.tar" "$out/rootfs.list"
(cd "$out" && sha256sum "disk.$KIND" rootfs.tar rootfs.list config.json > SHA256SUMS)
