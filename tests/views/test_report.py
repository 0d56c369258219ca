"""The report: its figures, and a page with all paths that needs no other file."""

import base64
import json
import random
import re
import struct
import zlib

import pytest

import flatten
from builders import docker_archive, layers, member
from flatten.views import page
from flatten.views.contents import Contents
from flatten.views.page import LIMIT, Columns, make_page
from flatten.views.reading import read_index
from flatten.views.report import make_report
from kinds import KINDS, docker, history, run


def file(name, size, fill=b"x"):
    return member(name, fill * size)


TARS = layers(
    ["d/", file("d/a", 100), "d/h=d/a", file("d/b", 50), file("c", 10, b"y"), "s->c"],
    [file("d/b", 70), "-c", file("e", 100), file("f", 9, b"z")],
)
STEPS = {"history": history("one", "-ENV A=1", "two")}


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def image(request, tmp_path):
    return request.param(tmp_path, TARS, **STEPS)


def test_the_figures_in_json(image):
    got = json.loads(run("report", image, "--json").stdout)

    assert (got["size"], got["files"], got["paths"]) == (279, 4, 7)
    assert [(s["layer"], s["size"], s["hidden"]) for s in got["steps"]] == [
        (1, 160, 60), (None, 0, 0), (2, 179, 0),
    ]  # fmt: skip
    assert got["directories"] == [
        {"path": "", "size": 279, "files": 4}, {"path": "d", "size": 170, "files": 2},
    ]  # fmt: skip
    assert [(f["path"], f["size"], f["layer"]) for f in got["largest"]] == [
        ("d/a", 100, 1), ("e", 100, 2), ("d/b", 70, 2), ("f", 9, 2),
    ]  # fmt: skip
    assert got["hidden"] == {"size": 60, "files": 2, "largest": [
        {"path": "d/b", "size": 50, "layer": 1, "replaced": True},
        {"path": "c", "size": 10, "layer": 1, "replaced": False},
    ]}  # fmt: skip
    (equal,) = got["equal"]["largest"]
    assert (equal["size"], equal["paths"], got["equal"]["spare"]) == (
        100,
        ["d/a", "e"],
        100,
    )
    assert got["efficiency"]["wasted"] == 130
    assert got["efficiency"]["score"] == pytest.approx((100 + 50 + 0 + 100 + 9) / 339)
    assert got["efficiency"]["user_size"] == 179


def test_the_report_as_text(image):
    lines = run("report", image).stdout.splitlines()

    assert lines[1] == "279 B in 4 files, 7 paths; 2 layers of 339 B"
    assert lines[2] == (
        "dive: efficiency 76.4 %, 130 B wasted"
        ", 72.6 % of what the layers above the first add"
    )
    assert lines[3] == "hidden 60 B in 2 files that later layers replaced or removed"
    assert lines[4] == "duplicates: 1 groups, 100 B could be saved"
    for title in ("Layers", "Directories", "Largest files", "Hidden files",
                  "Wasted paths (dive)", "Equal files"):  # fmt: skip
        assert title in lines


def test_top_and_no_equal(image):
    got = json.loads(run("report", image, "--json", "--top", "1", "--no-equal").stdout)

    assert len(got["largest"]) == len(got["hidden"]["largest"]) == 1
    assert got["equal"] is None
    assert "Equal" not in run("report", image, "--no-equal").stdout


@pytest.mark.parametrize("number", ["-1", "1.5", "many", ""])
def test_top_is_a_number_from_0(number):
    got = run("report", "app.tar", "--top", number)

    assert (got.returncode, got.stdout) == (2, "")
    assert f"'{number}' is not a number from 0 to 999999999" in got.stderr


def test_a_report_of_an_earlier_step(image):
    got = json.loads(run("report", image, "--json", "--at", "1").stdout)

    assert (got["size"], got["hidden"]["files"], got["efficiency"]["score"]) == (
        160,
        0,
        1,
    )


def test_a_report_of_an_image_without_layers(tmp_path):
    image = docker(tmp_path, [])

    assert "0 B in 0 files, 0 paths; 0 layers of 0 B" in run("report", image).stdout
    assert "<html" in run("report", image, "-o", "-").stdout


# --- the page


def written(image, tmp_path):
    done = run("report", image, "-o", tmp_path / "report.html")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return (tmp_path / "report.html").read_text()


