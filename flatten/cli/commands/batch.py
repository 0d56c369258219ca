"""``flatten batch SOURCE ... -o 'OUT/{name}.tar'``: many images."""

import argparse
import json
import re
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from typing import IO, TYPE_CHECKING, Final, NoReturn

from ...batch.results import Result
from ...batch.retries import Retries
from ...batch.run import Settings
from ...batch.run import run as run_batch
from ...errors import FlattenError, shown
from ...options import ImageKind
from ...outputs.choose import kind
from ...outputs.progress import bar
from .. import options
from ..messages import fail, say
from . import export

if TYPE_CHECKING:
    from tqdm import tqdm

DESCRIPTION = """\
Flatten many images. Layers that several of them have are read and verified
once. An output that is complete is not made again, so a batch that was
stopped goes on where it was.

SOURCE is a list (a file with one reference a line, or - for standard input),
an archive, a directory of images, a glob, or docker://HOST/REPO[:GLOB] for
the tags of a repository. A reference is written as for flatten IMAGE.

In OUT, {name} and {tag} stand for those of the image's name, {digest} for its
digest, {platform} for its platform.
"""

_EVERY: Final = 60.0  # seconds between lines of progress that are not on a terminal
_SHOWN: Final = 20  # failures in the table at the end
_NUMBER: Final = options.number(4)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments and options."""
    parser.add_argument(
        "sources", metavar="SOURCE", nargs="+", help="the images (see above)"
    )
    group = parser.add_argument_group("output")
    names = group.add_mutually_exclusive_group(required=True)
    names.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        help="write to OUT, a path or a URL, such as 'out/{name}.tar.zst'",
    )
    names.add_argument(
        "--oci", metavar="OUT", help="write OCI archives of one layer instead"
    )
    names.add_argument("--docker", metavar="OUT", help="the same archives")
    export.add_tar_options(parser, group, "gnu")
    _add_running_options(parser)
    options.add_edit_options(parser)
    export.add_ownership_option(parser.add_argument_group("output to directories"))
    export.add_disk_options(parser)
    title = "more files to write for each image, named like OUT"
    export.add_document_options(parser, title)
    group = parser.add_argument_group("input")
    options.add_selection_options(group)
    options.add_point_arguments(group)
    options.add_layers_option(group)
    export.add_safety_options(parser)
    group = parser.add_argument_group("messages, on standard error")
    group.add_argument(
        "-q", "--quiet", action="store_true", help="print no warnings and no progress"
    )
    parser.set_defaults(force=False)


def _add_running_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("running the batch")
    group.add_argument(
        "--results",
        metavar="FILE",
        help="write a line of JSON for each output as it ends; - is standard output",
    )
    group.add_argument(
        "--jobs",
        metavar="N",
        type=_positive,
        help="images to make at a time [default: one a processor]",
    )
    group.add_argument(
        "--cluster",
        metavar="ADDRESS",
        help="use the workers of a Dask scheduler, tcp://HOST:PORT, or start workers "
        "on this machine: local",
    )
    group.add_argument(
        "--shard",
        metavar="I/N",
        type=_shard,
        default=(0, 1),
        help="do only shard I of N, from 0/N to N-1/N [default: all]",
    )
    group.add_argument(
        "--retries",
        metavar="N",
        type=_NUMBER,
        default=3,
        help="try again N times after errors of the network or the machine "
        "[default: 3]",
    )
    group.add_argument(
        "--force",
        dest="again",
        action="store_true",
        help="also make the outputs that are complete, and replace directories that "
        "no batch has made",
    )


def run(args: argparse.Namespace) -> int:
    """Run the batch; return 0 if all outputs are complete, else 1.

    Raises:
        UsageError: An option is not valid, or two images would have one output.
    """
    how = replace(
        export.read_options(args),
        image_kind=_image_kind(args),
        config_out=args.config_out,
        list_out=args.list_out,
        force=args.again,
    )
    output = args.output or args.oci or args.docker
    export.refuse_without_effect(args, kind(output) if args.output else "image")
    settings = Settings(
        jobs=args.jobs,
        cluster=args.cluster,
        shard=args.shard,
        retries=Retries(args.retries),
        force=args.again,
        sync=args.sync,
    )
    with (
        _Report(args) as report,
        _results_file(args.results) as lines,
        closing(run_batch(args.sources, output, how, settings, report.plan)) as results,
    ):
        for result in results:
            report.add(result)
            if lines is not None:
                _write_line(lines, args.results, json.dumps(result.document()))
    return report.end()


def _image_kind(args: argparse.Namespace) -> ImageKind | None:
    """Return the kind of image to write, or None for another output."""
    if args.oci:
        return "oci"
    return "docker" if args.docker else None


@contextmanager
def _results_file(name: str | None) -> Iterator[IO[str] | None]:
    """Yield the file for results, or None if there is none.

    Raises:
        FlattenError: It cannot be created or written.
    """
    if name is None or name == "-":
        yield sys.stdout if name else None
        return
    with ExitStack() as stack:
        try:
            file = stack.enter_context(open(name, "w", encoding="ascii"))
        except OSError as error:
            raise FlattenError(f"{shown(name)}: {error.strerror}") from error
        try:
            yield file
        finally:
            try:
                file.close()  # tries again to write what could not be written
            except OSError as error:
                raise _unwritten(name, error) from error


def _write_line(file: IO[str], name: str, line: str) -> None:
    """Write a result.

    Raises:
        FlattenError: It cannot be written to the file. Errors of standard output are
            those of every command.
    """
    try:
        print(line, file=file, flush=True)
    except OSError as error:
        if file is sys.stdout:
            raise
        raise _unwritten(name, error) from error


def _unwritten(name: str, error: OSError) -> FlattenError:
    return FlattenError(f"{shown(name)}: cannot write: {error.strerror}")


class _Report:
    """The progress of a batch, and the table of failures at its end."""

    def __init__(self, args: argparse.Namespace) -> None:
        """Show nothing yet."""
        self._args = args
        self._counts = dict.fromkeys(("done", "unchanged", "failed"), 0)
        self._bytes = 0
        self._jobs = 0
        self._failures: list[Result] = []
        self._bar: tqdm[NoReturn] | None = None
        self._said = time.monotonic()

    def __enter__(self) -> "_Report":
        """Return the report."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()

    def plan(self, jobs: int) -> None:
        """Learn the number of jobs."""
        self._jobs = jobs
        terminal = sys.stderr is not None and sys.stderr.isatty()
        if terminal and not self._args.quiet:
            self._bar = bar("flatten", jobs, unit="image")

    def add(self, result: Result) -> None:
        """Count a result, and show it."""
        self._counts[result.state] += 1
        self._bytes += (result.bytes or 0) if result.state == "done" else 0
        if result.state == "failed" and len(self._failures) < _SHOWN:
            self._failures.append(result)
        for warning in result.warnings:
            options.warn(self._args, f"{shown(result.reference)}: {warning}")
        if self._bar is not None:
            self._bar.set_postfix_str(f"{self._bytes >> 20:,} MiB", refresh=False)
            self._bar.update(result.state != "unchanged")
        elif time.monotonic() - self._said >= _EVERY:
            self._said = time.monotonic()
            options.note(self._args, f"{self._summary()} of {self._jobs:,} jobs")

    def end(self) -> int:
        """Print what became of the batch, and return the exit code."""
        count = self._counts["failed"]
        for result in self._failures:
            fail(f"{result.message} (exit code {result.exit_code})")
        if count > len(self._failures):
            fail(f"and {count - len(self._failures):,} more: --results lists them")
        if not self._args.quiet:
            say(self._summary())
        return 1 if count else 0

    def _summary(self) -> str:
        counts = ", ".join(f"{n:,} {state}" for state, n in self._counts.items())
        return f"{counts}; {self._bytes:,} bytes written"


def _shard(text: str) -> tuple[int, int]:
    """Parse ``--shard``.

    >>> _shard("0/4")
    (0, 4)
    """
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    if found is None or int(found[1]) >= int(found[2]):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a shard; write I/N, with I from 0 to N-1"
        )
    return int(found[1]), int(found[2])


def _positive(text: str) -> int:
    if not _NUMBER(text):
        raise argparse.ArgumentTypeError("at least 1 is needed")
    return int(text)
