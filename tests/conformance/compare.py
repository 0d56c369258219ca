"""Write the results of several tools into two pages.

``python -m tests.conformance.compare PAGE README RESULT.json...`` replaces what is
between the two marks in each: in PAGE with a table and the failed cases of each tool, in
README with a short table. The results are what the kit prints with ``--json``, which may
come from several machines.
"""

import json
import re
import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from .runner import FAILURES

BEGIN, END = "<!-- results -->", "<!-- end of results -->"
INPUTS = {"docker-archive": "docker-archive", "oci": "OCI layout"}
OUTPUTS = {"tar": "tar", "dir": "directory"}
COLUMNS = ("right", "open", "wrong", "refused", "stopped", "skipped")
SHORT = ("right", "open", "wrong", "refused", "stopped")

Document = dict[str, Any]


def main(page: str, readme: str, *results: str) -> None:
    """Put the results into the pages."""
    documents = [json.loads(Path(each).read_text()) for each in results]
    documents.sort(key=lambda each: (failures(each), each["tool"]))
    write(page, "\n\n".join([table(documents), *map(failed_cases, documents)]))
    write(readme, short_table(documents))


def write(page: str, text: str) -> None:
    """Replace what is between the marks in a page."""
    path = Path(page)
    head, begin, rest = path.read_text().partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"{page}: the marks {BEGIN} and {END} are missing")
    path.write_text(f"{head}{BEGIN}\n\n{text}\n\n{END}{tail}")


def failures(document: Document) -> int:
    """Return the number of cases that do not hold."""
    return sum(document["counts"][status] for status in FAILURES)


def table(documents: Sequence[Document]) -> str:
    """Return a row of counts a tool."""
    names = ["tool", "from", "to", *COLUMNS, "seconds", "date"]
    rows = [names, ["---"] * 3 + ["---:"] * (len(COLUMNS) + 1) + ["---"]]
    rows += [
        [
            each["tool"],
            INPUTS[each["in"]],
            OUTPUTS[each["out"]],
            *(str(each["counts"][status]) for status in COLUMNS),
            f"{each['seconds']:.0f}",
            each["date"],
        ]
        for each in documents
    ]
    return as_table(rows)


def short_table(documents: Sequence[Document]) -> str:
    """Return a row of counts a tool, with one row for flatten."""
    rows = [["tool", *SHORT], ["---"] + ["---:"] * len(SHORT)]
    rows += [
        [each["tool"], *(str(each["counts"][status]) for status in SHORT)]
        for each in documents
        if not each["tool"].startswith("flatten,")
    ]
    return as_table(rows)


def as_table(rows: Sequence[Sequence[str]]) -> str:
    """Write a table in Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def failed_cases(document: Document) -> str:
    """Return a section with the cases of a tool that do not hold, by rule."""
    lines = [f"### {document['tool']}", ""]
    failed = [case for case in document["cases"] if case["status"] in FAILURES]
    if not failed:
        return "\n".join([*lines, "Every case holds."])
    for rule, cases in groupby(failed, key=lambda case: case["rule"]):
        lines += [f"- rule {rule}"]
        lines += [f"  - {case['status']}: {escaped(case['name'])}" for case in cases]
    return "\n".join(lines)


def escaped(name: str) -> str:
    """Return a name in which Markdown's characters stand for themselves."""
    return re.sub(r"([*_`<\[\\])", r"\\\1", name)


if __name__ == "__main__":
    main(*sys.argv[1:])
