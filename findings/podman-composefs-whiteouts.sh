#!/bin/bash
# With composefs, podman shows the files that an image's layers removed.
#
# Expected:  a whiteout hides a file of the layers below, and an opaque whiteout
#            hides what they have in its directory. How podman stores the layers
#            makes no difference to the files of the image.
# Happens:   with use_composefs = "true", removed files are back in each mounted
#            image and container, and the whiteouts are empty files called
#            ".wh.removed" and ".wh..wh..opq". The same image, pulled by the same
#            podman without that option, is right. Nothing is said in either case.
# Cause:     containers/storage describes a layer for mkcomposefs from its table of
#            contents, entry by entry, under the names that the entries have. Only
#            the other path, which unpacks a layer, turns whiteouts into those of
#            overlayfs.
# Matters:   a key or a cache that a later step removes is in the container again,
#            and so are the old files of each package that was upgraded.
# Sources:   OCI image-spec, layer.md: "Whiteouts" ("will hide"), "Opaque Whiteout";
#            containers-storage-composefs(1), which names no such limit;
#            containers/storage pkg/chunked/dump/dump.go, GenerateDump().
# Versions:  podman 5.8.6+ds1-3 with composefs 1.0.8-3, both of Debian 14 (testing).
# Needs root, debootstrap and a kernel that mounts composefs (6.6 or later), and
# takes a minute or two.
. "$(dirname "$0")/common.bash"
need python3
forky podman=5.8.6+ds1-3 composefs=1.0.8-3

cat >registry.py <<'PY'
"""A registry with one image, of two layers; print its port."""

import gzip, hashlib, http.server, io, json, tarfile

FILE, FOLDER = tarfile.REGTYPE, tarfile.DIRTYPE
MEDIA_TYPE = "application/vnd.oci.image."
blobs = {}


def layer(*members):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, kind in members:
            member = tarfile.TarInfo(name)
            member.type, member.mode = kind, 0o755
            archive.addfile(member)
    return out.getvalue()


def blob(data, kind):
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    blobs[digest] = data, MEDIA_TYPE + kind
    return {"mediaType": MEDIA_TYPE + kind, "digest": digest, "size": len(data)}


layers = [
    layer(("a/", FOLDER), ("a/kept", FILE), ("a/removed", FILE), ("b/", FOLDER), ("b/old", FILE)),
    layer(("a/", FOLDER), ("a/.wh.removed", FILE),
          ("b/", FOLDER), ("b/.wh..wh..opq", FILE), ("b/new", FILE)),
]
diff_ids = ["sha256:" + hashlib.sha256(data).hexdigest() for data in layers]
config = {"architecture": "amd64", "os": "linux", "config": {},
          "rootfs": {"type": "layers", "diff_ids": diff_ids}}
manifest = {"schemaVersion": 2, "mediaType": MEDIA_TYPE + "manifest.v1+json",
            "config": blob(json.dumps(config).encode(), "config.v1+json"),
            "layers": [blob(gzip.compress(data), "layer.v1.tar+gzip") for data in layers]}
latest = blob(json.dumps(manifest).encode(), "manifest.v1+json")["digest"]


class Registry(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        name = self.path.rpartition("/")[2].replace("latest", latest)
        data, kind = blobs.get(name, (b"{}", "application/json"))
        self.send_response(200 if name in blobs or self.path == "/v2/" else 404)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Registry)
print(server.server_port, flush=True)
server.serve_forever()
PY
python3 registry.py >port &
registry=$!
trap 'kill $registry; rm -rf "$work"' EXIT
until [ -s port ]; do sleep 0.1; done

cat >root/in-chroot <<'CHROOT'
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /mnt
cat >/mnt/storage.conf <<CONF
[storage]
driver = "overlay"
graphroot = "/mnt/root"
runroot = "/mnt/run"
[storage.options]
pull_options = {enable_partial_images = "true", convert_images = "true"}
[storage.options.overlay]
use_composefs = "$1"
CONF
export CONTAINERS_STORAGE_CONF=/mnt/storage.conf
podman pull --quiet --tls-verify=false "$2" >/dev/null || exit
tree=$(podman image mount "$2") || exit
(cd "$tree" && find . -type f | sort | xargs)
podman image umount "$2" >/dev/null
CHROOT
# files USE_COMPOSEFS: pull and mount the image; print the names of its files.
files() {
    # shellcheck disable=SC2016 # for the inner shell
    unshare --mount sh -c 'mount --bind root root && mount --rbind /dev root/dev &&
        exec chroot root sh -e /in-chroot "$@"' \
        sh "$1" "127.0.0.1:$(cat port)/image:latest" 2>podman.log ||
        skip "podman cannot pull or mount here: $(tail -n 1 podman.log)"
}
plain=$(files false)
composefs=$(files true)
expect "files, without composefs" "./a/kept ./b/new" "$plain"
expect "files, with composefs" \
    "./a/.wh.removed ./a/kept ./a/removed ./b/.wh..wh..opq ./b/new ./b/old" "$composefs"
