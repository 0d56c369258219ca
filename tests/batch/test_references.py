"""The references that lists, directories, globs and archives stand for."""

import io
import itertools
import sys
import tracemalloc

import pytest

from builders import docker_archive, oci_files
from flatten.batch.references import expand, in_shard, name_and_tag
from flatten.errors import SourceError, UsageError
from flatten.options import Options
from fleets import fleet, layers_of


def expanded(*sources):
    return list(expand(map(str, sources), Options()))


def test_a_list_has_one_reference_a_line(tmp_path):
    path = tmp_path / "list"
    path.write_text("# ours\n\ndocker://a/b:1\r\n  oci:x#y  \n")

    assert expanded(path) == ["docker://a/b:1", "oci:x#y"]


def test_a_list_can_come_from_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("a.tar\nb.tar\n"))

    assert expanded("-") == ["a.tar", "b.tar"]


def test_a_list_is_never_in_memory(tmp_path):
    path = tmp_path / "list"
    with path.open("w") as file:
        for at in range(300_000):
            file.write(f"docker://example.org/some/repository-{at}:latest\n")

    tracemalloc.start()
    count = sum(1 for _ in in_shard(expand([str(path)], Options()), 0, 2))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert 140_000 < count < 160_000
    assert peak < 1 << 20


def test_an_archive_is_itself(tmp_path):
    (path,) = fleet(tmp_path, 1)

    assert expanded(path) == [str(path)]


def test_a_directory_is_everything_in_it_that_is_not_hidden(tmp_path):
    paths = fleet(tmp_path, 3)
    (tmp_path / ".hidden").write_bytes(b"")

    assert expanded(tmp_path) == [str(path) for path in paths]


def test_a_layout_is_its_images(tmp_path):
    for name, data in oci_files(layers_of(0), names=("a:1", "b:2")).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)

    assert expanded(tmp_path) == [f"{tmp_path}#a:1", f"{tmp_path}#b:2"]


def test_a_glob_is_the_paths_that_match(tmp_path):
    fleet(tmp_path, 3)

    assert expanded(tmp_path / "app[02].tar") == [
        str(tmp_path / "app0.tar"), str(tmp_path / "app2.tar"),
    ]  # fmt: skip


def test_sources_follow_each_other(tmp_path):
    one, two = fleet(tmp_path, 2)

    assert expanded(two, one) == [str(two), str(one)]


@pytest.mark.parametrize(
    "reference", ["docker://alpine:3.20", "https://example.org/a.tar?signature=1"]
)
def test_a_reference_to_one_image_is_itself(reference):
    assert expanded(reference) == [reference]


@pytest.mark.parametrize("source", ["*.tar", "empty/"])
def test_sources_without_an_image_are_errors(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()

    with pytest.raises(SourceError):
        expanded(source)


def test_a_line_that_is_too_long_is_an_error(tmp_path):
    path = tmp_path / "list"
    path.write_text("a" * 70_000)

    with pytest.raises(UsageError, match="65,536 characters"):
        expanded(path)


def test_shards_divide_the_references():
    references = [f"app{at}.tar" for at in range(1000)]
    shards = [list(in_shard(references, at, 4)) for at in range(4)]

    assert sorted(itertools.chain(*shards)) == sorted(references)
    assert all(200 < len(shard) < 300 for shard in shards)


def test_shards_of_numbered_names_are_alike():
    references = [f"images/app{at}.tar" for at in range(100)]
    shards = [len(list(in_shard(references, at, 8))) for at in range(8)]

    assert all(5 < length < 20 for length in shards)


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("docker://alpine", ("library/alpine", "latest")),
        ("docker://localhost:5000/a/b:1@sha256:" + "1" * 64, ("a/b", "1")),
        ("docker-daemon:app:2", ("app", "2")),
        ("https://example.org/a/app.tar.gz", ("app", "latest")),
        ("s3://bucket/app.oci.tar", ("app", "latest")),
        ("images.tar#org/app:3", ("org/app", "3")),
        ("images.tar#@7", ("images", "7")),
    ],
)
def test_names_and_tags_come_from_the_reference(reference, expected):
    assert name_and_tag(reference) == expected


def test_an_archive_without_a_suffix_is_not_a_list(tmp_path):
    path = tmp_path / "archive"
    path.write_bytes(docker_archive(layers_of(0)))

    assert expanded(path) == [str(path)]
