"""What other programs read from a tar: name, kind and size of each member.

A kind is a letter, as ``ls -l`` shows it, and ``h`` for hard links; a size is that of
files, and 0 for all else. None stands for an archive that the program refuses.
"""

import base64
import json
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

Entry = tuple[bytes, str, int]
Listing = list[Entry] | None

KINDS = {"0": "-", "\0": "-", "7": "-", "S": "-", "1": "h", "2": "l", "3": "c",
         "4": "b", "5": "d", "6": "p"}  # fmt: skip
_C = os.environ | {"LC_ALL": "C", "TZ": "UTC"}


def _entry(name: bytes, kind: str, size: int) -> Entry:
    path = b"/".join(part for part in name.split(b"/") if part not in (b"", b"."))
    return path, kind, size if kind == "-" else 0


def gnu_tar(paths: Sequence[Path]) -> list[Listing]:
    """Parse ``tar -tv``: ``-rw-r--r-- 0/0 5 2023-11-14 22:13 name``."""
    line = re.compile(
        rb"(.)[rwxsStT-]{9}[.+]? [^ ]+ +([0-9]+|[0-9]+,[0-9]+) [-0-9]+ [:0-9]+ (.*)"
    )
    return [
        _lines(
            ["tar", "--numeric-owner", "--quoting-style=literal", "-tvf", path], line
        )
        for path in paths
    ]


def bsdtar(paths: Sequence[Path]) -> list[Listing]:
    """Parse ``bsdtar -tv``: ``-rw-r--r--  0 0   0   5 Nov 14  2023 name``."""
    line = re.compile(
        rb"(.)[rwxsStT-]{9}[.+]? +[0-9]+ +[^ ]+ +[^ ]+ +([0-9]+|[0-9]+,[0-9]+) "
        rb"+\w{3} +[0-9]+ +[:0-9]+ (.*)"
    )
    return [_lines(["bsdtar", "--numeric-owner", "-tvf", path], line) for path in paths]


def _lines(command: list[str | Path], line: re.Pattern[bytes]) -> Listing:
    done = subprocess.run(command, capture_output=True, env=_C, check=False, timeout=20)
    if done.returncode:
        return None
    entries = []
    for text in done.stdout.split(b"\n")[:-1]:
        found = line.fullmatch(text)
        assert found is not None, text
        kind, size, name = found[1].decode(), found[2], found[3]
        if kind in "gxV":
            continue
        linked = re.fullmatch(rb"(.*) link to .*", name)
        if linked:
            kind, name = "h", linked[1]
        name = name.partition(b" -> ")[0] if kind == "l" else name
        name = name.replace(rb"\377", b"\xff")  # bsdtar escapes what is not ASCII
        entries.append(
            _entry(name, "-" if kind == "C" else kind, 0 if b"," in size else int(size))
        )
    return entries


def python(paths: Sequence[Path]) -> list[Listing]:
    """Read with Python's tarfile."""
    return [_python(path) for path in paths]


def _python(path: Path) -> Listing:
    entries = []
    try:
        with tarfile.open(
            path, "r:", encoding="utf-8", errors="surrogateescape"
        ) as tar:
            for info in tar:
                kind = KINDS.get(info.type.decode("latin-1"), "?")
                name = info.name.encode("utf-8", "surrogateescape")
                entries.append(_entry(name, kind, info.size))
    except (tarfile.TarError, ValueError, OverflowError):
        return None
    return entries


def go(paths: Sequence[Path], program: Path) -> list[Listing]:
    """Read with Go's archive/tar, in a program that ``go_program`` builds."""
    return [_go(found) for found in go_documents(paths, program)]


def go_documents(paths: Iterable[Path], program: Path) -> list[dict[str, Any]]:
    """Return what that program says of each archive."""
    names = b"".join(os.fsencode(path) + b"\n" for path in paths)
    done = subprocess.run([program], input=names, capture_output=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def _go(found: dict[str, object]) -> Listing:
    if found["error"]:
        return None
    entries = found["entries"]
    assert isinstance(entries, list)
    return [
        _entry(base64.b64decode(e["Name"]), KINDS.get(e["Type"], "?"), e["Size"])
        for e in entries
        if e["Type"] != "g"
    ]


def go_program(folder: Path) -> Path | None:
    """Build the lister in Go; None where there is no Go."""
    if shutil.which("go") is None:
        return None
    source = Path(__file__).parent / "readers" / "list.go"
    subprocess.run(
        ["go", "build", "-o", folder / "list", source], check=True,
        env=os.environ | {"GOFLAGS": "-mod=mod", "GO111MODULE": "off",
                          "GOCACHE": str(folder / "cache")},
    )  # fmt: skip
    return folder / "list"
