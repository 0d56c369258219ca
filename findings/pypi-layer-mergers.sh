#!/bin/bash
# Two packages of PyPI that merge an image's layers lose files without an error.
#
# Expected:  a whiteout hides a file of the layers below, never one of its own layer;
#            an opaque whiteout hides what the layers below have in its directory;
#            links and modes are part of a layer.
# Happens:   undocker removes the new file of a layer that replaces a directory by a
#            whiteout and a file, and keeps everything below an opaque whiteout.
#            container_inspector_squash leaves out each symlink and each second name
#            of a hard link, gives all files mode 0644, and puts a file that takes a
#            directory's place into that directory. Both exit with 0.
# Cause:     undocker applies the whiteouts after the files of their layer, and knows
#            no opaque ones; container-inspector's extract_tar() skips links by default.
# Matters:   `apt-get remove` and an install in one RUN write both a whiteout and a
#            file; a merged /usr is a root of symlinks.
# Sources:   OCI image-spec, layer.md: "Whiteouts" ("apply only to resources in lower
#            or parent layers"), "Opaque Whiteout", "File Attributes".
# Versions:  PyPI undocker 7, container-inspector 33.1.0.
. "$(dirname "$0")/common.bash"
pypi undocker==7 container-inspector==33.1.0

python - <<'PY'
import hashlib, io, json, tarfile


def tar(*members):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, kind, text in members:
            member = tarfile.TarInfo(name)
            member.type, member.mode = kind, 0o755
            data = text.encode() if kind == tarfile.REGTYPE else b""
            member.linkname, member.size = "" if data else text, len(data)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def image(name, *layers):
    digest = lambda data: hashlib.sha256(data).hexdigest()
    config = json.dumps({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + digest(x) for x in layers]},
        "history": [{"created_by": "x"} for _ in layers],
    }).encode()
    files = {f"{digest(config)}.json": config}
    files |= {f"{digest(x)}/layer.tar": x for x in layers}
    files["manifest.json"] = json.dumps([{
        "Config": f"{digest(config)}.json", "RepoTags": ["app:latest"],
        "Layers": [f"{digest(x)}/layer.tar" for x in layers],
    }]).encode()
    top = digest(layers[-1])
    files["repositories"] = json.dumps({"app": {"latest": top}}).encode()
    parent = {}
    for x in layers:
        files[f"{digest(x)}/json"] = json.dumps({"id": digest(x)} | parent).encode()
        files[f"{digest(x)}/VERSION"] = b"1.0"
        parent = {"parent": digest(x)}
    with tarfile.open(name, "w") as archive:
        for path, data in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


FILE, FOLDER = tarfile.REGTYPE, tarfile.DIRTYPE
old = tar(("d/", FOLDER, ""), ("d/old", FILE, "old"))
image("whiteout.tar", old, tar((".wh.d", FILE, ""), ("d/", FOLDER, ""), ("d/new", FILE, "new")))
image("opaque.tar", old, tar(("d/.wh..wh..opq", FILE, ""), ("d/new", FILE, "new")))
image("links.tar", tar(
    ("usr/bin/tool", FILE, "tool"), ("usr/bin/alias", tarfile.LNKTYPE, "usr/bin/tool"),
    ("bin", tarfile.SYMTYPE, "usr/bin"),
))
PY

undock() {
    rm -rf out
    mkdir out
    undocker --output out <"$1" >undocker.log 2>&1
    find out -mindepth 1 -printf '%P ' | xargs -n 1 | sort | xargs
}
squash() {
    rm -rf out image
    mkdir out image
    tar -xf "$1" -C image
    container_inspector_squash image out >squash.log 2>&1
    find out -mindepth 1 -not -type d -printf '%P mode %m\n' | sort
}
expect "undocker, a whiteout and a new directory" "" "$(undock whiteout.tar)"
expect "undocker, an opaque whiteout" "d d/new d/old" "$(undock opaque.tar)"
expect "container_inspector_squash, links" "usr/bin/tool mode 644" "$(squash links.tar)"
