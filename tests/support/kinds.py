"""One image in every kind of source, for what must answer alike on all of them."""

import io
import subprocess
from contextlib import redirect_stderr, redirect_stdout

import builders
from builders import archive, config, docker_archive, oci_files
from flatten.cli.main import main
from stores import (
    chain_of,
    containerd_image,
    containerd_root,
    podman_image,
    target,
    unpack,
)


def docker(folder, tars, **document):
    """Write an archive of docker's; return the reference."""
    (folder / "docker.tar").write_bytes(
        docker_archive(tars, config_document=config(tars, **document))
    )
    return str(folder / "docker.tar")


def oci(folder, tars, **document):
    """Write a layout; return the reference."""
    for name, data in oci_files(tars, documents={"config": document}).items():
        path = folder / "layout" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return str(folder / "layout")


def oci_archive(folder, tars, **document):
    """Write an archive of a layout; return the reference."""
    files = oci_files(tars, documents={"config": document})
    (folder / "oci.tar").write_bytes(archive(files.items()))
    return str(folder / "oci.tar")


def docker_root(folder, tars, **document):
    """Write a data root of docker's; return the reference."""
    builders.docker_root(folder / "docker", tars, **document)
    return str(folder / "docker")


def containers_storage(folder, tars, **document):
    """Write a store of podman's; return the reference."""
    podman_image(folder / "podman", tars, document=config(tars, **document))
    return str(folder / "podman")


def containerd(folder, tars, **document):
    """Write a root of containerd's, its layers unpacked; return the reference."""
    blobs, manifest = containerd_image(tars, documents={"config": document})
    names = {"moby": {"docker.io/library/app:1": target(manifest)}}
    root = containerd_root(folder / "containerd", blobs, names)
    if tars:
        unpack(root, chain_of(tars))
    return str(root)


ARCHIVES = {"docker-archive": docker, "oci": oci, "oci-archive": oci_archive}
ROOTS = {
    "docker-root": docker_root,
    "containers-storage": containers_storage,
    "containerd": containerd,
}
KINDS = ARCHIVES | ROOTS


def history(*steps):
    """Return a config's history: a text is a step with a layer, ``-text`` has none."""
    return [
        {"created_by": step.removeprefix("-"), "created": f"2024-01-{day:02}T00:00:00Z"}
        | ({"empty_layer": True} if step.startswith("-") else {})
        for day, step in enumerate(steps, 1)
    ]


def run(*args):
    """Run the command in this process; return its exit code and what it said."""
    out = io.TextIOWrapper(io.BytesIO(), "utf-8", "surrogateescape", write_through=True)
    err = io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main([str(arg) for arg in args])
    text = out.buffer.getvalue().decode("utf-8", "surrogateescape")
    return subprocess.CompletedProcess(args, code, text, err.getvalue())
