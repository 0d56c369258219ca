"""Build a layer from host files that are added to a tree.

The layer has the file or directory at HOSTPATH under its PATH; missing parents of PATH
are created. Everything is owned by root, since the owners of a build machine mean
nothing elsewhere, and keeps the host's modes and mtimes. xattrs are left out.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from ..errors import FlattenError, UsageError, quoted
from ..host.beneath import Beneath
from ..host.limits import Limits
from ..host.spools import Pool
from ..tar import whiteout
from ..tar.members import DIRECTORY, FILE, SYMLINK, TYPEFLAGS
from ..tar.wire import BLOCK_SIZE
from ..tar.write_header import gnu_member
from ..tree.edit import Addition
from .assembly import AssembledLayer, Assembly


def parse_addition(text: str) -> Addition:
    """Parse ``HOSTPATH:PATH``; a PATH with a trailing slash is a directory to add to.

    Raises:
        UsageError: The text is not valid, or PATH leaves the root or is a whiteout.

    >>> parse_addition("build/init:/sbin/")
    Addition(host='build/init', path=b'sbin/init', mode=None)
    """
    host, colon, path = text.rpartition(":")
    if not colon or not host:
        raise UsageError(f"{quoted(text)} is not HOSTPATH:PATH")
    if path.endswith("/"):
        path += os.path.basename(os.path.abspath(host))
    parts = [part for part in os.fsencode(path).split(b"/") if part not in (b"", b".")]
    if b".." in parts or any(map(whiteout.is_mark, parts)):
        raise UsageError(f"{quoted(text)}: not a valid path in a tree")
    return Addition(host, b"/".join(parts))


def init_program(host: str) -> Addition:
    """Return the addition of a program as ``/sbin/init``, which Linux runs first.

    It is executable, whatever its mode on the host.
    """
    return Addition(host, b"sbin/init", 0o755)


def added_layer(
    additions: Sequence[Addition], limits: Limits, resources: ExitStack
) -> AssembledLayer:
    """Return the layer that adds host files to a tree.

    Args:
        additions: The host files and their paths; later ones replace earlier ones.
        limits: Limits on the resources that they may take.
        resources: Closes the host directories.
    """

    def build() -> Assembly:
        pool = Pool(limits)
        resources.callback(pool.close)
        assembly = Assembly(pool, "--add")
        for addition in additions:
            _add(assembly, addition, resources)
        assembly.finish()
        return assembly

    return AssembledLayer("--add", None, build, resources)


def _add(assembly: Assembly, addition: Addition, resources: ExitStack) -> None:
    """Add a file or a directory tree; only a symlink at ``host`` itself is followed."""
    host, path, mode = addition
    real = os.path.realpath(host)
    directory = os.path.isdir(real)
    if directory and mode is not None:
        raise UsageError(f"--init {quoted(host)}: a directory, not a program")
    start = b"" if directory else os.fsencode(os.path.basename(real))
    try:
        tree = Beneath(real if directory else os.path.dirname(real))
        resources.callback(tree.close)
        number = assembly.add_tree(tree)
        for name, status in _walk(tree, start):
            parts = (path, name.removeprefix(start).lstrip(b"/"))
            below = b"/".join(filter(None, parts))
            if not below and not directory:
                raise UsageError(
                    f"--add {quoted(host)}: a file needs a path in the image"
                )
            if below:  # the root keeps its own metadata
                _add_member(assembly, tree, number, name, below, status, mode)
    except OSError as error:
        raise FlattenError(f"{quoted(host)}: {error.strerror}") from error


def _walk(tree: Beneath, start: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
    """Yield a path and everything below it, parents first."""
    todo = [start]
    while todo:
        path = todo.pop()
        status = tree.status(path)
        yield path, status
        if stat.S_ISDIR(status.st_mode):
            names = reversed(tree.names(path))
            todo += [b"/".join(filter(None, (path, name))) for name in names]


def _add_member(  # noqa: PLR0913, PLR0917 - what one member needs
    assembly: Assembly,
    tree: Beneath,
    number: int,
    name: bytes,
    path: bytes,
    status: os.stat_result,
    mode: int | None,
) -> None:
    kind = TYPEFLAGS.get(stat.S_IFMT(status.st_mode))
    shown = quoted(f"{tree.name}/{os.fsdecode(name)}")
    if kind not in (FILE, DIRECTORY, SYMLINK):
        raise UsageError(f"--add {shown}: not a file, directory or symlink")
    if whiteout.is_mark(path.rpartition(b"/")[2]):
        raise UsageError(f"--add {shown}: the name is a whiteout")
    size = status.st_size if kind == FILE else 0
    if mode is None:
        mode = 0o777 if kind == SYMLINK else stat.S_IMODE(status.st_mode)
    assembly.add_bytes(
        gnu_member(
            path + (b"/" if kind == DIRECTORY else b""),
            kind,
            owner=(mode, 0, 0),
            size=size,
            mtime=int(status.st_mtime_ns // 10**9),
            target=tree.link(name) if kind == SYMLINK else b"",
        )
    )
    assembly.add_file(name, size, tree=number)
    assembly.add_bytes(bytes(-size % BLOCK_SIZE))
