"""``flatten report IMAGE [-o OUT]``: what takes space in an image."""

import argparse

from ...errors import quoted
from ...host.compress import PlainSink
from ...outputs import atomic
from ...pipeline import refuse_image
from ...views.listing import TreePath
from ...views.report import Report, document, main_directories, make_report
from .. import options
from ..tables import human, one_line, print_bytes, print_json, print_table, show_name

DESCRIPTION = f"""\
Show what takes space in an image, by layer, directory and file, and how much of
it is wasted: files that later layers replaced or removed, files of equal
content, and dive's efficiency score. With -o, write it as one HTML page with a
treemap, which needs no other file.

{options.IMAGE}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments and options."""
    options.add_image_argument(parser)
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        help="write an HTML page to OUT; - is standard output",
    )
    shape.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--top",
        metavar="N",
        type=options.number(9),
        default=15,
        help="the number of items in each list of the text and of JSON [default: 15]",
    )
    parser.add_argument(
        "--no-equal",
        dest="equal",
        action="store_false",
        help="do not search for files of equal content, which reads files",
    )
    options.add_tree_options(parser)


def run(args: argparse.Namespace) -> int:
    """Print or write the report, and return the exit code."""
    with options.open_tree(args) as (index, contents):
        if args.output not in (None, "-"):
            refuse_image(args.output, contents.image)
        report = make_report(index, contents, equal=args.equal)
    if args.output is not None:
        _write_page(report, args.output)
    elif args.json:
        print_json(document(report, args.top))
    else:
        _print(report, args.top)
    return 0


def _write_page(report: Report, output: str) -> None:
    from pathlib import Path  # for a page only

    from ...views.page import make_page  # 5 ms, for a page only

    page = make_page(report).encode("utf-8", "replace")
    if output == "-":
        print_bytes(page)
        return
    with atomic.create(Path(output)) as descriptor:
        sink = PlainSink(descriptor, quoted(output))
        view = memoryview(page)
        while view:
            view = view[sink.write(view) :]


def _print(report: Report, top: int) -> None:
    """Print the report for a terminal."""
    image, dive = report.image, report.efficiency
    print(f"{one_line(', '.join(image.names)) or image.source}  {image.id[:12]}")
    print(
        f"{human(report.size)} in {report.files:,} files, "
        f"{len(report.listing):,} paths; "
        f"{len(image.layers):,} layers of {human(dive.size)}"
    )
    share = ""
    if dive.user_size:
        part = 100 * dive.wasted / dive.user_size
        share = f", {part:.1f} % of what the layers above the first add"
    print(
        f"dive: efficiency {100 * dive.score:.1f} %, {human(dive.wasted)} wasted{share}"
    )
    lost = sum(item.size for item in report.hidden)
    print(
        f"hidden {human(lost)} in {len(report.hidden):,} files that later layers "
        "replaced or removed"
    )
    if report.equal is not None:
        spare = sum(equal.spare for equal in report.equal)
        groups = len(report.equal)
        print(f"duplicates: {groups:,} groups, {human(spare)} could be saved")
    if report.index.verified is not True:
        toc = report.index.verified == "toc"
        how = "verified only by table of contents" if toc else "not verified"
        print(f"{how}: --verify checks the layers against the image's digests")
    _print_layers(report)
    _print_directories(report)
    _print_lists(report, top)


def _print_layers(report: Report) -> None:
    print("\nLayers")
    most = max((row["size"] for row in report.steps), default=0)
    print_table(
        (">LAYER", ">SIZE", ">HIDDEN", "", "COMMAND"),
        [
            (
                str(row["layer"]),
                human(row["size"]),
                _or_dash(row["hidden"]),
                _bar(row["size"], most),
                one_line(row["created_by"] or "-"),
            )
            for row in report.steps
            if row["layer"] is not None
        ],
    )


def _print_directories(report: Report) -> None:
    print("\nDirectories")
    rows = []
    for item in main_directories(report):
        parent, slash, name = item.path.rpartition(b"/")
        shown = (
            "  " * parent.count(b"/") + ("  " if slash else "") + show_name(name) + "/"
        )
        share = f"{100 * item.size / report.size:.0f} %"
        rows.append(
            (
                human(item.size),
                share,
                f"{item.files:,}",
                _bar(item.size, report.size),
                shown,
            )
        )
    print_table((">SIZE", ">SHARE", ">FILES", "", "DIRECTORY"), rows)


def _print_lists(report: Report, top: int) -> None:
    members = report.index.members

    def cells(row: TreePath) -> tuple[str, ...]:
        layer = str(members.layers[row.inode] + 1)
        return human(members.sizes[row.inode]), layer, show_name(row.path)

    print("\nLargest files")
    print_table((">SIZE", ">LAYER", "FILE"), map(cells, report.largest(top)))
    if report.hidden:
        print("\nHidden files")
        print_table(
            (">SIZE", ">LAYER", "NOW", "FILE"),
            [
                (
                    human(item.size),
                    str(item.layer + 1),
                    "replaced" if item.replaced else "removed",
                    show_name(item.path),
                )
                for item in report.hidden[:top]
            ],
        )
    if report.efficiency.paths:
        print("\nWasted paths (dive)")
        print_table(
            (">SIZE", ">TIMES", "PATH"),
            [
                (human(noted.total), str(noted.count), show_name(path))
                for path, noted in report.efficiency.paths[:top]
            ],
        )
    if report.equal:
        print("\nEqual files")
        print_table(
            (">TO SPARE", ">EACH", ">FILES", "FIRST"),
            [
                (
                    human(item.spare),
                    human(item.size),
                    str(len(item.paths)),
                    show_name(item.paths[0]),
                )
                for item in report.equal[:top]
            ],
        )


def _or_dash(size: int) -> str:
    return human(size) if size else "-"


def _bar(part: int, whole: int, width: int = 12) -> str:
    """Draw a share as blocks, by eighths.

    >>> _bar(1, 2, 4), _bar(1, 16, 4), _bar(0, 0, 4)
    ('██', '▎', '')
    """
    eighths = round(8 * width * part / whole) if whole else 0
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()
