"""The command line: ``write`` the tars, ``run`` a reader over them, make the ``page``."""

import argparse
import json
import sys
import time
from pathlib import Path

from .features import FORMATS
from .page import write_page
from .run import run_reader, write_tars


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.readers", description=__doc__
    )
    commands = parser.add_subparsers(dest="action", required=True)
    write = commands.add_parser("write", help="write FORMAT/FEATURE.tar below DIR")
    write.add_argument("folder", metavar="DIR", type=Path)
    write.add_argument("--flatten", metavar="COMMAND", default="flatten")
    write.add_argument("--format", choices=FORMATS, required=True)
    run = commands.add_parser("run", help="print the outcomes of a reader as JSON")
    run.add_argument("folder", metavar="DIR", type=Path, help="the tars of 'write'")
    run.add_argument("label", metavar="LABEL", help="the reader's name and version")
    run.add_argument("command", metavar="'COMMAND {in} {out}'")
    run.add_argument("--out", choices=("dir", "tar", "json"), default="dir")
    page = commands.add_parser("page", help="write results into a page")
    page.add_argument("page", metavar="PAGE", type=Path)
    page.add_argument("results", metavar="RESULT.json", nargs="+", type=Path)
    args = parser.parse_args()
    if args.action == "write":
        write_tars(args.folder, args.flatten, args.format)
    elif args.action == "run":
        outcomes = list(run_reader(args.command, args.out, args.folder))
        if not outcomes:
            parser.error(f"{args.folder}: there are no tars; 'write' makes them")
        document = {
            "reader": args.label, "date": time.strftime("%Y-%m-%d"), "outcomes": outcomes
        }  # fmt: skip
        print(json.dumps(document, indent=2))
    else:
        write_page(args.page, [json.loads(each.read_text()) for each in args.results])
    return 0


if __name__ == "__main__":
    sys.exit(main())
