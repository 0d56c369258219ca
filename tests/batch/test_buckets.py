"""Archives from a bucket and outputs to it: moto's S3 server, and s3fs or obstore."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from command import FLATTEN, run
from flatten.batch.storage import placed
from fleets import fleet, singly
from registries import free_port, until_it_answers

pytest.importorskip("moto", reason="needs moto")
s3fs = pytest.importorskip("s3fs", reason="needs s3fs")

COUNT = 5


@pytest.fixture(scope="module", autouse=True)
def server():
    """Run an S3 server; the environment has its address and credentials."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    settings = {
        "AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "me",
        "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true", "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip
    with (
        pytest.MonkeyPatch.context() as patch,
        subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        ) as process,
    ):  # fmt: skip
        for name, value in settings.items():
            patch.setenv(name, value)
        until_it_answers(port)
        yield address
        process.terminate()


@pytest.fixture(scope="module")
def files(server):
    found = s3fs.S3FileSystem(endpoint_url=server)
    found.mkdir("bucket")
    return found


@pytest.fixture(scope="module")
def images(files, tmp_path_factory):
    """Return the archives of a fleet, which are also in the bucket."""
    paths = fleet(tmp_path_factory.mktemp("in"), COUNT)
    for path in paths:
        files.put_file(str(path), f"bucket/in/{path.name}")
    return paths


@pytest.fixture(scope="module")
def want(images, tmp_path_factory):
    out = tmp_path_factory.mktemp("want") / "out.tar"
    return {path.stem: singly(path, out) for path in images}


def batch(files, source, folder, *options, code=0):
    """Run a batch to a folder of the bucket; return its results."""
    done = run(
        "batch", source, "-o", f"s3://bucket/{folder}/{{name}}.tar", "--results", "-",
        *options, timeout=120,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    files.invalidate_cache()
    return [json.loads(line) for line in done.stdout.splitlines()]


def outputs(files, folder):
    return {
        name.rpartition("/")[2].removesuffix(".tar"): files.cat_file(name)
        for name in files.ls(f"bucket/{folder}")
        if name.endswith(".tar")
    }


def test_outputs_appear_with_their_documents(files, images, want):
    found = batch(files, images[0].parent, "plain")

    assert outputs(files, "plain") == want
    for result in found:
        key = result["output"].removeprefix("s3://")
        document = json.loads(files.cat_file(f"{key}.json"))
        assert document["sha256"] == result["sha256"]
        assert document["bytes"] == files.size(key)


def test_archives_are_read_from_the_bucket(files, images, want):
    found = batch(files, "s3://bucket/in/app*.tar", "copies")

    assert outputs(files, "copies") == want
    size = sum(path.stat().st_size for path in images)
    assert 0 < sum(result["bytes_fetched"] for result in found) < 1.2 * size


def test_a_second_run_makes_what_is_missing(files, images):
    source = images[0].parent
    batch(files, source, "again")
    files.rm_file("bucket/again/app1.tar.json")
    files.pipe_file("bucket/again/app2.tar", b"cut off")
    found = batch(files, source, "again")

    states = {result["output"].rpartition("/")[2]: result["state"] for result in found}
    assert states.pop("app1.tar") == states.pop("app2.tar") == "done"
    assert set(states.values()) == {"unchanged"}


def test_after_a_kill_the_next_run_makes_the_rest(files, images, want):
    with subprocess.Popen(
        [*FLATTEN, "batch", str(images[0].parent), "-o", "s3://bucket/k/{name}.tar",
         "--results", "-", "--jobs", "1"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as killed:  # fmt: skip
        killed.stdout.readline()
        killed.kill()
    files.invalidate_cache()
    found = outputs(files, "k")
    assert found.items() <= want.items()

    results = batch(files, images[0].parent, "k")

    assert outputs(files, "k") == want
    assert "unchanged" in {result["state"] for result in results}


def test_a_directory_cannot_be_written_to_a_bucket(images):
    done = run("batch", images[0], "-o", "s3://bucket/{name}/", "--retries", "0")

    assert done.returncode == 1
    assert "a directory cannot be written to a URL" in done.stderr


def test_a_bucket_that_is_not_there_is_an_error(images):
    done = run("batch", images[0], "-o", "s3://none/{name}.tar", "--retries", "0")

    assert done.returncode == 1
    assert "s3://none/app0.tar" in done.stderr
    assert "Traceback" not in done.stderr


def test_obstore_is_used_where_s3fs_is_missing(files, tmp_path):
    pytest.importorskip("obstore", reason="needs obstore")
    code = """
import sys
sys.modules["s3fs"] = None
from flatten.batch.storage import finished, placed, record
url = "s3://bucket/obstore/a.tar"
for text in "abc", "defg":
    with placed(url) as path, open(path, "w") as file:
        file.write(text)
record(url, {"digest": "1", "options": "2", "bytes": 4})
assert finished(url, "1", "2")["bytes"] == 4
assert finished(url, "1", "3") is None
assert finished("s3://bucket/obstore/b.tar", "1", "2") is None
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)

    files.invalidate_cache()
    assert files.cat_file("bucket/obstore/a.tar") == b"defg"


def test_an_object_that_another_worker_has_created_is_left(files):
    with placed("s3://bucket/race.tar") as path:
        Path(path).write_text("ours")
        files.pipe_file("bucket/race.tar", b"theirs")

    assert files.cat_file("bucket/race.tar") == b"theirs"
