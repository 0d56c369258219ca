"""Archives on a web server: what is fetched of them, and servers that misbehave."""

import gzip
import json
import random
import subprocess
import sys
import time

import pytest

import flatten
from builders import docker_archive, layer, member
from command import run
from flatten.sources.remote import BLOCK, MAX_SIZE
from web import serving

NOISE = random.Random(1).randbytes(3 << 20)
BIG = [
    layer(member("a", NOISE), member("b", NOISE[::-1]), member("etc/", type=b"5")),
    layer(member("c", NOISE[7:]), member("etc/name", b"here\n"), member(".wh.a")),
]
PLAIN = docker_archive(BIG)


@pytest.fixture
def server():
    with serving(PLAIN) as found:
        yield found


def exported(reference, folder, **options):
    flatten.export(reference, folder / "got.tar", sync=False, **options)
    return (folder / "got.tar").read_bytes()


@pytest.fixture
def want(tmp_path):
    (tmp_path / "image.tar").write_bytes(PLAIN)
    flatten.export(tmp_path / "image.tar", tmp_path / "want.tar", sync=False)
    return (tmp_path / "want.tar").read_bytes()


# --- what is fetched


def test_an_export_reads_each_byte_once(server, want, tmp_path):
    assert exported(server.url, tmp_path) == want
    assert server.sent == len(PLAIN) + 1, "and the byte that tells the size"
    assert len(server.asked) < 60


@pytest.mark.parametrize("command", ["ls", "history", "config", "layers", "images"])
def test_a_view_of_a_plain_archive_fetches_little(server, command):
    done = run(command, server.url, *(["--no-cache"] if command == "ls" else []))

    assert done.returncode == 0, done.stderr
    assert server.sent < 16 * BLOCK, f"of {len(PLAIN)}"


def test_one_file_of_a_plain_archive(server):
    done = run("cat", server.url, "etc/name", "--no-cache")

    assert done.stdout == "here\n"
    assert server.sent < 16 * BLOCK
    assert "1 layer was not verified" in done.stderr

    done = run("cat", server.url, "etc/name", "--no-cache", "--verify")
    assert (done.stdout, done.stderr) == ("here\n", "")
    assert server.sent > len(PLAIN)


def test_a_view_that_checked_no_digest_says_so(server, tmp_path):
    said = run("ls", server.url, "--cache", tmp_path).stderr
    assert "2 layers were not verified; --verify checks the digests" in said

    said = run("ls", server.url, "--cache", tmp_path, "--verify").stderr
    assert said == ""
    assert server.sent > len(PLAIN)


def test_what_was_fetched_is_in_the_summary(server, tmp_path):
    done = run(server.url, "-o", tmp_path / "out.tar", "--json", "-v")

    size = len(PLAIN)
    assert json.loads(done.stdout)["transfer"] == {
        "fetched": size, "size": size, "digest": None,
    }  # fmt: skip
    assert f"fetched {size:,} of {size:,} bytes\n" in done.stderr


def test_many_members_are_written_by_one_process(server, tmp_path):
    """Processes that are forked have no connections of their own."""
    members = [member(f"{number:06}", b"x" * 600) for number in range(25_000)]
    server.data = docker_archive([layer(*members), layer(member("z", NOISE))])
    (tmp_path / "image.tar").write_bytes(server.data)
    flatten.export(tmp_path / "image.tar", tmp_path / "want.tar", sync=False)

    assert exported(server.url, tmp_path) == (tmp_path / "want.tar").read_bytes()
    assert server.sent <= len(server.data) + 1


@pytest.mark.parametrize("ranges", [True, False])
def test_a_compressed_archive(server, want, tmp_path, ranges):
    server.data, server.ranges = gzip.compress(PLAIN, 1), ranges
    assert exported(server.url, tmp_path) == want


def test_a_server_without_ranges(server, want, tmp_path):
    server.ranges = False

    assert exported(server.url, tmp_path) == want
    assert len(server.asked) == 1


@pytest.mark.parametrize("name", ["#app:1", "#@0"])
def test_a_name_behind_the_url(server, want, tmp_path, name):
    assert exported(server.url + name, tmp_path) == want
    assert exported(f"docker-archive:{server.url}{name}", tmp_path) == want
    with pytest.raises(flatten.SourceError, match="no image 'other'"):
        exported(f"{server.url}#other", tmp_path)
    assert {path for path, _ in server.asked} == {"/image.tar"}