def unpacked(text):
    """Read the columns of a page: name, depth, kind, layer, size of each path."""
    tree = re.search(r'<script id="tree"[^>]*>([^<]*)<', text)[1]
    about = json.loads(re.search(r'<script id="data"[^>]*>(.*?)</script>', text)[1])
    data, total = zlib.decompress(base64.b64decode(tree)), about["count"]
    low, high = (struct.unpack_from(f"<{total}I", data, 4 * total * n) for n in (0, 1))
    depths, layers_ = (
        struct.unpack_from(f"<{total}H", data, (8 + 2 * n) * total) for n in (0, 1)
    )
    names = data[13 * total :].decode().split("\0")
    kinds = data[12 * total : 13 * total]
    sizes = [upper << 32 | lower for lower, upper in zip(low, high, strict=True)]
    return list(zip(names, depths, kinds, layers_, sizes, strict=True))


def test_the_page_has_all_paths(image, tmp_path):
    assert unpacked(written(image, tmp_path)) == [
        ("d", 0, 1, 1, 0), ("a", 1, 0, 1, 100), ("b", 1, 0, 2, 70), ("h", 1, 4, 1, 0),
        ("e", 0, 0, 2, 100), ("f", 0, 0, 2, 9), ("s", 0, 2, 1, 0),
    ]  # fmt: skip


def test_the_page_needs_nothing_else(image, tmp_path):
    text = written(image, tmp_path)

    assert not re.search(r"(?:src|href|url|import|fetch)\s*[=(]", text)
    assert "http:" not in text
    assert "https:" not in text


def test_names_are_escaped_in_the_page(tmp_path):
    bad = "</script><script>alert(1)</script>"
    tars = layers(
        [
            member(bad.replace("/", "|"), b"1"),
            file(bad.split("/", maxsplit=1)[0] + "/x", 3),
        ]
    )
    path = tmp_path / "i.tar"
    config = json.loads(json.dumps({"history": history(bad), "rootfs": None}))
    path.write_bytes(docker_archive(tars, tags=[f"{bad}:1"], config_document=config))

    text = written(path, tmp_path)

    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text
    assert text.count("</script>") == 3


def columns(count):
    """Make columns as of a large image: names and sizes as they are in real ones."""
    rnd = random.Random(7)
    words = [
        "core",
        "utils",
        "test",
        "main",
        "index",
        "config",
        "model",
        "view",
        "base",
    ]
    ends = [".py", ".pyc", ".so", ".js", ".d.ts", ".json", ".h", ".txt", ""]
    out = Columns()
    while len(out.names) < count:
        out.add(
            f"{rnd.choice(words)}_{rnd.randrange(10**5)}", 0, 1, rnd.randrange(1, 20), 0
        )
        for _ in range(min(rnd.randrange(40), count - len(out.names))):
            name = rnd.choice(words) + str(rnd.randrange(10**4)) + rnd.choice(ends)
            size = int(rnd.lognormvariate(8, 2))
            out.add(name, 1, 0, rnd.randrange(1, 20), size)
    return out


def report_of(tmp_path):
    with flatten.open_image(docker(tmp_path, TARS)) as image:
        index = read_index(image)
        return make_report(index, Contents(image, index.members, 1 << 30), equal=True)


def test_a_page_of_300_000_files_is_small_enough(tmp_path, monkeypatch):
    many = columns(300_000)
    monkeypatch.setattr(page, "_columns", lambda _: many)

    text = make_page(report_of(tmp_path))

    assert len(text) < LIMIT
    assert len(unpacked(text)) == 300_000


def test_a_page_over_the_limit_combines_small_files(tmp_path, monkeypatch):
    many = columns(20_000)
    monkeypatch.setattr(page, "_columns", lambda _: many)
    monkeypatch.setattr(page, "LIMIT", 150_000)

    text = make_page(report_of(tmp_path))
    got = unpacked(text)

    assert len(text) < 150_000
    assert sum(row[4] for row in got) == sum(many.sizes)
    assert any(row[0].startswith("… ") for row in got)
    assert sum(row[2] == 1 for row in got) == sum(kind == 1 for kind in many.kinds)


def test_the_page_appears_whole_or_not_at_all(tmp_path):
    image = docker(tmp_path, TARS)

    got = run("report", image, "-o", tmp_path / "no" / "report.html")

    assert got.returncode == 1
    assert "cannot create" in got.stderr
