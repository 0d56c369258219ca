"""Write the outcomes of all readers into docs/readers.md, between its two marks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.conformance.compare import as_table, escaped, write

from .features import FEATURES, FORMATS

Document = dict[str, Any]


def write_page(page: Path, documents: Sequence[Document]) -> None:
    """Write a table of features and readers, then what each reader did not read."""
    table = as_table([
        ["reader", *(feature.title for feature in FEATURES.values())],
        ["---"] * (1 + len(FEATURES)),
        *([each["reader"], *(cell(each, name) for name in FEATURES)] for each in documents),
    ])  # fmt: skip
    dates = sorted({each["date"] for each in documents})
    parts = [f"Measured {' and '.join(dates)}.", table, *map(details, documents)]
    write(str(page), "\n\n".join(filter(None, parts)))


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
    """Return a section with a line for each tar that a reader did not read as it is."""
    lines = [
        f"- {FEATURES[each['feature']].title}, {each['format']}: {each['status']}: "
        f"{escaped(each['detail'])}"
        for each in document["outcomes"]
        if each["status"] != "yes"
    ]
    return "\n".join([f"### {document['reader']}", "", *lines]) if lines else ""
