"""The Python code in docs/library.md runs, in order."""

import re
from pathlib import Path

import fsspec
import pytest

import flatten
from builders import docker_archive, layers, member
from flatten.fsspec import FlattenFileSystem

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "library.md").read_text()


IMAGE = layers(
    [
        member("usr/lib/os-release", b"ID=debian\n"),
        "etc/os-release->../usr/lib/os-release",
        member("usr/bin/app", b"the program's end"),
        "etc/old.conf",
    ],
    ["etc/app.conf", "-etc/old.conf"],
)


READ = """\
ID=debian

etc/app.conf 1 2
b"am's end"
ID=debian

['etc/app.conf', 'etc/os-release'] ['etc/app.conf']
"""


@pytest.fixture
def image(tmp_path, monkeypatch):
    (tmp_path / "image.tar").write_bytes(docker_archive(IMAGE))
    monkeypatch.chdir(tmp_path)
    fsspec.register_implementation("flatten", FlattenFileSystem, clobber=True)
    return tmp_path / "image.tar"


def test_the_code_runs(image, capsys):
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 4

    names = {}
    for block in blocks:
        exec(compile(block, "library.md", "exec"), names)

    exported, *percents = capsys.readouterr().out.split(" %\n")
    assert exported.startswith("8 members, 10,240 bytes, 2 layers verified\n")
    assert percents[:-1][-1:] == ["100"]
    assert percents[-1] == READ
    assert image.with_name("rootfs.tar.zst").is_file()


def test_every_public_name_and_method_is_on_the_page():
    methods = [name for name in vars(flatten.ImagePath) if not name.startswith("_")]
    errors = {"FormatError", "IntegrityError", "SourceError", "UsageError"}
    words = set(re.findall(r"\w+", PAGE))

    assert {*flatten.__all__, *methods, *errors} <= words
