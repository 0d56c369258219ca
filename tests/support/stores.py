"""Roots of podman and of containerd, written for tests."""

import io
import json
import tarfile
from base64 import b64encode

from bolts import bolt
from builders import TRUSTED, config, digest, oci_files, split

TREES = {
    "overlay": "overlay/{}/diff",
    "vfs": "vfs/dir/{}",
    "btrfs": "btrfs/subvolumes/{}",
}


def layer_ids(tars):
    """Return the ids of layers, as containers-storage makes them."""
    ids = []
    for tar in tars:
        parent = f"{ids[-1]}+" if ids else ""
        ids.append(digest((parent + digest(tar)).encode()) if ids else digest(tar))
    return ids


def podman_image(
    root,
    tars,
    names=("docker.io/library/app:1",),
    driver="overlay",
    *,
    document=None,
    **record,
):
    """Add an image to a store, and return its id."""
    data = json.dumps(config(tars) if document is None else document).encode()
    image_id, ids = digest(data), layer_ids(tars)
    key = f"sha256:{image_id}"
    images = root / f"{driver}-images"
    (images / image_id).mkdir(parents=True)
    (images / image_id / f"={b64encode(key.encode()).decode()}").write_bytes(data)
    (images / image_id / "manifest").write_text(json.dumps({"config": {"digest": key}}))
    listed = {
        "id": image_id, "digest": f"sha256:{digest(b'manifest')}", "names": list(names),
        "layer": ids[-1] if ids else "", "big-data-names": [key, "manifest"],
    }  # fmt: skip
    append(images / "images.json", listed | record)
    (root / f"{driver}-layers").mkdir(exist_ok=True)
    for position, (layer_id, tar) in enumerate(zip(ids, tars, strict=True)):
        tree = root / TREES[driver].format(layer_id)
        if tree.exists():
            continue
        for below in tars[: position + 1] if driver != "overlay" else [tar]:
            with tarfile.open(fileobj=io.BytesIO(below)) as opened:
                opened.extractall(tree, **TRUSTED)
        (root / f"{driver}-layers" / f"{layer_id}.tar-split.gz").write_bytes(split(tar))
        made = {
            "id": layer_id,
            "diff-digest": f"sha256:{digest(tar)}",
            "diff-size": len(tar),
        }
        made |= {"parent": ids[position - 1]} if position else {}
        append(root / f"{driver}-layers" / "layers.json", made)
    return image_id


def append(path, record):
    records = json.loads(path.read_text()) if path.exists() else []
    path.write_text(json.dumps([*records, record]))


CONTENT = "io.containerd.content.v1.content"
NAMES = "io.containerd.metadata.v1.bolt/meta.db"


def zigzag(number):
    number, out = number << 1, bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def target(data):
    """Return what meta.db says of a name that leads to a blob."""
    described = {
        b"digest": b"sha256:" + digest(data).encode(),
        b"size": zigzag(len(data)),
        b"mediatype": b"application/vnd.oci.image.manifest.v1+json",
    }
    return {b"createdat": b"", b"target": described}


def containerd_image(tars, **options):
    """Return the blobs of an image, and the one of them that is its manifest."""
    files = oci_files(tars, **options)
    index = json.loads(files["index.json"])
    name = index["manifests"][0]["digest"].replace("sha256:", "blobs/sha256/")
    blobs = {path: data for path, data in files.items() if path.startswith("blobs/")}
    return blobs, files[name]


def containerd_root(root, blobs, names=None):
    """Write a root: blobs, and {namespace: {name: image bucket}}."""
    for name, data in blobs.items():
        path = root / CONTENT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    if names is not None:
        tree = {
            space.encode(): {b"images": {n.encode(): i for n, i in images.items()}}
            for space, images in names.items()
        }
        (root / NAMES).parent.mkdir(parents=True, exist_ok=True)
        (root / NAMES).write_bytes(bolt({b"v1": {b"version": b"\6"} | tree}))
    return root


def chain_of(tars):
    """Return the chain ids of layers."""
    ids = [f"sha256:{digest(tars[0])}"]
    for tar in tars[1:]:
        ids.append(f"sha256:{digest(f'{ids[-1]} sha256:{digest(tar)}'.encode())}")
    return ids


def unpack(root, keys, driver="overlayfs", space="moby"):
    """Make snapshots, each on the one before; return their directories."""
    place = root / f"io.containerd.snapshotter.v1.{driver}"
    tree, trees, parent = {}, [], b""
    for number, key in enumerate(keys, 1):
        whole = f"{space}/{2 * number}/{key}".encode()
        tree[whole] = {b"id": bytes([number]), b"kind": b"\3", b"size": zigzag(4096)}
        tree[whole] |= {b"parent": parent} if parent else {}
        parent = whole
        trees.append(
            place
            / "snapshots"
            / str(number)
            / ("" if driver in {"native", "btrfs"} else "fs")
        )
        trees[-1].mkdir(parents=True)
    (place / "metadata.db").write_bytes(bolt({b"v1": {b"snapshots": tree}}))
    return trees
