"""The other ways to the same tar, and the floors that no way can be below.

Each is one command that reads the image and writes ``out.tar`` in the scratch
directory; what it keeps besides goes there too. Those of several programs are a few
lines of shell, whose children are counted.
"""

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import archive
import measure
from corpus import FORMS, Made
from measure import Command

EXTRACT = r"""
out=$1 root=$2/root; shift 2; mkdir "$root"
for layer; do
  tar -tf "$layer" | grep -E '(^|/)[.]wh[.]' | while IFS= read -r path; do
    name=${path##*/} folder=$root/${path%"${path##*/}"}
    case $name in
      .wh..wh..opq) if [ -d "$folder" ]; then find "$folder" -mindepth 1 -delete; fi ;;
      *) rm -rf "$folder${name#.wh.}" ;;
    esac
  done
  tar -C "$root" -xpf "$layer" --numeric-owner --exclude='.wh.*'
done
tar -C "$root" -cf "$out" --numeric-owner .
"""
HASH = """
ref=$1 out=$2; shift 2
printf '%s\\0' "$@" | xargs -0 -n 1 -P 2 {program} >"$out.sums"
cp "$ref" "$out"
"""
IN_TURN = 'for layer; do {program} "$layer"; done'
UMOCI = """
export TMPDIR=$3
skopeo --insecure-policy copy -q "$1" "oci:$3/oci:latest"
umoci unpack --image "$3/oci:latest" "$3/bundle"
tar -C "$3/bundle/rootfs" -cf "$2" --numeric-owner .
"""
PODMAN = """
export TMPDIR=$3
own() { podman --root "$store/root" --runroot "$run" "$@"; }
store=$3 run=$(mktemp -d /tmp/bench.XXXXXX)  # podman refuses more than 50 characters
trap 'rm -rf "$run"' EXIT
image=$(own load -q -i "$1")
container=$(own create "${image##* }" sh)
own export -o "$2" "$container"
"""
BUILDAH = """
export TMPDIR=$3
own() { buildah --root "$store/root" --runroot "$store/run" "$@"; }
store=$3
container=$(own from -q "$1")
root=$(own mount "$container")
tar -C "$root" -cf "$2" --numeric-owner .
own umount "$container"
"""
DOCKER = """
docker load -q -i "$1"
id=$(docker create {name} sh)
docker export -o "$2" "$id"
docker rm "$id"
docker rmi {name}
""".replace("{name}", archive.NAME)


@dataclass(frozen=True)
class Job:
    """An image to flatten, and where.

    Attributes:
        scratch: Emptied before every run.
        kept: Where flatten's own output is kept, for those who copy it.
        flatten: The command that is measured, without arguments.
    """

    image: Made
    scratch: Path
    kept: Path
    flatten: tuple[str, ...]

    @property
    def out(self) -> Path:
        """Return where every command writes."""
        return self.scratch / "out.tar"

    @property
    def transport(self) -> str:
        """Return the image as skopeo, podman and buildah name it."""
        kind = "docker" if self.image.form in ("plain", "gzip-hybrid") else "oci"
        return f"{kind}-archive:{self.image.path}"

    def reference(self) -> Path:
        """Return flatten's output, made if the one that is kept is another's."""
        path = self.kept / self.image.path.name
        if not path.exists():
            measure.empty(self.kept)
            measure.run(flatten(self, "--no-verify", "-o", str(path)), self.scratch)
        return path


def flatten(job: Job, *options: str) -> Command:
    """Return the command that the others are held against.

    It does not wait for the disk, as no other does.
    """
    where = () if "-o" in options else ("-o", str(job.out))
    options = ("--no-fsync", *options)
    return Command("flatten", (*job.flatten, str(job.image.path), *where, *options))


def shell(name: str, script: str, *words: str | Path) -> Command:
    """Return a few lines of shell as a command."""
    return Command(name, ("sh", "-euc", script, "sh", *map(str, words)))


def in_turn(job: Job, name: str, program: str) -> Command:
    """Return a command that writes each layer after the other to one file."""
    script = IN_TURN.format(program=program)
    words = map(str, job.image.layers)
    return Command(name, ("sh", "-euc", script, "sh", *words), stdout=job.out)


def copy(job: Job) -> Command:
    """Copy the output: no way is faster that writes it all."""
    return Command("cp", ("cp", str(job.reference()), str(job.out)))


def copy_blocks(job: Job) -> Command:
    """Copy the output where it could be shared."""
    argv = ("cp", "--reflink=never", str(job.reference()), str(job.out))
    return Command("cp --reflink=never", argv)


def concatenate(job: Job) -> Command:
    """Write the layers as they are to one file."""
    words = map(str, job.image.layers)
    return Command("cat", ("cat", *words), stdout=job.out)


