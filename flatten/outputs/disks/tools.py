"""Programs that others have made well: found, run, and heard when they fail."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import IO, Any, Final

from ...errors import FlattenError, UsageError, quoted
from ...host.signals import signals_later

PACKAGES: Final = {
    "debugfs": "e2fsprogs",
    "dumpe2fs": "e2fsprogs",
    "fakeroot": "fakeroot",
    "mke2fs": "e2fsprogs",
    "mkfs.erofs": "erofs-utils",
    "qemu-img": "qemu-utils",
    "sqfstar": "squashfs-tools",
    "tar2sqfs": "squashfs-tools-ng",
}
"""The Debian package that each is in; other distributions call them much the same."""

_MORE_PLACES: Final = ("/usr/local/sbin", "/usr/sbin", "/sbin")  # not in users' PATH
_SHOWN: Final = 2000  # characters of what a program said


def find(*names: str) -> tuple[str, str]:
    """Return the first of some programs that is there: its name, and its path.

    Raises:
        FlattenError: None is; the message says in which packages they are.
    """
    import shutil  # noqa: PLC0415 - 5 ms

    places = os.pathsep.join((os.environ.get("PATH", os.defpath), *_MORE_PLACES))
    for name in names:
        path = shutil.which(name, path=places)
        if path is not None:
            return name, path
    wanted = " or ".join(f"{name} ({PACKAGES[name]})" for name in names)
    raise FlattenError(
        f"needs {wanted}; on Debian: apt-get install {PACKAGES[names[0]]}"
    )


def compressor(
    text: str | None, names: Sequence[str], levelled: Sequence[str]
) -> tuple[str, int | None]:
    """Return the compressor that ``--compress`` names, and the level, or None.

    Raises:
        UsageError: It is none of ``names``; the first one is the default.

    >>> compressor("zstd:19", ("zstd", "xz"), ("zstd",)), compressor(None, ("lz4",), ())
    (('zstd', 19), ('lz4', None))
    """
    found = re.fullmatch(r"(\w+)(?::([0-9]{1,2}))?", text or names[0])
    if found is None or found[1] not in names:
        raise UsageError(f"--compress: {quoted(text or '')} is none of "
                         f"{', '.join(names)}")  # fmt: skip
    if found[2] is not None and found[1] not in levelled:
        raise UsageError(f"--compress: {found[1]} has no levels here")
    return found[1], None if found[2] is None else int(found[2])


def run(
    argv: Sequence[str | os.PathLike[str]],
    env: Mapping[str, str],
    stdin: IO[bytes] | None = None,
) -> str:
    """Run a program to its end, and return what it printed.

    Args:
        argv: The program and its arguments.
        env: What is added to the environment.
        stdin: An open file for its standard input; without one, it is empty.

    Raises:
        FlattenError: It failed; the message has what it said.
    """
    with _running(
        argv, env, stdin=stdin or subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as running:  # fmt: skip
        out, said = running.communicate()
    if running.returncode:
        raise failed(argv, running.returncode, said or out)
    return out.decode("utf-8", "replace")


@contextmanager
def fed(
    argv: Sequence[str | os.PathLike[str]],
    env: Mapping[str, str],
    hint: str = "",
    *,
    banner: bytes | None = None,
) -> Iterator[int]:
    """Run a program that reads standard input; yield the descriptor to write to.

    When the body ends it has its end of file, and is waited for. If the body fails, it
    is stopped.

    Args:
        argv: The program and its arguments.
        env: Variables beside those of this process.
        hint: Ends the message.
        banner: Starts the only line that a program writes to standard error when all is
            well, though it ends with 0 in any case; None trusts its exit code.

    Raises:
        FlattenError: It failed, maybe before it had read all; what it said, and then
            ``hint``, is in the message.
    """
    import tempfile  # noqa: PLC0415 - 10 ms

    with tempfile.TemporaryFile() as said:
        with _running(
            argv, env, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=said
        ) as running:
            assert running.stdin is not None, "it is a pipe"
            with suppress(BrokenPipeError):  # it says why
                yield running.stdin.fileno()
            running.stdin.close()
            code = running.wait()
        said.seek(0)
        text = said.read()
        if banner is not None:
            lines = text.splitlines()
            text = b"\n".join(line for line in lines if not line.startswith(banner))
        if code or (banner is not None and text):
            raise failed(argv, code, text, hint)


@contextmanager
def _running(
    argv: Sequence[str | os.PathLike[str]], env: Mapping[str, str], **streams: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a program, as a group of processes that is killed if the body fails.

    So a signal to us ends also what it has started, as fakeroot does.
    """
    started: list[subprocess.Popen[bytes]] = []
    try:
        with signals_later():
            started.append(subprocess.Popen(
                argv, env={**os.environ, "LC_ALL": "C.UTF-8", **env}, process_group=0,
                **streams,
            ))  # fmt: skip
        yield started[0]
    except BaseException:
        for program in started:
            with program:  # closes its pipes, and waits
                if program.returncode is None:
                    os.killpg(program.pid, signal.SIGKILL)
        raise


def failed(
    argv: Sequence[str | os.PathLike[str]], code: int, said: bytes, hint: str = ""
) -> FlattenError:
    """Return the error that says how a program failed."""
    lines = said.decode("utf-8", "replace").splitlines()
    told = "; ".join(filter(None, map(str.strip, lines)))[-_SHOWN:]
    if not told.isprintable():
        told = quoted(told)
    how = f"was killed by signal {-code}" if code < 0 else f"failed (exit code {code})"
    name = os.path.basename(argv[0])
    return FlattenError(f"{name} {how}: {told or 'it said nothing'}{hint}")
