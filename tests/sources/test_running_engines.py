"""Images in running engines: a server with the Engine API, and the real engines."""

import http.server
import json
import os
import shutil
import socketserver
import subprocess
import threading
import time

import pytest

import flatten
from builders import docker_archive, layer, member
from command import run
from engines import call
from listing import contents
from needs import need
from registries import push, registry

NOISE = bytes(range(256)) * 3000
LAYERS = [layer(member("a", NOISE)), layer(member("b", b"2"), member(".wh.a"))]
ARCHIVE = docker_archive(LAYERS, tags=["app:latest"])


class Engine(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """An engine with one image.

    Attributes:
        asked: The paths of the requests.
        answer: Called with the handler: sends the archive.
    """

    daemon_threads = True

    def __init__(self, path):
        super().__init__(path, Handler)
        self.asked = []
        self.answer = in_chunks

    def handle_error(self, *_):
        """Say nothing: clients may leave."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def address_string(self):
        return "client"

    def log_message(self, *_):
        """Say nothing."""

    def do_GET(self):
        self.server.asked.append(self.path)
        self.server.answer(self)

    def begin(self, status, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()


def in_chunks(handler, data=ARCHIVE, *, complete=True):
    handler.begin(200, Content_Type="application/x-tar", Transfer_Encoding="chunked")
    for at in range(0, len(data), 100_001):
        part = data[at : at + 100_001]
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
    if complete:
        handler.wfile.write(b"0\r\n\r\n")
    else:
        handler.wfile.write(b"fffff\r\nabc")
        handler.close_connection = True


def says(status, text):
    body = json.dumps({"message": text}).encode()

    def answer(handler):
        handler.begin(status, Content_Length=str(len(body)))
        handler.wfile.write(body)

    return answer


@pytest.fixture(params=["docker-daemon", "podman"])
def kind(request):
    return request.param


@pytest.fixture
def engine(tmp_path, monkeypatch, kind):
    variable = "DOCKER_HOST" if kind == "docker-daemon" else "CONTAINER_HOST"
    with Engine(str(tmp_path / "s")) as server:
        monkeypatch.setenv(variable, f"unix://{tmp_path}/s")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def exported(reference, folder):
    flatten.export(reference, folder / "got.tar", sync=False)
    return (folder / "got.tar").read_bytes()


@pytest.fixture
def want(tmp_path):
    (tmp_path / "image.tar").write_bytes(ARCHIVE)
    flatten.export(tmp_path / "image.tar", tmp_path / "want.tar", sync=False)
    return (tmp_path / "want.tar").read_bytes()


NAMES = {
    "app": "app%3Alatest",
    "app:latest": "app%3Alatest",
    "localhost:5000/team/app": "localhost%3A5000%2Fteam%2Fapp%3Alatest",
    "0123456789ab": "0123456789ab",
    "sha256:" + "0" * 64: "sha256%3A" + "0" * 64,
    "app@sha256:" + "0" * 64: "app%40sha256%3A" + "0" * 64,
}


@pytest.mark.parametrize("name", NAMES)
def test_an_image_is_asked_for_by_its_name(engine, kind, want, tmp_path, name):
    assert exported(f"{kind}:{name}", tmp_path) == want
    assert engine.asked == [f"/v1.24/images/{NAMES[name]}/get"]


def test_a_stream_of_known_length(engine, kind, want, tmp_path):
    def answer(handler):
        handler.begin(200, Content_Length=str(len(ARCHIVE)))
        handler.wfile.write(ARCHIVE)

    engine.answer = answer
    assert exported(f"{kind}:app", tmp_path) == want


def test_every_command_reads_running_engines(engine, kind):
    assert run("ls", f"{kind}:app", "--no-cache").stdout.endswith(" b\n")
    assert "app:latest" in run("images", f"{kind}:app").stdout
    assert run("config", f"{kind}:app").returncode == 0
    assert len(engine.asked) == 3


def cut_short(handler):
    handler.begin(200, Content_Length=str(len(ARCHIVE)))
    handler.wfile.write(ARCHIVE[:100_000])
    handler.close_connection = True


BAD = {
    "no such image": (
        says(404, "No such image: app:latest"), flatten.SourceError,
        "app:latest: No such image: app:latest",
    ),
    "an error without a message": (
        lambda handler: handler.begin(500, Content_Length="0"), flatten.SourceError,
        "app:latest: HTTP 500",
    ),
    "chunks that end too soon": (
        lambda handler: in_chunks(handler, ARCHIVE[:200_000], complete=False),
        flatten.FlattenError, "the stream ended too soon",
    ),
    "fewer bytes than announced": (
        cut_short, flatten.FlattenError, "the stream ended too soon: .* are missing",
    ),
    "no HTTP": (
        lambda handler: handler.wfile.write(b"hello\n"), flatten.SourceError,
        "cannot reach the daemon",
    ),
    "an empty archive": (
        lambda handler: in_chunks(handler, bytes(1024)), flatten.SourceError,
        "not an image of the kind",
    ),
}  # fmt: skip


@pytest.mark.parametrize("bad", BAD)
def test_bad_answers(engine, kind, tmp_path, bad):
    engine.answer, error, why = BAD[bad]

    with pytest.raises(error, match=why) as caught:
        exported(f"{kind}:app", tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "got.tar").exists()


ADDRESSES = {
    "unix:///nowhere/s": (flatten.SourceError, "No such file or directory"),
    "tcp://localhost:1": (flatten.SourceError, "Connection refused"),
    "ssh://root@host": (flatten.UsageError, "only unix:// and tcp:// without TLS"),
    "tcp://localhost:99999": (
        flatten.UsageError,
        "only unix:// and tcp:// without TLS",
    ),
    "nonsense": (flatten.UsageError, "only unix:// and tcp:// without TLS"),
}


@pytest.mark.parametrize(("address", "refused"), ADDRESSES.items(), ids=ADDRESSES)
def test_addresses_that_cannot_be_used(tmp_path, monkeypatch, address, refused):
    monkeypatch.setenv("DOCKER_HOST", address)
    with pytest.raises(refused[0], match=refused[1]) as caught:
        exported("docker-daemon:app", tmp_path)
    assert address in str(caught.value)


@pytest.mark.parametrize("name", ["", "-app", "a b", "a\n", "../x"])
def test_names_that_are_none(tmp_path, kind, name):
    with pytest.raises(flatten.UsageError, match="is not the name or id of an image"):
        exported(f"{kind}:{name}", tmp_path)


def test_a_file_of_that_name_wins(want, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docker-daemon:app").write_bytes(ARCHIVE)

    assert exported("docker-daemon:app", tmp_path) == want


# --- the real engines


def until_it_listens(path, daemon, log):
    for _ in range(300):
        if os.path.exists(path):
            return
        if daemon.poll() is not None:
            break
        time.sleep(0.1)
    pytest.skip(f"{daemon.args[0]} does not start: {log.read_text()[-500:]}")


@pytest.fixture
def service():
    """Return a function that starts a daemon with a socket; it ends with the test."""
    started = []

    def start(folder, *command):
        if shutil.which(command[0]) is None:
            pytest.skip(f"needs {command[0]}")
        log = folder / "log"
        with log.open("w") as out:
            daemon = subprocess.Popen(list(map(str, command)), stdout=out, stderr=out)
        started.append(daemon)
        until_it_listens(folder / "s", daemon, log)

    yield start
    for daemon in started:
        daemon.terminate()
        daemon.wait()


@pytest.mark.engines
@pytest.mark.parametrize("containerd_store", [False, True])
def test_docker(service, monkeypatch, want, tmp_path, containerd_store):
    folder = tmp_path / "d"
    folder.mkdir()
    features = {"containerd-snapshotter": containerd_store}
    (folder / "config.json").write_text(json.dumps({"features": features}))
    address = f"unix://{folder}/s"
    service(folder, "dockerd", "--data-root", folder / "root", "--exec-root",
            folder / "exec", "--pidfile", folder / "pid", "--config-file",
            folder / "config.json", "-H", address, "--iptables=false",
            "--ip6tables=false", "--ip-masq=false", "--bridge=none")  # fmt: skip
    subprocess.run(
        ["docker", "-H", address, "load", "-i", tmp_path / "image.tar"], check=True
    )
    monkeypatch.setenv("DOCKER_HOST", address)

    assert exported("docker-daemon:app", tmp_path) == want
    id_ = subprocess.run(
        ["docker", "-H", address, "images", "-q", "--no-trunc", "app"],
        check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    assert exported(f"docker-daemon:{id_}", tmp_path) == want
    with pytest.raises(flatten.SourceError, match="none:latest"):
        exported("docker-daemon:none", tmp_path)


@pytest.mark.engines
def test_podman(service, monkeypatch, want, tmp_path):
    folder = tmp_path / "p"
    folder.mkdir()
    podman = ["podman", "--root", folder / "root", "--runroot", folder / "run",
              "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"]  # fmt: skip
    service(folder, *podman, "system", "service", "-t", "0", f"unix://{folder}/s")
    subprocess.run([*podman, "load", "-i", tmp_path / "image.tar"], check=True)
    monkeypatch.setenv("CONTAINER_HOST", f"unix://{folder}/s")

    assert exported("podman:app", tmp_path) == want
    with pytest.raises(flatten.SourceError, match="none:latest"):
        exported("podman:none", tmp_path)

    (folder / "storage.conf").write_text(
        f'[storage]\ndriver = "vfs"\ngraphroot = "{folder}/root"\n'
    )
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(folder / "storage.conf"))
    assert exported("containers-storage:app", tmp_path) == want
    assert exported("containers-storage:#app", tmp_path) == want


COMPOSEFS = """\
[storage]
driver = "overlay"
graphroot = "{0}/root"
runroot = "{0}/run"
[storage.options]
pull_options = {{enable_partial_images = "true", convert_images = "true"}}
[storage.options.overlay]
use_composefs = "true"
"""


@pytest.mark.engines
@pytest.mark.parametrize("packed", ["gzip", "zstd:chunked"])
def test_layers_that_podman_keeps_in_composefs(monkeypatch, want, tmp_path, packed):
    """Podman's own tree has removed files, and their whiteouts, as of 5.8."""
    need("docker-registry", "mkcomposefs", "podman", "skopeo")
    config = tmp_path / "storage.conf"
    config.write_text(COMPOSEFS.format(tmp_path))
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(config))
    with registry(tmp_path / "registry") as address:
        push(f"docker-archive:{tmp_path}/image.tar", f"{address}/app:1",
             "--dest-compress-format", packed)  # fmt: skip
        subprocess.run(
            ["podman", "pull", "--tls-verify=false", f"{address}/app:1"], check=True
        )

    assert [*tmp_path.glob("root/overlay/*/composefs-data/composefs.blob")]
    assert exported(f"containers-storage:{tmp_path}/root", tmp_path) == want


