"""Batches of images in a real registry, and through a proxy that misbehaves."""

import json
import threading
import time

import pytest

from command import run
from fleets import fleet, singly
from registries import Proxy, cut_at_random, need_registry, push, registry

pytestmark = need_registry

COUNT = 6


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Return the archives of a fleet, by tag."""
    paths = fleet(tmp_path_factory.mktemp("in"), COUNT)
    return {path.stem: path for path in paths}


@pytest.fixture(scope="module")
def host(images, tmp_path_factory):
    with registry(tmp_path_factory.mktemp("registry")) as address:
        for tag, path in images.items():
            kind = "docker-archive" if tag == "app3" else "oci-archive"
            push(f"{kind}:{path}", f"{address}/team/app:{tag}")
        yield address


@pytest.fixture
def proxy(host):
    with Proxy(host) as found:
        yield found


@pytest.fixture(scope="module")
def want(images, tmp_path_factory):
    out = tmp_path_factory.mktemp("want") / "out.tar"
    return {tag: singly(path, out) for tag, path in images.items()}


def batch(source, folder, *options, code=0):
    done = run(
        "batch", source, "-o", f"{folder}/out/{{tag}}.tar",
        "--results", folder / "r.jsonl", *options,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    lines = (folder / "r.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def outputs(folder):
    return {path.stem: path.read_bytes() for path in (folder / "out").glob("*.tar")}


def requests(proxy):
    return [path for path, _ in proxy.seen]


def test_the_tags_that_match_are_made(host, want, tmp_path):
    batch(f"docker://{host}/team/app:app[0-2]", tmp_path)

    assert outputs(tmp_path) == {tag: want[tag] for tag in ("app0", "app1", "app2")}


def test_a_repository_is_all_its_tags_and_each_layer_is_fetched_once(
    proxy, want, tmp_path
):
    found = batch(f"docker://{proxy.address}/team/app", tmp_path)

    blobs = [path for path in requests(proxy) if "/blobs/" in path]
    sizes = sum(result["bytes_fetched"] for result in found)
    layers = {path for path in blobs if blobs.count(path) == 1}
    assert outputs(tmp_path) == want
    assert len(layers) == 2 + 1 + COUNT + COUNT // 2  # base, middle, own
    assert sizes <= proxy.sent


def test_a_second_run_asks_only_for_digests(proxy, tmp_path):
    source = f"docker://{proxy.address}/team/app:*"
    batch(source, tmp_path)
    proxy.seen.clear()
    found = batch(source, tmp_path)

    assert {result["state"] for result in found} == {"unchanged"}
    (tags, *rest) = [path.rpartition("/v2/team/app/")[2] for path in requests(proxy)]
    assert tags.startswith("tags/list")
    assert sorted(rest) == [f"manifests/app{at}" for at in range(COUNT)]


def test_a_moved_tag_is_made_again(host, images, want, tmp_path):
    push(f"oci-archive:{images['app1']}", f"{host}/moved:it")
    batch(f"docker://{host}/moved:it", tmp_path)
    push(f"oci-archive:{images['app2']}", f"{host}/moved:it")
    (result,) = batch(f"docker://{host}/moved:it", tmp_path)

    assert result["state"] == "done"
    assert outputs(tmp_path) == {"it": want["app2"]}


def test_a_base_that_a_directory_keeps_is_not_fetched_again(proxy, tmp_path):
    how = ("--layers", tmp_path / "layers", "--index")
    source = f"docker://{proxy.address}/team/app:app"
    run("batch", f"{source}0", "-o", tmp_path / "{tag}.erofs", *how)
    proxy.seen.clear()
    done = run("batch", f"{source}2", "-o", tmp_path / "{tag}.erofs", *how)

    assert done.returncode == 0, done.stderr
    blobs = {path for path in requests(proxy) if "/blobs/" in path}
    assert len(blobs) == 2, "the config, and the layer of its own"
    run(f"{source}2", "-o", tmp_path / "single.erofs", *how)
    one, two = (tmp_path / name for name in ("app2.erofs", "single.erofs"))
    assert one.read_bytes() == two.read_bytes()


def test_images_have_the_names_of_single_runs(host, tmp_path):
    reference = f"docker://{host}/team/app:app0"
    run("batch", reference, "--oci", tmp_path / "{tag}.tar")
    run(reference, "--oci", tmp_path / "single.tar")

    got = (tmp_path / "app0.tar").read_bytes()
    assert got == (tmp_path / "single.tar").read_bytes()


def cuts(proxy):
    proxy.cut = cut_at_random(1, 0.3)


def refuses(proxy):
    """Answer every third request with 429."""

    def trouble(handler):
        busy = len(proxy.seen) % 3 == 0
        return busy and handler.say(429, Retry_After="0")

    proxy.trouble = trouble


def fails(proxy):
    """Answer so many requests for one blob with 500 that a run gives up."""
    failed = []

    def trouble(handler):
        if "/blobs/" in handler.path and len(failed) < 6:
            failed.append(handler.path)
            return handler.say(500)
        return False

    proxy.trouble = trouble


@pytest.mark.parametrize("trouble", [cuts, refuses, fails])
def test_a_bad_network_delays_a_batch(trouble, proxy, want, tmp_path):
    trouble(proxy)
    batch(f"docker://{proxy.address}/team/app", tmp_path)

    assert outputs(tmp_path) == want


def test_a_missing_image_fails_alone(host, tmp_path):
    (tmp_path / "list").write_text(
        f"docker://{host}/team/app:app0\ndocker://{host}/team/app:none\n"
    )
    found = batch(tmp_path / "list", tmp_path, code=1)

    assert [r["exit_code"] for r in sorted(found, key=lambda r: r["reference"])] == [
        0,
        3,
    ]
    assert {result["attempts"] for result in found} == {1}


def test_a_worker_has_four_connections_at_most(proxy, tmp_path):
    now, most, lock = [0], [0], threading.Lock()

    def trouble(_handler):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.05)
        with lock:
            now[0] -= 1
        return False

    proxy.trouble = trouble
    batch(f"docker://{proxy.address}/team/app", tmp_path, "--jobs", "1")

    assert 1 < most[0] <= 4
