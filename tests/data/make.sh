#!/bin/sh
# Makes the archives in this directory, with skopeo 1.9 and podman 4.3 of Debian 12:
# one image, as each of them writes it. Kept, since the tools write other bytes in time.
#     sh tests/data/make.sh
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 image.py "$work/image.tar"
pack() { tar -C "$1" --sort=name --mtime=@0 --owner=0 --group=0 -cf "$2" .; }

for form in gzip zstd zstd:chunked; do
  name=skopeo-oci-$(echo "$form" | tr -d :)
  skopeo copy --insecure-policy --dest-compress-format "$form" --dest-compress \
    "docker-archive:$work/image.tar" "oci:$work/$name:app:1"
  pack "$work/$name" "$name.tar"
done
skopeo copy --insecure-policy "docker-archive:$work/image.tar" \
  "oci-archive:$PWD/skopeo-oci-archive.tar:app:1"
skopeo copy --insecure-policy "docker-archive:$work/image.tar" \
  "docker-archive:$PWD/skopeo-docker-archive.tar:app:1"
podman="podman --root $work/p --runroot $work/r --storage-driver vfs"
$podman load -i "$work/image.tar"
$podman save --format docker-archive -o podman-docker-archive.tar app:1
$podman save --format oci-archive -o podman-oci-archive.tar app:1
cp "$work/image.tar" image.tar
gzip -9 -f -- *.tar
