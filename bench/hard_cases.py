"""Count how many hard cases each tool gets right.

    python bench/hard_cases.py                # every tool that is installed
    python bench/hard_cases.py umoci crane    # only these
    python bench/hard_cases.py --verbose      # also name the cases that went wrong

The cases are those of tests/tree/test_semantics.py: images of a few members each, and
the tree that the rules of docs/semantics.md give. A tool is given the image as an
archive of docker save, or as an OCI layout if it reads nothing else. If its output is a
tar, GNU tar unpacks it. A case is right if the tree has the expected paths, types, file
contents and symlink targets; owners, modes and times are not compared.

The count is given for all cases, and for those whose rule the OCI image-spec states.
Needs root, because a case has a device, and pytest.
"""

import argparse
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "support"), str(ROOT / "tests" / "tree")]

from test_semantics import TREES  # noqa: E402 - once the path is set

from builders import archive, config, digest, layers, oci_files  # noqa: E402

SECONDS = 60  # after which a tool is taken to hang


@dataclass(frozen=True)
class Tool:
    """A tool to try.

    Attributes:
        needs: The programs that must be installed.
        script: Shell commands that read ``image.tar`` or the OCI layout ``layout``
            (the image is called app:1, in the layout 1). They write ``out.tar``, the
            directory ``root``, or ``squashed.tar``, an archive of a one-layer image.
        adds: Paths that the tool adds to each tree.
        probe: A command that must succeed.
    """

    needs: tuple[str, ...]
    script: str
    adds: frozenset[str] = frozenset()
    probe: str = "true"


DOCKER_ADDS = frozenset({
    ".dockerenv", "dev", "dev/console", "dev/pts", "dev/shm", "etc", "etc/hostname",
    "etc/hosts", "etc/mtab", "etc/resolv.conf", "proc", "sys",
})  # fmt: skip
DOCKER_EXPORT = """
trap 'docker rmi -f app:1 >/dev/null 2>&1' EXIT
docker load -q -i image.tar
container=$(docker create app:1 sh)
docker export -o out.tar "$container" || status=$?
docker rm "$container"
exit ${status:-0}
"""
DOCKER_SQUASH = """
trap 'docker rmi -f app:1 >/dev/null 2>&1' EXIT
docker load -q -i image.tar
docker-squash --output-path squashed.tar app:1
"""
TAR = """
mkdir image root
tar -C image -xf image.tar
for layer in image/*/layer.tar; do tar -C root -xpf "$layer"; done
"""
TOOLS = {
    "flatten": Tool(("flatten",), "flatten image.tar --no-fsync -q -o out.tar"),
    "umoci": Tool(
        ("umoci",), "umoci unpack --image layout:1 bundle; mv bundle/rootfs root"
    ),
    "docker": Tool(("docker",), DOCKER_EXPORT, DOCKER_ADDS, "docker info"),
    "crane": Tool(("crane",), "crane export - out.tar <image.tar"),
    "undocker": Tool(("undocker",), "undocker -o root <image.tar"),
    "docker-squash": Tool(
        ("docker", "docker-squash"), DOCKER_SQUASH, probe="docker info"
    ),
    "oci-squash": Tool(("oci-squash",), "oci-squash -o squashed.tar image.tar"),
    "tar": Tool(("tar",), TAR),
}


def tree(top: Path) -> dict[str, str]:
    """Return the paths of a directory, in the words of the tests' table."""
    found = {}
    for folder, directories, files in os.walk(top):
        for name in (*directories, *files):
            path = Path(folder, name)
            key = path.relative_to(top).as_posix()
            mode = path.lstat().st_mode
            if stat.S_ISDIR(mode):
                found[f"{key}/"] = ""
            elif stat.S_ISLNK(mode):
                found[key] = f"->{os.readlink(path)}"
            elif stat.S_ISREG(mode):
                found[key] = path.read_bytes().decode("latin-1")
            else:
                found[key] = "chr" if stat.S_ISCHR(mode) else "other"
    return found


def unpack(tar: Path, root: Path) -> None:
    """Unpack a tar with GNU tar."""
    root.mkdir(exist_ok=True)
    subprocess.run(
        ["tar", "-C", root, "-xpf", tar], check=True, capture_output=True
    )  # fmt: skip


def unpack_image(archive: Path, root: Path) -> None:
    """Unpack the layers of an image that should have one."""
    folder = root.with_name("squashed")
    unpack(archive, folder)
    (image,) = json.loads((folder / "manifest.json").read_bytes())
    for layer in image["Layers"]:
        unpack(folder / layer, root)


