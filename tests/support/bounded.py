"""The command within limits of time and memory, as images that cost too much need."""

import resource
import subprocess
import sys

MEMORY = 500 << 20  # of addresses, which is 300 MiB in use: stacks and libraries too
SECONDS = 20  # on a busy machine; each takes one or two


def run(image, tmp_path, *more):
    """Flatten within the limits; return the exit code and what was said."""
    path = tmp_path / "image.tar"
    path.write_bytes(image)

    def limited():
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))

    done = subprocess.run(
        [sys.executable, "-m", "flatten", path, "-o", "/dev/null", *more],
        stderr=subprocess.PIPE, text=True, timeout=SECONDS, check=False,
        preexec_fn=limited,
    )  # fmt: skip
    return done.returncode, done.stderr