# --- servers that misbehave


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_a_broken_transfer_is_resumed(server, want, tmp_path, seed, ranges):
    dice = random.Random(seed)
    server.ranges = ranges
    server.cut = lambda body: dice.randrange(len(body)) if dice.random() < 0.4 else None

    assert exported(server.url, tmp_path) == want
    if ranges:
        assert server.sent < 1.1 * len(PLAIN), "only what was lost is sent again"


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again(server, want, tmp_path, status):
    told = []

    def spoil(_handler, *answer):
        if len(told) < 3:
            told.append(status)
            return status, {"Retry-After": "0"}, b"busy"
        return answer

    server.spoil = spoil
    assert exported(server.url, tmp_path) == want
    assert len(told) == 3


def test_a_redirect_to_another_server(server, want, tmp_path):
    with serving(PLAIN) as other:
        server.spoil = lambda *_: (302, {"Location": other.url}, b"")
        assert exported(server.url, tmp_path) == want
        assert other.sent >= len(PLAIN)


def test_a_stalled_transfer_is_resumed(server, want, tmp_path, monkeypatch):
    monkeypatch.setattr("flatten.sources.transport.TIMEOUT", 1.0)
    stalled = []

    def spoil(_handler, *answer):
        if len(stalled) < 2:
            stalled.append(time.sleep(2.5))
        return answer

    server.spoil = spoil
    assert exported(server.url, tmp_path) == want
    assert len(stalled) == 2


def changing(handler, status, headers, body):
    return status, headers | {"ETag": f'"{len(handler.server.asked)}"'}, body


def replaced(key, value, *, later=False):
    def spoil(_handler, status, headers, body):
        if status == 206 and (len(body) > 1 or not later):
            headers = {k: v for k, v in headers.items() if k != key} | value
        return status, headers, body

    return spoil


def only_at_first(_handler, status, headers, body):
    return (200, {"ETag": '"1"'}, PLAIN) if len(body) > 1 else (status, headers, body)


BAD = {
    "a file that changes": (changing, flatten.FlattenError, "changed while being read"),
    "another range": (
        replaced("Content-Range", {"Content-Range": "bytes 0-9/10"}, later=True),
        flatten.FormatError, r"the server sent bytes 0-9/10, asked for bytes ",
    ),
    "another range at first": (
        replaced("Content-Range", {"Content-Range": "bytes 1-1/10"}),
        flatten.FormatError, "does not say its size",
    ),
    "no range": (
        replaced("Content-Range", {}), flatten.FormatError, "does not say its size",
    ),
    "no size": (
        replaced("Content-Range", {"Content-Range": "bytes 0-0/*"}),
        flatten.FormatError, "does not say its size",
    ),
    "a size beyond measure": (
        replaced("Content-Range", {"Content-Range": f"bytes 0-0/{MAX_SIZE + 1}"}),
        flatten.FormatError, "bytes, over 4,398,046,511,104",
    ),
    "a size beyond all measure": (
        replaced("Content-Range", {"Content-Range": "bytes 0-0/" + "9" * 4000}),
        flatten.FlattenError, "",
    ),
    "ranges at first, then all": (
        only_at_first, flatten.FormatError, "the server sent HTTP 200, asked for bytes",
    ),
    "not found": (
        lambda *_: (404, {}, b"no"), flatten.SourceError, "image.tar: HTTP 404",
    ),
    "forbidden": (
        lambda *_: (403, {}, b"no"), flatten.SourceError, "image.tar: HTTP 403",
    ),
    "an error that stays": (
        lambda *_: (500, {"Retry-After": "0"}, b"no"), flatten.SourceError, "HTTP 500",
    ),
    "a page": (
        lambda *_: (200, {}, b"<!DOCTYPE html><html>no</html>"), flatten.SourceError,
        "not a container image",
    ),
    "a circle of redirects": (
        lambda handler, *_: (302, {"Location": handler.path}, b""),
        flatten.FlattenError, "more than 5 redirects in a row",
    ),
    "a redirect to a file of this machine": (
        lambda *_: (302, {"Location": "file:///etc/passwd"}, b""),
        flatten.FlattenError, "a redirect to",
    ),
    "a redirect to plain HTTP elsewhere": (
        lambda *_: (302, {"Location": "http://192.0.2.1/a.tar"}, b""),
        flatten.FlattenError, "192.0.2.1 would be asked by plain HTTP",
    ),
}  # fmt: skip


@pytest.mark.parametrize("bad", BAD)
def test_bad_answers(server, tmp_path, bad):
    server.spoil, error, why = BAD[bad]

    with pytest.raises(error, match=why or "image.tar") as caught:
        exported(server.url, tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "got.tar").exists()


