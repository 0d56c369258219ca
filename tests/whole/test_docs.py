"""The documents are right: examples run, and options, rules and pages are listed."""

import argparse
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from flatten.cli import registry
from listing import contents

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


@pytest.fixture
def image(tmp_path):
    """Return the image that `make demo` makes."""
    script = ROOT / "examples" / "make_image.py"
    subprocess.run([sys.executable, script, "image.tar"], cwd=tmp_path, check=True)
    return tmp_path / "image.tar"


def test_the_readmes_python_runs(image, monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    monkeypatch.chdir(image.parent)

    exec(compile(code, "README.md", "exec"), {})

    assert "10 members" in capsys.readouterr().out


PAGES = [
    "README.md",
    *(f"docs/{name}.md" for name in ("faq", "machines", "selecting", "sources")),
]


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_are_understood(page):
    """A command is a line of a code block, or a code span with arguments."""
    text = (ROOT / page).read_text()
    lines = re.findall(
        r"^    (?:\$ )?flatten (.*?)(?:\s+#.*|\s*\|.*)?$", text, re.MULTILINE
    )
    spans = re.findall(r"`flatten ([^`]+)`", text)

    assert lines
    for command in lines + spans:
        name, arguments = registry.split(shlex.split(command.replace("...", "")))
        registry.build_parser(name).parse_args(arguments)


def test_the_demo_image_has_the_tree_it_is_made_for(image):
    subprocess.run(
        [sys.executable, "-m", "flatten", image, "-o", "rootfs.tar"],
        cwd=image.parent, check=True,
    )  # fmt: skip
    got = contents(image.with_name("rootfs.tar"))

    assert got["usr/bin/alias"].endswith("tool 1\n")
    assert got["usr/bin/tool"].endswith("tool 2\n")
    assert got["usr/bin/app"].endswith("app\n")
    assert got["bin"] == "->usr/bin"
    assert "var/cache/packages" not in got


def actions():
    """Yield the actions of all commands' parsers."""
    for name in (registry.MAIN, *registry.COMMANDS):
        yield from registry.build_parser(name)._actions


def test_every_option_is_in_a_parser_and_in_the_docs():
    text = (ROOT / "docs" / "cli.md").read_text()
    documented = set(re.findall(r"`(--?[a-zA-Z][a-z-]*)", text))
    options = {option for action in actions() for option in action.option_strings}

    assert options <= documented
    assert {o for o in documented if o.startswith("--")} <= options | {"--clamp-mtime"}


def test_every_option_has_help():
    for action in actions():
        assert action.help
        assert action.help is not argparse.SUPPRESS


@pytest.mark.parametrize("name", registry.COMMANDS)
def test_every_command_is_in_the_docs(name):
    assert f"\n## flatten {name} " in (ROOT / "docs" / "cli.md").read_text()


def test_the_main_help_lists_every_command_once():
    listed = [name for names in registry.HEADINGS.values() for name in names]

    assert sorted(listed) == sorted(registry.COMMANDS)


@pytest.mark.parametrize("name", [registry.MAIN, *registry.COMMANDS])
def test_help_fits_80_columns(name):
    help_ = registry.build_parser(name).format_help()

    assert max(map(len, help_.splitlines())) <= 80


def test_every_rule_has_a_test_that_exists():
    text = (ROOT / "docs" / "semantics.md").read_text()
    rules = [int(n) for n in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)]
    named = re.findall(r"`(test_\w+)(?:\[(.+?)\])?`", text)
    sources = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))

    assert rules == list(range(1, 41))
    assert len(named) >= len(rules)
    for function, case in named:
        assert f"def {function}(" in sources, function
        assert not case or f'"{case}"' in sources, case


def test_every_rule_names_its_source():
    text = (ROOT / "docs" / "semantics.md").read_text()
    rows = re.findall(r"^\| \d+ \|.*$", text, re.MULTILINE)

    for row in rows:
        assert re.search(r" \| (spec|tar|silent) \| [^|]+ \|$", row), row


@pytest.mark.parametrize("folder", ["docs", "docs/decisions"])
def test_every_page_is_in_its_index(folder):
    pages = {path.name for path in (ROOT / folder).glob("*.md")} - {"README.md"}
    index = (ROOT / folder / "README.md").read_text()

    assert pages <= set(re.findall(r"\]\((.+?)\)", index))


def test_every_module_is_in_the_architecture():
    text = (ROOT / "docs" / "architecture.md").read_text()
    for path in (ROOT / "flatten").rglob("*.py"):
        if not path.name.startswith("__"):
            assert f"`{path.stem}`" in text, path.stem


def anchors(page):
    """Return the names that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def test_links_between_documents_lead_somewhere():
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\(([^):]+)\)", path.read_text()):
            name, _, anchor = target.partition("#")
            page = path.parent / name if name else path

            assert page.exists(), f"{path.name}: {target}"
            assert not anchor or anchor in anchors(page), f"{path.name}: {target}"


def test_every_exit_code_is_documented():
    text = (ROOT / "docs" / "cli.md").read_text()
    for code in (0, 1, 2, 3, 4, 5, 130, 141):
        assert re.search(rf"^\| {code} \|", text, re.MULTILINE), code
