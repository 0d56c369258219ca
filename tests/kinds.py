"""One image in every kind of source, for what must answer alike on all of them."""

import io
import subprocess
from contextlib import redirect_stderr, redirect_stdout

from builders import archive, config, docker_archive, oci_files
from flatten.cli import main


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


KINDS = {"docker-archive": docker, "oci": oci, "oci-archive": oci_archive}


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
        try:
            code = main([str(arg) for arg in args])
        except SystemExit as exit:  # argparse's
            code = exit.code
    text = out.buffer.getvalue().decode("utf-8", "surrogateescape")
    return subprocess.CompletedProcess(args, code, text, err.getvalue())
