"""Fuzz one target with atheris: ``python tests/fuzz/run.py layer -max_total_time=1200``.

Needs the extra ``fuzz``. What libFuzzer takes may follow the target; a file's name runs
that input only. Inputs that add something are kept in ``.fuzz/TARGET``.
"""

import os
import sys
from pathlib import Path

import atheris

sys.path[:0] = [
    str(Path(__file__).parent),
    str(Path(__file__).parents[1] / "support"),
    str(Path(__file__).parents[1] / "tar"),
]

with atheris.instrument_imports(include=["flatten"]):
    from targets import TARGETS
from seeds import seeds  # noqa: E402 - after what is instrumented


def main() -> None:
    target, *rest = sys.argv[1:]
    corpus = Path(".fuzz") / target
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds(target)):
        (corpus / f"seed-{number:02}").write_bytes(seed)
    arguments = [
        f"-artifact_prefix={corpus}-", "-timeout=10", "-rss_limit_mb=700",
        "-max_len=16384", *rest,
    ]  # fmt: skip
    if not any(os.path.isfile(argument) for argument in rest):
        arguments.append(str(corpus))
    atheris.Setup([sys.argv[0], *arguments], TARGETS[target])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
