"""What was measured, and on what: without it, a number says nothing."""

import hashlib
import os
import platform
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def facts(folder: Path) -> dict[str, str]:
    """Describe the machine, the file system of ``folder``, and the code measured."""
    return {
        "run": time.strftime("%Y-%m-%dT%H:%M:%S"),
        "cpu": cpu_model(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') >> 30} G",
        "fs": file_system(folder),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "load": f"{os.getloadavg()[0]:.1f}",
        "commit": commit(ROOT / ".git"),
        "source": source(ROOT / "flatten"),
    }


def line(known: dict[str, str]) -> str:
    """Write the facts in two lines."""
    return (
        "{cpu}, {cores} cores, {memory}, {fs}, Linux {kernel}, Python {python}, "
        "load {load}\ncommit {commit}, flatten/*.py {source}, {run}".format(**known)
    )


def cpu_model() -> str:
    """Return the processor's name."""
    for text in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = text.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.machine()


def file_system(folder: Path) -> str:
    """Return the type of file system that a folder is on."""
    found = ("", "unknown")
    for text in Path("/proc/mounts").read_text().splitlines():
        _, where, kind, *_ = text.split()
        if folder.resolve().is_relative_to(where) and len(where) >= len(found[0]):
            found = (where, kind)
    return found[1]


def commit(git: Path) -> str:
    """Return the commit that is checked out, without asking git."""
    try:
        if git.is_file():  # a work tree besides the main one
            git = git.parent / git.read_text().removeprefix("gitdir: ").strip()
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return head[:10]
        shared = git / "commondir"
        home = git / shared.read_text().strip() if shared.exists() else git
        name = head.removeprefix("ref: ")
        if (home / name).exists():
            return (home / name).read_text()[:10]
        packed = (home / "packed-refs").read_text().splitlines()
        return next(each[:10] for each in packed if each.endswith(f" {name}"))
    except (OSError, StopIteration):
        return "unknown"


def source(package: Path) -> str:
    """Return a digest of a package's files, which changes may not be committed."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:10]


if __name__ == "__main__":
    print(line(facts(Path(sys.argv[1] if len(sys.argv) > 1 else "."))))
