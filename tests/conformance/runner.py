"""Run a tool over cases, each in a directory of its own, and judge what it makes."""

import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .cases.case import Case, Refused
from .images import as_layers, write_docker_archive, write_oci_layout
from .trees import Tree, Unreadable, differences, needs_root, read_directory, read_tar

STATUSES = {
    "right": "the only right outcome",
    "open": "one of several outcomes that the specification allows",
    "wrong": "another tree, or a tree where an error is right",
    "refused": "an error where a tree is right",
    "stopped": "killed by a limit or another signal",
    "skipped": "not run, as it needs root or another form of image",
}
FAILURES = {"wrong", "refused", "stopped"}
GIB = 2**30
TOP = Path("/")  # where names with many .. lead
POLL = 0.5  # seconds between two looks at a tool that runs
WRITERS = {"docker-archive": write_docker_archive, "oci": write_oci_layout}
READERS = {"tar": read_tar, "dir": read_directory}
NAMES = {"docker-archive": "image.tar", "oci": "image", "tar": "out.tar", "dir": "out"}


@dataclass(frozen=True)
class Tool:
    """A tool under test.

    Attributes:
        command: Its command line, with ``{in}`` and ``{out}``.
        form: What ``{in}`` is: ``docker-archive`` or ``oci``.
        output: What ``{out}`` must become: ``tar`` or ``dir``.
        timeout: Seconds that it may take for an image.
        disk: Bytes that its files may take on the disk.
        adds: Paths that it adds to each tree, such as ``.dockerenv``.
    """

    command: str
    form: str = "docker-archive"
    output: str = "tar"
    timeout: float = 60.0
    disk: int = GIB
    adds: frozenset[str] = frozenset()

    def argv(self, image: Path, out: Path) -> list[str]:
        """Return the command line for an image, without a shell."""
        return [
            word.replace("{in}", str(image)).replace("{out}", str(out))
            for word in shlex.split(self.command)
        ]


@dataclass(frozen=True)
class Result:
    """What became of a case; ``seconds`` are those of the tool alone."""

    case: Case
    status: str
    detail: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Ended:
    """How the tool ended: its return code, or minus a signal's number."""

    code: int
    message: str
    seconds: float


def run(tool: Tool, cases: Sequence[Case], jobs: int) -> list[Result]:
    """Run the tool over the cases, ``jobs`` at a time; results are in their order."""
    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(lambda case: run_case(tool, case), cases))


def run_case(tool: Tool, case: Case) -> Result:
    """Run the tool over one case."""
    if why := reason_to_skip(tool, case):
        return Result(case, "skipped", why)
    work = Path(tempfile.mkdtemp(prefix="conformance-"))
    try:
        return judge_run(tool, case, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def reason_to_skip(tool: Tool, case: Case) -> str:
    """Return why this case cannot be run, or nothing."""
    if tool.form not in case.forms:
        return f"for {' and '.join(case.forms)} only"
    if tool.output == "dir" and os.geteuid() != 0:
        trees = [each for each in case.outcomes if not isinstance(each, Refused)]
        if any(map(needs_root, trees)):
            return "needs root"
    return ""


def judge_run(tool: Tool, case: Case, work: Path) -> Result:
    """Write the image, run the tool, and judge its output."""
    for name in ("in", "out", "tmp", "cwd"):
        (work / name).mkdir()
    image = work / "in" / NAMES[tool.form]
    out = work / "out" / NAMES[tool.output]
    WRITERS[tool.form](image, as_layers(case.layers))
    before = set(TOP.iterdir())
    ended = execute(tool, tool.argv(image, out), work)
    if ended.code < 0:
        return Result(case, "stopped", ended.message, ended.seconds)
    strays = sorted(str(path) for path in set(TOP.iterdir()) - before)
    if ended.code == 0:
        strays += stray_files(work, out)
    if strays:
        detail = f"wrote outside of its output: {', '.join(strays)}"
        return Result(case, "wrong", detail, ended.seconds)
    status, detail = judge(tool, case, ended, out)
    return Result(case, status, detail, ended.seconds)


def execute(tool: Tool, argv: Sequence[str], work: Path) -> Ended:
    """Run a command line in an empty directory; kill all of its processes at the end."""
    begun = time.monotonic()
    with (work / "log").open("wb") as log:
        process = subprocess.Popen(
            argv, cwd=work / "cwd", env={**os.environ, "TMPDIR": str(work / "tmp")},
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    message = wait(process, tool, work) or last_line(work / "log")
    with suppress(ProcessLookupError):  # if none of its processes is left
        os.killpg(process.pid, signal.SIGKILL)
    code = process.wait()
    if code < 0:
        message = message or f"died of {signal.Signals(-code).name}"
    return Ended(code, message, time.monotonic() - begun)


def wait(process: subprocess.Popen[bytes], tool: Tool, work: Path) -> str:
    """Wait until the tool ends; return why it must be killed, or nothing."""
    end = time.monotonic() + tool.timeout
    while (left := end - time.monotonic()) > 0:
        try:
            process.wait(min(POLL, left))
        except subprocess.TimeoutExpired:
            if disk_usage(work) > tool.disk:
                return f"killed at {tool.disk / GIB:g} GiB on the disk"
        else:
            return ""
    return f"killed after {tool.timeout:g} seconds"


def disk_usage(top: Path) -> int:
    """Return the bytes that the files below a directory take on the disk."""
    total = 0
    for folder, _, names in os.walk(top):
        for name in names:
            with suppress(FileNotFoundError):  # the tool removed it meanwhile
                total += os.lstat(os.path.join(folder, name)).st_blocks * 512
    return total


def last_line(log: Path) -> str:
    """Return the last line that the tool printed, which most often is the error."""
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else ""


def stray_files(work: Path, out: Path) -> list[str]:
    """Return what the tool wrote that is neither its output nor a temporary file."""
    known = {out, *(work / name for name in ("in", "out", "tmp", "cwd", "log"))}
    found = {*work.iterdir(), *out.parent.iterdir()}
    return sorted(str(path.relative_to(work)) for path in found - known)


def judge(tool: Tool, case: Case, ended: Ended, out: Path) -> tuple[str, str]:
    """Return the status of a case and what is wrong about it."""
    refusal_is_right = any(isinstance(each, Refused) for each in case.outcomes)
    good = "right" if len(case.outcomes) == 1 else "open"
    if ended.code:
        return (good if refusal_is_right else "refused"), ended.message
    try:
        tree: Tree = READERS[tool.output](out)
    except Unreadable as error:
        return "wrong", str(error)
    found = [
        differences(tree, expected, tool.adds)
        for expected in case.outcomes
        if not isinstance(expected, Refused)
    ]
    if not found:
        return "wrong", "no error"
    nearest = min(found, key=len)
    return ("wrong", "; ".join(nearest[:3])) if nearest else (good, "")


def count(results: Sequence[Result]) -> dict[str, int]:
    """Count the results by status."""
    counted = Counter(result.status for result in results)
    return {status: counted[status] for status in STATUSES}