def hash_and_copy(job: Job) -> Command:
    """Hash the layers two at a time, then copy the output.

    By openssl where there is one: Debian's sha256sum is built without it, and takes
    seven times as long where the processor has instructions for SHA-256.
    """
    program = "openssl dgst -sha256" if shutil.which("openssl") else "sha256sum"
    script = HASH.format(program=program)
    words = (job.reference(), job.out, *job.image.layers)
    return shell(f"{program}, cp", script, *words)


def inflate(job: Job) -> Command:
    """Inflate the layers in turn with ISA-L, the fastest there is for one core."""
    if shutil.which("igzip"):
        return in_turn(job, "igzip -dc", "igzip -dc")
    program = f"'{sys.executable}' -m isal.igzip -dc"
    return in_turn(job, "python -m isal.igzip -dc, as igzip is absent", program)


def unzstd(job: Job) -> Command:
    """Decompress the layers in turn."""
    return in_turn(job, "zstd -dc", "zstd -dcq")


def start_python(_job: Job) -> Command:
    """Start and end Python."""
    return Command("python3 -c pass", (sys.executable, "-c", "pass"))


def extract(job: Job) -> Command:
    """Extract layer by layer with tar, removing what whiteouts say, and pack."""
    return shell("tar -x, tar -c", EXTRACT, job.out, job.scratch, *job.image.layers)


def undocker(job: Job) -> Command:
    """Run undocker, which reads docker-archives with plain layers."""
    return Command("undocker", ("undocker", str(job.image.path), str(job.out)))


def crane(job: Job) -> Command:
    """Run crane, which reads a docker-archive on standard input."""
    argv = ("crane", "export", "-", str(job.out))
    return Command("crane export", argv, stdin=job.image.path)


def umoci(job: Job) -> Command:
    """Copy to an OCI layout, unpack that, and pack again."""
    return shell("skopeo, umoci, tar", UMOCI, job.transport, job.out, job.scratch)


def podman(job: Job) -> Command:
    """Load into storage of its own, create a container, export it."""
    return shell("podman", PODMAN, job.image.path, job.out, job.scratch)


def buildah(job: Job) -> Command:
    """Pull into storage of its own, mount, and pack."""
    return shell("buildah, tar", BUILDAH, job.transport, job.out, job.scratch)


def docker(job: Job) -> Command:
    """Load into the daemon's storage, create a container, export it, remove both."""
    return shell("docker", DOCKER, job.image.path, job.out)


def oci_squash(job: Job) -> Command:
    """Squash all layers into one, in a new image."""
    work = ("--tmp-dir", str(job.scratch / "tmp"), "-o", str(job.out))
    count = str(len(job.image.layers))
    argv = ("oci-squash", "-f", count, *work, str(job.image.path))
    return Command("oci-squash", argv)


@dataclass(frozen=True)
class Rival:
    """A way to be compared with.

    Attributes:
        needs: The programs it is made of.
        forms: What it can read.
        probe: A command that must succeed for it to work here.
    """

    command: Callable[[Job], Command]
    needs: tuple[str, ...]
    forms: tuple[str, ...] = FORMS
    probe: tuple[str, ...] = ()

    def missing(self, form: str) -> str:
        """Say why it cannot be run here, or nothing."""
        if absent := [name for name in self.needs if not shutil.which(name)]:
            return f"no {' and no '.join(absent)} on PATH"
        if form not in self.forms:
            return f"does not read {form}"
        if self.probe:
            done = subprocess.run(self.probe, capture_output=True, check=False)
            if done.returncode:
                return f"`{' '.join(self.probe)}` fails"
        return ""


DOCKER_FORMS = ("plain", "gzip-hybrid")
GZIP_FORMS = ("gzip", "gzip-one", "gzip-hybrid")

FLOORS = {
    "cp": Rival(copy, ("cp",)),
    "cp --reflink=never": Rival(copy_blocks, ("cp",)),
    "cat": Rival(concatenate, ("cat",), ("plain",)),
    "hash, cp": Rival(hash_and_copy, ("cp", "xargs"), ("plain",)),
    "igzip -dc": Rival(inflate, (), GZIP_FORMS),
    "zstd -dc": Rival(unzstd, ("zstd",), ("zstd",)),
    "python3 -c pass": Rival(start_python, ()),
}
TOOLS = {
    "crane": Rival(crane, ("crane",), DOCKER_FORMS),
    "undocker": Rival(undocker, ("undocker",), ("plain",)),
    "tar": Rival(extract, ("tar", "grep", "find")),
    "umoci": Rival(umoci, ("skopeo", "umoci", "tar")),
    "podman": Rival(podman, ("podman",)),
    "buildah": Rival(buildah, ("buildah", "tar")),
    "docker": Rival(docker, ("docker",), DOCKER_FORMS, ("docker", "info")),
    "oci-squash": Rival(oci_squash, ("oci-squash",), ("plain",)),
}
RIVALS = FLOORS | TOOLS
