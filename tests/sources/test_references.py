"""References: the spellings of skopeo, paths that exist, and usual data directories."""

import os
import shutil
import subprocess
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

import flatten
from builders import archive, docker_archive, layers, oci_files
from flatten.sources.places import usual_place
from flatten.sources.references import parse_reference
from kinds import run
from stores import podman_image

TARS = layers(["a", "b"], ["-a", "c"])
NAMES = ("1.0", "localhost:5000/team/app:2")
ALPINE = "docker.io/library/alpine:3"


def oci(folder):
    for name, data in oci_files(TARS, names=NAMES).items():
        (folder / "oci" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "oci" / name).write_bytes(data)
    return "oci"


def oci_archive(folder):
    (folder / "oci.tar").write_bytes(archive(oci_files(TARS, names=NAMES).items()))
    return "oci.tar"


def docker(folder):
    (folder / "docker.tar").write_bytes(docker_archive(TARS, tags=NAMES))
    return "docker.tar"


WRITERS = {"oci": oci, "oci-archive": oci_archive, "docker-archive": docker}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def listed(reference):
    done = run("ls", "--no-cache", reference)
    assert done.returncode == 0, done.stderr
    return [line.split()[-1] for line in done.stdout.splitlines()]


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("name", [*NAMES, "@0"])
@pytest.mark.parametrize("mark", ["#", ":"])
def test_a_name_behind_either_mark(folder, kind, name, mark):
    path = WRITERS[kind](folder)

    assert listed(f"{kind}:{path}{mark}{name}") == ["b", "c"]
    assert listed(f"{kind}:{folder}/{path}{mark}{name}") == ["b", "c"]


@pytest.mark.parametrize("kind", WRITERS)
def test_a_name_that_is_not_there(folder, kind):
    path = WRITERS[kind](folder)
    done = run("ls", f"{kind}:{path}:2.0")

    assert done.returncode == 3
    assert f"{path}: no image '2.0'" in done.stderr


def test_a_path_that_exists_is_a_path(folder):
    """Even if it looks like a kind, a tag, a name in a registry or a URL."""
    for name in (
        "oci:x",
        "docker.tar:1.0",
        "docker.tar#1.0",
        "docker-daemon:app",
        "a:1",
    ):
        shutil.copy(folder / docker(folder), folder / name)
        assert listed(name) == ["b", "c"]
    for name in ("docker:/alpine:3", "https:/example.org/a.tar"):
        (folder / name).parent.mkdir(parents=True)
        shutil.copy(folder / "docker.tar", folder / name)
        assert listed(name.replace(":/", "://")) == ["b", "c"]
    assert parse_reference("docker-archive:docker.tar:1.0") == (
        "docker-archive", "docker.tar:1.0", None,
    )  # fmt: skip


def test_without_a_kind_a_colon_is_no_mark(folder):
    docker(folder)
    done = run("ls", "docker.tar:2.0")

    assert done.returncode == 3
    assert "'docker.tar:2.0': No such file" in done.stderr


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="needs skopeo")
@pytest.mark.parametrize("kind", ["oci", "oci-archive", "docker-archive", "dir"])
def test_what_skopeo_writes_under_the_reference_that_it_was_given(folder, kind):
    docker(folder)
    reference = f"{kind}:copy" if kind == "dir" else f"{kind}:copy:app:1"
    subprocess.run(
        ["skopeo", "copy", "-q", f"docker-archive:docker.tar:{NAMES[1]}", reference],
        check=True,
    )

    assert listed(reference) == ["b", "c"]


# --- usual data directories


@pytest.fixture
def store(folder, monkeypatch):
    root = folder / "containers" / "storage"
    podman_image(root, TARS, names=(ALPINE,))
    (folder / "storage.conf").write_text(
        f'[storage]\ngraphroot = "{root}"\nrootless_storage_path = "{root}"\n'
    )
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(folder / "storage.conf"))
    return root


@pytest.mark.parametrize(
    "rest", ["alpine:3", "docker.io/library/alpine:3", "#alpine:3", "#@0", ""]
)
@pytest.mark.usefixtures("store")
def test_the_store_that_storage_conf_names(rest):
    assert listed(f"containers-storage:{rest}") == ["b", "c"]


@pytest.mark.usefixtures("store")
def test_images_of_the_store():
    assert ALPINE in run("images", "containers-storage:").stdout


def test_a_path_to_a_store(store):
    assert listed(f"containers-storage:{store}#alpine:3") == ["b", "c"]
    missing = run("ls", f"containers-storage:{store}x")
    assert f"'{store}x': No such file" in missing.stderr


def test_an_output_within_the_store(store):
    with pytest.raises(flatten.UsageError, match="in the image's directory"):
        flatten.export("containers-storage:alpine:3", store / "out.tar")


@pytest.mark.usefixtures("store")
def test_a_storage_conf_that_cannot_be_used(folder, monkeypatch):
    (folder / "storage.conf").write_text("[storage")
    assert "not TOML" in run("ls", "containers-storage:alpine").stderr

    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(folder / "missing"))
    done = run("ls", "containers-storage:alpine")
    assert (done.returncode, "missing: No such file" in done.stderr) == (3, True)


def place_of(kind, user, environment):
    os.environ.clear()
    os.environ.update(environment)
    if user:
        os.setresuid(user, user, user)
    return usual_place(kind)


PLACES = {
    "docker of root": ("docker-root", 0, {}, "/var/lib/docker"),
    "docker before 1.10": ("graph", 0, {}, "/var/lib/docker"),
    "containerd": ("containerd", 0, {}, "/var/lib/containerd"),
    "a kind without one": ("oci", 0, {}, None),
    "docker of root, used by another": ("docker-root", 1000, {}, "/var/lib/docker"),
    "docker of a user": (
        "docker-root", 1000, {"XDG_DATA_HOME": "{tmp}"}, "{tmp}/docker",
    ),
    "podman of a user": (
        "containers-storage", 1000, {"HOME": "{tmp}"},
        "{tmp}/.local/share/containers/storage",
    ),
    "podman of a user, as the user's storage.conf says": (
        "containers-storage", 1000, {"HOME": "{tmp}/home"}, "{tmp}/home/store/1000",
    ),
}  # fmt: skip


@pytest.fixture
def public():
    """Return a directory that every user may read; those of pytest are private."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        yield Path(made)


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_usual_data_directories(public, place):
    folder = public
    (folder / "docker").mkdir()
    (folder / "home" / ".config" / "containers").mkdir(parents=True)
    (folder / "home" / ".config" / "containers" / "storage.conf").write_text(
        '[storage]\ngraphroot = "$HOME/store/$UID"\n'
    )
    kind, user, environment, want = place
    environment = {key: text.format(tmp=folder) for key, text in environment.items()}
    with ProcessPoolExecutor(1, get_context("fork")) as other:
        found = other.submit(place_of, kind, user, environment).result()

    assert found == (want and want.format(tmp=folder))