def docker_save(tars: Sequence[bytes]) -> bytes:
    """Write what Docker 1.10 to 24 saves, with the documents of earlier versions."""
    history = [{"created_by": f"step {number}"} for number, _ in enumerate(tars)]
    document = json.dumps(config(tars, history=history)).encode()
    ids = [f"{number + 1:064x}" for number, _ in enumerate(tars)]
    files: list[tuple[str, bytes]] = []
    for parent, name, tar in zip([None, *ids], ids, tars, strict=False):
        legacy = {"id": name, "os": "linux"} | ({"parent": parent} if parent else {})
        files += [
            (f"{name}/VERSION", b"1.0"),
            (f"{name}/json", json.dumps(legacy).encode()),
            (f"{name}/layer.tar", tar),
        ]
    manifest = [{
        "Config": f"{digest(document)}.json",
        "RepoTags": ["app:1"],
        "Layers": [f"{name}/layer.tar" for name in ids],
    }]  # fmt: skip
    repositories = {"app": {"1": ids[-1]}} if ids else {}
    return archive([
        *files,
        (f"{digest(document)}.json", document),
        ("manifest.json", json.dumps(manifest).encode()),
        ("repositories", json.dumps(repositories).encode()),
    ])  # fmt: skip


def write_image(work: Path, tars: Sequence[bytes]) -> None:
    """Write an image as a docker-archive and as an OCI layout."""
    (work / "image.tar").write_bytes(docker_save(tars))
    for name, data in oci_files(tars, names=("1",)).items():
        path = work / "layout" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def run(tool: Tool, tars: Sequence[bytes]) -> dict[str, str] | str:
    """Return the tree that a tool makes of an image, or why it makes none."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_image(work, tars)
        root = work / "root"
        try:
            subprocess.run(
                ["timeout", str(SECONDS), "sh", "-euc", tool.script],
                cwd=work, check=True, capture_output=True,
            )  # fmt: skip
            if (work / "squashed.tar").exists():
                unpack_image(work / "squashed.tar", root)
            elif (work / "out.tar").exists():
                unpack(work / "out.tar", root)
        except subprocess.CalledProcessError as error:
            said = error.stderr.decode(errors="replace")
            return said.strip().rpartition("\n")[2] or str(error)
        return tree(root)


def is_right(got: Mapping[str, str] | str, want: Mapping[str, str], tool: Tool) -> bool:
    """Return True if a tree is the expected one, except for what the tool adds."""
    if isinstance(got, str):
        return False
    added = {key for key in got if key.rstrip("/") in tool.adds and key not in want}
    return {key: got[key] for key in got.keys() - added} == want


def missing(tool: Tool) -> str:
    """Return why a tool cannot be tried here, or an empty string."""
    if absent := [name for name in tool.needs if not shutil.which(name)]:
        return f"{absent[0]} is not installed"
    probe = subprocess.run(["sh", "-c", tool.probe], capture_output=True, check=False)
    return f"`{tool.probe}` fails" if probe.returncode else ""


def stated_by_the_spec() -> set[str]:
    """Return the cases whose rule the OCI image-spec states."""
    text = (ROOT / "docs" / "semantics.md").read_text()
    rules = set(re.findall(r"^\| (\d+) \|.*\| spec \|", text, re.MULTILINE))
    return {case for case in TREES if case.partition(" ")[0] in rules}


def count(name: str, *, verbose: bool) -> str:
    """Try all cases with a tool, and return its row."""
    tool = TOOLS[name]
    if reason := missing(tool):
        return f"{name:14} {reason}"
    right = set()
    for case, (each, want) in TREES.items():
        got = run(tool, layers(*each))
        if is_right(got, want, tool):
            right.add(case)
        elif verbose:
            print(f"{name}: {case}:\n    {got}", file=sys.stderr)
    spec = stated_by_the_spec()
    return (
        f"{name:14} {len(right)} of {len(TREES)} right, "
        f"{len(right & spec)} of {len(spec)} that the spec states"
    )


def main() -> None:
    """Print a row for each tool."""
    parser = argparse.ArgumentParser(
        description="Count the hard cases that tools get right"
    )
    parser.add_argument("tools", nargs="*", metavar="TOOL", help=", ".join(TOOLS))
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="name failed cases"
    )
    args = parser.parse_args()
    if unknown := set(args.tools) - TOOLS.keys():
        parser.error(f"unknown tool {unknown.pop()!r} (choose from {', '.join(TOOLS)})")
    if os.geteuid() != 0:
        parser.error("must run as root, to unpack devices")
    for name in args.tools or TOOLS:
        print(count(name, verbose=args.verbose), flush=True)


if __name__ == "__main__":
    main()
