"""System calls that the kernel refuses with EPERM, as a seccomp profile makes it."""

import ctypes
import os
import platform
import struct
import subprocess

import pytest

from command import FLATTEN

NUMBERS = {  # x86-64, others (asm-generic); None where there is no such call
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "sched_getaffinity": (204, 123),
}
_ARCHES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}

_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | 1  # 1 is EPERM
_NO_NEW_PRIVILEGES, _SET_SECCOMP, _FILTER = 38, 22, 2

libc = ctypes.CDLL(None, use_errno=True)


class Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]


def refuse(names):
    """Make the kernel refuse calls from now on, in this process and its children."""
    arch, column = _ARCHES[platform.machine()]
    numbers = [NUMBERS[name][column] for name in names]
    numbers = [number for number in numbers if number is not None]
    count = len(numbers)
    steps = [
        (_LOAD, 0, 0, 4),  # the architecture
        (_EQUAL, 0, count + 1, arch),
        (_LOAD, 0, 0, 0),  # the call's number
        *((_EQUAL, count - at, 0, number) for at, number in enumerate(numbers)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE),
    ]
    code = b"".join(struct.pack("=HBBI", *step) for step in steps)
    buffer = ctypes.create_string_buffer(code)
    program = Program(len(steps), ctypes.addressof(buffer))
    for call in (
        (_NO_NEW_PRIVILEGES, 1, 0, 0, 0),
        (_SET_SECCOMP, _FILTER, ctypes.byref(program), 0, 0),
    ):
        if libc.prctl(*call):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def run_without(names, *args, **options):
    """Run the command while the kernel refuses some calls."""
    if platform.machine() not in _ARCHES:
        pytest.skip(f"needs one of {', '.join(_ARCHES)}")
    return subprocess.run(
        [*FLATTEN, *map(str, args)], check=False, capture_output=True, text=True,
        timeout=60, preexec_fn=lambda: refuse(names), **options,
    )  # fmt: skip
