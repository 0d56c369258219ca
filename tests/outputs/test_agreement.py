"""Other readers read every accepted header in the same way (class of CVE-2025-62518).

Compared are names, types, sizes, and where the next member is (another one follows), as
GNU tar, bsdtar, Python and Go list them. Headers that flatten or the reader refuses are
not compared. ``DIFFER`` lists the accepted headers that a reader reads differently, and
why. ``FLATTEN_ROUNDS`` makes more random ones; hypothesis minimises the differences.
"""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import flatten
import headers
import listers
from builders import block, long_name, member, padded, pax

ROUNDS = int(os.environ.get("FLATTEN_ROUNDS", "120"))
END = member("END", b"end") + bytes(10_240)
LETTERS = {0x30: "-", 0x31: "h", 0x32: "l", 0x33: "c", 0x34: "b", 0x35: "d", 0x36: "p"}

DIFFER = {
    "GNU has no prefix": {"python"},  # which takes GNU's times there for one
    "a label is skipped": {"python", "go"},  # which have no labels: an empty file
    "0 with a slash is a file, as for Go and Python": {"gnu_tar", "bsdtar"},
    "D, GNU incremental": {"python", "go"},  # to which it is unknown
}
"""Readers that read a case of ``test_headers`` in another way."""


@pytest.fixture(scope="module")
def readers(tmp_path_factory):
    """Return the readers that are here, by name."""
    found = {"python": listers.python}
    if (
        "GNU tar"
        in subprocess.run(
            ["tar", "--version"], capture_output=True, text=True, check=True
        ).stdout
    ):
        found["gnu_tar"] = listers.gnu_tar
    if shutil.which("bsdtar"):
        found["bsdtar"] = listers.bsdtar
    program = listers.go_program(tmp_path_factory.mktemp("go"))
    if program is not None:
        found["go"] = lambda paths: listers.go(paths, program)
    return found


def ours(tar):
    """List a tar as the package reads it; None where it is refused."""
    try:
        layer, members = headers.index(tar)
    except flatten.FlattenError:
        return None
    return [
        (path, LETTERS[members.kinds[row]], members.sizes[row])
        for row, path in enumerate(layer.paths, layer.first)
    ]


def disagreements(cases, readers, folder):
    """Return (case, reader, its listing, ours) for all that differ."""
    paths = []
    for number, head in enumerate(cases.values()):
        path = folder / f"{number}.tar"
        path.write_bytes(head + END)
        paths.append(path)
    wanted = [ours(path.read_bytes()) for path in paths]
    taken = [path for path, want in zip(paths, wanted, strict=True) if want is not None]
    out = []
    for name, read in readers.items():
        found = dict(zip(taken, read(taken), strict=True))
        for case, path, want in zip(cases, paths, wanted, strict=True):
            got = found.get(path)
            if got is not None and got != want:
                out.append((case, name, got, want))
    return out


def test_every_reader_reads_what_is_accepted_the_same_way(readers, tmp_path):
    cases = {name: head for name, (head, _) in headers.NAMES.items()}
    cases |= {name: head for name, (head, _) in headers.KINDS.items()}
    regions, data = [(512, 512), (2048, 100)], b"d" * 612
    cases["sparse, GNU"] = headers.sparse_gnu(b"x", regions, 4096, data)
    for version in ("0.0", "0.1", "1.0"):
        cases[f"sparse, PAX {version}"] = headers.sparse_pax(
            version, b"x", regions, 4096, data
        )

    found: dict[str, set[str]] = {}
    for case, reader, _, _ in disagreements(cases, readers, tmp_path):
        found.setdefault(case, set()).add(reader)

    assert found == {
        case: names & readers.keys()
        for case, names in DIFFER.items()
        if names & readers.keys()
    }


SIZES = [
    b"00000000005\0", b"         5 \0", b"5\0", b"5 ", b"\x0000000005\0", b"",
    b"\x80" + bytes(10) + b"\5", b"00000000000\0", b"00000002000\0", b"5 junk", b"05\0\0009",
]  # fmt: skip
TAILS = [b"", b"", b"p", b"p/q/", b"p" * 155, b"\0p", b"12345670000 12345670000 "]
MAGICS = [
    b"ustar\x0000",
    b"ustar  \0",
    b"",
    b"ustar\x0000",
    b"ustar\0\0\0",
    b"USTAR\x0000",
]
NAMES = [b"x", b"x/y", b"./x", b"/x", b"x//y", b"x\0junk", b"n" * 100, b"\xff", b"x/."]
SPARSE = [b"GNU.sparse.major", b"GNU.sparse.minor", b"GNU.sparse.size",
          b"GNU.sparse.map", b"GNU.sparse.realsize", b"GNU.sparse.name"]  # fmt: skip


def some_header(chance):
    """Make a member, and what may stand before it, from spellings of each field."""
    out = b""
    for _ in range(chance.choice((0, 0, 1, 1, 2))):
        what = chance.randrange(4)
        if what == 0:
            out += long_name(chance.choice((b"l" * 120, b"long", b"l/m/")))
        elif what == 1:
            out += long_name(b"t" * 120, b"K")
        else:
            keys = [b"path", b"size", b"linkpath", b"uid", b"mtime", *SPARSE]
            values = [b"5", b"0", b"pax/name", b"p" * 120, b"0,5", b"1", b"512", b"1.5"]
            records = {
                chance.choice(keys): chance.choice(values)
                for _ in range(chance.choice((1, 1, 2, 3)))
            }
            out += pax(records, chance.choice((b"x", b"x", b"x", b"g", b"X")))
    head = block(
        chance.choice(NAMES), chance.choice((b"0", b"0", b"0", b"\0", b"5", b"1", b"2", b"7")),
        size=chance.choice(SIZES), magic=chance.choice(MAGICS), target=b"x",
        tail=chance.choice(TAILS),
    )  # fmt: skip
    data = chance.choice(
        (padded(b"12345"), padded(b"12345"), b"", padded(b"1\n0\n5\n"))
    )
    return out + head + data


def is_known(case, reader, got, want):
    """Say whether readers differ for a reason that is known (docs/security.md)."""
    kinds = {kind for _, kind, _ in got} ^ {kind for _, kind, _ in want}
    slash = kinds <= {"d", "-"} and [e[0] for e in got] == [e[0] for e in want]
    if b"ustar  \0" in case and reader == "python":  # GNU's times, as a prefix
        return True
    if slash and reader in ("gnu_tar", "bsdtar"):  # a file's name with a slash
        return True
    if reader == "bsdtar" and b"l/m/" in case:  # the same, and what follows is lost
        return True
    if reader == "go" and "?" in {kind for _, kind, _ in got}:  # Solaris's X
        return True
    return reader == "bsdtar" and "h" in {kind for _, kind, _ in want}  # it guesses


@settings(max_examples=ROUNDS, phases=(Phase.generate, Phase.shrink))
@given(st.randoms(use_true_random=False).map(some_header))
def test_random_headers_are_read_the_same_way(readers, case):
    with tempfile.TemporaryDirectory() as folder:
        found = [
            (reader, got, want)
            for _, reader, got, want in disagreements({0: case}, readers, Path(folder))
            if not is_known(case, reader, got, want)
        ]

    assert found == []
