#!/bin/sh
# A pipeline without containers: an image from a registry to a signed-off disk.
#
#     examples/pipeline.sh docker://docker.io/library/debian:12 out/
#
# skopeo fetches, flatten checks every layer's digest and writes the disk and a list of
# all that is in it, and the list proves the disk's tree later. No daemon, no root.
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
