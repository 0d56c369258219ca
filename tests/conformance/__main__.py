"""The command line: python -m tests.conformance 'COMMAND {in} {out}'."""

import argparse
import json
import os
import re
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .cases import CASES
from .cases.case import Case
from .images import as_layers
from .runner import FAILURES, GIB, NAMES, STATUSES, WRITERS, Result, Tool, count, run


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.conformance",
        description="Run a tool that merges image layers over small images with known "
        "results. The exit status is 0 only if every case holds.",
        epilog="COMMAND is not run by a shell; for pipes, write sh -c '...'. "
        "It must create {out} and exit with 0, or exit with another status.",
    )
    parser.add_argument(
        "command", nargs="?", metavar="'COMMAND {in} {out}'",
        help="the tool; {in} becomes the image, {out} the output",
    )  # fmt: skip
    parser.add_argument(
        "--oci", dest="form", action="store_const", const="oci",
        default="docker-archive",
        help="{in} is an OCI image layout with the tag latest "
        "(default: a docker-archive with the tag app:latest)",
    )  # fmt: skip
    parser.add_argument(
        "--out", dest="output", choices=("tar", "dir"), default="tar",
        help="what {out} becomes: a tar or a directory (default: tar)",
    )  # fmt: skip
    parser.add_argument(
        "--only", metavar="PATTERN", type=pattern, default=re.compile(""),
        help="run the cases whose 'RULE NAME' this regular expression matches",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print results as JSON")
    parser.add_argument(
        "--label", metavar="TEXT", help="call the tool TEXT in the JSON"
    )
    parser.add_argument("--list", action="store_true", help="list the cases and end")
    parser.add_argument(
        "--save", metavar="DIR", type=Path, help="write the images to DIR and end"
    )
    parser.add_argument(
        "--jobs", metavar="N", type=positive(int), default=os.cpu_count() or 1,
        help="run N cases at a time (default: one a processor)",
    )  # fmt: skip
    parser.add_argument(
        "--timeout", metavar="SECONDS", type=positive(float), default=60.0,
        help="stop the tool after this time (default: 60)",
    )  # fmt: skip
    parser.add_argument(
        "--memory", metavar="GIB", type=positive(int), default=16,
        help="address space that each process of the tool may have (default: 16)",
    )  # fmt: skip
    parser.add_argument(
        "--disk", metavar="GIB", type=positive(float), default=1.0,
        help="stop the tool when its files take this much (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--adds", metavar="PATHS", default="",
        help="paths that the tool adds to each tree, with commas between them",
    )  # fmt: skip
    return parser


def main() -> int:
    """Run the command line; return 0 if every case holds, 1 if not, 2 on misuse."""
    parser = build_parser()
    args = parser.parse_args()
    cases = [case for case in CASES if args.only.search(case.id)]
    if not cases:
        parser.error(f"no case matches {args.only.pattern!r}; --list lists them")
    if args.list:
        return list_cases(cases)
    if args.save:
        try:
            return save_images(cases, args.form, args.save)
        except OSError as error:
            parser.error(f"--save: {error.filename}: {error.strerror}")
    if not args.command or "{in}" not in args.command or "{out}" not in args.command:
        parser.error("the command must contain {in} and {out}")
    limit(args.memory * GIB)
    tool = Tool(
        args.command, args.form, args.output, args.timeout,
        int(args.disk * GIB), frozenset(filter(None, args.adds.split(","))),
    )  # fmt: skip
    try:
        results = run(tool, cases, args.jobs)
    except (FileNotFoundError, PermissionError) as error:
        parser.error(f"cannot run {error.filename!r}: {error.strerror}")
    if args.json:
        print(json.dumps(as_json(tool, args.label, results), indent=2))
    else:
        print(text(results))
    return int(any(result.status in FAILURES for result in results))


def pattern(text: str) -> re.Pattern[str]:
    """Parse a regular expression."""
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error


def positive(kind: type[int] | type[float]) -> Callable[[str], float]:
    """Return the parser of numbers above 0."""

    def parse(text: str) -> float:
        number = kind(text)
        if not 0 < number < float("inf"):
            raise ValueError(text)
        return number

    parse.__name__ = kind.__name__  # in argparse's message: invalid int value
    return parse


def limit(memory: int) -> None:
    """Limit the address space, here and in all children."""
    for what, most in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_CORE, 0)):
        hard = resource.getrlimit(what)[1]
        if hard == resource.RLIM_INFINITY or most < hard:
            resource.setrlimit(what, (most, hard))


def list_cases(cases: Sequence[Case]) -> int:
    """Print each case with its number of right outcomes and its source."""
    for case in cases:
        kind = "open" if len(case.outcomes) > 1 else "fixed"
        print(f"{case.id}\t{kind}\t{case.source}")
    return 0


def save_images(cases: Sequence[Case], form: str, folder: Path) -> int:
    """Write the image of each case to a directory with its position and name."""
    for position, case in enumerate(cases, 1):
        if form in case.forms:
            slug = re.sub(r"[^A-Za-z0-9]+", "-", case.name).strip("-")
            place = folder / f"{position:03}-rule-{case.rule}-{slug}"
            place.mkdir(parents=True)
            WRITERS[form](place / NAMES[form], as_layers(case.layers))
    return 0


def text(results: Sequence[Result]) -> str:
    """Return the failures, a line each, and a line with all counts."""
    lines = [
        f"{result.status}: {result.case.id}: {result.detail}"
        for result in results
        if result.status in FAILURES
    ]
    counts = ", ".join(f"{n} {status}" for status, n in count(results).items() if n)
    seconds = sum(result.seconds for result in results)
    lines.append(f"{len(results)} cases: {counts}; {seconds:.1f} seconds of the tool")
    return "\n".join(lines)


def as_json(tool: Tool, label: str | None, results: Sequence[Result]) -> dict[str, Any]:
    """Return the results as JSON data."""
    return {
        "tool": label or tool.command,
        "date": time.strftime("%Y-%m-%d"),
        "command": tool.command,
        "in": tool.form,
        "out": tool.output,
        "statuses": STATUSES,
        "counts": count(results),
        "seconds": round(sum(result.seconds for result in results), 2),
        "cases": [
            {
                "rule": result.case.rule,
                "name": result.case.name,
                "source": result.case.source,
                "status": result.status,
                "detail": result.detail,
                "seconds": round(result.seconds, 3),
            }
            for result in results
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