def test_more_bytes_than_asked_for(server, tmp_path):
    def spoil(_handler, status, headers, body):
        return status, headers, body + b"more"

    server.spoil = spoil
    with pytest.raises(flatten.FormatError, match="sends more than bytes"):
        exported(server.url, tmp_path)


@pytest.mark.parametrize("data", [b"", b"x", bytes(1024), PLAIN[: BLOCK * 3]])
def test_files_that_are_no_image(server, tmp_path, data):
    server.data = data
    with pytest.raises(flatten.FlattenError, match=r"image\.tar"):
        exported(server.url, tmp_path)


def test_a_server_that_never_gets_anywhere(server, tmp_path):
    server.cut = lambda _body: 0
    with pytest.raises(flatten.FlattenError, match=r"\(tried 5 times\)"):
        exported(server.url, tmp_path)


def test_no_server(tmp_path):
    with pytest.raises(flatten.FlattenError, match="localhost:1: Connection refused"):
        exported("http://localhost:1/a.tar", tmp_path)


def test_plain_http_is_for_this_machine(tmp_path):
    with pytest.raises(flatten.FlattenError, match="by plain HTTP; --insecure allows"):
        exported("http://192.0.2.1/a.tar", tmp_path)


@pytest.mark.parametrize(
    "url", ["http://me:hunter2@localhost/a", "https://me@localhost/a"]
)
def test_a_url_with_a_password(tmp_path, url):
    with pytest.raises(flatten.UsageError, match="a URL with a user name") as caught:
        exported(url, tmp_path)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://[::1/a", "http://localhost:99999/a", "https:///a"]
)
def test_urls_that_are_none(tmp_path, url):
    with pytest.raises(flatten.UsageError, match=r"not valid|not a valid host or port"):
        exported(url, tmp_path)


@pytest.mark.parametrize(
    "place", ["http://[::1/a", "http://localhost:99999/", "//", "\x01"]
)
def test_redirects_that_lead_nowhere(server, tmp_path, place):
    server.spoil = lambda *_: (302, {"Location": place}, b"")
    with pytest.raises(flatten.FlattenError, match=r"a redirect to|redirects in a row"):
        exported(server.url, tmp_path)


def test_a_proxy_is_not_for_this_machine(server, want, tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://localhost:1")
    monkeypatch.delenv("no_proxy", raising=False)
    assert exported(server.url, tmp_path) == want


def test_a_signed_url_is_not_shown(server, tmp_path):
    server.spoil = lambda *_: (403, {}, b"expired")
    with pytest.raises(flatten.SourceError) as caught:
        exported(f"{server.url}?token=hunter2", tmp_path)
    assert str(caught.value) == f"{server.url}: HTTP 403"
    assert server.asked[0][0] == "/image.tar?token=hunter2"

    server.spoil = lambda *_: (200, {}, b"expired")
    for kind in ("", "docker-archive:"):
        with pytest.raises(flatten.SourceError, match="not a") as caught:
            exported(f"{kind}{server.url}?token=hunter2", tmp_path)
        assert "hunter2" not in str(caught.value)


def test_no_scratch_space(server, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    with pytest.raises(flatten.FlattenError, match="cannot write scratch space in"):
        exported(server.url, tmp_path)


# --- other URLs


def test_what_fsspec_opens(want, tmp_path):
    fsspec = pytest.importorskip("fsspec")
    fsspec.filesystem("memory").pipe_file("/bucket/image.tar", PLAIN)

    assert exported("memory://bucket/image.tar", tmp_path) == want
    with flatten.open_image("memory://bucket/image.tar#app:1") as image:
        assert (image.root / "etc/name").read_bytes() == b"here\n"
        assert image.transfer().fetched < 16 * BLOCK


@pytest.mark.parametrize(
    ("url", "error"),
    {
        "memory://bucket/missing.tar": flatten.SourceError,
        "nonsense://bucket/image.tar": flatten.FlattenError,
    }.items(),
)
def test_what_fsspec_does_not_open(tmp_path, url, error):
    pytest.importorskip("fsspec")
    with pytest.raises(error, match=url):
        exported(url, tmp_path)


def test_without_fsspec():
    hidden = "import sys; sys.modules['fsspec'] = sys.modules['fsspec.core'] = None; "
    code = hidden + "from flatten.__main__ import script; script()"
    done = subprocess.run(
        [sys.executable, "-c", code, "ls", "s3://bucket/a.tar"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 1
    assert "needs fsspec: pip install 'flatten-image[remote]'" in done.stderr