CONTAINERD = """\
version = 3
root = "{0}/root"
state = "{0}/state"
[grpc]
  address = "{0}/s"
[plugins."io.containerd.service.v1.diff-service"]
  default = ["{2}"]
[[plugins."io.containerd.transfer.v1.local".unpack_config]]
  platform = "linux/amd64"
  snapshotter = "{1}"
  differ = "{2}"
"""
CHANGE = """
mkdir "$1/m"
ctr -a "$1/s" snapshots --snapshotter "$2" mounts "$1/m" box | sh -e
rm "$1/m/b"
echo own > "$1/m/new"
umount "$1/m"
"""


@pytest.mark.engines
@pytest.mark.parametrize("snapshotter", ["overlayfs", "native", "erofs"])
def test_containerd(service, want, tmp_path, snapshotter):
    """The image is read from its blobs, the container from its snapshot."""
    need("containerd", "ctr", *(["mkfs.erofs"] if snapshotter == "erofs" else []))
    differ = "erofs" if snapshotter == "erofs" else "walking"
    (tmp_path / "c.toml").write_text(CONTAINERD.format(tmp_path, snapshotter, differ))
    service(tmp_path, "containerd", "-c", tmp_path / "c.toml")
    ctr = ["ctr", "-a", tmp_path / "s"]
    options = ["--snapshotter", snapshotter]
    if snapshotter not in call(*ctr, "plugins", "ls", "-q"):
        pytest.skip(f"containerd has no snapshotter {snapshotter}")
    call(*ctr, "images", "import", *options, tmp_path / "image.tar")
    call(*ctr, "containers", "create", *options, "docker.io/library/app:latest", "box")
    call("sh", "-ec", CHANGE, "sh", tmp_path, snapshotter)
    root = tmp_path / "root"

    assert exported(f"containerd:{root}#app", tmp_path) == want
    flatten.export(f"{root}#container:box", tmp_path / "box.tar", sync=False)
    tree = contents(tmp_path / "box.tar")
    assert {path: tree[path] for path in tree if path != "./"} == {"new": "own\n"}
    assert "no orphans" in run("orphans", root).stderr
