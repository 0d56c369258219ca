"""Lay out the tree that a release is built from.

    python tools/stage.py build/release/tree

The tree is the commit at HEAD, plus the manual page and the shell completions, which
the command prints itself. They are generated for each release and are not in git, so
they cannot disagree with the command's options. Only the staged pyproject.toml lists
them, since setuptools refuses data files that are missing.
"""

import subprocess
import sys
from pathlib import Path

GENERATED = {
    "share/man/man1/flatten.1": ["--print-man"],
    "share/bash-completion/completions/flatten": ["--print-completion", "bash"],
    "share/zsh/site-functions/_flatten": ["--print-completion", "zsh"],
    "share/fish/vendor_completions.d/flatten.fish": ["--print-completion", "fish"],
}
"""Path of each generated file below the installation prefix, and its arguments."""


def stage(source: Path, out: Path) -> None:
    """Write the tree of HEAD and the generated files to ``out``, which must be new."""
    out.mkdir(parents=True)
    archive = subprocess.run(
        ["git", "-C", source, "archive", "--format=tar", "HEAD"],
        stdout=subprocess.PIPE, check=True,
    ).stdout  # fmt: skip
    subprocess.run(["tar", "-x", "-C", out], input=archive, check=True)
    for name, arguments in GENERATED.items():
        path = out / "data" / name
        path.parent.mkdir(parents=True)
        text = subprocess.run(
            [sys.executable, "-B", "-m", "flatten", *arguments],
            cwd=out, stdout=subprocess.PIPE, check=True,
        ).stdout  # fmt: skip
        path.write_bytes(text)
    with (out / "pyproject.toml").open("a") as file:
        file.write("\n[tool.setuptools.data-files]\n")
        for name in GENERATED:
            folder = name.rpartition("/")[0]
            file.write(f'"{folder}" = ["data/{name}"]\n')


if __name__ == "__main__":
    stage(Path(__file__).parents[1], Path(sys.argv[1]))
