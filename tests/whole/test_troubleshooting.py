"""docs/troubleshooting.md lists each error message in the code, and no others."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()

RAISE = {
    "ArgumentTypeError", "FlattenError", "FormatError", "IntegrityError", "SourceError",
    "UsageError", "ValueError", "fail", "_fail",
}  # fmt: skip
"""The calls whose first argument is the text of a message."""

GAP = "…"
"""What varies in a message: a name, a number, or the text of another error."""


def template(node: ast.expr) -> str:
    """Return a message with gaps in place of its values."""
    match node:
        case ast.Constant(str(text)):
            return text
        case ast.JoinedStr(parts):
            return "".join(map(template, parts))
        case ast.BinOp(left, ast.Add(), right):
            return template(left) + template(right)
    return GAP


def is_specific(text: str) -> bool:
    """Return True if a template has words of its own: "… is …" has none."""
    return len(re.findall("[A-Za-z]", text)) >= 6


def messages() -> Iterator[tuple[str, str]]:
    """Yield where each specific message is in the code, and its template."""
    for path in sorted((ROOT / "flatten").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and node.args:
                name = ast.unparse(node.func).rpartition(".")[2]
                text = re.sub(f"{GAP}+", GAP, template(node.args[0]))
                if name in RAISE and is_specific(text):
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", text


def entries() -> dict[str, re.Pattern[str]]:
    """Return the messages that the page lists, as patterns by their text."""
    found = re.findall(r"^(?:\||-) `([^`]+)`", PAGE, re.MULTILINE)
    return {
        entry: re.compile(".*".join(map(re.escape, entry.split(GAP))))
        for entry in (" ".join(text.replace(r"\|", "|").split()) for text in found)
    }


def test_every_message_is_in_the_page():
    listed = list(entries().values())
    missing = [
        f"{where}: {text}"
        for where, text in messages()
        if not any(entry.fullmatch(text) for entry in listed)
    ]

    assert missing == []


def test_every_entry_of_the_page_is_a_message():
    known = {text for _, text in messages()}
    stale = [
        entry
        for entry, pattern in entries().items()
        if not any(map(pattern.fullmatch, known))
    ]

    assert stale == []


def test_no_entry_of_the_page_is_a_catch_all():
    for entry in entries():
        assert is_specific(entry), entry
