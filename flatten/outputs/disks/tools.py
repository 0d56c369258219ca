"""Find and run the programs that make file systems; report how they failed."""

import fcntl
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final

from ...errors import FlattenError, UsageError, quoted
from ...host.signals import signals_later

PACKAGES: Final = {
    "fakeroot": "fakeroot",
    "mke2fs": "e2fsprogs",
    "mkfs.erofs": "erofs-utils",
    "qemu-img": "qemu-utils",
    "sqfstar": "squashfs-tools",
    "tar2sqfs": "squashfs-tools-ng",
}
"""The Debian package of each program; other distributions have similar names."""

_MORE_PLACES: Final = ("/usr/local/sbin", "/usr/sbin", "/sbin")  # not in users' PATH
_SHOWN: Final = 2000  # maximum characters of a program's messages in an error
_PIPE: Final = 1 << 20  # bytes; the most that an ordinary user may ask for
_FULL: Final = 1 << 20  # bytes; a disk with less free space counts as full


def find(*names: str) -> tuple[str, str]:
    """Return the name and the path of the first of some programs that is installed.

    Raises:
        FlattenError: None is installed; the message names their packages.
    """
    import shutil  # 5 ms

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
    """Return the compressor that ``--compress`` names, and its level or None.

    Args:
        text: The option's value; None is the first of ``names``.
        names: The compressors to choose from.
        levelled: The compressors that have levels.

    Raises:
        UsageError: The compressor is not one of ``names``, or has no levels.

    >>> compressor("zstd:19", ("zstd", "xz"), ("zstd",)), compressor(None, ("lz4",), ())
    (('zstd', 19), ('lz4', None))
    """
    found = re.fullmatch(r"(\w+)(?::([0-9]{1,2}))?", text or names[0])
    if found is None or found[1] not in names:
        raise UsageError(
            f"--compress: {quoted(text or '')} is not one of {', '.join(names)}"
        )
    if found[2] is not None and found[1] not in levelled:
        raise UsageError(f"--compress: {found[1]} has no levels here")
    return found[1], None if found[2] is None else int(found[2])


def run(
    argv: Sequence[str | os.PathLike[str]],
    env: Mapping[str, str],
    stdin: IO[bytes] | None = None,
    *,
    folder: Path,
) -> None:
    """Run a program to its end.

    Args:
        argv: The program and its arguments.
        env: Variables to add to the environment.
        stdin: An open file for its standard input, which is empty without one.
        folder: The directory that it writes to.

    Raises:
        FlattenError: The program failed; its own message is part of the error.
    """
    with _running(
        argv,
        env,
        stdin=stdin or subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as running:
        out, said = running.communicate()
    if running.returncode:
        raise failed(argv, running.returncode, said or out, folder)


def offers(program: str, option: str) -> bool:
    """Return True if the help of a program lists an option."""
    done = subprocess.run(
        [program, "--help"], stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    words = (done.stdout + done.stderr).decode("utf-8", "replace")
    return re.search(rf"^\s*{re.escape(option)}\b", words, re.MULTILINE) is not None


def succeeds(argv: Sequence[str | os.PathLike[str]], stdin: bytes) -> bool:
    """Return True if a program accepts some arguments and a small input."""
    with _running(
        argv,
        {},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as running:
        running.communicate(stdin)
    return running.returncode == 0


@contextmanager
def fed(
    argv: Sequence[str | os.PathLike[str]],
    env: Mapping[str, str],
    *,
    folder: Path,
) -> Iterator[int]:
    """Run a program that reads standard input; yield the descriptor to write to.

    When the body ends, the program gets its end of file and is waited for. If the body
    fails, the program is killed.

    Args:
        argv: The program and its arguments.
        env: Variables to add to the environment.
        folder: The directory that it writes to.

    Raises:
        FlattenError: The program failed, perhaps before it had read everything; its own
            message is part of the error.
    """
    import tempfile  # 10 ms

    with tempfile.TemporaryFile() as said:
        with _running(
            argv, env, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=said
        ) as running:
            assert running.stdin is not None, "it is a pipe"
            _widen(running.stdin.fileno())
            with suppress(BrokenPipeError):  # its message says why
                yield running.stdin.fileno()
            running.stdin.close()
            code = running.wait()
        if code:
            said.seek(0)
            raise failed(argv, code, said.read(), folder)


def _widen(pipe: int) -> None:
    """Give a pipe more room than 64 KiB, so that its ends wait less for each other."""
    with suppress(OSError):  # the user's pipes together have too much room
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE)


@contextmanager
def _running(
    argv: Sequence[str | os.PathLike[str]], env: Mapping[str, str], **streams: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a program in a new process group, which is killed if the body fails.

    So a signal to us also ends the programs that it has started, as fakeroot does.
    """
    started: list[subprocess.Popen[bytes]] = []
    try:
        with signals_later():
            started.append(
                subprocess.Popen(
                    argv,
                    env={**os.environ, "LC_ALL": "C.UTF-8", **env},
                    process_group=0,
                    **streams,
                )
            )
        yield started[0]
    except BaseException:
        for program in started:
            with program:  # closes its pipes, and waits
                if program.returncode is None:
                    os.killpg(program.pid, signal.SIGKILL)
        raise


def failed(
    argv: Sequence[str | os.PathLike[str]], code: int, said: bytes, folder: Path
) -> FlattenError:
    """Return the error for a program that failed, with its own message."""
    lines = said.decode("utf-8", "replace").splitlines()
    told = "; ".join(filter(None, map(str.strip, lines)))[-_SHOWN:]
    if not told.isprintable():
        told = quoted(told)
    how = f"was killed by signal {-code}" if code < 0 else f"failed (exit code {code})"
    name = os.path.basename(argv[0])
    disk = os.statvfs(folder)
    full = disk.f_bavail * disk.f_frsize < _FULL
    hint = f"; no space left in {quoted(str(folder))}" if full else ""
    return FlattenError(f"{name} {how}: {told or 'no message'}{hint}")
