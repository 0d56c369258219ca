"""The command, in a process of its own."""

import subprocess
import sys

FLATTEN = [sys.executable, "-m", "flatten"]


def run(*args, **options):
    """Run it to its end; options are those of ``subprocess.run``."""
    options = {"capture_output": True, "text": True, "timeout": 60} | options
    return subprocess.run([*FLATTEN, *map(str, args)], check=False, **options)
