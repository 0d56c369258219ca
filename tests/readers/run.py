"""Give the tars to a reader and judge what it makes of them."""

import base64
import json
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.conformance.images import as_layers, write_docker_archive
from tests.conformance.runner import NAMES, READERS, Tool, execute
from tests.conformance.trees import (
    KINDS,
    Inode,
    Tree,
    Unreadable,
    add,
    clean,
    compared,
    place,
    shown,
)

from .features import ALIGNED, FEATURES, FORMATS, layer_of, tree_of

STATUSES = {
    "yes": "everything is right",
    "lost": "metadata is left out: an owner, a time or an attribute",
    "wrong": "a name, a content, a type or a value is another one",
    "refused": "an error",
    "stopped": "killed after a time",
}
TIMEOUT = 60.0
RECENT = 3600.0  # seconds: a time that is so near to now is that of the extraction


def write_tars(folder: Path, flatten: str, form: str) -> None:
    """Write FEATURE.tar in a format, for each feature that the format can change."""
    folder.mkdir(parents=True, exist_ok=True)
    image = folder / "image.tar"
    for name, feature in FEATURES.items():
        if form != "reflink" or name in ALIGNED:
            write_docker_archive(image, as_layers([layer_of(feature)]))
            out = folder / f"{name}.tar"
            options = (*FORMATS[form], *feature.options)
            subprocess.run(
                [*shlex.split(flatten), image, "-o", out, *options], check=True
            )
    image.unlink()


def run_reader(command: str, kind: str, tars: Path) -> Iterator[dict[str, Any]]:
    """Yield the outcome of a reader for each tar; ``kind`` is what {out} becomes."""
    tool = Tool(command, output=kind, timeout=TIMEOUT)
    for form in FORMATS:
        for name in FEATURES:
            tar = (tars / form / f"{name}.tar").absolute()  # tools run elsewhere
            if tar.exists():
                status, detail = outcome(tool, tar, tree_of(FEATURES[name]))
                yield {
                    "format": form, "feature": name, "status": status, "detail": detail
                }  # fmt: skip


def outcome(tool: Tool, tar: Path, expected: dict[str, str]) -> tuple[str, str]:
    """Run a reader on a tar; return the status and what is not as it should be."""
    work = Path(tempfile.mkdtemp(prefix="readers-"))
    try:
        for folder in ("out", "tmp", "cwd"):
            (work / folder).mkdir()
        out = work / "out" / {**NAMES, "json": "out.json"}[tool.output]
        ended = execute(tool, tool.argv(tar, out), work)
        if ended.code:
            message = ended.message.replace(f"{work}/", "").replace(f"{tar}", tar.name)
            return ("stopped" if ended.code < 0 else "refused"), message
        try:
            tree = {**READERS, "json": read_members}[tool.output](out)
        except Unreadable as error:
            return "wrong", str(error)
        return judge(tree, expected)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def judge(tree: Tree, expected: dict[str, str]) -> tuple[str, str]:
    """Compare a tree with the expected one: yes, lost or wrong, and a sentence."""
    wanted = {clean(path): path for path in expected}
    wrong = []
    lost = []
    for path, name in wanted.items():
        if path not in tree:
            wrong.append(f"{shown(path)} is missing")
            continue
        for what, has, wants in compared(tree, path, name, expected[name]):
            if has != wants:
                text = f"{shown(path)}: {what} is {shown(has)}, not {shown(wants)}"
                (lost if is_default(what, has) else wrong).append(text)
    strays = sorted(path for path in tree.keys() - wanted if path)
    wrong += [f"{shown(path)} should not be there" for path in strays]
    status = "wrong" if wrong else "lost" if lost else "yes"
    return status, "; ".join((wrong + lost)[:2])


def is_default(what: str, value: object) -> bool:
    """Return True if a reader that ignores this leaves such a value."""
    if what == "the mtime":
        return isinstance(value, int) and abs(time.time() - value) < RECENT
    return value is None or (what in {"the uid", "the gid"} and value == 0)


def read_members(path: Path) -> Tree:
    """Read a line of JSON a member, in the order of the tar, with bytes in base64.

    Raises:
        Unreadable: A hard link leads to nothing.
    """
    tree: Tree = {}
    for line in path.read_text().splitlines():
        info = json.loads(line)
        name, target = (base64.b64decode(info[key]) for key in ("name", "linkname"))
        where = place(tree, name.decode("utf-8", "surrogateescape"))
        if info["type"] == "1":
            node = tree.get(target)
            if node is None:
                raise Unreadable(f"{shown(name)} is a hard link to {shown(target)}")
        else:
            node = Inode(
                KINDS.get(info["type"].encode(), f"of typeflag {info['type']!r}"),
                content=base64.b64decode(info["data"]),
                target=target,
                device=(info["devmajor"], info["devminor"]),
                mode=info["mode"],
                uid=info["uid"],
                gid=info["gid"],
                mtime=info["mtime"],
                xattrs={
                    key.encode(): base64.b64decode(value)
                    for key, value in info["xattrs"].items()
                },
            )
        add(tree, where, node)
    return tree
