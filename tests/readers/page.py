"""Write the outcomes of all readers into docs/readers.md, between its two marks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.conformance.compare import as_table, escaped, write

from .features import FEATURES, FORMATS

Document = dict[str, Any]


def write_page(page: Path, documents: Sequence[Document]) -> None:
    """Write a table of features and readers, then what readers did not read right.

    A reader that was run twice, in two roots, is there once.
    """
    readers = {each["reader"]: each for each in documents}
    ordered = [readers[name] for name in sorted(readers, key=str.casefold)]
    rows = [
        [each["reader"], *(cell(each, name) for name in FEATURES)] for each in ordered
    ]
    table = as_table([
        ["reader", *(feature.title for feature in FEATURES.values())],
        ["---"] * (1 + len(FEATURES)),
        *rows,
    ])  # fmt: skip
    alike: dict[str, list[str]] = {}
    for each in ordered:
        alike.setdefault(details(each), []).append(each["reader"])
    sections = [
        f"### {', '.join(names)}\n\n{text}" for text, names in alike.items() if text
    ]
    dates = " and ".join(sorted({each["date"] for each in ordered}))
    write(str(page), "\n\n".join([f"Measured on {dates}.", table, *sections]))


def cell(document: Document, feature: str) -> str:
    """Return one status if all formats have it, else the status of each format."""
    found = {
        each["format"]: each["status"]
        for each in document["outcomes"]
        if each["feature"] == feature
    }
    if len(set(found.values())) == 1:
        return next(iter(found.values()))
    return ", ".join(f"{form}: {found[form]}" for form in FORMATS if form in found)


def details(document: Document) -> str:
    """Return a line for each error and for each wrong value.

    Formats that fail in the same way share a line. What is only lost is in the table.
    """
    failed: dict[tuple[str, str], list[str]] = {}
    for each in document["outcomes"]:
        if each["status"] not in {"yes", "lost"}:
            text = f"{each['status']}: {escaped(each['detail'])}"
            failed.setdefault((each["feature"], text), []).append(each["format"])
    lines = [
        f"- {FEATURES[feature].title} ({', '.join(formats)}): {text}"
        for (feature, text), formats in failed.items()
    ]
    return "\n".join(lines)
