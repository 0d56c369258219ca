"""Patterns of paths, compared with git's own where git is there."""

import shutil
import subprocess

import pytest

from flatten.errors import UsageError
from flatten.tree.patterns import Patterns

PATHS = (
    "a", "a.pyc", "b/a", "b/a.pyc", "b/c/a", "b/c/d.pyc", "doc", "doc/x", "usr/doc",
    "usr/doc/x", "usr/share/doc/y", "x]y", "a b", "-a", "1", "2", "z[", "*", "b/*",
    "README", "Read", "x_y", "tab\t", "[:",
)  # fmt: skip
RULES = {
    "a name": ["a"],
    "a name with a star": ["*.pyc"],
    "one character": ["?"],
    "from the root": ["/a"],
    "from the root, by a slash within": ["b/a"],
    "a directory only": ["doc/"],
    "a directory only, from the root": ["/doc/"],
    "stars for directories, before": ["**/a"],
    "stars for directories, between": ["b/**/a"],
    "stars for directories, after": ["usr/**"],
    "a set": ["[12]"],
    "a set it is not in": ["[!1]"],
    "a bracket in a set": ["x[]]y"],
    **{
        f"the class {name}": [f"[[:{name}:]]*"]
        for name in (
            "alnum",
            "alpha",
            "blank",
            "cntrl",
            "digit",
            "graph",
            "lower",
            "print",
            "punct",
            "space",
            "upper",
            "xdigit",
        )
    },
    "a class among other characters": ["*[_[:blank:]x]*"],
    "outside a class": ["[![:lower:]]*"],
    "an escaped star": ["\\*"],
    "an escaped bracket": ["z\\["],
    "taken back": ["*", "!a"],
    "taken back, and taken again": ["a", "!a", "/a"],
    "the last one decides": ["!a", "a"],
    "a star does not cross slashes": ["usr/*/x"],
    "a name with a space": ["a b"],
    "all": ["**"],
}


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_as_git_understands_them(tmp_path, rules):
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    (tmp_path / ".gitignore").write_text("\n".join(rules) + "\n")
    for path in PATHS:  # git tells directories by what is there
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        if path not in {"doc", "usr/doc"}:
            (tmp_path / path).touch()
    directories = {"doc", "usr/doc"}
    shown = subprocess.run(
        ["git", "-c", "core.excludesFile=", "check-ignore", "--no-index", "-z", "--stdin"],
        cwd=tmp_path, input="\0".join(PATHS).encode(), capture_output=True, check=False,
    ).stdout  # fmt: skip
    want = set(shown.decode().split("\0")) - {""}

    patterns = Patterns(rules)
    got = set()
    for path in PATHS:  # git leaves out what is in a directory that it leaves out
        parts = path.split("/")
        for stop in range(1, len(parts) + 1):
            prefix = "/".join(parts[:stop])
            if patterns.fit(prefix.encode(), stop < len(parts) or path in directories):
                got.add(path)
                break

    assert got == want


@pytest.mark.parametrize("text", ["", "/", "!", "[z-a]", "[[:upcase:]]"])
def test_no_pattern(text):
    with pytest.raises(UsageError):
        Patterns([text])


def test_names_are_bytes():
    assert Patterns(["caf\udce9"]).fit(b"caf\xe9", directory=False)
    assert Patterns(["[\udce8-\udce9]"]).fit(b"\xe9", directory=False)
