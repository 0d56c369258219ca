"""Real podman, buildah, skopeo and containerd: their roots against what they export.

`make check-engines` runs these. Each engine has its own root, nothing of the machine's
is touched; what an engine cannot do here is said by the test that skips.
"""

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pytest

import flatten
from builders import docker_archive, layers, member
from flatten.sources.open import open_source
from listing import contents, listing

pytestmark = [
    pytest.mark.engines,
    pytest.mark.skipif(os.geteuid() != 0, reason="engines need root"),
]

ODD = layers(
    [
        "d/", "d/a", member("d/own", b"own", uid=7, gid=8, mode=0o4755), "h1", "h2=h1",
        "s->d/a", "e/", "e/x", "e/y", member("n" * 120, b"long"),
        member("fifo", type=b"6"), member("dev", type=b"3", device=(1, 3)),
        member("big", os.urandom(300_000)), member("t", b"", mtime=1_000_000_000),
        member("cap", b"c", mode=0o755, records={
            b"SCHILY.xattr.security.capability":
                b"\1\0\0\2\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0"}),
        member("x", b"x", records={b"SCHILY.xattr.user.note": b"hi\0there"}),
    ],
    ["-d/a", "d/", "d/new", "e/", "e/*", "e/z", "h1"],
    ["-s", "s/", "s/file", "d/", member("d/new", b"newer", uid=1000, gid=1000)],
)  # fmt: skip

CHANGES = """
echo hi > "$1/new"; chown 5:6 "$1/new"; ln "$1/new" "$1/again"; rm "$1/d/own"
mkdir -p "$1/a/b"; chown 70:80 "$1/a"; chmod 2755 "$1/a/b"; mkfifo "$1/pipe"
rm -r "$1/e"; mkdir "$1/e"; echo e > "$1/e/other"; mv "$1/d/new" "$1/d/moved"
touch -d 2005-01-02T03:04:05Z "$1/a/b"; chmod 600 "$1/big"
setcap cap_net_raw+ep "$1/new"; rm "$1/h1"; ln -s ../x "$1/a/link"
"""


def run(*command, **options):
    """Run a command; its output is in the error if it fails."""
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, **options
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def needs(*tools):
    for tool in tools:
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}")


