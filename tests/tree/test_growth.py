"""The cost grows with the members, not faster: steps are counted, not timed."""

import sys

import pytest

import flatten
from builders import docker_archive, layers, member


def steps(image, out):
    """Count the lines of Python that an export runs."""
    count = 0

    def tracer(_frame, event, _argument):
        nonlocal count
        count += event == "line"
        return tracer

    sys.settrace(tracer)
    try:
        flatten.export(image, out, verify=False)
    finally:
        sys.settrace(None)
    return count


SHAPES = {
    "many files in one directory": lambda n: [[f"d/{i:06}" for i in range(n)]],
    "many directories": lambda n: [[f"{i:06}/" for i in range(n)]],
    "one directory in another": lambda n: [["/".join("d" * i) + "/" for i in range(1, n // 2)]],
    "many layers over the same paths": lambda n: [[f"d/{i}" for i in range(40)]] * (n // 40),
    "many whiteouts": lambda n: [[f"{i}" for i in range(n)], [f"-{i}" for i in range(n)]],
    "many hard links": lambda n: [["a", *(f"l{i}=a" for i in range(n))]],
    "hard links to names that come later": lambda n: [
        [*(f"l{i}=l{i + 1}" for i in range(n)), f"l{n}"]
    ],
    "hard links that wait for the way to their target": lambda n: [
        [*(f"l{i}=l{i + 1}" for i in range(n)), f"l{n}=s/x", "s=t", "t->d", "d/x"]
    ],
    "whiteouts and entries through chains of symlinks": lambda n: [
        ["d/", *(f"s{i}->s{i + 1}" for i in range(39)), "s39->d"],
        [f"-s0/{i}/x" for i in range(n)], [f"s0/{i}/x" for i in range(n)],
    ],
    "many symlinked parents": lambda n: [
        ["usr/", "lib->usr"], [f"lib/{i}/x" for i in range(n)]
    ],
    "many long names": lambda n: [[member("n" * 120 + f"{i}", b"x") for i in range(n)]],
    "in no order at all": lambda n: [[f"{i * 7919 % n}/{i % 13}" for i in range(n)]],
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_four_times_the_members_cost_at_most_five_times_the_steps(tmp_path, shape):
    counts = []
    for n in (400, 1600):
        (tmp_path / "i.tar").write_bytes(docker_archive(layers(*shape(n))))
        counts.append(steps(tmp_path / "i.tar", tmp_path / "o.tar"))

    assert counts[1] <= 5 * counts[0]