@pytest.fixture(scope="module")
def folder():
    """Return a directory that other users may enter, unlike pytest's.

    Its name is short: mount(8) passes the lower layers of an overlay to fsconfig, which
    takes 256 bytes.
    """
    path = Path(tempfile.mkdtemp(prefix="f-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def archive(folder):
    """Return a docker archive with unusual layers."""
    path = folder / "odd.tar"
    path.write_bytes(docker_archive(ODD, tags=["odd:1"]))
    path.chmod(0o644)
    return path


def tree(tar):
    """List a tar; podman writes file types into modes and leaves out the root."""
    rows = [row for row in listing(tar) if row["path"]]
    return {
        row["path"]: row | {"mode": f"{int(row['mode'], 8) & 0o7777:04o}"}
        for row in rows
    }


def differing(got, want):
    """Return the differences of two trees."""
    return {
        path: (got.get(path), want.get(path))
        for path in got.keys() | want.keys()
        if got.get(path) != want.get(path)
    }


def flat(reference, out, **options):
    flatten.export(str(reference), out, **options)
    return out.read_bytes()


# --- podman


class Podman:
    """A podman with its own root, of root or of a user made for it."""

    def __init__(self, folder, driver, user=None):
        self.folder, self.user = folder, user
        self.root = folder / "storage"
        self.driver = driver
        folder.mkdir()
        if user:
            shutil.chown(folder, user, user)

    def command(self, *arguments):
        options = ["--storage-driver", self.driver, "--cgroup-manager", "cgroupfs",
                   "--events-backend", "none"]  # fmt: skip
        podman = [
            "podman",
            "--root",
            self.root,
            "--runroot",
            self.folder / "run",
            *options,
        ]
        prefix = []
        if self.user:
            prefix = ["runuser", "-u", self.user, "--", "env", "-i", f"PATH={os.environ['PATH']}", f"HOME={self.folder}",
                      f"XDG_RUNTIME_DIR={self.folder}", f"TMPDIR={self.folder}",]  # fmt: skip
        return [*prefix, *podman, *arguments]

    def __call__(self, *arguments, **options):
        return run(*self.command(*arguments), cwd=self.folder, **options)

    def change(self, container, script):
        """Mount a container, in the user's namespace, and change it."""
        mount = " ".join(map(str, self.plain("mount", container)))
        shell = f"m=$({mount}) && sh -ec '{script}' sh $m"
        inner = ["sh", "-ec", shell]
        run(*(self.command("unshare", *inner) if self.user else inner), cwd=self.folder)
        if not self.user:
            self("umount", container)

    def plain(self, *arguments):
        command = self.command(*arguments)
        return command[command.index("podman") :]


@pytest.fixture(scope="module")
def user():
    """Return a user who was made for these tests, with ids of its own."""
    needs("newuidmap", "useradd", "runuser")
    name = f"flatten{os.getpid()}"
    run("useradd", "--no-create-home", name)
    if name not in Path("/etc/subuid").read_text():
        run("usermod", "--add-subuids", "600000-665535", "--add-subgids",
            "600000-665535", name)  # fmt: skip
    yield name
    uid = pwd.getpwnam(name).pw_uid
    for process in Path("/proc").glob("[0-9]*"):  # the user's pause process, no other's
        with suppress(OSError):
            if process.stat().st_uid == uid:
                os.kill(int(process.name), 9)
    time.sleep(0.2)
    run("userdel", name)


STORES = ("overlay", "vfs", "rootless overlay", "rootless vfs")


@pytest.fixture(scope="module", params=STORES)
def podman(request, folder, archive):
    needs("podman")
    *rootless, driver = request.param.split()
    user = request.getfixturevalue("user") if rootless else None
    engine = Podman(folder / request.param.replace(" ", "-"), driver, user)
    done = subprocess.run(
        engine.command("load", "-i", archive),
        check=False, capture_output=True, text=True, cwd=engine.folder,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"podman cannot load here: {done.stderr.strip()[-300:]}")
    return engine


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
def test_an_image_is_what_podman_saves(podman, tmp_path, form):
    saved = podman.folder / f"{form}.tar"
    podman("save", "--format", form, "-o", saved, "odd:1")

    got = flat(f"containers-storage:{podman.root}#odd:1", tmp_path / "root.tar")

    assert got == flat(saved, tmp_path / "save.tar")
    assert flat(podman.root, tmp_path / "o.tar") == got  # the kind is found out


def test_an_image_is_what_skopeo_copies(podman, tmp_path):
    needs("skopeo")
    if podman.user:
        pytest.skip("a user's store is skopeo's only in the user's namespace")
    store = f"[{podman.driver}@{podman.root}+{podman.folder / 'run'}]"
    run("skopeo", "--insecure-policy", "copy",
        f"containers-storage:{store}localhost/odd:1", f"oci-archive:{tmp_path / 's.tar'}")  # fmt: skip

    got = flat(f"{podman.root}#odd:1", tmp_path / "root.tar")

    assert got == flat(tmp_path / "s.tar", tmp_path / "copy.tar")


def test_a_container_is_what_podman_exports(podman, tmp_path):
    needs("setcap")
    podman("create", "--name", "box", "odd:1", "/x")
    podman("create", "--name", "new", "odd:1", "/x")
    podman.change("box", CHANGES)
    for name in ("box", "new"):
        podman("export", "-o", podman.folder / f"{name}.tar", name)
        flat(f"{podman.root}#container:{name}", tmp_path / f"{name}.tar")

        want = tree(podman.folder / f"{name}.tar")
        if podman.user:  # a user cannot make devices; the record of the layer has it
            want["dev"] = tree(tmp_path / f"{name}.tar")["dev"]
        got = tree(tmp_path / f"{name}.tar")
        assert differing(got, want) == {}


def test_a_container_in_its_own_user_namespace(podman, tmp_path):
    """Podman 4.3 exports such a one with the ids that it has outside."""
    start = 1 if podman.user else 200_000
    maps = [f"--{kind}map=0:{start}:{1000 if podman.user else 65536}"
            for kind in ("uid", "gid")]  # fmt: skip
    podman("create", "--name", "mapped", *maps, "odd:1", "/x")
    podman("export", "-o", podman.folder / "mapped.tar", "mapped")
    flat(f"{podman.root}#container:mapped", tmp_path / "mapped.tar")

    got, want = tree(tmp_path / "mapped.tar"), tree(podman.folder / "mapped.tar")
    for path in ("d/own", "h1", "big", "e/z", "x"):
        ids = {key: got[path][key] + start for key in ("uid", "gid")}
        assert got[path] | ids == want[path]
    assert got["d/own"]["uid"] == 7
    assert got["d/new"]["uid"] == 1000
    assert got.keys() - want.keys() <= {"dev"}  # no device can be made there


def test_a_user_reads_the_users_store(podman, tmp_path):
    """In the user's namespace, where nobody sees xattrs called trusted."""
    if not podman.user:
        pytest.skip("that is of a user's store")
    needs("setcap")
    python = [sys.executable, "-m", "flatten"]
    readable = ["runuser", "-u", podman.user, "--", *python, "--version"]
    if subprocess.run(readable, check=False, capture_output=True).returncode:
        pytest.skip("the user may not read this Python")
    podman("create", "--name", "mine", "odd:1", "/x")
    podman.change("mine", CHANGES)
    for name in ("odd:1", "container:mine"):
        out = podman.folder / "mine.tar"
        podman("unshare", *python, f"{podman.root}#{name}", "-o", out)

        assert out.read_bytes() == flat(f"{podman.root}#{name}", tmp_path / "o.tar")


def test_an_image_that_podman_commits(podman, tmp_path):
    needs("setcap")
    podman("create", "--name", "source", "odd:1", "/x")
    podman.change("source", CHANGES)
    podman("commit", "source", "committed:1")
    podman("save", "-o", podman.folder / "committed.tar", "committed:1")

    got = flat(f"{podman.root}#committed:1", tmp_path / "root.tar")

    assert got == flat(f"{podman.folder / 'committed.tar'}", tmp_path / "save.tar")


def test_everything_in_a_podman_store_is_listed_and_nothing_is_an_orphan(podman):
    with open_source(str(podman.root)) as opened:
        names = {name for entry in opened.entries for name in entry.names}
        survey = opened.survey()

    assert "localhost/odd:1" in names
    assert {d.cache_id for d in survey.directories} == (
        {stored.place.cache_id for stored in survey.layers}
        | {own for container in survey.containers for own in container.own}
    )
    assert survey.leftovers == []


def test_a_working_container_of_buildah(folder, archive, tmp_path):
    needs("buildah", "setcap")
    options = ["--root", folder / "buildah", "--runroot", folder / "buildah-run",
               "--storage-driver", "overlay"]  # fmt: skip
    buildah = lambda *words: run("buildah", *options, *words)  # noqa: E731
    name = buildah("from", f"docker-archive:{archive}")
    mounted = buildah("mount", name)
    run("sh", "-ec", CHANGES, "sh", mounted)
    run("tar", "-C", mounted, "-cf", tmp_path / "mounted.tar", "--numeric-owner", ".")
    buildah("umount", name)
    image = buildah("commit", name, "made:1").splitlines()[-1]
    flat(f"{folder / 'buildah'}#container:{name}", tmp_path / "box.tar")
    flat(f"{folder / 'buildah'}#{image[:12]}", tmp_path / "image.tar")

    want = contents(tmp_path / "mounted.tar")
    want = {path.removeprefix("./"): data for path, data in want.items()}
    box, made = contents(tmp_path / "box.tar"), contents(tmp_path / "image.tar")
    assert {p: box[p] for p in box if p != "./"} == {p: want[p] for p in want if p}
    assert made.keys() - {"./"} == box.keys() - {"./"}
    buildah("rm", "--all")


# --- containerd


@pytest.fixture(scope="module")
def ctr(folder):
    """Return a function that runs ctr, with a containerd of its own."""
    needs("containerd", "ctr")
    place = folder / "c"
    place.mkdir()
    address = place / "containerd.sock"
    (place / "config.toml").write_text(
        f'version = 2\nroot = "{place / "root"}"\nstate = "{place / "state"}"\n'
        f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\naddress = "{address}"\n'
    )
    with (place / "log").open("wb") as log:
        daemon = subprocess.Popen(
            ["containerd", "--config", place / "config.toml"], stdout=log, stderr=log
        )
    ctr = lambda *words: run("ctr", "-a", address, *words)  # noqa: E731
    asking = ["ctr", "-a", address, "version"]
    for _ in range(100):
        if not subprocess.run(asking, check=False, capture_output=True).returncode:
            break
        time.sleep(0.1)
    else:
        daemon.kill()
        pytest.skip(f"containerd does not start: {(place / 'log').read_text()[-300:]}")
    ctr.root = place / "root"
    ctr.daemon = daemon
    yield ctr
    daemon.terminate()
    daemon.wait(20)


SNAPSHOTTERS = ("overlayfs", "native")


@pytest.fixture(scope="module")
def imported(ctr, folder, archive):
    """Import the odd image plain and, as podman saves it, in gzip."""
    import_ = ["images", "import"]
    if "--local" in ctr(*import_, "--help"):  # otherwise 2.1 wants them configured
        import_.append("--local")
    for snapshotter in SNAPSHOTTERS:
        ctr(*import_, "--snapshotter", snapshotter, archive)
    needs("podman")
    maker = Podman(folder / "maker", "vfs")
    maker("load", "-i", archive)
    maker("save", "--format", "oci-archive", "-o", folder / "gzip.tar", "odd:1")
    ctr("-n", "k8s.io", *import_, "--snapshotter", "native", folder / "gzip.tar")
    return ctr


@pytest.mark.parametrize(
    ("space", "name"),
    [("default", "docker.io/library/odd:1"), ("k8s.io", "localhost/odd:1")],
)
def test_an_image_is_what_ctr_exports(imported, tmp_path, archive, space, name):
    listed = imported("-n", space, "images", "list", "-q").split()
    name = name if name in listed else listed[0]
    imported("-n", space, "images", "export", tmp_path / "export.tar", name)

    got = flat(f"{imported.root}#{name}", tmp_path / "root.tar", store=space)

    assert got == flat(tmp_path / "export.tar", tmp_path / "other.tar")
    assert got == flat(archive, tmp_path / "archive.tar")


def mounted(ctr, space, key, snapshotter, target):
    """Mount a snapshot as ctr says."""
    command = ctr("-n", space, "snapshots", "--snapshotter", snapshotter, "mounts",
                  target, key)  # fmt: skip
    target.mkdir(exist_ok=True)
    run("sh", "-ec", command)


@pytest.mark.parametrize("snapshotter", SNAPSHOTTERS)
def test_a_container_is_what_its_mount_shows(imported, tmp_path, snapshotter):
    needs("setcap")
    image = "docker.io/library/odd:1"
    box = f"box-{snapshotter}"
    imported("containers", "create", "--snapshotter", snapshotter, image, box, "/x")
    mounted(imported, "default", box, snapshotter, tmp_path / "m")
    try:
        run("sh", "-ec", CHANGES, "sh", tmp_path / "m")
        tar = f"tar -cf {tmp_path}/want.tar --xattrs --xattrs-include=* --format=pax *"
        run("sh", "-ec", tar, cwd=tmp_path / "m")
    finally:
        run("umount", tmp_path / "m")

    flat(f"{imported.root}#container:{box}", tmp_path / "box.tar")

    got, want = tree(tmp_path / "box.tar"), tree(tmp_path / "want.tar")
    assert got.keys() == want.keys()
    for path in ("new", "again", "a", "a/b", "pipe", "e/other", "d/moved", "big"):
        same = got[path] | {"mtime": 0}
        assert same == want[path] | {"mtime": 0}, path
    assert contents(tmp_path / "box.tar")["d/moved"] == "newer"


def test_a_root_is_read_while_the_daemon_is_busy(imported, tmp_path, archive):
    """Names come and go while the names are read."""
    stop = tmp_path / "stop"
    script = (
        f"while [ ! -e {stop} ]; do for n in 1 2 3 4 5 6 7 8; do "
        f"ctr -a {imported.root.parent}/containerd.sock images tag --force "
        "docker.io/library/odd:1 x/tag:$n; done; done"
    )
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.DEVNULL) as busy:
        try:
            for _ in range(10):
                flat(f"{imported.root}#docker.io/library/odd:1", tmp_path / "o.tar",
                     store="default")  # fmt: skip
        finally:
            stop.touch()
            busy.wait(30)

    assert (tmp_path / "o.tar").read_bytes() == flat(archive, tmp_path / "a.tar")


def test_discarded_blobs_are_read_from_snapshots(imported, tmp_path, folder, archive):
    """Last: what is removed does not come back."""
    imported.daemon.terminate()
    imported.daemon.wait(20)
    root = folder / "discarded"
    run("cp", "-a", imported.root, root)
    with flatten.open_image(
        f"{root}#docker.io/library/odd:1", store="default"
    ) as image:
        blobs = [layer_.digest for layer_ in image.layers]
    for blob in blobs:
        (root / "io.containerd.content.v1.content/blobs/sha256" / blob[7:]).unlink()

    done = flatten.export(f"{root}#docker.io/library/odd:1", tmp_path / "o.tar",
                          store="default")  # fmt: skip

    assert len(done.warnings) == len(blobs)
    got, want = contents(tmp_path / "o.tar"), contents(archive_tree(archive, tmp_path))
    assert {p: got[p] for p in got if p != "./"} == want


def archive_tree(archive, tmp_path):
    flat(archive, tmp_path / "archive.tar")
    return tmp_path / "archive.tar"
